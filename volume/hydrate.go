package volume

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
)

const (
	// While the guest reads, a few small requests of a layer's hydration are in flight, with a rest before each: what one takes
	// of the processors, of the link and of the disk is what a read of the guest may have to wait for.
	politeWorkers = 2
	politeFetch   = 4 // blocks
	// While it writes and does not read, requests are small enough that a flush of the guest has little to wait for, and that is all: one that
	// writes all day must get its data, too.
	modestWorkers = 2
	modestFetch   = 32 // blocks
	// What is on its way when a process is killed is fetched again. So that this stays small beside the whole, a request of a small layer
	// is no larger than this part of it, or this many blocks.
	largestPart = 512
	minLargest  = 64
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
	c    *content
	o    *overlay
	src  *source
	pace *pace
	// checkpoint is called after a flush, with everything that was fetched before being durable.
	checkpoint func() error

	cursor    int64
	fetchSize atomic.Int64
	arrived   atomic.Int64 // since it was looked at last
	// refusal is why the parent does not give something; nil while it gives all.
	refusal atomic.Pointer[string]

	behind   behind
	unsynced atomic.Int64
	full     chan struct{}
}

// hydrate returns nil when every block that the parent has is present, durably. It goes on through trouble with the parent;
// an error is one of this host, or of the context.
func (c *content) hydrate(ctx context.Context, pace *pace, checkpoint func() error) error {
	o := c.enter()
	if o == nil {
		return nil
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil {
		return nil
	}
	h := &hydration{c: c, o: o, src: src, pace: pace, checkpoint: checkpoint, full: make(chan struct{}, 1), behind: behind{c: c}}
	h.fetchSize.Store(fetchStart)
	if err := h.learnAll(ctx); err != nil {
		return err
	}
	if writtenOff(src.from) {
		if err := h.awaitOverwritten(ctx); err != nil {
			return err
		}
	} else if err := h.copyAll(ctx); err != nil {
		return err
	}
	if err := c.Flush(ctx); err != nil {
		return err
	}
	c.faults.Hit("volume.hydrate.copied")
	if err := h.verify(ctx); err != nil {
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
		group.Go(func() error {
			if err := h.pace.ready(ctx); err != nil {
				return err
			}
			return h.pace.ask(func() error { return h.c.learnChunk(ctx, h.o, h.src, i, hydrationClass) })
		})
	}
	return group.Wait()
}

// copyAll fetches what is wanted and absent. What the parent refuses is left over and asked for again, for as long as it takes: it may be
// repaired, or overwritten by the guest.
func (h *hydration) copyAll(ctx context.Context) error {
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		h.refusal.Store(nil)
		h.cursor = 0
		if err := h.pass(ctx); err != nil {
			return err
		}
		h.pace.refusal.Store(h.refusal.Load())
		if h.refusal.Load() == nil {
			return nil
		}
		if err := waitFor(ctx, nil, pause); err != nil {
			return err
		}
	}
}

// pass goes through the layer once.
func (h *hydration) pass(ctx context.Context) error {
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
	err := h.dispatch(ctx)
	close(stop)
	if serr := <-synced; serr != nil {
		return serr
	}
	return err
}

// dispatch hands out runs until the end of the layer, as many at a time as is good.
func (h *hydration) dispatch(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	tuning := tuner{window: startWindow}
	places := newSlots(startWindow)
	most := func() int { return h.manner().workers }
	begun, polite := time.Now(), false
	pause := rest{interval: restMost}
	for h.yield(gctx) == nil && places.enter(gctx, most) == nil {
		manner := h.manner()
		if manner.rests && pause.wait(gctx) != nil {
			places.leave()
			break
		}
		first, end := h.next()
		if first == end || h.pace.take(gctx, (end-first)*blockSize) != nil {
			places.leave()
			break
		}
		group.Go(func() error {
			defer places.leave()
			return h.copyRun(gctx, first, end)
		})
		polite = polite || manner.workers != maxWindow
		if took := time.Since(begun); took >= tuneEvery {
			if bytes := h.arrived.Swap(0); !polite {
				tuning.next(float64(bytes) / took.Seconds())
				places.set(tuning.window)
			}
			begun, polite = time.Now(), false
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// manner is how the copy goes beside what the guest does.
type manner struct {
	workers int
	largest int64 // blocks of a request
	rests   bool
}

func (h *hydration) manner() manner {
	switch {
	case h.o.reading.within(guestBusy):
		return manner{workers: politeWorkers, largest: politeFetch, rests: true}
	case h.o.guest.within(guestBusy), h.o.flushing.Load() > 0, h.o.expected.Load():
		return manner{workers: modestWorkers, largest: modestFetch}
	}
	return manner{workers: maxWindow, largest: maxFetch}
}

// copyRun fetches one run.
func (h *hydration) copyRun(ctx context.Context, first, end int64) error {
	begun, n := time.Now(), (end-first)*blockSize
	err := h.pace.ask(func() error { return h.c.fetchRun(ctx, h.o, h.src, first, end, hydrationClass) })
	var no *refused
	if errors.As(err, &no) {
		text := no.Error()
		h.refusal.Store(&text)
		return nil
	}
	if err != nil {
		return err
	}
	h.adapt(time.Since(begun), end-first)
	h.arrived.Add(n)
	if err := h.pace.ask(func() error { return h.behind.wrote(ctx, first*blockSize, n) }); err != nil {
		return err
	}
	if h.unsynced.Add(n) >= checkpointBytes {
		select {
		case h.full <- struct{}{}:
		default:
		}
	}
	return nil
}

// next chooses the next run.
func (h *hydration) next() (first, end int64) {
	size := min(h.fetchSize.Load(), h.pace.most(), max(minLargest, h.src.blocks/largestPart))
	size = min(size, h.manner().largest)
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

// yield waits while the copy is paused, and lets the guest go first: nothing new is fetched while a guest waits for the parent. That wait
// is bounded, so that a guest that never rests slows hydration down and does not stop it.
func (h *hydration) yield(ctx context.Context) error {
	const step, most = 2 * time.Millisecond, 25
	if err := h.pace.ready(ctx); err != nil {
		return err
	}
	for i := 0; i < most && h.src.waiting.Load() > 0; i++ {
		if err := waitFor(ctx, nil, step); err != nil {
			return err
		}
	}
	return ctx.Err()
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
