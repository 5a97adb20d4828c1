package natsbus

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"drover"
)

// maxPayload bounds one message. It leaves room for a machine's config with a large environment; answers to orders that are
// longer come in parts.
const maxPayload = 4 << 20

// startTimeout bounds how long an embedded server may take to recover its store.
const startTimeout = 60 * time.Second

// ServerConfig describes an embedded server.
type ServerConfig struct {
	// Name is unique in the fleet; the control host's ID.
	Name string
	Host string
	// Port 0 takes a free one.
	Port     int
	StoreDir string
	// TLS is for mutual TLS: its ClientAuth must be tls.RequireAndVerifyClientCert. What a client may do is said by its certificate (hostPermissions).
	// nil serves without, for tests.
	TLS *tls.Config
	Log *slog.Logger
}

// Server is an embedded NATS server with JetStream.
type Server struct {
	srv *server.Server
}

// StartServer starts a server and returns when it has recovered its store and takes connections. Every acknowledged write is
// synced to disk first, so that a power cut of the control host loses none.
func StartServer(cfg ServerConfig) (*Server, error) {
	if cfg.TLS != nil && cfg.TLS.ClientAuth != tls.RequireAndVerifyClientCert {
		return nil, drover.Errorf(drover.Invalid, "cannot start NATS server %q: its TLS does not require and verify client certificates", cfg.Name)
	}
	port := cfg.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	opts := &server.Options{
		ServerName:             cfg.Name,
		Host:                   cfg.Host,
		Port:                   port,
		JetStream:              true,
		StoreDir:               cfg.StoreDir,
		SyncAlways:             true,
		MaxPayload:             maxPayload,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
		// Half-dead links are found in about 15 s on the server's side too.
		PingInterval: 5 * time.Second,
		MaxPingsOut:  2,
		TLSConfig:    cfg.TLS,
		TLS:          cfg.TLS != nil,
		TLSVerify:    cfg.TLS != nil,
		TLSTimeout:   5,
	}
	if cfg.TLS != nil {
		opts.CustomClientAuthentication = certificates{cfg.Log}
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot set up NATS server %q: %w", cfg.Name, err)
	}
	srv.SetLoggerV2(&serverLog{cfg.Log.With("nats", cfg.Name)}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		return nil, drover.Errorf(drover.Unavailable, "cannot start NATS server %q on %s with its store in %s: it did not get ready; its log says why",
			cfg.Name, net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port)), cfg.StoreDir)
	}
	return &Server{srv: srv}, nil
}

// ClientURL is where clients connect to.
func (s *Server) ClientURL() string { return s.srv.ClientURL() }

// Shutdown stops the server and waits until its store is closed.
func (s *Server) Shutdown() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// serverLog passes the server's log on. Its notices are of the kind "Server is ready": debug for us.
type serverLog struct{ log *slog.Logger }

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) write(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
}

func (l *serverLog) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.write(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.write(slog.LevelError, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }

// Fatalf is called before the server gives up by itself. Whether the process goes on is not the library's to say:
// StartServer finds that the server is not ready, and clients find that it does not answer.
func (l *serverLog) Fatalf(format string, v ...any) { l.write(slog.LevelError, format, v) }
