package vhosttest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Requests that tests send by themselves.
const (
	GetFeatures         = 1
	SetFeatures         = 2
	SetOwner            = 3
	SetMemTable         = 5
	SetLogBase          = 6
	SetVringNum         = 8
	SetVringAddr        = 9
	SetVringBase        = 10
	GetVringBase        = 11
	SetVringKick        = 12
	SetVringCall        = 13
	SetVringErr         = 14
	GetProtocolFeatures = 15
	SetProtocolFeatures = 16
	GetQueueNum         = 17
	SetVringEnable      = 18
	SetBackendReqFD     = 21
	GetConfig           = 24
	SetConfig           = 25
	GetInflightFD       = 31
	SetInflightFD       = 32
	GetMaxMemSlots      = 36
	AddMemReg           = 37
	RemMemReg           = 38
)

// LogAll is the feature that turns dirty logging on.
const LogAll = 1 << 26

// EventIdx is the feature of event indexes.
const EventIdx = 1 << 29

// Frontend is a connection to a backend, for the guest.
type Frontend struct {
	*Guest
	Conn     *net.UnixConn
	Features uint64
	// Without are features not to be agreed on.
	Without uint64
	// inflight is what the backend gave, to be kept for the next one.
	inflight int
	inPay    []byte
	// listeners are by their paths.
	listeners map[string]*net.UnixListener
}

// NewFrontend makes a frontend; Attach connects it.
func NewFrontend(g *Guest) *Frontend {
	f := &Frontend{Guest: g, inflight: -1, listeners: map[string]*net.UnixListener{}}
	g.tb.Cleanup(func() {
		for _, l := range f.listeners {
			g.check(l.Close())
		}
		if f.inflight >= 0 {
			g.check(unix.Close(f.inflight))
		}
		f.Detach()
	})
	return f
}

// Detach closes the connection.
func (f *Frontend) Detach() {
	if f.Conn != nil {
		f.check(f.Conn.Close())
		f.Conn = nil
	}
}

// Send sends a message.
func (f *Frontend) Send(request, flags uint32, payload []byte, fds ...int) error {
	b := order.AppendUint32(nil, request)
	b = order.AppendUint32(b, 1|flags)
	b = order.AppendUint32(b, uint32(len(payload)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := f.Conn.WriteMsgUnix(append(b, payload...), oob, nil)
	return err
}

// Receive reads a reply.
func (f *Frontend) Receive(request uint32) (payload []byte, fd int, err error) {
	var head [12]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := f.Conn.ReadMsgUnix(head[:], oob)
	if err == nil && n != len(head) {
		err = errors.New("the reply was cut short")
	}
	if err != nil {
		return nil, -1, err
	}
	fd = -1
	if oobn > 0 {
		cms, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil, -1, err
		}
		fds, err := unix.ParseUnixRights(&cms[0])
		if err != nil {
			return nil, -1, err
		}
		fd = fds[0]
	}
	if got := order.Uint32(head[:]); got != request {
		return nil, fd, fmt.Errorf("a reply to %d where one to %d is expected", got, request)
	}
	payload = make([]byte, order.Uint32(head[8:]))
	for read := 0; read < len(payload); {
		n, err := f.Conn.Read(payload[read:])
		if err != nil {
			return nil, fd, err
		}
		read += n
	}
	return payload, fd, nil
}

// Ask sends a message and returns the reply.
func (f *Frontend) Ask(request uint32, payload []byte) []byte {
	f.tb.Helper()
	f.check(f.Send(request, 0, payload))
	p, _, err := f.Receive(request)
	f.check(err)
	return p
}

// Tell sends a message that is acknowledged and returns whether it was taken.
func (f *Frontend) Tell(request uint32, payload []byte, fds ...int) bool {
	f.tb.Helper()
	f.check(f.Send(request, 1<<3, payload, fds...))
	p, _, err := f.Receive(request)
	f.check(err)
	return order.Uint64(p) == 0
}

// Set is Tell for a message that must be taken.
func (f *Frontend) Set(request uint32, payload []byte, fds ...int) {
	f.tb.Helper()
	if !f.Tell(request, payload, fds...) {
		f.tb.Fatalf("request %d was refused", request)
	}
}

// U64 and Pair make payloads.
func U64(n uint64) []byte { return order.AppendUint64(nil, n) }

// Pair is a queue's number and a value.
func Pair(index, value uint32) []byte {
	return order.AppendUint32(order.AppendUint32(nil, index), value)
}

// Region makes a region of a memory table.
func Region(guest, size, user, offset uint64) []byte {
	var b []byte
	for _, n := range []uint64{guest, size, user, offset} {
		b = order.AppendUint64(b, n)
	}
	return b
}

// Hello agrees on features.
func (f *Frontend) Hello() {
	f.tb.Helper()
	f.Features = order.Uint64(f.Ask(GetFeatures, nil)) &^ f.Without &^ LogAll
	protocol := f.Ask(GetProtocolFeatures, nil)
	f.check(f.Send(SetProtocolFeatures, 0, protocol))
	f.check(f.Send(SetOwner, 0, nil))
	f.Set(SetFeatures, U64(f.Features))
	f.EventIdx = f.Features&EventIdx != 0
}

// MemTable is the payload of SET_MEM_TABLE.
func MemTable() []byte {
	b := Pair(2, 0)
	b = append(b, Region(0, RegionSize, UserBase0, 0)...)
	return append(b, Region(RegionSize, RegionSize, UserBase1, RegionSize)...)
}

// VringAddr is the payload of SET_VRING_ADDR.
func VringAddr(index uint32, logged bool) []byte {
	var flags uint32
	if logged {
		flags = 1
	}
	b := Pair(index, flags)
	for _, n := range []uint64{UserBase0 + descAt, UserBase0 + usedAt, UserBase0 + availAt, usedAt} {
		b = order.AppendUint64(b, n)
	}
	return b
}

// FD is the guest's memory, KickFD and CallFD its events.
func (g *Guest) FD() int { return g.fd }

// KickFD is what the backend is kicked by.
func (g *Guest) KickFD() int { return g.kick }

// CallFD is what the backend interrupts by.
func (g *Guest) CallFD() int { return g.call }

// Begin does all that QEMU does until the ring runs. base is where the frontend believes that it goes on.
func (f *Frontend) Begin(base uint16) {
	f.tb.Helper()
	f.Hello()
	f.Set(SetMemTable, MemTable(), f.fd, f.fd)
	f.TrackInflight()
	f.BeginRing(0, base)
}

// TrackInflight gives the backend the in-flight memory of the one before it, or asks for some.
func (f *Frontend) TrackInflight() {
	f.tb.Helper()
	if f.inflight < 0 {
		ask := append(append(U64(0), U64(0)...), 1, 0, byte(f.Num), byte(f.Num>>8))
		f.check(f.Send(GetInflightFD, 0, ask))
		p, fd, err := f.Receive(GetInflightFD)
		f.check(err)
		f.inPay, f.inflight = p, fd
	}
	f.Set(SetInflightFD, f.inPay, f.inflight)
}

// Inflight maps the in-flight memory, for a look at it.
func (f *Frontend) Inflight() []byte {
	f.tb.Helper()
	mem, err := unix.Mmap(f.inflight, 0, int(order.Uint64(f.inPay)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	f.check(err)
	f.tb.Cleanup(func() { f.check(unix.Munmap(mem)) })
	return mem
}

// BeginRing starts one ring at the guest's own.
func (f *Frontend) BeginRing(index uint32, base uint16) {
	f.tb.Helper()
	f.Set(SetVringNum, Pair(index, uint32(f.Num)))
	f.Set(SetVringBase, Pair(index, uint32(base)))
	f.Set(SetVringAddr, VringAddr(index, false))
	f.Set(SetVringCall, U64(uint64(index)), f.call)
	f.Set(SetVringKick, U64(uint64(index)), f.kick)
	f.Set(SetVringEnable, Pair(index, 1))
}

// End stops the ring and returns its position.
func (f *Frontend) End() uint16 {
	f.tb.Helper()
	return uint16(order.Uint32(f.Ask(GetVringBase, Pair(0, 0))[4:]))
}

// Accept waits for a backend that connects to the path, where the frontend listens from its first call on. An older connection is not
// closed by it.
func (f *Frontend) Accept(path string) error { return f.acceptFor(path, acceptWait) }

// Refused reports whether no backend connects to the path for a while.
func (f *Frontend) Refused(path string) bool {
	f.tb.Helper()
	err := f.acceptFor(path, refusedFor)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		f.check(err)
	}
	return err != nil
}

const (
	acceptWait = 10 * time.Second
	refusedFor = 100 * time.Millisecond
)

func (f *Frontend) acceptFor(path string, d time.Duration) error {
	l := f.listeners[path]
	if l == nil {
		var err error
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // it is there for as long as the backend leaves it, like a VMM's
		f.listeners[path] = l
	}
	if err := l.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	c, err := l.AcceptUnix()
	if err == nil {
		f.Conn = c
	}
	return err
}

// SocketPair makes connected sockets: the frontend takes one end, the other is for the backend.
func (f *Frontend) SocketPair() *net.UnixConn {
	f.tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	f.check(err)
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		ends[i] = connOf(f, fd)
	}
	f.Conn = ends[0]
	return ends[1]
}
