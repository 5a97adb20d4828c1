package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover"
)

// maxIovecs is the most that one writev takes (IOV_MAX).
const maxIovecs = 1024

// localSendBuffer is how much may be sent that the client has not read: with the kernel's 208 KiB both sides waited for each other five times for
// each MiB.
const localSendBuffer = 1 << 20

// localConn is a connected unix socket whose calls block a thread of the operating system. A client that has one request in flight
// makes the server wait before each: through Go's poller that costs two system calls more and often a second thread to be woken,
// a third of the CPU time of a request. The price is a thread per connection; see ServerConfig.Threads.
type localConn struct {
	fd     int
	local  net.Addr
	remote net.Addr

	wait wait // of the reader

	mu     sync.Mutex // guards what follows
	users  int        // calls that use fd
	closed bool
}

var _ net.Conn = (*localConn)(nil)

// newLocalConn takes the socket over from conn, which is closed then, but not when there is an error.
func newLocalConn(conn *net.UnixConn) (*localConn, error) {
	c := &localConn{local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot reach the socket of an NBD connection: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if c.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed != nil {
			return
		}
		if failed = unix.SetNonblock(c.fd, false); failed != nil {
			failed = errors.Join(failed, unix.Close(c.fd))
			return
		}
		// A wish: without the right to it the buffer stays as it is.
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, localSendBuffer)
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot take over the socket of an NBD connection: %w", err)
	}
	conn.Close() //nolint:errcheck // the duplicate is what counts
	return c, nil
}

// use keeps fd open until done is called.
func (c *localConn) use() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.users++
	return nil
}

func (c *localConn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	if c.closed && c.users == 0 {
		unix.Close(c.fd) //nolint:errcheck // it was shut down, and nothing is left to lose
	}
}

// Close ends the connection for both sides; calls that are waiting return.
func (c *localConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	if c.users == 0 {
		return os.NewSyscallError("close", unix.Close(c.fd))
	}
	// The last user closes it. What waits in a call is not woken by close, but by this.
	if err := unix.Shutdown(c.fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return os.NewSyscallError("shutdown", err)
	}
	return nil
}

// Read is net.Conn's, for one reader at a time.
func (c *localConn) Read(p []byte) (int, error) {
	if err := c.use(); err != nil {
		return 0, err
	}
	defer c.done()
	c.wait.slice.Yield()
	if n := c.wait.poll(c.fd, p); n > 0 {
		return n, nil
	}
	defer func(began time.Time) { c.wait.learn(time.Since(began)) }(time.Now())
	for {
		n, err := unix.Read(c.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write is net.Conn's.
func (c *localConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := c.writev([]unix.Iovec{{Base: unsafe.SliceData(p), Len: uint64(len(p))}}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writev writes everything. It changes the elements of iov.
func (c *localConn) writev(iov []unix.Iovec) error {
	if err := c.use(); err != nil {
		return err
	}
	defer c.done()
	for len(iov) > 0 {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(c.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(min(len(iov), maxIovecs)))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return os.NewSyscallError("writev", errno)
		}
		iov = advance(iov, uint64(n))
	}
	return nil
}

// advance drops the first n bytes of iov.
func advance(iov []unix.Iovec, n uint64) []unix.Iovec {
	for len(iov) > 0 && n >= iov[0].Len {
		n -= iov[0].Len
		iov = iov[1:]
	}
	if n > 0 {
		iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), n))
		iov[0].Len -= n
	}
	return iov
}

// localSender writes to a localConn.
type localSender struct {
	conn *localConn
	iov  []unix.Iovec
}

func (s *localSender) send(parts [][]byte) error {
	iov := s.iov[:0]
	for _, p := range parts {
		if len(p) > 0 {
			iov = append(iov, unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))})
		}
	}
	s.iov = iov
	err := s.conn.writev(iov)
	clear(s.iov) // it must not keep what it pointed to
	return err
}

// hungUp tells whether the client has closed its side.
func (c *localConn) hungUp() bool {
	if err := c.use(); err != nil {
		return true
	}
	defer c.done()
	return polledHangUp(c.fd)
}

// LocalAddr is net.Conn's.
func (c *localConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is net.Conn's.
func (c *localConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is net.Conn's. There are no deadlines: Close ends what waits.
func (c *localConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline is net.Conn's; see SetDeadline.
func (c *localConn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline is net.Conn's; see SetDeadline.
func (c *localConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
