package vhostuser

import (
	"sync/atomic"
	"unsafe"
)

// Sizes and flags of a split ring (virtio 1.2, 2.7).
const (
	descSize = 16

	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
	usedNoNotify     = 1
)

// ringAddress is where the frontend says that a ring is.
type ringAddress struct {
	desc, used, avail uint64 // in the frontend's own terms
	log               uint64 // the used ring's guest address
	logged            bool
}

// ring is a split ring in guest memory. Its fields are the pointers and our own positions; whatever the guest's side of it
// says is read once and checked.
type ring struct {
	num      uint16
	eventIdx bool

	desc, avail, used unsafe.Pointer

	lastAvail uint16 // the next entry of the available ring
	usedIdx   uint16 // the index that the used ring has
	signalled uint16 // the index at which the guest was last told
}

// place finds the ring in the memory. Nothing is changed when it is not there.
func (r *ring) place(m *memory, at ringAddress) error {
	n := uint64(r.num)
	desc, ok1 := m.userRange(at.desc, descSize*n)
	avail, ok2 := m.userRange(at.avail, 6+2*n)
	used, ok3 := m.userRange(at.used, 6+8*n)
	if n == 0 || !ok1 || !ok2 || !ok3 {
		return bad("a ring of %d descriptors is not in the memory that is shared", n)
	}
	d, a, u := unsafe.Pointer(&desc[0]), unsafe.Pointer(&avail[0]), unsafe.Pointer(&used[0])
	if uintptr(d)%16 != 0 || uintptr(a)%2 != 0 || uintptr(u)%4 != 0 {
		return bad("a ring is not aligned")
	}
	r.desc, r.avail, r.used = d, a, u
	return nil
}

// load16 reads two bytes at an even address that another CPU may be writing, with the order that an atomic load has. The word that they
// lie in is always mapped: mappings begin and end at pages.
func load16(p unsafe.Pointer) uint16 {
	low := uintptr(p) & 3
	word := atomic.LoadUint32((*uint32)(unsafe.Add(p, -int(low))))
	return uint16(word >> (8 * low))
}

func (r *ring) availIdx() uint16    { return load16(unsafe.Add(r.avail, 2)) }
func (r *ring) noInterrupt() bool   { return load16(r.avail)&availNoInterrupt != 0 }
func (r *ring) usedEvent() uint16   { return load16(unsafe.Add(r.avail, 4+2*uintptr(r.num))) }
func (r *ring) readUsedIdx() uint16 { return load16(unsafe.Add(r.used, 2)) }
func (r *ring) availEntry(i uint16) uint16 {
	return load16(unsafe.Add(r.avail, 4+2*uintptr(i&(r.num-1))))
}

// usedFlags are what we told last; they share a word with the index.
func (r *ring) usedFlags() uint16 { return load16(r.used) }

// pending tells how many entries the guest has added that were not taken. More than the ring holds is nonsense.
func (r *ring) pending() (int, error) {
	n := r.availIdx() - r.lastAvail
	if n > r.num {
		return 0, bad("the available ring's index jumped by %d in a ring of %d", n, r.num)
	}
	return int(n), nil
}

// nextHead reads the next entry. It does not take it.
func (r *ring) nextHead() (uint16, error) {
	head := r.availEntry(r.lastAvail)
	if head >= r.num {
		return 0, bad("the available ring names descriptor %d of %d", head, r.num)
	}
	return head, nil
}

// put stores an entry of the used ring, which publish makes visible.
func (r *ring) put(head uint16, written uint32) (off uint64) {
	off = 4 + 8*uint64(r.usedIdx&(r.num-1))
	e := unsafe.Add(r.used, off)
	atomic.StoreUint32((*uint32)(e), uint32(head))
	atomic.StoreUint32((*uint32)(unsafe.Add(e, 4)), written)
	return off
}

// publish moves the used ring's index past the entry that was put.
func (r *ring) publish() {
	r.usedIdx++
	atomic.StoreUint32((*uint32)(r.used), uint32(r.usedFlags())|uint32(r.usedIdx)<<16)
}

// wantsInterrupt reports whether the guest wants to be told of what was published since it was last told.
func (r *ring) wantsInterrupt() bool {
	fence()
	if !r.eventIdx {
		return !r.noInterrupt()
	}
	event, before := r.usedEvent(), r.signalled
	r.signalled = r.usedIdx
	return r.usedIdx-event-1 < r.usedIdx-before // vring_need_event of virtio 1.2
}

// setWanted tells the guest whether it is to kick when it adds to the ring, and makes sure that what it added before it saw that is
// seen by the next call of pending. It returns which part of the used ring was written.
func (r *ring) setWanted(wanted bool) (off, n uint64) {
	switch {
	case r.eventIdx && wanted:
		off, n = 4+8*uint64(r.num), 2
		*(*uint16)(unsafe.Add(r.used, off)) = r.lastAvail
	case !r.eventIdx:
		var flags uint32
		if !wanted {
			flags = usedNoNotify
		}
		n = 4
		atomic.StoreUint32((*uint32)(r.used), flags|uint32(r.usedIdx)<<16)
	}
	fence()
	return off, n
}

// fenceWord is only there to be changed: an atomic exchange orders stores before it with loads after it.
var fenceWord atomic.Uint32

func fence() { fenceWord.Add(1) }

// descriptor is a copy of one.
type descriptor struct {
	addr  uint64
	size  uint32
	flags uint16
	next  uint16
}

// parseDescriptor copies a descriptor out of memory that the guest may be changing.
func parseDescriptor(p unsafe.Pointer) descriptor {
	addr := atomic.LoadUint64((*uint64)(p))
	rest := atomic.LoadUint64((*uint64)(unsafe.Add(p, 8)))
	return descriptor{addr: addr, size: uint32(rest), flags: uint16(rest >> 32), next: uint16(rest >> 48)}
}

// direct returns a descriptor of the ring's own table.
func (r *ring) direct(i uint16) descriptor {
	return parseDescriptor(unsafe.Add(r.desc, descSize*uintptr(i)))
}
