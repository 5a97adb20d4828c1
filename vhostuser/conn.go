package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"drover"
)

// message is one message of the frontend. It owns the descriptors that came with it until they are taken.
type message struct {
	request, flags uint32
	payload        []byte
	fds            []int
}

// takeFD hands the next descriptor over.
func (m *message) takeFD() (int, error) {
	if len(m.fds) == 0 {
		return -1, bad("request %d comes without its file descriptor", m.request)
	}
	fd := m.fds[0]
	m.fds = m.fds[1:]
	return fd, nil
}

// close closes what nobody took.
func (m *message) close() error {
	var errs []error
	for _, fd := range m.fds {
		errs = append(errs, unix.Close(fd))
	}
	m.fds = nil
	return errors.Join(errs...)
}

// sized refuses a payload that is shorter than what the request needs.
func (m *message) sized(n int) error {
	if len(m.payload) < n {
		return bad("request %d has %d bytes where %d are expected", m.request, len(m.payload), n)
	}
	return nil
}

func bad(format string, args ...any) *drover.Error {
	return drover.Errorf(drover.Invalid, "vhost-user: %s", fmt.Sprintf(format, args...))
}

// channel is the connection to the frontend.
type channel struct {
	conn    *net.UnixConn
	header  [headerSize]byte
	payload [maxPayload]byte
	oob     []byte
}

func newChannel(conn *net.UnixConn) *channel {
	return &channel{conn: conn, oob: make([]byte, unix.CmsgSpace(maxFDs*4))}
}

// receive reads one message. Its payload is good until the next call. io.EOF: the frontend has closed the connection.
func (c *channel) receive() (_ *message, err error) {
	m := &message{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if err := c.fill(c.header[:], m); err != nil {
		return nil, err
	}
	size, err := m.parseHeader(c.header[:])
	if err != nil {
		return nil, err
	}
	m.payload = c.payload[:size]
	if err := c.fill(m.payload, m); err != nil {
		if errors.Is(err, io.EOF) {
			err = bad("request %d was cut short", m.request)
		}
		return nil, err
	}
	return m, nil
}

func (m *message) parseHeader(h []byte) (size int, err error) {
	m.request, m.flags = order.Uint32(h), order.Uint32(h[4:])
	n := order.Uint32(h[8:])
	if m.flags&flagVersionMask != flagVersion || m.flags&flagReply != 0 {
		return 0, bad("request %d has the flags %#x", m.request, m.flags)
	}
	if n > maxPayload {
		return 0, bad("request %d says that it has %d bytes", m.request, n)
	}
	return int(n), nil
}

// fill reads exactly len(p) bytes, and what descriptors come with them.
func (c *channel) fill(p []byte, m *message) error {
	for read := 0; read < len(p); {
		n, oobn, flags, _, err := c.conn.ReadMsgUnix(p[read:], c.oob)
		if oobn > 0 {
			fds, perr := parseFDs(c.oob[:oobn])
			m.fds = append(m.fds, fds...)
			err = errors.Join(err, perr)
		}
		switch {
		case errors.Is(err, io.EOF) && read > 0:
			return bad("a message was cut short")
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0 || len(m.fds) > maxFDs:
			return bad("a message carries more than %d file descriptors", maxFDs)
		case n == 0:
			return io.EOF
		}
		read += n
	}
	return nil
}

func parseFDs(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, bad("a control message cannot be read: %v", err)
	}
	for _, cm := range messages {
		if cm.Header.Level != unix.SOL_SOCKET || cm.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		rights, err := unix.ParseUnixRights(&cm)
		if err != nil {
			return fds, bad("a control message cannot be read: %v", err)
		}
		fds = append(fds, rights...)
	}
	return fds, nil
}

// reply answers a request; fd is sent along unless it is negative.
func (c *channel) reply(request uint32, payload []byte, fd int) error {
	b := make([]byte, 0, headerSize+len(payload))
	b = order.AppendUint32(b, request)
	b = order.AppendUint32(b, flagVersion|flagReply)
	b = order.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	_, _, err := c.conn.WriteMsgUnix(b, oob, nil)
	return err
}
