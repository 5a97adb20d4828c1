// Package vhosttest is a vhost-user frontend and the guest behind it, for tests of a backend: a piece of shared memory with one ring in it,
// whose requests survive the backend.
package vhosttest

import (
	"encoding/binary"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The guest's memory is two regions that follow each other in the guest, and lie apart in the frontend.
const (
	RegionSize = 4 << 20
	MemorySize = 2 * RegionSize
	UserBase0  = 0x7f0000000000
	UserBase1  = 0x7e0000000000

	descAt  = 0x1000
	availAt = 0x9000
	usedAt  = 0xa000
	// DataAt is the first address that requests may use.
	DataAt = 0x100000
)

// Flags of descriptors.
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

// Desc is one descriptor of a chain.
type Desc struct {
	Addr  uint64
	Len   uint32
	Flags uint16
}

// TB is what a guest needs of a test, or of whatever else drives it. Fatal and Fatalf do not return.
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

// Guest is the memory with the ring.
type Guest struct {
	tb  TB
	fd  int
	Mem []byte
	Num int
	// EventIdx is set by the handshake.
	EventIdx bool

	kick, call int
	availIdx   uint16
	usedSeen   uint16
	free       []uint16
	chains     map[uint16][]uint16
}

// NewGuest makes a guest whose ring has num descriptors.
func NewGuest(tb TB, num int) *Guest {
	tb.Helper()
	g := &Guest{tb: tb, Num: num, chains: map[uint16][]uint16{}}
	g.fd = g.must(unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING))
	g.check(unix.Ftruncate(g.fd, MemorySize))
	_, err := unix.FcntlInt(uintptr(g.fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	g.check(err)
	g.Mem, err = unix.Mmap(g.fd, 0, MemorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	g.check(err)
	g.kick = g.must(unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC))
	g.call = g.must(unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC))
	for i := range num {
		g.free = append(g.free, uint16(i))
	}
	tb.Cleanup(func() {
		for _, fd := range []int{g.fd, g.kick, g.call} {
			g.check(unix.Close(fd))
		}
		g.check(unix.Munmap(g.Mem))
	})
	return g
}

func (g *Guest) check(err error) {
	g.tb.Helper()
	if err != nil {
		g.tb.Fatal(err)
	}
}

func (g *Guest) must(fd int, err error) int {
	g.tb.Helper()
	g.check(err)
	return fd
}

var order = binary.LittleEndian

// SetDesc writes one descriptor of the ring's table.
func (g *Guest) SetDesc(i uint16, d Desc, next uint16) { PutDesc(g.Mem[descAt+16*int(i):], d, next) }

// PutDesc writes a descriptor.
func PutDesc(p []byte, d Desc, next uint16) {
	order.PutUint64(p, d.Addr)
	order.PutUint32(p[8:], d.Len)
	order.PutUint16(p[12:], d.Flags)
	order.PutUint16(p[14:], next)
}

// Add makes a chain available. It does not kick.
func (g *Guest) Add(chain ...Desc) (head uint16) {
	g.tb.Helper()
	if len(chain) > len(g.free) {
		g.tb.Fatal("the ring is full")
	}
	ids := append([]uint16(nil), g.free[:len(chain)]...)
	g.free = g.free[len(chain):]
	for i, d := range chain {
		next := uint16(0)
		if i < len(chain)-1 {
			d.Flags |= Next
			next = ids[i+1]
		}
		g.SetDesc(ids[i], d, next)
	}
	g.chains[ids[0]] = ids
	g.Offer(ids[0])
	return ids[0]
}

// Offer puts a descriptor into the available ring, whatever it is.
func (g *Guest) Offer(head uint16) {
	order.PutUint16(g.Mem[availAt+4+2*(int(g.availIdx)%g.Num):], head)
	g.availIdx++
	g.SetAvailIdx(g.availIdx)
}

// SetAvailIdx stores the available ring's index, and asks for an interrupt at the next completion.
func (g *Guest) SetAvailIdx(idx uint16) {
	order.PutUint16(g.Mem[availAt+4+2*g.Num:], g.usedSeen)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&g.Mem[availAt])), uint32(idx)<<16)
}

// Kick tells the backend to look.
func (g *Guest) Kick() {
	g.tb.Helper()
	_, err := unix.Write(g.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	g.check(err)
}

// WantsKick reports whether the backend asked to be told of the next chain.
func (g *Guest) WantsKick() bool {
	if g.EventIdx {
		return order.Uint16(g.Mem[usedAt+4+8*g.Num:]) == g.availIdx
	}
	return order.Uint16(g.Mem[usedAt:])&1 == 0
}

// UsedIdx is the used ring's index.
func (g *Guest) UsedIdx() uint16 {
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(&g.Mem[usedAt]))) >> 16)
}

// Used takes the next entry of the used ring, if there is one.
func (g *Guest) Used() (head uint16, n uint32, ok bool) {
	g.tb.Helper()
	if g.UsedIdx() == g.usedSeen {
		return 0, 0, false
	}
	e := g.Mem[usedAt+4+8*(int(g.usedSeen)%g.Num):]
	head, n = uint16(order.Uint32(e)), order.Uint32(e[4:])
	g.usedSeen++
	ids := g.chains[head]
	if ids == nil {
		g.tb.Fatalf("descriptor %d was completed, but is not in flight", head)
	}
	delete(g.chains, head)
	g.free = append(g.free, ids...)
	return head, n, true
}

// InFlight is the number of chains that were not completed.
func (g *Guest) InFlight() int { return len(g.chains) }

// Await waits for the next entry of the used ring, by its interrupt.
func (g *Guest) Await() (head uint16, n uint32) {
	g.tb.Helper()
	for {
		if head, n, ok := g.Used(); ok {
			return head, n
		}
		order.PutUint16(g.Mem[availAt+4+2*g.Num:], g.usedSeen) // the event index
		if g.UsedIdx() == g.usedSeen && !g.Interrupted(20*time.Second) {
			g.tb.Fatalf("no interrupt: used index %d, seen %d, in flight %d", g.UsedIdx(), g.usedSeen, len(g.chains))
		}
	}
}

// Interrupted waits for an interrupt.
func (g *Guest) Interrupted(wait time.Duration) bool {
	g.tb.Helper()
	fds := []unix.PollFd{{Fd: int32(g.call), Events: unix.POLLIN}}
	deadline := time.Now().Add(wait)
	for {
		n, err := unix.Poll(fds, int(max(time.Until(deadline), 0)/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		g.check(err)
		if n == 0 {
			return false
		}
		var b [8]byte
		_, err = unix.Read(g.call, b[:])
		g.check(err)
		return true
	}
}

// Restart forgets the ring, as a guest that resets the device.
func (g *Guest) Restart() {
	clear(g.Mem[availAt : availAt+0x1000])
	clear(g.Mem[usedAt : usedAt+0x4000])
	g.availIdx, g.usedSeen, g.free = 0, 0, nil
	for i := range g.Num {
		g.free = append(g.free, uint16(i))
	}
	g.chains = map[uint16][]uint16{}
}
