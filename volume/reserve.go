package volume

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserveSize is what the pool keeps for its own records.
const reserveSize = 256 << 10

// reserve is space that guests cannot fill, so that a layer of a full disk can still be closed, frozen, fenced and deleted:
// that is how a full disk is emptied. It is a file that is given up while a record is written that finds no room.
type reserve struct {
	mu sync.Mutex
	f  *os.File
}

func openReserve(pool string) (*reserve, error) {
	f, err := os.OpenFile(filepath.Join(pool, "reserve"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	r := &reserve{f: f}
	r.refill()
	return r, nil
}

// refill takes the space. Without room nothing is reserved until the next time.
func (r *reserve) refill() {
	_ = retryEINTR(func() error { return unix.Fallocate(int(r.f.Fd()), 0, 0, reserveSize) })
}

// with does what writes a record, again in the reserved space when there is no other.
func (r *reserve) with(do func() error) error {
	err := do()
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.refill()
	if terr := r.f.Truncate(0); terr != nil {
		return errors.Join(err, terr)
	}
	return do()
}

func (r *reserve) close() error { return r.f.Close() }
