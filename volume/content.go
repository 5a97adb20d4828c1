package volume

import (
	"context"
	"errors"
	"sync/atomic"

	"drover"
	"drover/internal/fault"
)

// content is what a layer holds: its data file and, as long as blocks may be absent, the overlay that says where those come
// from. It knows nothing of names, epochs or connections. All methods may be called from many goroutines at once.
//
// A content can change hands: a split gives it to the frozen layer, and a take-in gives it back.
type content struct {
	name *label
	size int64
	data file
	// image: it is an image's, which other hosts have as well.
	image bool
	// under is what lies below and holds what neither this content nor its parent has; nil for zeroes. It is another one when the layer
	// below has taken its own base in: see useUnder. close gives up one use of it.
	under atomic.Pointer[content]
	// settled: everything below that a writer of this content has seen acknowledged is durable.
	settled atomic.Bool
	// parent is what the content is filled from; nil for nothing. It is closed when it is needed no more.
	parent upstream
	// refs counts those who use the content, plus one while a layer has it. At zero the files are closed.
	refs atomic.Int64
	disk drover.DiskID
	// sums are those of data, which keeps them; nil without.
	sums   *sums
	damage damage
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
	// src is nil when there is no parent, or when nothing is needed of it any more.
	src atomic.Pointer[source]
	// guest is what a guest did last, reading what it read: somebody waits for every read, and for few writes.
	guest, reading activity
	// flushing counts the flushes that a guest waits for. expected says that a guest is about to come, with a write to flush.
	flushing atomic.Int64
	expected atomic.Bool
	// changed has the blocks that were written since somebody who copies them took them out; nil while nobody copies.
	changed atomic.Pointer[bitmap]
	// fetched has the blocks that came from the parent, were not written since and were not compared with it yet; nil without one.
	fetched *bitmap
	// spoil makes the live map not count after a restart.
	spoil func()

	// refs counts those who use the overlay, plus one while the content does. At zero release is called.
	refs    atomic.Int64
	release func()
}

func newContent(name drover.LayerID, size int64, data file) *content {
	c := &content{name: newLabel(name), size: size, data: data}
	c.dirty.Store(true) // a process before this one may have written
	c.refs.Store(1)
	return c
}

// retain keeps the files open until close is called once more. It fails when they are closed already.
func (c *content) retain() bool {
	for n := c.refs.Load(); n > 0; n = c.refs.Load() {
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// release is close for those who only looked: whoever gave the content up meanwhile is told of errors by the log of the layer that has
// lost it, and there is nothing else to be told here.
func (c *content) release() { _ = c.close() }

// useUnder returns what lies below, nil for nothing. It must be released. It fails when this content is closed.
func (c *content) useUnder() (*content, error) {
	for {
		u := c.under.Load()
		if u == nil || u.retain() {
			return u, nil
		}
		if c.under.Load() == u {
			return nil, drover.Errorf(drover.Unavailable, "layer %s is being withdrawn", c.name)
		}
	}
}

// setUnder replaces what lies below by something that holds the same. Those who are reading the old one may end in peace.
func (c *content) setUnder(u *content) error {
	if !u.retain() {
		return drover.Errorf(drover.Unavailable, "layer %s is being withdrawn", u.name)
	}
	if old := c.under.Swap(u); old != nil {
		return old.close()
	}
	return nil
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

// flushGuest is Flush for a guest, which is at work for as long as it waits for it: what a copy stores meanwhile it has to wait for, too.
func (c *content) flushGuest(ctx context.Context) error {
	if o := c.enterGuest(); o != nil {
		o.flushing.Add(1)
		defer func() {
			o.guest.touch()
			o.flushing.Add(-1)
			o.leave()
		}()
	}
	return c.Flush(ctx)
}

// enterReader is enterGuest for a read.
func (c *content) enterReader() *overlay {
	o := c.enterGuest()
	if o != nil && o.src.Load() != nil {
		o.reading.touch()
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
	o.touch(first, end)
}

// touch records that present blocks may hold something else. It is called when that is done: whoever takes the blocks out of the
// bitmap and reads them after that reads what was written.
func (o *overlay) touch(first, end int64) {
	if changed := o.changed.Load(); changed != nil {
		changed.set(first, end)
	}
}

// unfetch records that the blocks are not any more what the parent has: before they are changed, and after they were seen to be present
// or while they are locked, so that whoever stores what was fetched does not say otherwise later.
func (o *overlay) unfetch(first, end int64) {
	if o.fetched != nil {
		o.fetched.clear(first, end)
	}
}

// blocksOf returns the blocks that a range of bytes touches.
func blocksOf(off, n int64) (first, end int64) {
	return off / blockSize, (off + n + blockSize - 1) / blockSize
}

// local reports whether the range can be read and written without waiting for a parent, of this content or of one below.
func (c *content) local(off, n int64) bool {
	if off >= c.size {
		return true
	}
	o := c.enter()
	if o == nil {
		return true
	}
	defer o.leave()
	first, end := blocksOf(off, min(n, c.size-off))
	if o.present.all(first, end) {
		return true
	}
	under, err := c.useUnder()
	if o.src.Load() != nil || under == nil {
		return o.src.Load() == nil && err == nil
	}
	defer under.release()
	return under.local(off, n)
}

// ReadAt fills p with the composed view.
func (c *content) ReadAt(ctx context.Context, p []byte, off int64) error {
	o := c.enterReader()
	if o == nil {
		return c.readData(ctx, p, off)
	}
	defer o.leave()
	first, end := blocksOf(off, int64(len(p)))
	src := o.src.Load()
	if o.present.all(first, end) {
		if src != nil {
			c.noteRead(ctx, src, first, end, false)
		}
		return c.readData(ctx, p, off)
	}
	if src != nil {
		err := c.materialize(ctx, o, src, first, end, guestClass)
		c.noteRead(ctx, src, first, end, true)
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
			err = c.readData(ctx, part, off)
		case fetch:
			err = src.read(ctx, guestClass, part, off)
		default:
			err = c.readBase(ctx, part, off)
		}
		if err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// readBase reads what lies under the layer when the parent has no part in it. The layer may be larger than the base.
func (c *content) readBase(ctx context.Context, p []byte, off int64) error {
	under, err := c.useUnder()
	if err != nil {
		return err
	}
	var n int64
	if under != nil {
		defer under.release()
		n = max(0, min(int64(len(p)), under.size-off))
	}
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return under.ReadAt(ctx, p[:n], off)
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
		if serr := c.sums.giveUp(cause); serr != nil {
			return errors.Join(c.failure(), serr)
		}
	}
	return c.failure()
}

// allocated sums up the data of the content and of those below it that it does not hide, but for an image's. On a fragmented file it
// takes a system call per extent.
func (c *content) allocated() (drover.Bytes, error) {
	n, err := c.dataIn(0, c.size)
	return drover.Bytes(n), err
}

// dataIn is allocated for a range.
func (c *content) dataIn(off, end int64) (sum int64, err error) {
	o := c.enter()
	defer o.leave()
	for off < end {
		from, stop := c.originOf(o, nil, off, end)
		var n int64
		if from == fromData {
			n, err = c.fileData(off, stop)
		} else {
			n, err = c.dataUnder(off, stop)
		}
		if err != nil {
			return 0, err
		}
		sum, off = sum+n, stop
	}
	return sum, nil
}

// dataUnder is dataIn for what lies below.
func (c *content) dataUnder(off, end int64) (int64, error) {
	under, err := c.useUnder()
	if under == nil {
		return 0, err
	}
	defer under.release()
	if under.image || off >= under.size {
		return 0, nil
	}
	return under.dataIn(off, min(end, under.size))
}

// fileData sums up the data of a range of the content's own file.
func (c *content) fileData(off, end int64) (sum int64, err error) {
	for off < end {
		start, stop, err := c.data.NextData(off, end)
		if err != nil {
			return 0, ioError(c.name, "examine", err)
		}
		sum += stop - start
		off = stop
	}
	return sum, nil
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
