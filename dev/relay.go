package dev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/netdev"
)

// Bounds of a relay. A frame that would wait longer than maxBacklog for its turn at the rate, or that does not fit into the queue,
// is dropped, as a switch does.
const (
	// maxFrame is a frame of 64 KiB, the longest that the kernel hands over unsegmented, with its headers.
	maxFrame   = vnetHeader + 18 + 1<<16
	vnetHeader = 10
	maxBacklog = 200 * time.Millisecond
	maxQueue   = 16384
	// maxQueued is the memory for frames on their way, per direction.
	maxQueued = 64 << 20
	// socketBuffer is what the kernel may hold for the relay to read.
	socketBuffer = 8 << 20
)

// relay carries frames between two devices of a namespace, later and slower than a bridge would. It reads and writes packet
// sockets (packet(7)) with virtio-net headers, so that segmentation and checksums that were left to the hardware stay so.
type relay struct {
	files []*os.File
	lanes []*lane
	done  sync.WaitGroup
}

// lane is one direction of a relay.
type lane struct {
	rate    drover.Bytes
	delay   time.Duration
	cut     bool
	without []net.HardwareAddr
	frames  chan frame
	ended   chan struct{} // closed when the writer has given up
	stopped chan struct{} // closed by close

	mu     sync.Mutex
	queued int       // bytes in frames
	free   time.Time // when the rate allows the next frame
}

type frame struct {
	data []byte
	due  time.Time
}

// startRelay starts to carry frames between the host's port and the device that stands for it on the bridge.
func startRelay(ns *netdev.Namespace, port, near string, l wire) (*relay, error) {
	r := &relay{}
	for _, name := range []string{port, near} {
		f, err := openPacketSocket(ns, name)
		if err != nil {
			r.close()
			return nil, drover.Errorf(drover.Internal, "cannot slow down %q: %w", name, err)
		}
		r.files = append(r.files, f)
	}
	r.carry(r.files[0], r.files[1], l, l.CutOut)
	r.carry(r.files[1], r.files[0], l, l.CutIn)
	return r, nil
}

// close stops the relay; frames on their way are lost.
func (r *relay) close() {
	for _, l := range r.lanes {
		close(l.stopped)
	}
	for _, f := range r.files {
		f.Close()
	}
	r.done.Wait()
}

func (r *relay) carry(from, to *os.File, link wire, cut bool) {
	l := &lane{
		rate: link.Rate, delay: link.Delay, cut: cut, without: link.without,
		frames: make(chan frame, maxQueue), ended: make(chan struct{}), stopped: make(chan struct{}),
	}
	r.lanes = append(r.lanes, l)
	r.done.Go(func() { l.read(from) })
	r.done.Go(func() { l.write(to) })
}

// read takes frames in until the socket is closed.
func (l *lane) read(from *os.File) {
	defer close(l.frames)
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			// ENETDOWN: the device went down, or away with its host. What comes then is close.
			select {
			case <-l.stopped:
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		if l.cut || n <= vnetHeader || l.refuses(buf[vnetHeader:n]) {
			continue
		}
		if due, ok := l.admit(time.Now(), n-vnetHeader); ok {
			select {
			case l.frames <- frame{data: append([]byte(nil), buf[:n]...), due: due}:
			default: // the queue is full: the frame is dropped
				l.drop(n - vnetHeader)
			}
		}
	}
}

// refuses reports whether a frame goes to or comes from a host that the link is cut from. Hosts are told by the hardware addresses that
// the rack gave them; a frame begins with those of its receiver and its sender.
func (l *lane) refuses(frame []byte) bool {
	const length = 6
	if len(l.without) == 0 || len(frame) < 2*length {
		return false
	}
	for _, a := range l.without {
		if bytes.Equal(frame[:length], a) || bytes.Equal(frame[length:2*length], a) {
			return true
		}
	}
	return false
}

// admit decides about a frame of n bytes: when it arrives, or that it is dropped.
func (l *lane) admit(now time.Time, n int) (due time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queued+n > maxQueued {
		return due, false
	}
	if l.free.Before(now) {
		l.free = now
	}
	if l.rate > 0 {
		if l.free.Sub(now) > maxBacklog {
			return due, false
		}
		l.free = l.free.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	}
	l.queued += n
	return l.free.Add(l.delay), true
}

func (l *lane) drop(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued -= n
}

// write sends frames when they are due.
func (l *lane) write(to *os.File) {
	defer close(l.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for f := range l.frames {
		timer.Reset(time.Until(f.due))
		select {
		case <-timer.C:
		case <-l.stopped:
			return
		}
		// A frame that the device does not take is lost, as on any wire.
		to.Write(f.data)
		l.drop(len(f.data) - vnetHeader)
	}
}

// openPacketSocket opens a packet socket for all that a device receives.
func openPacketSocket(ns *netdev.Namespace, name string) (*os.File, error) {
	index, err := ns.Index(name)
	if err != nil {
		return nil, err
	}
	var fd int
	err = ns.Do(func() (err error) {
		// Protocol 0 receives nothing before the bind names device and protocol.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	options := []struct{ name, value int }{
		{unix.PACKET_VNET_HDR, 1},
		{unix.PACKET_IGNORE_OUTGOING, 1}, // or it would read back what it wrote
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.name, o.value); err != nil {
			return nil, errors.Join(os.NewSyscallError("setsockopt", err), f.Close())
		}
	}
	// More than the limit of ordinary users where that is allowed; the limit will do as well.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer); err != nil {
			return nil, errors.Join(os.NewSyscallError("setsockopt", err), f.Close())
		}
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}) // in network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), f.Close())
	}
	return f, nil
}
