package volume

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"drover"
)

// absorber runs the take-ins of a pool in the background, one at a time: an unwanted layer is taken in by the one layer over it.
type absorber struct {
	wake chan struct{} // holds one

	mu  sync.Mutex
	job *takeIn // nil while none is under way
}

const (
	// takeInRate bounds what take-ins copy per second, so that guests hardly notice.
	takeInRate = 128 << 20
	// takeInRetry is how long what could not be taken in waits for the next try, if nothing wakes the absorber before.
	takeInRetry = time.Second
	// takeInRetryMax is the longest time between tries of what fails, on a full disk for example.
	takeInRetryMax = time.Minute
)

// nudge makes the absorber look again.
func (a *absorber) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// stop ends a take-in that the layer is part of. It begins again by itself later. The caller has the disk's turn.
func (a *absorber) stop(l *layer) {
	a.mu.Lock()
	job := a.job
	a.mu.Unlock()
	if job != nil && (job.upper == l || job.lower == l) {
		job.cancel()
		<-job.done
	}
}

// absorb takes in what is unwanted until the pool is closed.
func (p *pool) absorb(ctx context.Context) {
	limit := rate.NewLimiter(takeInRate, maxFetch*blockSize)
	for failures := 0; ; {
		failed := false
		for _, lower := range p.unwanted() {
			if err := p.takeInOne(ctx, lower, limit); err != nil && ctx.Err() == nil {
				failed = true
				lower.log.Warn("an unwanted layer is not taken in yet", "err", err)
			}
		}
		if failures++; !failed {
			failures = 0
		}
		retry := time.Duration(0)
		if len(p.unwanted()) > 0 {
			retry = min(takeInRetry<<min(failures, 8), takeInRetryMax)
		}
		if !awaitNudge(ctx, p.absorber.wake, retry) {
			return
		}
	}
}

// awaitNudge waits for a nudge, at most for retry if that is not 0, and reports false when the context has ended.
func awaitNudge(ctx context.Context, wake <-chan struct{}, retry time.Duration) bool {
	var again <-chan time.Time
	if retry > 0 {
		timer := time.NewTimer(retry)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-wake:
	case <-again:
	case <-ctx.Done():
		return false
	}
	return true
}

// unwanted returns the layers to be taken in, the lowest first: so nothing is copied twice on its way down.
func (p *pool) unwanted() []*layer {
	out := p.matching(func(m *meta) bool { return m.Unwanted })
	slices.SortStableFunc(out, func(a, b *layer) int { return cmp.Compare(a.depth(), b.depth()) })
	return out
}

// mayTakeIn returns the layer that is to take the other one in; nil while that has to wait.
func (p *pool) mayTakeIn(lower *layer) *layer {
	over := p.over(lower.id)
	if len(over) != 1 || len(p.filledFrom(lower.id)) > 0 || len(lower.meta().Exports) > 0 {
		return nil
	}
	upper := over[0]
	if upper.filled() != nil || upper.content().failure() != nil || lower.content().failure() != nil {
		return nil
	}
	return upper
}

// takeInOne takes one layer in if nothing is against it now.
func (p *pool) takeInOne(ctx context.Context, lower *layer, limit *rate.Limiter) error {
	t, err := p.beginTakeIn(ctx, lower, limit)
	if err != nil || t == nil {
		return err
	}
	defer func() {
		p.absorber.mu.Lock()
		p.absorber.job = nil
		p.absorber.mu.Unlock()
		t.cancel()
		close(t.done)
	}()
	err = t.run()
	if !t.committed {
		err = errors.Join(err, t.undo())
	}
	if t.ctx.Err() != nil {
		return nil // somebody else had something to do with the layer, or the daemon ends
	}
	return err
}

// beginTakeIn prepares a take-in, or returns nil when something is against it now.
func (p *pool) beginTakeIn(ctx context.Context, lower *layer, limit *rate.Limiter) (*takeIn, error) {
	done, err := p.turn(ctx, makingTurn)
	if err != nil {
		return nil, err
	}
	defer done()
	l, turnDone, err := p.turnOf(ctx, lower.id)
	if drover.Is(err, drover.NotFound) || err == nil && l != lower {
		if err == nil {
			turnDone()
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer turnDone()
	upper := p.mayTakeIn(lower)
	if upper == nil {
		return nil, nil
	}
	t := &takeIn{pool: p, upper: upper, lower: lower, limit: limit, done: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(ctx)
	if err := t.prepare(); err != nil {
		t.cancel()
		return nil, err
	}
	p.absorber.mu.Lock()
	p.absorber.job = t
	p.absorber.mu.Unlock()
	return t, nil
}
