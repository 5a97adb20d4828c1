package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// space keeps guests, and what is fetched for them, from taking the last of the pool's file system: new blocks are refused while less
// than the floor is free. What is left is for records and maps, so that a full pool can be drained. Blocks that have space already are
// written in any case.
type space struct {
	dir string
	// set is the floor that the operator set; 0 for the default.
	set  drover.Bytes
	stat func(dir string) (total, free drover.Bytes, err error)
	// left is how much may be written before free space is looked at again. What is written to blocks that have space counts
	// too: to know better would cost more than to look.
	left atomic.Int64
	// full says that new blocks were refused when it was last looked.
	full atomic.Bool
	// patience is how long writes wait for room before they are refused, from the first one on that found none.
	patience time.Duration

	mu sync.Mutex
	// since is when a write first found no room, zero when there was enough since then.
	since time.Time
}

const (
	// lookEvery is how often free space is looked at while nobody writes much: others use the file system too.
	lookEvery = time.Second
	// retryRoom is how often a write that waits for room is tried.
	retryRoom = 50 * time.Millisecond
	// roomAgain is what must be free beyond the floor for the patience to begin anew: a pool that has room for a small write now and then is full.
	roomAgain = 16 << 20
	// defaultRoomWait is Config.RoomWait's. A guest's kernel complains of a request after two minutes.
	defaultRoomWait = 30 * time.Second
)

func newSpace(dir string, set drover.Bytes, patience time.Duration) *space {
	return &space{dir: dir, set: set, patience: patience, stat: statfs}
}

func statfs(dir string) (total, free drover.Bytes, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("cannot tell the free space of %s: %w", dir, err)
	}
	block := drover.Bytes(st.Bsize)
	return drover.Bytes(st.Blocks-st.Bfree+st.Bavail) * block, drover.Bytes(st.Bavail) * block, nil
}

// free is what guests may still take, beyond the floor; less than 0 when they took more.
func (s *space) free() (drover.Bytes, error) {
	total, free, err := s.stat(s.dir)
	return free - drover.PoolFloor(total, s.set), err
}

// take says whether n bytes of new blocks may be written.
func (s *space) take(n int64) bool {
	return s == nil || s.left.Add(-n) >= 0 || s.look(n)
}

// look finds out whether n bytes may be written, and how much more before the next look.
func (s *space) look(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free, err := s.free()
	if err != nil {
		return true // the write itself finds out
	}
	if int64(free) < n {
		s.left.Store(0)
		s.full.Store(true)
		return false
	}
	s.full.Store(false)
	if int64(free)-n >= roomAgain {
		s.since = time.Time{}
	}
	s.left.Store(int64(free) - n)
	return true
}

// watch looks from time to time, until ctx ends.
func (s *space) watch(ctx context.Context) {
	for waitFor(ctx, nil, lookEvery) == nil {
		s.look(0)
	}
}

// errFloor is why a new block is refused.
func (s *space) errFloor() error {
	return fmt.Errorf("the pool keeps the rest of its room for records: %w", syscall.ENOSPC)
}

// noRoom reports whether a request failed because nothing more can be stored.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// giveUpAt is when a write that finds no room now is refused: after the pool's patience, which all its writes share, so that one
// that stays full is soon one that refuses at once.
func (s *space) giveUpAt(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		s.since = now
	}
	return s.since.Add(s.patience)
}

// room refuses a write that needs new blocks of a pool that has none to give.
func (c *content) room(off, n int64) error {
	if c.hasRoom(off, n) {
		return nil
	}
	return ioError(c.name, "write", c.space.errFloor())
}

func (c *content) hasRoom(off, n int64) bool { return c.space.take(n) || c.backed(off, n) }

// backed reports whether the whole range has space.
func (c *content) backed(off, n int64) bool {
	start, stop, err := c.data.NextData(off, off+n)
	return err == nil && start == off && stop == off+n
}
