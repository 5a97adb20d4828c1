package nbd

import (
	"context"
	"net"
	"sync"
	"testing"
)

// pipe is a listener with one connection, in memory, so that a test may run in a bubble of testing/synctest.
type pipe struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipe() (*pipe, net.Conn) {
	server, client := net.Pipe()
	p := &pipe{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	p.conn <- server
	return p, client
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conn:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// startPipe serves the shelf on one connection and returns the client's end.
func startPipe(tb testing.TB, s *shelf, edit func(*ServerConfig)) net.Conn {
	tb.Helper()
	l, conn := newPipe()
	cfg := ServerConfig{Opener: s}
	if edit != nil {
		edit(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(cfg).Serve(ctx, l) }()
	tb.Cleanup(func() {
		conn.Close() //nolint:errcheck // a pipe
		cancel()
		if err := <-served; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	return conn
}
