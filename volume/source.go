package volume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/nbd"
)

// class tells who waits for the parent. The guest goes first, over a connection of its own.
type class int

const (
	guestClass class = iota
	hydrationClass
)

// reader is a parent that can be asked. A call waits while the parent cannot be reached, until its context ends.
type reader interface {
	read(ctx context.Context, who class, p []byte, off int64) error
	extents(ctx context.Context, who class, metaContext string, off, n int64) ([]nbd.Extent, error)
	// trouble says why the parent does not answer now, empty when it does.
	trouble() string
}

const (
	// chunkBlocks is how much of a layer is asked about at once: 256 MiB, for which the answer takes 8 KiB of memory.
	chunkBlocks = 64 << 10
	// maxFetch bounds one request to the parent, in blocks.
	maxFetch = 256
	// guestFetches bounds how many requests to the parent one request of a guest makes at the same time.
	guestFetches = 4
)

// source is what a layer knows of its parent: which blocks it must get from there, and what is on its way.
type source struct {
	from reader
	// based: absent blocks that the parent does not have itself come from the layer's base.
	based bool
	// blocks is the parent's size. The layer may be larger.
	blocks int64
	// wait bounds how long a guest waits for the parent.
	wait   time.Duration
	budget *budget
	chunks []chunk
	flying flying
	copied atomic.Int64
	rate   meter
	// waiting counts requests of guests that wait for the parent now.
	waiting atomic.Int64
}

func newSource(from reader, size int64, based bool, wait time.Duration, b *budget) *source {
	blocks := size / blockSize
	return &source{from: from, based: based, blocks: blocks, wait: wait, budget: b,
		chunks: make([]chunk, (blocks+chunkBlocks-1)/chunkBlocks)}
}

// chunk is what is known of one part of the layer.
type chunk struct {
	mu sync.Mutex
	// asking is closed when the one who asks the parent has ended; nil when nobody asks.
	asking chan struct{}
	// want has the blocks to be got from the parent; nil while that is not known, and nothing in it once all are present. It is
	// never changed, only replaced.
	want atomic.Pointer[bitmap]
	// total is how many blocks the parent has.
	total int64
}

// bounds returns the blocks of chunk i.
func (s *source) bounds(i int64) (first, end int64) {
	return i * chunkBlocks, min((i+1)*chunkBlocks, s.blocks)
}

// wants reports whether the block comes from the parent, and how far, up to stop, that is so. The chunks must be known.
func (s *source) wants(block, stop int64) (bool, int64) {
	if block >= s.blocks {
		return false, stop // beyond the parent's end
	}
	stop = min(stop, s.blocks)
	yes, at := false, block
	for first := true; at < stop; first = false {
		low, high := s.bounds(at / chunkBlocks)
		want := s.chunks[at/chunkBlocks].want.Load()
		if want == nil {
			return true, at + 1 // not known: never answer for the parent
		}
		has := want.n > 0 && want.get(at-low)
		if first {
			yes = has
		}
		if has != yes {
			break
		}
		end := min(stop, high)
		if want.n > 0 {
			end = low + want.next(at-low, end-low, !yes)
		}
		if at = end; at < min(stop, high) {
			break
		}
	}
	return yes, at
}

// read asks the parent for bytes that are not kept.
func (s *source) read(ctx context.Context, who class, p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), maxFetch*blockSize)
		if err := s.from.read(ctx, who, p[:n], off); err != nil {
			return err
		}
		s.count(int64(n))
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (s *source) count(n int64) {
	s.copied.Add(n)
	s.rate.add(n)
}

// learn makes the parent's share known for the chunks in which blocks of [first, end) are absent.
func (c *content) learn(ctx context.Context, o *overlay, src *source, first, end int64, who class) error {
	end = min(end, src.blocks)
	for b := o.present.next(first, end, false); b < end; {
		i := b / chunkBlocks
		if err := c.learnChunk(ctx, o, src, i, who); err != nil {
			return err
		}
		_, high := src.bounds(i)
		b = o.present.next(min(high, end), end, false)
	}
	return nil
}

func (c *content) learnChunk(ctx context.Context, o *overlay, src *source, i int64, who class) error {
	ch := &src.chunks[i]
	for ch.want.Load() == nil {
		ch.mu.Lock()
		asking := ch.asking
		if asking == nil {
			ch.asking = make(chan struct{})
		}
		ch.mu.Unlock()
		if asking != nil {
			select {
			case <-asking:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := c.askChunk(ctx, o, src, i, who)
		ch.mu.Lock()
		close(ch.asking)
		ch.asking = nil
		ch.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// askChunk asks the parent what it has of a chunk. What is empty there is marked as present at once.
func (c *content) askChunk(ctx context.Context, o *overlay, src *source, i int64, who class) error {
	if src.chunks[i].want.Load() != nil {
		return nil
	}
	first, end := src.bounds(i)
	data, err := src.ask(ctx, who, nbd.ContextAllocation, first, end, func(flags uint32) bool { return flags&nbd.FlagZero == 0 })
	if err != nil {
		return err
	}
	own, want := (*bitmap)(nil), data
	if src.based {
		own, err = src.ask(ctx, who, nbd.ContextPresent, first, end, func(flags uint32) bool { return flags&nbd.FlagPresent != 0 })
		if err != nil {
			return err
		}
		want = newBitmap(end - first)
		for w := range want.words {
			want.words[w] = own.words[w] & data.words[w]
		}
	}
	c.markEmpty(o, first, own, data)
	src.chunks[i].total = want.count(0, want.n)
	if src.chunks[i].total == 0 {
		want = new(bitmap)
	}
	src.chunks[i].want.Store(want)
	return nil
}

// markEmpty marks the blocks of a chunk that the parent has (all of them if own is nil) and that hold no data.
func (c *content) markEmpty(o *overlay, low int64, own, data *bitmap) {
	for b := data.next(0, data.n, false); b < data.n; {
		stop := data.next(b, data.n, true)
		if own != nil {
			if b = own.next(b, stop, true); b < stop {
				stop = own.next(b, stop, false)
			}
		}
		if b < stop && !o.present.all(low+b, low+stop) {
			unlock := o.locks.lock(low+b, low+stop)
			o.mark(low+b, low+stop)
			unlock()
		}
		b = data.next(stop, data.n, false)
	}
}

// ask returns the blocks of [first, end) of which any part has what yes looks for.
func (s *source) ask(ctx context.Context, who class, metaContext string, first, end int64, yes func(flags uint32) bool) (*bitmap, error) {
	out := newBitmap(end - first)
	for off, stop := first*blockSize, end*blockSize; off < stop; {
		extents, err := s.from.extents(ctx, who, metaContext, off, stop-off)
		if err != nil {
			return nil, err
		}
		before := off
		for _, e := range extents {
			n := min(e.Length, stop-off)
			if n > 0 && yes(e.Flags) {
				b, bend := blocksOf(off, n)
				out.set(b-first, bend-first)
			}
			off += max(n, 0)
		}
		if off == before {
			return nil, drover.Errorf(drover.Internal, "the parent described nothing of %s at offset %d", metaContext, off)
		}
	}
	return out, nil
}

// materialize makes every block of [first, end) present that comes from the parent. For a guest it waits at most src.wait.
func (c *content) materialize(ctx context.Context, o *overlay, src *source, first, end int64, who class) error {
	if who == hydrationClass {
		return c.fetchAbsent(ctx, o, src, first, end, who)
	}
	return c.forGuest(ctx, src, first, func(ctx context.Context) error {
		return c.fetchAbsent(ctx, o, src, first, end, who)
	})
}

// forGuest does what needs the parent, within the time that a guest waits for it, and says why when that was not enough.
func (c *content) forGuest(ctx context.Context, src *source, first int64, do func(context.Context) error) error {
	src.waiting.Add(1)
	defer src.waiting.Add(-1)
	ctx, cancel := context.WithTimeoutCause(ctx, src.wait, drover.Errorf(drover.Unavailable, "the parent did not answer for %v", src.wait))
	defer cancel()
	err := do(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	why := src.from.trouble()
	if why == "" {
		why = context.Cause(ctx).Error()
	}
	return drover.Errorf(drover.Unavailable, "cannot read block %d of layer %s, which is not here yet: %s", first, c.name, why)
}

// fetchAbsent gets what is wanted of [first, end), several runs at the same time.
func (c *content) fetchAbsent(ctx context.Context, o *overlay, src *source, first, end int64, who class) error {
	if err := c.learn(ctx, o, src, first, end, who); err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(guestFetches)
	for {
		b, stop := src.nextWanted(o, first, end)
		if b >= end {
			break
		}
		first = stop
		if stop == end { // the last one, most often the only one, needs no goroutine of its own
			err := c.fetchRun(gctx, o, src, b, stop, who)
			if werr := group.Wait(); werr != nil {
				return werr
			}
			return err
		}
		group.Go(func() error { return c.fetchRun(gctx, o, src, b, stop, who) })
	}
	return group.Wait()
}

// nextWanted returns the next run of [first, end) that is absent and comes from the parent, maxFetch blocks at most.
func (s *source) nextWanted(o *overlay, first, end int64) (b, stop int64) {
	for b = o.present.next(first, end, false); b < end; {
		stop = o.present.next(b, min(end, b+maxFetch), true)
		yes, to := s.wants(b, stop)
		if yes {
			return b, to
		}
		b = o.present.next(to, end, false)
	}
	return end, end
}

// fetchRun gets the blocks of a run that are still absent. What somebody else is getting is waited for.
func (c *content) fetchRun(ctx context.Context, o *overlay, src *source, first, end int64, who class) error {
	for b := o.present.next(first, end, false); b < end; b = o.present.next(b, end, false) {
		f, mine := src.flying.claim(b, o.present.next(b, end, true))
		if !mine {
			select {
			case <-f.done:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		err := c.fetch(ctx, o, src, f, who)
		src.flying.land(f)
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch gets the first absent run of what was claimed and keeps it. Others may have got any part of it between the look at the map and
// the claim; whoever claimed looks again for what is left.
func (c *content) fetch(ctx context.Context, o *overlay, src *source, f *flight, who class) error {
	first := o.present.next(f.first, f.end, false)
	if first == f.end {
		return nil
	}
	end := o.present.next(first, f.end, true)
	return c.fetchPart(ctx, o, src, first, end, who)
}

// fetchPart gets blocks and keeps them. Of what the parent refuses it gets the halves, so that one block that is damaged there keeps back
// no other.
func (c *content) fetchPart(ctx context.Context, o *overlay, src *source, first, end int64, who class) error {
	err := c.fetchBlocks(ctx, o, src, first, end, who)
	var no *refused
	if end-first == 1 || !errors.As(err, &no) {
		return err
	}
	middle := first + (end-first)/2
	err = c.fetchPart(ctx, o, src, first, middle, who)
	if err != nil && !errors.As(err, &no) {
		return err
	}
	if after := c.fetchPart(ctx, o, src, middle, end, who); err == nil || after != nil && !errors.As(after, &no) {
		return after
	}
	return err
}

func (c *content) fetchBlocks(ctx context.Context, o *overlay, src *source, first, end int64, who class) error {
	buf, err := src.budget.take(ctx, int(end-first)*blockSize, who)
	if err != nil {
		return err
	}
	defer src.budget.give(buf, who)
	if err := src.from.read(ctx, who, buf, first*blockSize); err != nil {
		return err
	}
	src.count(int64(len(buf)))
	return c.keep(o, first, buf)
}
