package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"drover"
)

// Why a connection ends that nothing is wrong with.
var (
	errServerEnds    = errors.New("the server shuts down")
	errExportGone    = errors.New("the export was withdrawn")
	errDisconnect    = errors.New("the client disconnected")
	errSlowHandshake = errors.New("the option phase took too long")
	errClientHungUp  = errors.New("the client closed the connection")
	errSlowEnd       = errors.New("requests did not end after the client disconnected")
)

// conn is one connection of a server: its socket and its end.
type conn struct {
	raw    net.Conn // the socket; closing it ends whatever waits for the client
	nc     net.Conn // raw, or the TLS session on it
	out    sender   // writes to nc
	peer   Peer
	log    *slog.Logger
	cancel context.CancelCauseFunc
	once   sync.Once
}

// end closes the socket and then cancels everything that runs for the connection. In this order, so that no request that
// fails because it was cancelled can tell the client so: the client sees a lost connection and connects again, where it
// would take an error for a broken disk.
func (c *conn) end(cause error) {
	c.once.Do(func() {
		if err := c.raw.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			c.log.Warn("cannot close an NBD connection", "err", err)
		}
		c.cancel(cause)
	})
}

// close ends the connection in an orderly way: with TLS, it is said to be the end before the socket is closed.
func (c *conn) close() {
	if session, ok := c.nc.(*tls.Conn); ok {
		if err := session.Close(); err != nil {
			c.log.Debug("TLS session not closed cleanly", "err", err)
		}
	}
	c.end(nil)
}

// logEnd says why the connection ended, at the level that the reason asks for.
func (c *conn) logEnd(err error) {
	switch {
	case err == nil, errors.Is(err, errDisconnect), errors.Is(err, errServerEnds), errors.Is(err, context.Canceled):
		c.log.Debug("NBD connection ended", "err", err)
	case errors.Is(err, errExportGone):
		c.log.Info("NBD connection ended by the server", "err", err)
	case errors.Is(err, io.EOF), errors.Is(err, errClientHungUp), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		c.log.Info("NBD client went away without saying so", "err", err)
	default:
		c.log.Warn("NBD connection broken", "err", err)
	}
}

// startTLS makes a TLS session as the server. From then on everything goes through it.
func (c *conn) startTLS(ctx context.Context, cfg *tls.Config) error {
	cork := newCorkedConn(c.raw)
	session := tls.Server(cork, cfg)
	if err := session.HandshakeContext(ctx); err != nil {
		return drover.Errorf(drover.Denied, "cannot make a TLS session with the NBD client: %w", err)
	}
	cork.cork()
	state := session.ConnectionState()
	c.peer.TLS = &state
	c.nc = session
	c.out = &tlsSender{session: session, cork: cork, record: make([]byte, 0, recordSize)}
	return nil
}
