package volume

import (
	"context"

	"drover"
	"drover/nbd"
)

// maxExtents bounds one answer: 64 KiB on the wire.
const maxExtents = 8192

// extentList collects extents and merges neighbours of one kind.
type extentList []nbd.Extent

func (l *extentList) add(n int64, flags uint32) {
	if last := len(*l) - 1; last >= 0 && (*l)[last].Flags == flags {
		(*l)[last].Length += n
		return
	}
	*l = append(*l, nbd.Extent{Length: n, Flags: flags})
}

func (l *extentList) full() bool { return len(*l) >= maxExtents }

// extents describes the composed view.
func (c *content) extents(ctx context.Context, metaContext string, off, n int64) ([]nbd.Extent, error) {
	return c.extentsSince(ctx, nil, metaContext, off, n)
}

// extentsSince is extents for a reader that has a copy of a content that lies below: what is there and below counts as not present. With
// nil, and with one that does not lie below, that is so of an image only.
func (c *content) extentsSince(ctx context.Context, since *content, metaContext string, off, n int64) ([]nbd.Extent, error) {
	var out extentList
	switch metaContext {
	case nbd.ContextPresent, nbd.ContextAllocation, nbd.ContextSum:
		err := c.describe(ctx, &out, since, metaContext, off, off+n)
		return out, err
	}
	return nil, drover.Errorf(drover.Invalid, "unknown metadata context %q", metaContext)
}

// describe adds what the content and those below it say of a range. It may stop short when the list is full.
func (c *content) describe(ctx context.Context, out *extentList, since *content, metaContext string, off, end int64) error {
	o := c.enter()
	defer o.leave()
	var src *source
	if o != nil {
		src = o.src.Load()
	}
	if src != nil {
		first, stop := blocksOf(off, end-off)
		err := c.forGuest(ctx, src, first, func(ctx context.Context) error { return c.learn(ctx, o, src, first, stop, guestClass) })
		if err != nil {
			return err
		}
	}
	for off < end && !out.full() {
		from, stop := c.originOf(o, src, off, end)
		var err error
		switch {
		case from == fromBase:
			err = c.describeBase(ctx, out, since, metaContext, off, stop)
		case metaContext == nbd.ContextPresent:
			out.add(stop-off, nbd.FlagPresent)
		case metaContext == nbd.ContextSum && from == fromParent:
			out.add(stop-off, unknownSum)
		case metaContext == nbd.ContextSum:
			stop, err = c.dataSums(ctx, out, off, stop)
		case from == fromParent:
			out.add(stop-off, 0)
		default:
			err = c.dataExtents(out, off, stop)
		}
		if err != nil {
			return err
		}
		off = stop
	}
	return nil
}

// describeBase is describe for what the content does not have itself. An image is present in no layer, since other hosts have it too, and
// neither is what lies beyond the base's end.
func (c *content) describeBase(ctx context.Context, out *extentList, since *content, metaContext string, off, end int64) error {
	under, err := c.useUnder()
	if err != nil {
		return err
	}
	inBase := off
	if under != nil {
		defer under.release()
		inBase = max(off, min(end, under.size))
	}
	if inBase > off {
		if metaContext == nbd.ContextPresent && (under.image || under == since) {
			out.add(inBase-off, 0)
		} else if err := under.describe(ctx, out, since, metaContext, off, inBase); err != nil {
			return err
		}
	}
	if inBase < end && !out.full() {
		flags := uint32(0) // neither present nor with a checksum
		if metaContext == nbd.ContextAllocation {
			flags = nbd.FlagHole | nbd.FlagZero
		}
		out.add(end-inBase, flags)
	}
	return nil
}

// origin is where a run of blocks comes from.
type origin int

const (
	fromData origin = iota
	fromParent
	fromBase
)

// originOf returns where the byte at off comes from, and up to where that is so.
func (c *content) originOf(o *overlay, src *source, off, end int64) (origin, int64) {
	if o == nil {
		return fromData, end
	}
	first, last := blocksOf(off, end-off)
	present := o.present.get(first)
	stop := o.present.next(first, last, !present)
	from := fromBase
	if present {
		from = fromData
	} else if src != nil {
		var yes bool
		if yes, stop = src.wants(first, stop); yes {
			from = fromParent
		}
	}
	return from, min(end, stop*blockSize)
}

// dataExtents describes the layer's own file. It may stop short when the list is full.
func (c *content) dataExtents(out *extentList, off, end int64) error {
	for off < end && !out.full() {
		start, stop, err := c.data.NextData(off, end)
		if err != nil {
			return ioError(c.name, "examine", err)
		}
		if start > off {
			out.add(start-off, nbd.FlagHole|nbd.FlagZero)
		}
		if stop > start {
			out.add(stop-start, 0)
		}
		off = stop
	}
	return nil
}

// dataSums describes the sums of the layer's own file, up to the offset that it returns. Those that are not kept are computed from what
// the file holds.
func (c *content) dataSums(ctx context.Context, out *extentList, off, end int64) (int64, error) {
	for off < end && !out.full() {
		start, stop, err := c.data.NextData(off, end)
		if err != nil {
			return off, ioError(c.name, "examine", err)
		}
		start = start / blockSize * blockSize
		if start > off {
			out.add(start-off, unknownSum)
		}
		for off = max(off, start); off < stop && !out.full(); off += min(blockSize-off%blockSize, end-off) {
			sum, err := c.blockSum(off / blockSize)
			if err != nil {
				return off, err
			}
			out.add(min(blockSize-off%blockSize, end-off), sum)
			if ctx.Err() != nil {
				return off, context.Cause(ctx)
			}
		}
	}
	return off, nil
}

// blockSum is the kept checksum of a present block, or that of what the file holds.
func (c *content) blockSum(block int64) (uint32, error) {
	if sum := c.sums.get(block); sum != unknownSum {
		return sum, nil
	}
	p := make([]byte, blockSize)
	if c.sums == nil {
		err := c.data.ReadAt(p, block*blockSize)
		return sumOf(p), ioError(c.name, "read", err)
	}
	return c.learnSum(block, p)
}

// learnSum computes the sum of a block while nobody writes it, and keeps it.
func (c *content) learnSum(block int64, p []byte) (uint32, error) {
	c.sums.lock(block, block+1)
	defer c.sums.unlock(block, block+1)
	if err := c.data.ReadAt(p, block*blockSize); err != nil {
		return unknownSum, ioError(c.name, "read", err)
	}
	sum := sumOf(p)
	if c.sums.get(block) == unknownSum {
		c.sums.put(block, sum)
	}
	return sum, nil
}
