package volume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// flying holds the runs of blocks that are being fetched, so that nothing is fetched twice. Their number is bounded by
// the connections' requests and the hydrator's workers.
type flying struct {
	mu   sync.Mutex
	list []*flight
}

type flight struct {
	first, end int64
	done       chan struct{}
}

// claim gives the caller the longest run from first on, up to end, that nobody is fetching (mine), or else the flight that
// the first block is on. Who claims must land.
func (f *flying) claim(first, end int64) (fl *flight, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range f.list {
		if other.first <= first && first < other.end {
			return other, false
		}
		if first < other.first && other.first < end {
			end = other.first
		}
	}
	fl = &flight{first: first, end: end, done: make(chan struct{})}
	f.list = append(f.list, fl)
	return fl, true
}

func (f *flying) land(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.list {
		if other == fl {
			last := len(f.list) - 1
			f.list[i], f.list[last] = f.list[last], nil
			f.list = f.list[:last]
			break
		}
	}
	close(fl.done)
}

// budget bounds the memory that all layers of a pool together take for what comes from parents. Guests have a share
// that hydration cannot use up.
type budget struct {
	guest, hydration *semaphore.Weighted
	small, large     sync.Pool
}

const (
	guestBudget     = 8 << 20
	hydrationBudget = 16 << 20
	smallBuffer     = 64 << 10
	largeBuffer     = maxFetch * blockSize
)

func newBudget() *budget {
	return &budget{guest: semaphore.NewWeighted(guestBudget), hydration: semaphore.NewWeighted(hydrationBudget)}
}

func (b *budget) of(who class) *semaphore.Weighted {
	if who == hydrationClass {
		return b.hydration
	}
	return b.guest
}

// take waits for n bytes, largeBuffer at most. give must be called with the result.
func (b *budget) take(ctx context.Context, n int, who class) ([]byte, error) {
	size, pool := largeBuffer, &b.large
	if n <= smallBuffer {
		size, pool = smallBuffer, &b.small
	}
	if err := b.of(who).Acquire(ctx, int64(size)); err != nil {
		return nil, context.Cause(ctx)
	}
	if buf, ok := pool.Get().(*[]byte); ok {
		return (*buf)[:n], nil
	}
	return make([]byte, size)[:n], nil
}

func (b *budget) give(buf []byte, who class) {
	buf = buf[:cap(buf)]
	pool := &b.large
	if len(buf) == smallBuffer {
		pool = &b.small
	}
	pool.Put(&buf)
	b.of(who).Release(int64(len(buf)))
}

// meter measures a rate over the last whole seconds.
type meter struct {
	mu      sync.Mutex
	seconds [meterSeconds + 1]struct{ at, n int64 }
}

const meterSeconds = 8

func (m *meter) add(n int64) {
	now := time.Now().Unix()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.seconds[now%int64(len(m.seconds))]
	if s.at != now {
		s.at, s.n = now, 0
	}
	s.n += n
}

// rate returns bytes per second over the last whole seconds, or what the first second has so far.
func (m *meter) rate() int64 {
	now := time.Now().Unix()
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum, current, oldest int64
	oldest = now
	for _, s := range m.seconds {
		switch {
		case s.at == now:
			current = s.n
		case s.at < now && s.at >= now-meterSeconds:
			sum += s.n
			oldest = min(oldest, s.at)
		}
	}
	if oldest == now {
		return current
	}
	return sum / (now - oldest)
}

// activity remembers when a guest last did something.
type activity struct{ last atomic.Int64 }

func (a *activity) touch() { a.last.Store(time.Now().UnixNano()) }

// touchFor makes it count as done up to a time to come.
func (a *activity) touchFor(d time.Duration) { a.last.Store(time.Now().Add(d).UnixNano()) }

func (a *activity) within(d time.Duration) bool {
	return time.Now().UnixNano()-a.last.Load() < int64(d)
}
