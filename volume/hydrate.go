package volume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"drover"
)

const (
	// hydrationWorkers is how many requests of one layer's hydration are in flight.
	hydrationWorkers = 8
	// politeWorkers is how many are while the guest is at work.
	politeWorkers = 2
	politeFetch   = 32 // blocks
	// A request grows while answers are fast and shrinks when they are slow, so that a thin link carries several in a second.
	fetchStart = 64
	fetchMin   = 4
	fetchFast  = 300 * time.Millisecond
	fetchSlow  = 2 * time.Second
	// checkpointBytes and checkpointTime bound what is fetched again after a crash.
	checkpointBytes = 256 << 20
	checkpointTime  = 5 * time.Second
	// learners is how many parts of the layer are asked about at the same time.
	learners = 4
	// guestBusy is how long after a request a guest counts as at work.
	guestBusy = 50 * time.Millisecond
)

// hydration copies what a layer needs of its parent, in the background.
type hydration struct {
	c   *content
	o   *overlay
	src *source
	// limit is in bytes per second.
	limit *rate.Limiter
	// checkpoint is called after a flush, with everything that was fetched before being durable.
	checkpoint func() error

	cursorMu sync.Mutex
	cursor   int64

	fetchSize atomic.Int64
	unsynced  atomic.Int64
	full      chan struct{}
}

// hydrate returns nil when every block that the parent has is present, durably. It goes on through trouble with the parent;
// an error is one of this host, or of the context.
func (c *content) hydrate(ctx context.Context, limit *rate.Limiter, checkpoint func() error) error {
	o := c.enter()
	if o == nil {
		return nil
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil {
		return nil
	}
	h := &hydration{c: c, o: o, src: src, limit: limit, checkpoint: checkpoint, full: make(chan struct{}, 1)}
	h.fetchSize.Store(fetchStart)
	if err := h.learnAll(ctx); err != nil {
		return err
	}
	if err := h.copyAll(ctx); err != nil {
		return err
	}
	if err := c.Flush(ctx); err != nil {
		return err
	}
	src.forget()
	return nil
}

// learnAll makes known what the parent has of the whole layer, so that totals are exact before much is copied.
func (h *hydration) learnAll(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(learners)
	for i := range int64(len(h.src.chunks)) {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return h.c.learnChunk(ctx, h.o, h.src, i, hydrationClass) })
	}
	return group.Wait()
}

// copyAll fetches what is wanted and absent.
func (h *hydration) copyAll(ctx context.Context) error {
	stop := make(chan struct{})
	synced := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		err := h.syncLoop(ctx, stop)
		if err != nil {
			cancel(err)
		}
		synced <- err
	}()
	group, gctx := errgroup.WithContext(ctx)
	for i := range hydrationWorkers {
		group.Go(func() error { return h.work(gctx, i) })
	}
	err := group.Wait()
	close(stop)
	if serr := <-synced; serr != nil {
		return serr
	}
	return err
}

// work is one worker.
func (h *hydration) work(ctx context.Context, index int) error {
	for {
		if err := h.yield(ctx, index); err != nil {
			return err
		}
		first, end := h.next()
		if first == end {
			return nil
		}
		n := int(end-first) * blockSize
		if err := h.throttle(ctx, n); err != nil {
			return err
		}
		begun := time.Now()
		if err := h.c.fetchRun(ctx, h.o, h.src, first, end, hydrationClass); err != nil {
			return err
		}
		h.adapt(time.Since(begun), end-first)
		h.c.data.Writeback(first*blockSize, int64(n))
		if h.unsynced.Add(int64(n)) >= checkpointBytes {
			select {
			case h.full <- struct{}{}:
			default:
			}
		}
	}
}

// next hands out the next run.
func (h *hydration) next() (first, end int64) {
	h.cursorMu.Lock()
	defer h.cursorMu.Unlock()
	size := h.fetchSize.Load()
	if h.o.guest.within(guestBusy) {
		size = min(size, politeFetch)
	}
	first, end = h.src.nextWanted(h.o, h.cursor, h.src.blocks)
	end = min(end, first+size)
	h.cursor = end
	return first, end
}

// adapt chooses the size of the next requests by how long one took.
func (h *hydration) adapt(took time.Duration, blocks int64) {
	size := h.fetchSize.Load()
	switch {
	case took > fetchSlow:
		h.fetchSize.CompareAndSwap(size, max(fetchMin, size/2))
	case took < fetchFast && blocks >= size:
		h.fetchSize.CompareAndSwap(size, min(maxFetch, size*2))
	}
}

// yield lets the guest go first: nothing new is fetched while a guest waits for the parent, and little while a guest is at work. The
// waits are bounded, so that a guest that never rests slows hydration down and does not stop it.
func (h *hydration) yield(ctx context.Context, index int) error {
	const step, most = 2 * time.Millisecond, 25
	for i := 0; i < most; i++ {
		waits := h.src.waiting.Load() > 0
		if !waits && (index < politeWorkers || !h.o.guest.within(guestBusy)) {
			break
		}
		if err := waitFor(ctx, nil, step); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// throttle keeps to the limit.
func (h *hydration) throttle(ctx context.Context, n int) error {
	for n > 0 {
		part := n
		if b := h.limit.Burst(); h.limit.Limit() != rate.Inf && part > b {
			part = b
		}
		if err := h.limit.WaitN(ctx, part); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return drover.Errorf(drover.Internal, "cannot keep to the limit of the hydration of layer %s: %w", h.c.name, err)
		}
		n -= part
	}
	return nil
}

// syncLoop makes what was fetched durable from time to time.
func (h *hydration) syncLoop(ctx context.Context, stop <-chan struct{}) error {
	tick := time.NewTicker(checkpointTime)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-h.full:
		}
		if h.unsynced.Swap(0) == 0 {
			continue
		}
		if err := h.c.Flush(ctx); err != nil {
			return err
		}
		h.c.faults.Hit("volume.hydrate.checkpoint")
		if err := h.checkpoint(); err != nil {
			return err
		}
	}
}

// forget gives the memory of the answers back. Every block that the parent has must be present.
func (s *source) forget() {
	for i := range s.chunks {
		s.chunks[i].want.Store(new(bitmap))
	}
}

// progress is how far the copy is. known says whether the totals are complete.
func (s *source) progress(o *overlay) (total, absent drover.Bytes, known bool) {
	known = true
	for i := range s.chunks {
		want := s.chunks[i].want.Load()
		if want == nil {
			known = false
			continue
		}
		total += drover.Bytes(s.chunks[i].total * blockSize)
		if want.n == 0 {
			continue
		}
		low, _ := s.bounds(int64(i))
		for b := want.next(0, want.n, true); b < want.n; {
			stop := want.next(b, want.n, false)
			absent += drover.Bytes((stop - b - o.present.count(low+b, low+stop)) * blockSize)
			b = want.next(stop, want.n, true)
		}
	}
	return total, absent, known
}

// newLimit returns a limiter for a number of bytes per second; 0 is no limit.
func newLimit(n drover.Bytes) *rate.Limiter {
	l := rate.NewLimiter(rate.Inf, maxFetch*blockSize)
	setLimit(l, n)
	return l
}

func setLimit(l *rate.Limiter, n drover.Bytes) {
	if n == 0 {
		l.SetLimit(rate.Inf)
		return
	}
	// A quarter of a second at once, but always one small request.
	l.SetBurst(int(max(n/4, fetchMin*blockSize)))
	l.SetLimit(rate.Limit(n))
}
