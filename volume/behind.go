package volume

import (
	"context"
	"sync"
)

const (
	// behindMin is the size from which what a copy stores is written behind: for less the calls, which may wait for the disk, cost the
	// guest more than the next flush gains.
	behindMin = 256 << 10
	// behindMost bounds what a copy has in the page cache and not on the disk: the network goes on while the disk is busy with
	// a flush, and a flush of the guest has no more than this to wait for.
	behindMost = 64 << 20
)

// behind writes what a copy stores to the disk while the copy goes on, and keeps it from filling the page cache: what the disk has is taken
// out of there. It is used by many goroutines at once.
type behind struct {
	c     *content
	mu    sync.Mutex
	runs  []writtenRun // the oldest first
	bytes int64
}

type writtenRun struct{ off, n int64 }

// wrote begins to write a run, and waits for the oldest ones when there is too much.
func (b *behind) wrote(ctx context.Context, off, n int64) error {
	if n < behindMin {
		return nil
	}
	b.c.data.Writeback(off, n)
	for _, r := range b.add(writtenRun{off, n}) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := b.c.data.Settle(r.off, r.n); err != nil {
			return b.c.fail("write", err)
		}
	}
	return nil
}

// add returns the runs to be waited for.
func (b *behind) add(r writtenRun) (old []writtenRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs, b.bytes = append(b.runs, r), b.bytes+r.n
	for b.bytes > behindMost {
		old, b.bytes = append(old, b.runs[0]), b.bytes-b.runs[0].n
		b.runs = b.runs[1:]
	}
	return old
}
