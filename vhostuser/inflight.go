package vhostuser

import (
	"cmp"
	"slices"
	"sync/atomic"
	"unsafe"
)

// The memory of requests in flight (vhost-user.rst, "Inflight I/O tracking", split virtqueue): for each queue a header, and for each
// descriptor whether it is in flight. The frontend keeps it while the backend restarts, so the layout is the protocol's.
const (
	inflightVersion = 1
	inflightHeader  = 16 // features 8, version 2, desc_num 2, last_batch_head 2, used_idx 2
	inflightEntry   = 16 // inflight 1, padding 5, next 2, counter 8
	inflightAlign   = 64

	inflightMessage = 20 // mmap_size 8, mmap_offset 8, num_queues 2, queue_size 2
)

// inflightStride is the distance from one queue's part to the next.
func inflightStride(ring int) uint64 {
	return (inflightHeader + inflightEntry*uint64(ring) + inflightAlign - 1) / inflightAlign * inflightAlign
}

// inflightArea is the memory of all queues.
type inflightArea struct {
	mem    []byte
	queues int
	ring   int
}

// queue returns the part of one queue whose ring has num descriptors; nil when there is no tracking.
func (a *inflightArea) queue(i, num int) (*inflight, error) {
	if a == nil {
		return nil, nil
	}
	if i >= a.queues || num > a.ring {
		return nil, bad("queue %d with %d descriptors is not within the in-flight memory of %d queues with %d", i, num, a.queues, a.ring)
	}
	stride := inflightStride(a.ring)
	return &inflight{mem: a.mem[uint64(i)*stride:][:stride], num: num}, nil
}

// format writes the headers of a new area.
func (a *inflightArea) format() {
	for i := range a.queues {
		h := a.mem[uint64(i)*inflightStride(a.ring):]
		order.PutUint16(h[8:], inflightVersion)
		order.PutUint16(h[10:], uint16(a.ring))
	}
}

// inflight is the part of one queue. Each store is seen by the next process in the order in which it was made: the process may be killed
// between any two.
type inflight struct {
	mem     []byte
	num     int
	counter uint64
}

func (f *inflight) entry(head uint16) []byte {
	return f.mem[inflightHeader+inflightEntry*int(head):][:inflightEntry]
}

func (f *inflight) usedIdx() uint16 { return load16(unsafe.Pointer(&f.mem[14])) }

// store32 changes an aligned word with one store that the compiler keeps in its place.
func store32(b []byte, v uint32) { atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[0])), v) }

// take records that a descriptor was taken from the available ring.
func (f *inflight) take(head uint16) {
	e := f.entry(head)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&e[8])), f.counter)
	f.counter++
	store32(e, 1) // inflight, and padding
}

// completing records which descriptor is about to be put into the used ring: if the process dies with the ring's index moved, that one
// is not in flight any more.
func (f *inflight) completing(head uint16) {
	f.setTail(head, f.usedIdx())
}

// completed records that the used ring has the descriptor, and its new index.
func (f *inflight) completed(head, usedIdx uint16) {
	store32(f.entry(head), 0)
	f.setTail(head, usedIdx)
}

// clear forgets everything that is in flight.
func (f *inflight) clear(usedIdx uint16) {
	for head := range f.num {
		store32(f.entry(uint16(head)), 0)
	}
	f.setTail(order.Uint16(f.mem[12:]), usedIdx)
}

// setTail stores last_batch_head and used_idx, which share a word.
func (f *inflight) setTail(head, usedIdx uint16) {
	store32(f.mem[12:], uint32(head)|uint32(usedIdx)<<16)
}

// recover finds out what was in flight when the process before this one ended, in the order in which it was taken. usedIdx is the used
// ring's index now.
func (f *inflight) recover(usedIdx uint16) ([]uint16, error) {
	if v := order.Uint16(f.mem[8:]); v != inflightVersion {
		return nil, bad("the in-flight memory has version %d where %d is expected", v, inflightVersion)
	}
	last := order.Uint16(f.mem[12:])
	if behind := int(usedIdx - f.usedIdx()); behind > 0 && behind <= f.num {
		// The batch reached the used ring. Ours have one descriptor; the protocol allows more, chained by next.
		for head := last; behind > 0 && int(head) < f.num; behind-- {
			e := f.entry(head)
			store32(e, 0)
			head = order.Uint16(e[6:])
		}
	}
	f.setTail(last, usedIdx)
	var heads []uint16
	for head := range f.num {
		if f.entry(uint16(head))[0] != 0 {
			heads = append(heads, uint16(head))
		}
	}
	count := func(head uint16) uint64 { return order.Uint64(f.entry(head)[8:]) }
	slices.SortFunc(heads, func(a, b uint16) int { return cmp.Compare(count(a), count(b)) })
	f.counter = 0
	if n := len(heads); n > 0 {
		f.counter = count(heads[n-1]) + 1
	}
	return heads, nil
}
