package nbd

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// Sizes of what is gathered before a system call.
const (
	recordSize = 16 << 10  // the largest TLS record
	corkSize   = 256 << 10 // what is gathered under TLS
)

// deadPeerTimeout is how long a peer's kernel may leave sent data or keepalive probes unanswered.
const deadPeerTimeout = 30 * time.Second

// sender writes the parts of frames, in order and whole. It is used by one goroutine at a time.
type sender interface {
	// send consumes parts: its elements are changed.
	send(parts [][]byte) error
}

// plainSender writes to a socket with writev.
type plainSender struct {
	conn net.Conn
	v    net.Buffers
}

func (s *plainSender) send(parts [][]byte) error {
	if len(parts) == 1 {
		_, err := s.conn.Write(parts[0])
		return err
	}
	s.v = parts // in s, so that it does not escape at each call
	_, err := s.v.WriteTo(s.conn)
	s.v = nil
	return err
}

// tlsSender fills TLS records: small parts are put together, and what is encrypted goes out with few system calls.
type tlsSender struct {
	session *tls.Conn
	cork    *corkedConn
	record  []byte
}

func (s *tlsSender) send(parts [][]byte) error {
	for _, p := range parts {
		if len(s.record) == 0 && len(p) >= recordSize {
			whole := len(p) - len(p)%recordSize
			if _, err := s.session.Write(p[:whole]); err != nil {
				return err
			}
			p = p[whole:]
		}
		for len(p) > 0 {
			n := min(len(p), recordSize-len(s.record))
			s.record = append(s.record, p[:n]...)
			p = p[n:]
			if len(s.record) < recordSize {
				continue
			}
			if err := s.flushRecord(); err != nil {
				return err
			}
		}
	}
	if err := s.flushRecord(); err != nil {
		return err
	}
	return s.cork.flush()
}

func (s *tlsSender) flushRecord() error {
	if len(s.record) == 0 {
		return nil
	}
	_, err := s.session.Write(s.record)
	s.record = s.record[:0]
	return err
}

// corkedConn lies between a TLS session and its socket. The session reads and writes single records; the socket sees many at once.
type corkedConn struct {
	net.Conn
	r *bufio.Reader

	mu     sync.Mutex // the session writes from its reading side too (key updates, alerts)
	out    []byte
	corked bool
}

// newCorkedConn passes everything through until cork is called. r reads from conn and may hold bytes already.
func newCorkedConn(conn net.Conn) *corkedConn {
	return &corkedConn{Conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
}

// Read returns what was read ahead before it asks the socket.
func (c *corkedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Write keeps p for flush once the connection is corked.
func (c *corkedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(p)
	}
	c.out = append(c.out, p...)
	if len(c.out) < corkSize {
		return len(p), nil
	}
	return len(p), c.flushLocked()
}

// cork begins the gathering.
func (c *corkedConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// flush writes what was gathered.
func (c *corkedConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *corkedConn) flushLocked() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// Close writes what the session said last (its closing alert) and closes the socket.
func (c *corkedConn) Close() error {
	flushed := c.flush()
	if err := c.Conn.Close(); err != nil {
		return err
	}
	return flushed
}

// tuneSocket makes a dead peer noticed in bounded time, also while sent data waits for its acknowledgement, which keepalive probes do not
// cover. Sockets other than TCP need nothing.
func tuneSocket(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: deadPeerTimeout / 3, Interval: deadPeerTimeout / 6, Count: 4})
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot set keepalive on the connection to %s: %w", conn.RemoteAddr(), err)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot reach the socket to %s: %w", conn.RemoteAddr(), err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadPeerTimeout/time.Millisecond))
	})
	if err == nil {
		err = set
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot set the time limit of the connection to %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

// hungUp tells whether the peer has closed its side, without reading. False for what is not a socket.
func hungUp(conn net.Conn) bool {
	if c, ok := conn.(*localConn); ok {
		return c.hungUp()
	}
	s, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true // closed on this side
	}
	gone := false
	err = raw.Control(func(fd uintptr) { gone = polledHangUp(int(fd)) })
	return err != nil || gone
}

func polledHangUp(fd int) bool {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n > 0 && polled[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
