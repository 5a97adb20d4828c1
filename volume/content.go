package volume

import (
	"context"
	"sync/atomic"

	"drover"
	"drover/internal/fault"
)

// content is what a layer holds: its data file and, as long as blocks may be absent, the overlay that says where those come
// from. It knows nothing of names, epochs or connections. All methods may be called from many goroutines at once.
type content struct {
	name drover.LayerID
	size int64
	data file
	// over is nil for a layer that has every block itself.
	over atomic.Pointer[overlay]

	flushes commits
	dirty   atomic.Bool
	failed  atomic.Pointer[drover.Error]
	faults  *fault.Points
	space   *space // nil: nothing is kept free
}

// overlay is what a layer needs while blocks may be absent.
type overlay struct {
	present *bitmap
	table   *mapFile
	locks   rangeLock
	// base holds what the parent does not; nil for zeroes.
	base *content
	// src is nil when there is no parent, or when nothing is needed of it any more.
	src   atomic.Pointer[source]
	guest activity
	// spoil makes the live map not count after a restart.
	spoil func()

	// refs counts those who use the overlay, plus one while the content does. At zero release is called.
	refs    atomic.Int64
	release func()
}

func newContent(name drover.LayerID, size int64, data file) *content {
	c := &content{name: name, size: size, data: data}
	c.dirty.Store(true) // a process before this one may have written
	return c
}

// setOverlay is called once, before the content is used.
func (c *content) setOverlay(o *overlay) {
	o.refs.Store(1)
	c.over.Store(o)
}

// enterGuest is enter for a request of a guest, which hydration gives way to.
func (c *content) enterGuest() *overlay {
	o := c.enter()
	if o != nil && o.src.Load() != nil {
		o.guest.touch()
	}
	return o
}

// enter returns the overlay and keeps it from being released, or nil for a content that is complete. leave must be called on the result.
func (c *content) enter() *overlay {
	for {
		o := c.over.Load()
		if o == nil {
			return nil
		}
		for n := o.refs.Load(); n > 0; n = o.refs.Load() {
			if o.refs.CompareAndSwap(n, n+1) {
				return o
			}
		}
	}
}

func (o *overlay) leave() {
	if o != nil && o.refs.Add(-1) == 0 {
		o.release()
	}
}

// dropOverlay makes the content a complete one. Those who are using the overlay may end in peace.
func (c *content) dropOverlay() {
	if o := c.over.Swap(nil); o != nil {
		o.leave()
	}
}

// mark records that the blocks are present. Their data must have been written.
func (o *overlay) mark(first, end int64) {
	o.present.set(first, end)
	if o.table != nil && first < end {
		o.table.dirty.set(first/sectorBlocks, (end-1)/sectorBlocks+1)
	}
}

// blocksOf returns the blocks that a range of bytes touches.
func blocksOf(off, n int64) (first, end int64) {
	return off / blockSize, (off + n + blockSize - 1) / blockSize
}

// local reports whether the range can be read and written without waiting for a parent.
func (c *content) local(off, n int64) bool {
	o := c.enter()
	if o == nil {
		return true
	}
	defer o.leave()
	first, end := blocksOf(off, n)
	return o.src.Load() == nil || o.present.all(first, end)
}

// ReadAt fills p with the composed view.
func (c *content) ReadAt(ctx context.Context, p []byte, off int64) error {
	o := c.enterGuest()
	if o == nil {
		return ioError(c.name, "read", c.data.ReadAt(p, off))
	}
	defer o.leave()
	first, end := blocksOf(off, int64(len(p)))
	if o.present.all(first, end) {
		return ioError(c.name, "read", c.data.ReadAt(p, off))
	}
	if src := o.src.Load(); src != nil {
		err := c.materialize(ctx, o, src, first, end, guestClass)
		if drover.Is(err, drover.Exhausted) {
			// There is no room to keep what was fetched, but that is no reason to fail a read.
			return c.readThrough(ctx, o, src, p, off)
		}
		if err != nil {
			return err
		}
	}
	return c.readComposed(ctx, o, nil, p, off)
}

// readThrough reads without keeping what comes from the parent.
func (c *content) readThrough(ctx context.Context, o *overlay, src *source, p []byte, off int64) error {
	first, end := blocksOf(off, int64(len(p)))
	return c.forGuest(ctx, src, first, func(ctx context.Context) error {
		if err := c.learn(ctx, o, src, first, end, guestClass); err != nil {
			return err
		}
		return c.readComposed(ctx, o, src, p, off)
	})
}

// readComposed reads present blocks from the data file, and absent ones from the parent if a source is given and has them, else from
// the base. Without a source every block that the parent has must be present.
func (c *content) readComposed(ctx context.Context, o *overlay, src *source, p []byte, off int64) error {
	for len(p) > 0 {
		first, end := blocksOf(off, int64(len(p)))
		present := o.present.get(first)
		stop := o.present.next(first, end, !present)
		fetch := false
		if !present && src != nil {
			fetch, stop = src.wants(first, stop)
		}
		part := p[:min(int64(len(p)), stop*blockSize-off)]
		var err error
		switch {
		case present:
			err = ioError(c.name, "read", c.data.ReadAt(part, off))
		case fetch:
			err = src.read(ctx, guestClass, part, off)
		default:
			err = o.readBase(ctx, part, off)
		}
		if err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// readBase reads what lies under the layer when the parent has no part in it. The layer may be larger than the base.
func (o *overlay) readBase(ctx context.Context, p []byte, off int64) error {
	var n int64
	if o.base != nil {
		n = max(0, min(int64(len(p)), o.base.size-off))
	}
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return o.base.ReadAt(ctx, p[:n], off)
}

// failure returns the error that ended writing to the layer, if one did.
func (c *content) failure() error {
	if err := c.failed.Load(); err != nil {
		return err
	}
	return nil
}

// fail ends writing and flushing for good: the kernel reports a failed write-back once, and what was lost is unknown.
func (c *content) fail(what string, cause error) error {
	err := drover.Errorf(drover.Internal, "cannot %s layer %s: %w; writes and flushes are refused until the storage daemon is restarted, "+
		"and what was written after the last flush that succeeded may be lost", what, c.name, cause)
	if c.failed.CompareAndSwap(nil, err) {
		if o := c.enter(); o != nil {
			if o.spoil != nil {
				o.spoil()
			}
			o.leave()
		}
	}
	return c.failure()
}

// allocated sums up the data of the layer's own file. On a fragmented file it takes a system call per extent.
func (c *content) allocated() (drover.Bytes, error) {
	var sum int64
	for off := int64(0); off < c.size; {
		start, stop, err := c.data.NextData(off, c.size)
		if err != nil {
			return 0, ioError(c.name, "examine", err)
		}
		sum += stop - start
		off = stop
	}
	return drover.Bytes(sum), nil
}

// sanitize makes the data file a hole wherever a block is absent. A process that was killed between the data and
// the mark, or a host that lost the mark, leaves data of writes that were never acknowledged, or never flushed; it must not
// appear when the block is marked as empty later.
func (c *content) sanitize(o *overlay) error {
	for off := int64(0); off < c.size; {
		start, stop, err := c.data.NextData(off, c.size)
		if err != nil {
			return err
		}
		first, end := blocksOf(start, stop-start)
		for first = o.present.next(first, end, false); first < end; {
			hole := o.present.next(first, end, true)
			if err := c.data.PunchHole(first*blockSize, (hole-first)*blockSize); err != nil {
				return err
			}
			first = o.present.next(hole, end, false)
		}
		off = stop
	}
	return nil
}
