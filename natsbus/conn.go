package natsbus

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"drover"
)

// opTimeout bounds every single request to the store when the caller's context allows more.
const opTimeout = 5 * time.Second

// tryTimeout bounds one try of a read. A JetStream request that is made before a leader exists is dropped without an answer, so
// that only a second try finds the leader.
const tryTimeout = 1500 * time.Millisecond

// Config describes a connection.
type Config struct {
	// URLs of the servers; not needed with InProcess.
	URLs []string
	// TLS has the client's certificate and the CA; nil connects without.
	TLS *tls.Config
	// Name appears in the server's lists: the host's ID, which the certificate of TLS has as well.
	Name string
	// InProcess connects to an embedded server of this process without a socket.
	InProcess *Server
	Log       *slog.Logger
}

// Conn is a connection that comes back by itself for as long as it is not closed. Safe for concurrent use.
type Conn struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger
	// answers is where answers to orders come.
	answers answers

	mu        sync.Mutex
	connected chan struct{}
}

// Connect returns at once, connected or not; the connection is made, and made again, in the background until ctx ends or Close is called.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{log: cfg.Log, connected: make(chan struct{})}
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(-1), // see the package's invariants: nothing is sent behind the caller's back
		nats.Timeout(3 * time.Second),
		nats.PingInterval(3 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { c.announce("connected to the bus") }),
		nats.ReconnectHandler(func(*nats.Conn) { c.announce("connected to the bus again") }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.log.Warn("connection to the bus lost", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				c.log.Warn("bus reports an error", "subject", sub.Subject, "err", err)
				return
			}
			c.log.Warn("bus reports an error", "err", err)
		}),
	}
	if cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.InProcess.srv))
	} else if cfg.TLS != nil {
		opts = append(opts, nats.Secure(cfg.TLS), nats.CustomInboxPrefix(inboxPrefix(cfg.Name)))
	}
	nc, err := nats.Connect(strings.Join(cfg.URLs, ","), opts...)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot use bus addresses %q: %w", cfg.URLs, err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(opTimeout))
	if err != nil {
		nc.Close()
		return nil, drover.Errorf(drover.Internal, "cannot use JetStream: %w", err)
	}
	c.nc, c.js = nc, js
	context.AfterFunc(ctx, nc.Close)
	return c, nil
}

// reconnectDelay grows with each round over all servers, to 1 s, and is never the same for two clients.
func reconnectDelay(attempts int) time.Duration {
	const most = time.Second
	delay := min(100*time.Millisecond<<min(attempts, 5), most)
	return delay/2 + rand.N(delay/2)
}

func (c *Conn) announce(text string) {
	c.log.Info(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.connected)
	c.connected = make(chan struct{})
}

// Connected is closed and replaced at each (re)connection: a signal to look again at what may have changed meanwhile.
func (c *Conn) Connected() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

// Up reports whether there is a connection now.
func (c *Conn) Up() bool { return c.nc.IsConnected() }

// Close ends the connection. Watches and orders under way end with an error.
func (c *Conn) Close() { c.nc.Close() }

// bounded limits ctx to the time that one request may take.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}
