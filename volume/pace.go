package volume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"drover"
)

// minBurst is what a limit lets through at once at least: one small request.
const minBurst = fetchMin * blockSize

// bucket holds those who take from it to a number of bytes per second, which may change while they wait.
type bucket struct {
	mu      sync.Mutex
	rate    drover.Bytes // 0: no limit
	tokens  float64
	at      time.Time
	changed chan struct{} // closed when the rate changes
}

func newBucket(rate drover.Bytes) *bucket {
	return &bucket{rate: rate, at: time.Now(), changed: make(chan struct{})}
}

// set changes the rate, for those who wait too.
func (b *bucket) set(rate drover.Bytes) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == rate {
		return false
	}
	b.rate, b.tokens, b.at = rate, 0, time.Now()
	close(b.changed)
	b.changed = make(chan struct{})
	return true
}

// burst is what may go at once: a quarter of a second's worth. 0 is no bound.
func (b *bucket) burst() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return burstOf(b.rate)
}

func burstOf(rate drover.Bytes) int64 {
	if rate == 0 {
		return 0
	}
	return max(int64(rate/4), minBurst)
}

// take waits until n bytes may go. What is over the burst is owed by those who come next.
func (b *bucket) take(ctx context.Context, n int64) error {
	for {
		wait, changed := b.try(n)
		if wait == 0 {
			return nil
		}
		if err := waitEither(ctx, changed, wait); err != nil {
			return err
		}
	}
}

func (b *bucket) try(n int64) (wait time.Duration, changed chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return 0, nil
	}
	now := time.Now()
	b.tokens = min(float64(burstOf(b.rate)), b.tokens+now.Sub(b.at).Seconds()*float64(b.rate))
	b.at = now
	need := float64(min(n, burstOf(b.rate)))
	if b.tokens >= need {
		b.tokens -= float64(n)
		return 0, nil
	}
	return max(time.Duration((need-b.tokens)/float64(b.rate)*float64(time.Second)), time.Millisecond), b.changed
}

// waitEither waits for the channel or the time, whichever comes first.
func waitEither(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// pace is what one hydration is held to, all of which may change while it runs, and what it waits for.
type pace struct {
	own  *bucket
	host *bucket // shared by all hydrations of the host; nil for none

	mu      sync.Mutex
	resumed chan struct{} // closed when the pause ends; nil while there is none

	// asking counts requests of the copy that wait for the parent.
	asking atomic.Int64
	// moved is when something was copied or learnt last, or began to be possible.
	moved atomic.Int64
	// refusal is why blocks are left over that the parent does not give; nil when there are none.
	refusal atomic.Pointer[string]
	// verification is the comparison with the parent that ends the hydration; nil for none.
	verification *verification
	// compared is how long it took.
	compared atomic.Int64
}

func newPace(limit drover.Bytes, host *bucket) *pace {
	p := &pace{own: newBucket(limit), host: host}
	p.touch()
	return p
}

// newLimit returns the pace of a hydration that keeps to a number of bytes per second, 0 for no limit.
func newLimit(n drover.Bytes) *pace { return newPace(n, nil) }

func (p *pace) touch() { p.moved.Store(time.Now().UnixNano()) }

func (p *pace) setLimit(n drover.Bytes) {
	if p.own.set(n) {
		p.touch()
	}
}

// pause stops the copy before its next request, or lets it go on.
func (p *pace) pause(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case on && p.resumed == nil:
		p.resumed = make(chan struct{})
	case !on && p.resumed != nil:
		p.touch()
		close(p.resumed)
		p.resumed = nil
	}
}

// ready waits while the copy is paused.
func (p *pace) ready(ctx context.Context) error {
	for {
		p.mu.Lock()
		resumed := p.resumed
		p.mu.Unlock()
		if resumed == nil {
			return nil
		}
		select {
		case <-resumed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *pace) paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resumed != nil
}

// take waits until n bytes may be asked for.
func (p *pace) take(ctx context.Context, n int64) error {
	if err := p.own.take(ctx, n); err != nil || p.host == nil {
		return err
	}
	return p.host.take(ctx, n)
}

// may reports whether n bytes may go at once, and counts them if so. It never waits.
func (p *pace) may(n int64) bool {
	if p.paused() {
		return false
	}
	for _, b := range []*bucket{p.own, p.host} {
		if b == nil {
			continue
		}
		if wait, _ := b.try(n); wait > 0 {
			return false
		}
	}
	return true
}

// most is how many blocks one request may have.
func (p *pace) most() int64 {
	most := int64(maxFetch)
	for _, b := range []*bucket{p.own, p.host} {
		if b == nil {
			continue
		}
		if n := b.burst(); n > 0 {
			most = min(most, max(fetchMin, n/blockSize))
		}
	}
	return most
}

// ask does what waits for the parent, and counts it.
func (p *pace) ask(do func() error) error {
	p.asking.Add(1)
	defer p.asking.Add(-1)
	err := do()
	if err == nil {
		p.touch()
	}
	return err
}

// standing is how long nothing has moved although something should; 0 while the copy is paused or waits for its own limit.
func (p *pace) standing() time.Duration {
	if p.paused() || p.asking.Load() == 0 && p.refusal.Load() == nil {
		return 0
	}
	return max(0, time.Duration(time.Now().UnixNano()-p.moved.Load()))
}
