package volume

import (
	"bytes"
	"context"
	"errors"
)

// WriteAt writes p. Blocks that are written whole are never fetched.
func (c *content) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := c.failure(); err != nil {
		return err
	}
	if err := c.room(off, int64(len(p))); err != nil {
		return err
	}
	if err := c.checkWrite(off, int64(len(p))); err != nil {
		return err
	}
	o := c.enterGuest()
	if o == nil {
		return c.written(ctx, fua, c.data.WriteAt(p, off))
	}
	defer o.leave()
	first, end := blocksOf(off, int64(len(p)))
	if o.present.all(first, end) {
		o.unfetch(first, end)
		err := c.data.WriteAt(p, off)
		o.touch(first, end)
		return c.written(ctx, fua, err)
	}
	if err := c.completeEdges(ctx, o, off, int64(len(p))); err != nil {
		return err
	}
	unlock := o.locks.lock(first, end)
	o.unfetch(first, end)
	err := c.writeLocked(o, p, off, first, end)
	unlock()
	return c.written(ctx, fua, err)
}

// writeLocked writes a range in which blocks may be absent, and marks them.
func (c *content) writeLocked(o *overlay, p []byte, off, first, end int64) error {
	if o.present.none(first, end) && isZero(p) {
		o.mark(first, end) // a hole already
		return nil
	}
	if err := c.data.WriteAt(p, off); err != nil {
		return errors.Join(err, c.emptyAbsent(o, first, end))
	}
	o.mark(first, end)
	return nil
}

// emptyAbsent removes what a write that failed left in absent blocks.
func (c *content) emptyAbsent(o *overlay, first, end int64) error {
	for first = o.present.next(first, end, false); first < end; {
		stop := o.present.next(first, end, true)
		if err := c.data.PunchHole(first*blockSize, (stop-first)*blockSize); err != nil {
			return c.fail("clean up a failed write of", err)
		}
		first = o.present.next(stop, end, false)
	}
	return nil
}

// Discard makes the range read as zeroes and gives its space back. Absent blocks become present and empty.
func (c *content) Discard(ctx context.Context, off, n int64, fua bool) error {
	return c.clearRange(ctx, off, n, fua, c.data.PunchHole)
}

// Zero makes the range read as zeroes; with keep its space stays allocated.
func (c *content) Zero(ctx context.Context, off, n int64, keep, fua bool) error {
	if keep {
		if err := c.room(off, n); err != nil {
			return err
		}
		return c.clearRange(ctx, off, n, fua, c.data.ZeroRange)
	}
	return c.clearRange(ctx, off, n, fua, c.data.PunchHole)
}

func (c *content) clearRange(ctx context.Context, off, n int64, fua bool, do func(off, n int64) error) error {
	if err := c.failure(); err != nil {
		return err
	}
	if err := c.checkWrite(off, n); err != nil {
		return err
	}
	o := c.enterGuest()
	if o == nil {
		return c.written(ctx, fua, do(off, n))
	}
	defer o.leave()
	first, end := blocksOf(off, n)
	if o.present.all(first, end) {
		o.unfetch(first, end)
		err := do(off, n)
		o.touch(first, end)
		return c.written(ctx, fua, err)
	}
	if err := c.completeEdges(ctx, o, off, n); err != nil {
		return err
	}
	unlock := o.locks.lock(first, end)
	o.unfetch(first, end)
	err := do(off, n)
	if err == nil {
		o.mark(first, end)
	}
	unlock()
	return c.written(ctx, fua, err)
}

// completeEdges makes the first and the last block of the range present where the range covers them in part only.
func (c *content) completeEdges(ctx context.Context, o *overlay, off, n int64) error {
	first, end := blocksOf(off, n)
	if off%blockSize != 0 {
		if err := c.copyUp(ctx, o, first); err != nil {
			return err
		}
	}
	if (off+n)%blockSize != 0 && (end-1 != first || off%blockSize == 0) {
		return c.copyUp(ctx, o, end-1)
	}
	return nil
}

// copyUp makes one block present with the content it has in the composed view.
func (c *content) copyUp(ctx context.Context, o *overlay, block int64) error {
	if o.present.get(block) {
		return nil
	}
	if src := o.src.Load(); src != nil {
		if err := c.materialize(ctx, o, src, block, block+1, guestClass); err != nil {
			return err
		}
	}
	if o.present.get(block) {
		return nil
	}
	buf := make([]byte, blockSize)
	if err := c.readBase(ctx, buf, block*blockSize); err != nil {
		return err
	}
	return c.keep(o, block, buf)
}

// keep stores blocks that were read from elsewhere, except those that became present meanwhile: whatever made them so is newer.
// Blocks of zeroes are marked and not written.
func (c *content) keep(o *overlay, first int64, data []byte) error {
	return c.keepFrom(o, first, data, nil)
}

// keepFrom is keep that remembers in from which blocks it stored.
func (c *content) keepFrom(o *overlay, first int64, data []byte, from *bitmap) error {
	end := first + int64(len(data))/blockSize
	unlock := o.locks.lock(first, end)
	defer unlock()
	for b := o.present.next(first, end, false); b < end; {
		stop := o.present.next(b, end, true)
		if err := c.keepRun(o, b, data[(b-first)*blockSize:(stop-first)*blockSize], from); err != nil {
			return err
		}
		b = o.present.next(stop, end, false)
	}
	return nil
}

// keepRun stores absent blocks, run by run of what is not zeroes.
func (c *content) keepRun(o *overlay, first int64, data []byte, from *bitmap) error {
	n := int64(len(data)) / blockSize
	for b := int64(0); b < n; {
		zero := isZero(data[b*blockSize : (b+1)*blockSize])
		stop := b + 1
		for stop < n && isZero(data[stop*blockSize:(stop+1)*blockSize]) == zero {
			stop++
		}
		if !zero {
			if !c.space.take((stop - b) * blockSize) {
				return ioError(c.name, "fill", c.space.errFloor())
			}
			err := c.data.Fill(data[b*blockSize:stop*blockSize], (first+b)*blockSize)
			c.dirty.Store(true)
			if err != nil {
				return errors.Join(ioError(c.name, "fill", err), c.emptyAbsent(o, first+b, first+stop))
			}
		}
		if from != nil { // before anybody can write there without the lock, and say so
			from.set(first+b, first+stop)
		}
		o.mark(first+b, first+stop)
		b = stop
	}
	return nil
}

// zeroBlock is never written to.
var zeroBlock [blockSize]byte

// isZero reports whether p is zeroes only.
func isZero(p []byte) bool {
	for ; len(p) > blockSize; p = p[blockSize:] {
		if !bytes.Equal(p[:blockSize], zeroBlock[:]) {
			return false
		}
	}
	return bytes.Equal(p, zeroBlock[:len(p)])
}
