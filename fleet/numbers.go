package fleet

import (
	"context"
	"sync"
	"time"

	"drover"
)

// numberTries bounds how often a counter is asked for because control hosts took numbers meanwhile, numberPatience how long numbers are tried for.
const (
	numberTries    = 50
	numberPatience = 10 * time.Second
)

// numbers gives out the numbers of counters. Those who ask while a write is under way get theirs together by the next one: a counter is written one
// time after another, so that each asker's own write would be the bound of how many machines can be made.
type numbers struct {
	mu sync.Mutex
	// next is what is joined by whoever asks now, by counter; turns lets one write at a time.
	next  map[string]*batch
	turns map[string]chan struct{}
}

// batch is numbers that are taken by one write. first and err are there once done is closed.
type batch struct {
	count uint64
	done  chan struct{}
	first uint64
	err   error
}

func newNumbers() *numbers {
	return &numbers{next: map[string]*batch{}, turns: map[string]chan struct{}{}}
}

// join takes part in the next write; the first to do so has to make it, when it is its turn.
func (n *numbers) join(counter string) (b *batch, index uint64, turn chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.turns[counter] == nil {
		n.turns[counter] = make(chan struct{}, 1)
	}
	b = n.next[counter]
	if b == nil {
		b, turn = &batch{done: make(chan struct{})}, n.turns[counter]
		n.next[counter] = b
	}
	b.count++
	return b, b.count - 1, turn
}

// closed lets nobody join the batch any more, and returns how many have.
func (n *numbers) closed(counter string, b *batch) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.next, counter)
	return b.count
}

// nextNumber takes a number that nobody had and nobody will have.
func (f *Fleet) nextNumber(ctx context.Context, counter string) (uint64, error) {
	b, index, turn := f.numbers.join(counter)
	if turn != nil {
		// Others depend on this write, so it does not end with the request that makes it.
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), numberPatience)
		turn <- struct{}{}
		b.first, b.err = f.takeNumbers(own, counter, f.numbers.closed(counter, b))
		<-turn
		cancel()
		close(b.done)
	}
	select {
	case <-b.done:
		return b.first + index, b.err
	case <-ctx.Done():
		return 0, drover.Errorf(drover.Unavailable, "no number from %q: %w", counter, context.Cause(ctx))
	}
}

// takeNumbers takes so many numbers in a row and returns the first. What memory says of the counter is tried first: the write fails where it is old.
func (f *Fleet) takeNumbers(ctx context.Context, counter string, count uint64) (uint64, error) {
	last, rev, known := f.state.counters.seen(counter)
	for range numberTries {
		var err error
		if !known {
			last, rev, err = f.state.counters.get(ctx, counter)
		}
		known = false
		switch {
		case drover.Is(err, drover.NotFound):
			last = 0
			_, err = f.state.counters.create(ctx, counter, count)
		case err == nil:
			_, err = f.state.counters.update(ctx, counter, last+count, rev)
		}
		if err == nil {
			return last + 1, nil
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return 0, err
		}
	}
	return 0, drover.Errorf(drover.Unavailable, "no number from %q: it was taken by others %d times in a row", counter, numberTries)
}
