package frames

import (
	"context"
	"sync"

	"drover"
)

const (
	// WindowSize is how much data of one direction may be on its way at most.
	WindowSize = 256 << 10
	// leastCost is what a frame with little data counts, so that few bytes in many frames do not fill the queues on the way.
	leastCost = 512
	// creditAt is how much is taken in before the sender is told.
	creditAt = WindowSize / 8
	// QueueSize is how many frames of one direction can be on their way: the window's, and control frames beside them.
	QueueSize = WindowSize/leastCost + 128
)

// Cost is what a frame takes of a Window.
func (f Frame) Cost() int {
	if !f.Counts() {
		return 0
	}
	return max(len(f.Data), leastCost)
}

// Window is the room that the other end has for data.
type Window struct {
	mu    sync.Mutex
	free  int
	freed chan struct{}
}

// NewWindow returns a window that is free as a whole.
func NewWindow() *Window { return &Window{free: WindowSize, freed: make(chan struct{}, 1)} }

// Take waits until there is room for n and takes it. One goroutine may wait at a time for each of two streams of data.
func (w *Window) Take(ctx context.Context, n int) error {
	for {
		w.mu.Lock()
		if w.free >= n {
			w.free -= n
			more := w.free > 0
			w.mu.Unlock()
			if more {
				w.wake() // another may wait for less
			}
			return nil
		}
		w.mu.Unlock()
		select {
		case <-w.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Give gives back what the other end has taken in. Invalid when that is more than was taken.
func (w *Window) Give(n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.free+n > WindowSize {
		return drover.Errorf(drover.Invalid, "the other end took in more than was sent")
	}
	w.free += n
	w.wake()
	return nil
}

func (w *Window) wake() {
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// Tally counts what was taken in and says when it is time to tell the sender. It is safe for concurrent use.
type Tally struct {
	mu   sync.Mutex
	owed int
}

// Took takes in the cost of a frame and returns the credit to send now, 0 for none yet.
func (t *Tally) Took(cost int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owed += cost; t.owed < creditAt {
		return 0
	}
	owed := t.owed
	t.owed = 0
	return owed
}
