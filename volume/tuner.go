package volume

import (
	"context"
	"sync"
	"time"
)

const (
	// A hydration begins with startWindow requests in flight, and never has more than maxWindow.
	startWindow = 8
	minWindow   = 2
	maxWindow   = 16
	windowStep  = 2
	// tuneEvery is how long one number of requests is measured, tuneHold for how many times that it is kept when neither more nor
	// fewer is better.
	tuneEvery = 250 * time.Millisecond
	tuneHold  = 20
	// More requests are worth it for this much more throughput, fewer as long as no more than that is lost: what more requests do not
	// make faster only waits in a queue, where a guest's read waits behind it.
	tuneGain = 0.03
)

// Bounds of the rest between two requests while the guest is at work, and how late a rest may end before it is too short.
const (
	restLeast = 500 * time.Microsecond
	restMost  = 5 * time.Millisecond
	restLate  = 100 * time.Microsecond
)

// rest is the pause between two requests while the guest is at work. It ends late when the processors have more to do than they can: the
// guest's requests then wait as well, and the next rest is longer. Where there is room it becomes shorter, step by step.
type rest struct{ interval time.Duration }

func (r *rest) wait(ctx context.Context) error {
	begun := time.Now()
	if err := waitFor(ctx, nil, r.interval); err != nil {
		return err
	}
	r.adapt(time.Since(begun) - r.interval)
	return nil
}

func (r *rest) adapt(late time.Duration) {
	if late > restLate {
		r.interval = min(r.interval*3/2, restMost)
	} else {
		r.interval = max(r.interval*19/20, restLeast)
	}
}

// tuner looks for the number of requests in flight beyond which throughput does not grow.
type tuner struct {
	window int
	// before is the number that was left to try the present one, 0 when none is tried, and rate what it achieved.
	before int
	rate   float64
	fewer  bool
	hold   int
}

// next takes what the present number achieved, and chooses the next.
func (t *tuner) next(rate float64) {
	switch {
	case t.before == 0 && t.hold > 0:
		t.hold--
	case t.before == 0, !t.fewer && rate > t.rate*(1+tuneGain), t.fewer && rate > t.rate*(1-tuneGain):
		t.try(rate)
	default:
		t.window = t.before
		t.turn()
	}
}

func (t *tuner) try(rate float64) {
	to := min(t.window+windowStep, maxWindow)
	if t.fewer {
		to = max(t.window-windowStep, minWindow)
	}
	if to == t.window {
		t.turn()
		return
	}
	t.before, t.window, t.rate = t.window, to, rate
}

// turn ends a try, and makes the next one go the other way.
func (t *tuner) turn() { t.before, t.fewer, t.hold = 0, !t.fewer, tuneHold }

// slots bounds the requests in flight by a number that changes.
type slots struct {
	mu     sync.Mutex
	active int
	window int
	freed  chan struct{} // gets an element when a place may have become free
}

func newSlots(window int) *slots { return &slots{window: window, freed: make(chan struct{}, 1)} }

// enter waits for a place, of most() at most. leave must be called.
func (s *slots) enter(ctx context.Context, most func() int) error {
	for {
		s.mu.Lock()
		free := s.active < min(s.window, most())
		if free {
			s.active++
		}
		s.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-s.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *slots) leave() {
	s.mu.Lock()
	s.active--
	s.mu.Unlock()
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

func (s *slots) set(window int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window = window
}
