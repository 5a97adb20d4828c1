package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"drover"
)

// Defaults of ServerConfig.
const (
	defaultMaxConnections   = 1024
	defaultHandshakeTimeout = 10 * time.Second
)

// disconnectTimeout bounds how long requests may still run after the client's NBD_CMD_DISC.
const disconnectTimeout = 10 * time.Second

// ServerConfig says what a Server serves and to whom.
type ServerConfig struct {
	// Opener finds the exports.
	Opener Opener
	// TLS is what TLS sessions are made with. Nil: none is offered. Set: nothing but NBD_OPT_STARTTLS and NBD_OPT_ABORT is answered
	// before there is one. Who may connect at all is told by its ClientAuth and ClientCAs.
	TLS *tls.Config
	Log *slog.Logger
	// MaxConnections bounds the connections over all listeners; one more is closed at once. 0 means 1024.
	MaxConnections int
	// Threads is how many connections over unix sockets may keep a thread of their own, which makes a lone request a quarter faster;
	// further ones share the others. The process must have as many more scheduler slots than CPUs (runtime.GOMAXPROCS): a thread that
	// waits for its client keeps one for a while, and with none left other goroutines would wait for milliseconds.
	Threads int
	// HandshakeTimeout bounds the time from the connection to the end of the option phase. 0 means 10 s.
	HandshakeTimeout time.Duration

	linkRate func(net.Conn) func() float64 // rateOfLink, but in tests
}

// Server serves the exports of an Opener. One Server may serve many listeners.
type Server struct {
	cfg      ServerConfig
	buffers  bufferPool
	requests sync.Pool
	encoder  *zstd.Encoder

	mu          sync.Mutex // guards what follows
	connections int
	threads     int
}

// NewServer returns a server; Serve starts it.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = defaultMaxConnections
	}
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	if cfg.linkRate == nil {
		cfg.linkRate = rateOfLink
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.DynamicRecordSizingDisabled = true // bulk data: always full records
	}
	return &Server{cfg: cfg, encoder: newEncoder()}
}

// Serve accepts connections until ctx ends; then it closes the listener and all connections that came from it, waits until each session
// is closed, and returns nil. It returns Unavailable when the listener fails for good.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan struct{})
	defer func() { <-closed }()
	context.AfterFunc(ctx, func() {
		defer close(closed)
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.cfg.Log.Warn("cannot close the NBD listener", "address", l.Addr(), "err", err)
		}
	})
	defer cancel()

	failures := 0
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			failures = 0
			s.start(ctx, &connections, conn)
		case ctx.Err() != nil:
			return nil
		case !passing(err):
			return drover.Errorf(drover.Unavailable, "cannot accept NBD connections on %s: %w", l.Addr(), err)
		default:
			pause := min(5*time.Millisecond<<min(failures, 8), time.Second)
			failures++
			s.cfg.Log.Warn("cannot accept an NBD connection", "address", l.Addr(), "again_in", pause, "err", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// passing tells the errors of accept that pass by themselves when other connections end.
func passing(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// start serves a connection in a goroutine of its own, or closes it when there are too many.
func (s *Server) start(ctx context.Context, connections *sync.WaitGroup, raw net.Conn) {
	s.mu.Lock()
	full := s.connections >= s.cfg.MaxConnections
	if !full {
		s.connections++
	}
	s.mu.Unlock()
	if full {
		s.cfg.Log.Warn("refused an NBD connection: too many", "remote", raw.RemoteAddr(), "max", s.cfg.MaxConnections)
		if err := raw.Close(); err != nil {
			s.cfg.Log.Warn("cannot close an NBD connection", "remote", raw.RemoteAddr(), "err", err)
		}
		return
	}
	connections.Go(func() {
		defer func() {
			s.mu.Lock()
			s.connections--
			s.mu.Unlock()
		}()
		s.serveConn(ctx, raw)
	})
}

// serveConn serves one connection to its end.
func (s *Server) serveConn(parent context.Context, raw net.Conn) {
	// What runs for the connection is cancelled by end only, after the socket is closed: see there.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	remote := remoteOf(raw)
	c := &conn{raw: raw, nc: raw, out: &plainSender{conn: raw}, peer: Peer{Remote: remote, Process: processOf(raw)}, cancel: cancel,
		log: s.cfg.Log.With("remote", remote)}
	c.peer.HungUp = func() bool { return hungUp(c.raw) }
	defer c.end(nil)
	if s.takeThread(c) {
		defer s.giveThread()
	}
	stop := context.AfterFunc(parent, func() { c.end(errServerEnds) })
	defer stop()
	err := tuneSocket(raw)
	if err == nil {
		err = s.converse(ctx, c)
	}
	c.close()
	if cause := context.Cause(ctx); cause != nil {
		err = cause // why it ended here; what the socket says after that is noise
	}
	c.logEnd(err)
}

// takeThread makes a unix socket a localConn, if one more may have a thread. Then giveThread must be called.
func (s *Server) takeThread(c *conn) bool {
	socket, ok := c.raw.(*net.UnixConn)
	if !ok || s.cfg.TLS != nil {
		return false
	}
	s.mu.Lock()
	free := s.threads < s.cfg.Threads
	if free {
		s.threads++
	}
	s.mu.Unlock()
	if !free {
		return false
	}
	local, err := newLocalConn(socket)
	if err != nil {
		c.log.Warn("an NBD connection goes on without a thread of its own", "err", err)
		s.giveThread()
		return false
	}
	c.raw, c.nc, c.out = local, local, &localSender{conn: local}
	return true
}

func (s *Server) giveThread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.threads--
}

// converse leads the connection through its two phases.
func (s *Server) converse(ctx context.Context, c *conn) error {
	slow := time.AfterFunc(s.cfg.HandshakeTimeout, func() { c.end(errSlowHandshake) })
	n := negotiation{conn: c, br: bufio.NewReaderSize(c.raw, 4<<10), opener: s.cfg.Opener, tls: s.cfg.TLS}
	agreed, err := n.run(ctx)
	slow.Stop()
	if err != nil || agreed == nil {
		return err
	}
	c.log = c.log.With("export", n.name)
	c.log.Debug("NBD export opened", "read_only", agreed.session.Info.ReadOnly, "tls", c.peer.TLS != nil)
	return newTransmission(s, c, agreed).run(ctx, n.br)
}

// processOf is the process that connected over a unix socket, 0 for any other socket and for one that this process cannot see.
func processOf(raw net.Conn) int {
	socket, ok := raw.(*net.UnixConn)
	if !ok {
		return 0
	}
	control, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = control.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

// remoteOf is the peer's address for logs and for Peer: empty on a unix socket.
func remoteOf(raw net.Conn) string {
	if a := raw.RemoteAddr(); a != nil && a.Network() != "unix" {
		return a.String()
	}
	return ""
}
