package frames

import (
	"context"
	"sync"
)

// Queue holds the frames that arrived for one end of a stream.
type Queue struct {
	frames chan Frame
	once   sync.Once
	ended  chan struct{}
	err    error
}

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	return &Queue{frames: make(chan Frame, QueueSize), ended: make(chan struct{})}
}

// Put adds a frame; it never waits. False when there is no room, which an end that keeps to its window never sees.
func (q *Queue) Put(f Frame) bool {
	select {
	case q.frames <- f:
		return true
	default:
		return false
	}
}

// End makes Get return err once the queue is empty. The first one counts.
func (q *Queue) End(err error) {
	q.once.Do(func() {
		q.err = err
		close(q.ended)
	})
}

// Get returns the next frame.
func (q *Queue) Get(ctx context.Context) (Frame, error) {
	select {
	case f := <-q.frames:
		return f, nil
	default:
	}
	select {
	case f := <-q.frames:
		return f, nil
	case <-ctx.Done():
		return Frame{}, context.Cause(ctx)
	case <-q.ended:
	}
	select { // what came before the end
	case f := <-q.frames:
		return f, nil
	default:
		return Frame{}, q.err
	}
}
