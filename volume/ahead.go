package volume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// aheadStreams is how many places a guest may read at in sequence at the same time.
	aheadStreams = 4
	// aheadPiece is the size of one request ahead, in blocks: small, because a guest may wait behind it for a block of it. aheadFetches
	// is how many are in flight.
	aheadPiece   = 16
	aheadFetches = 4
	// aheadMin is how far is read ahead of a read that had to wait, which may be one of many at random; aheadMost of one that goes on
	// where others ended.
	aheadMin  = 4
	aheadMost = 512
	// aheadYield is how long what lies behind a single read waits. A guest that waits for the parent again by then reads at random.
	aheadYield = time.Millisecond
)

// ahead fetches what a guest is likely to read next: what lies behind a read that had to wait for the parent, and more, and more again, as
// long as the guest goes on there. It has a connection of its own; what lies behind a single read is left alone when a guest waits for the
// parent again.
type ahead struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// may asks for leave to fetch n bytes now; nil for always. It is set when a layer takes the content.
	may atomic.Pointer[func(n int64) bool]

	mu       sync.Mutex
	streams  [aheadStreams]stream
	turn     uint64
	fetching int
	stopped  bool
}

// stream is one sequence of reads.
type stream struct {
	// next is the block behind the last read.
	next int64
	// window is how far is read ahead. What is left of it to be fetched is [from, to).
	window, from, to int64
	used             uint64
}

func (a *ahead) init() { a.ctx, a.cancel = context.WithCancel(context.Background()) }

// note takes a read of a guest, missed if it had to wait, and begins what follows from it.
func (a *ahead) note(c *content, first, end int64, missed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.planLocked(first, end, missed) || a.stopped || a.fetching >= aheadFetches {
		return
	}
	a.fetching++
	a.wg.Go(func() { a.run(c) })
}

// planLocked chooses what to fetch, and reports whether there is anything new.
func (a *ahead) planLocked(first, end int64, missed bool) bool {
	a.turn++
	oldest := &a.streams[0]
	for i := range a.streams {
		s := &a.streams[i]
		if s.used != 0 && s.next == first {
			s.next, s.used = end, a.turn
			if s.to-end > s.window/2 { // far enough ahead
				return false
			}
			s.window = min(2*s.window, aheadMost)
			s.from, s.to = max(s.from, end), end+s.window
			return true
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	if !missed {
		return false
	}
	// The sequence that was not gone on with for the longest time is given up, and what was left of it is not fetched.
	*oldest = stream{next: end, window: aheadMin, from: end, to: end + aheadMin, used: a.turn}
	return true
}

// piece takes the next piece of the newest sequence that has one.
func (a *ahead) piece() (first, end int64, single bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var newest *stream
	for i := range a.streams {
		if s := &a.streams[i]; s.from < s.to && (newest == nil || s.used > newest.used) {
			newest = s
		}
	}
	if newest == nil || a.stopped {
		a.fetching--
		return 0, 0, false
	}
	first = newest.from
	newest.from = min(first+aheadPiece, newest.to)
	return first, newest.from, newest.window == aheadMin
}

// run fetches pieces until there are none.
func (a *ahead) run(c *content) {
	for first, end, single := a.piece(); first < end; first, end, single = a.piece() {
		if a.worthOneMore() {
			a.wg.Go(func() { a.run(c) })
		}
		// An error is met again by whoever needs the block.
		_ = a.fetch(c, first, end, single)
	}
}

// worthOneMore reports whether another goroutine is to help.
func (a *ahead) worthOneMore() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || a.fetching >= aheadFetches {
		return false
	}
	for i := range a.streams {
		if a.streams[i].from < a.streams[i].to {
			a.fetching++
			return true
		}
	}
	return false
}

// fetch gets what is absent of a piece, as far as the parent's share is known.
func (a *ahead) fetch(c *content, first, end int64, single bool) error {
	o := c.enter()
	if o == nil {
		return nil
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil || first >= src.blocks {
		return nil
	}
	end = min(end, src.blocks)
	if single {
		if err := waitFor(a.ctx, nil, aheadYield); err != nil || src.waiting.Load() > 0 {
			return err
		}
	}
	for first < end {
		if _, high := src.bounds(first / chunkBlocks); src.chunks[first/chunkBlocks].want.Load() == nil {
			first = high
			continue
		}
		b, stop := src.nextWanted(o, first, end)
		if may := a.may.Load(); b >= end || may != nil && !(*may)((stop-b)*blockSize) {
			return nil
		}
		if err := c.fetchRun(a.ctx, o, src, b, stop, aheadClass); err != nil {
			return err
		}
		first = stop
	}
	return nil
}

// stop ends it and waits.
func (a *ahead) stop() {
	a.mu.Lock()
	a.stopped = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}

// noteRead tells the source of a guest's read.
func (c *content) noteRead(ctx context.Context, src *source, first, end int64, missed bool) {
	if readerOf(ctx) == guestReader {
		src.ahead.note(c, first, end, missed)
	}
}

// stopAhead ends what is fetched ahead; nothing is begun any more.
func (c *content) stopAhead() {
	o := c.enter()
	if o == nil {
		return
	}
	defer o.leave()
	if src := o.src.Load(); src != nil {
		src.ahead.stop()
	}
}
