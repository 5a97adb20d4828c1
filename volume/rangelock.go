package volume

import "sync"

// rangeLock excludes operations on overlapping ranges of absent blocks from each other. It is held for local
// input and output only, never while waiting for a network. The number of holders is bounded by the requests in flight.
type rangeLock struct {
	mu   sync.Mutex
	held []*heldRange
}

type heldRange struct {
	first, end int64
	released   chan struct{}
}

// lock waits until nobody holds a block of [first, end) and returns what gives the range back.
func (l *rangeLock) lock(first, end int64) (unlock func()) {
	mine := &heldRange{first: first, end: end, released: make(chan struct{})}
	for {
		l.mu.Lock()
		other := l.overlapLocked(first, end)
		if other == nil {
			l.held = append(l.held, mine)
			l.mu.Unlock()
			return func() { l.release(mine) }
		}
		l.mu.Unlock()
		<-other.released
	}
}

func (l *rangeLock) overlapLocked(first, end int64) *heldRange {
	for _, h := range l.held {
		if h.first < end && first < h.end {
			return h
		}
	}
	return nil
}

func (l *rangeLock) release(mine *heldRange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, h := range l.held {
		if h == mine {
			l.held[i] = l.held[len(l.held)-1]
			l.held[len(l.held)-1] = nil
			l.held = l.held[:len(l.held)-1]
			break
		}
	}
	close(mine.released)
}
