package vhostuser

import (
	"context"

	"drover"
)

// Kinds of requests and their outcomes (virtio 1.2, 5.2.6).
const (
	kindIn          = 0
	kindOut         = 1
	kindFlush       = 4
	kindGetID       = 8
	kindDiscard     = 11
	kindWriteZeroes = 13

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2

	serialSize  = 20
	blkHeader   = 16
	unmapFlag   = 1
	noStatus    = 0xff // of a request that is not to be completed
	clearFlags  = unmapFlag
	statusBytes = 1
)

// maxInline is how much data a ring's goroutine reads or writes by itself: more would hold up the requests behind it.
const maxInline = 64 << 10

// request is one request of the guest. There is one for each descriptor of a ring, so that none is ever made.
type request struct {
	q    *queue
	head uint16
	busy bool // guarded by queue.usedMu
	mem  *memory
	buffers

	kind       uint32
	sector     uint64
	status     *byte
	statusAddr uint64
	// written is how many bytes of in hold data now.
	written int64
	clears  [maxClearSegs * clearSegment]byte
}

// parse takes the chain apart. An error means that there is no request to answer.
func (r *request) parse() error {
	if err := r.collect(&r.q.ring, r.mem, r.head, r.q.indirect); err != nil {
		return err
	}
	var ok bool
	if r.status, r.statusAddr, ok = r.takeLast(); !ok {
		return bad("a request has no room for its status")
	}
	var h [blkHeader]byte
	if n := r.pull(h[:]); n < len(h) {
		return bad("a request has a header of %d bytes", n)
	}
	r.kind, r.sector, r.written = order.Uint32(h[:]), order.Uint64(h[8:]), 0
	return nil
}

// extent returns where the data of a read or a write is on the disk.
func (r *request) extent(data [][]byte) (off, n int64, ok bool) {
	n = vecSize(data)
	off, ok = r.q.d.extent(r.sector, n)
	return off, n, ok && n <= maxData
}

// extent checks a range of the disk. Nothing is done that takes very long: to stop a ring means to wait for it.
func (d *Device) extent(sector uint64, n int64) (off int64, ok bool) {
	size := d.size.Load()
	if n%sectorSize != 0 || sector > uint64(size)/sectorSize || int64(sector)*sectorSize > size-n {
		return 0, false
	}
	return int64(sector) * sectorSize, true
}

// try does the request if that needs no waiting.
func (r *request) try() (status byte, done bool) {
	d := r.q.d
	switch r.kind {
	case kindIn:
		off, n, ok := r.extent(r.in)
		if !ok || n == 0 {
			return r.refuse("read", n), true
		}
		if d.trier == nil || n > maxInline {
			return 0, false
		}
		done, err := d.trier.TryReadVec(r.in, off)
		if done && err == nil {
			r.written = n
		}
		return r.outcome("read", err), done
	case kindOut:
		off, n, ok := r.extent(r.out)
		if !ok || n == 0 || d.cfg.ReadOnly {
			return r.refuse("write", n), true
		}
		if d.trier == nil || n > maxInline {
			return 0, false
		}
		done, err := d.trier.TryWriteVec(r.out, off)
		return r.outcome("write", err), done
	case kindFlush, kindDiscard, kindWriteZeroes:
		return 0, false
	case kindGetID:
		return r.getID(), true
	}
	return statusUnsupported, true
}

// do does what try left, and may wait.
func (r *request) do(ctx context.Context) (status byte) {
	b := r.q.d.cfg.Backend
	switch r.kind {
	case kindIn:
		off, n, ok := r.extent(r.in)
		if !ok {
			return r.refuse("read", n) // the disk cannot shrink, but who knows
		}
		err := b.ReadVec(ctx, r.in, off)
		if err == nil {
			r.written = n
		}
		return r.outcome("read", err)
	case kindOut:
		off, n, ok := r.extent(r.out)
		if !ok {
			return r.refuse("write", n)
		}
		return r.outcome("write", b.WriteVec(ctx, r.out, off))
	case kindFlush:
		return r.outcome("flush", b.Flush(ctx))
	}
	return r.clear(ctx)
}

// clear discards or zeroes ranges. They are copied before they are checked.
func (r *request) clear(ctx context.Context) byte {
	d := r.q.d
	total := vecSize(r.out)
	if total == 0 || total%clearSegment != 0 || total > int64(len(r.clears)) || d.cfg.ReadOnly {
		return r.refuse("discard", total)
	}
	segments := r.clears[:r.pull(r.clears[:total])]
	for ; len(segments) > 0; segments = segments[clearSegment:] {
		n, flags := int64(order.Uint32(segments[8:]))*sectorSize, order.Uint32(segments[12:])
		off, ok := d.extent(order.Uint64(segments), n)
		if flags&^clearFlags != 0 || r.kind == kindDiscard && flags != 0 {
			return statusUnsupported
		}
		if !ok || n > maxClear*sectorSize {
			return r.refuse("discard", n)
		}
		if n == 0 {
			continue
		}
		var err error
		if r.kind == kindDiscard {
			err = d.cfg.Backend.Discard(ctx, off, n, false)
		} else {
			err = d.cfg.Backend.Zero(ctx, off, n, flags&unmapFlag == 0, false)
		}
		if err != nil {
			return r.outcome("discard", err)
		}
	}
	return statusOK
}

// getID writes the serial number.
func (r *request) getID() byte {
	var id [serialSize]byte
	copy(id[:], r.q.d.cfg.Serial)
	n := 0
	for _, p := range r.in {
		n += copy(p, id[n:])
	}
	r.written = int64(n)
	return statusOK
}

// refuse answers a request that does not fit the disk.
func (r *request) refuse(what string, n int64) byte {
	r.q.d.log.Warn("refused a request of the guest", "what", what, "sector", r.sector, "bytes", n)
	return statusIOErr
}

// outcome makes a status of an error.
func (r *request) outcome(what string, err error) byte {
	if err == nil {
		return statusOK
	}
	d := r.q.d
	if d.leaving() {
		return noStatus
	}
	d.log.Warn("a request of the guest failed", "what", what, "sector", r.sector, "code", string(drover.CodeOf(err)), "err", err)
	return statusIOErr
}
