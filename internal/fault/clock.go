package fault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// clockName is the file in the fault directory that says by how much the host's clock is wrong. No fault point begins with a dot.
const clockName = ".clock"

// clockLook is how long a clock goes on with what it read last.
const clockLook = 100 * time.Millisecond

// SetClock makes the clocks of the processes that have the directory wrong by an offset; 0 makes them right. A step of the real clock of
// one host of many cannot be had on one machine: the kernel's time namespaces leave the wall clock alone.
func SetClock(dir string, offset time.Duration) error {
	path := filepath.Join(dir, clockName)
	if offset == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(offset.String()), 0o600)
}

// ClockOffset tells by how much the clocks are wrong.
func ClockOffset(dir string) time.Duration {
	text, err := os.ReadFile(filepath.Join(dir, clockName))
	if err != nil {
		return 0
	}
	offset, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return 0 // half written: the next look finds it whole
	}
	return offset
}

// Clock returns the clock of a process that was started for fault tests: time.Now with the host's step. For others (nil Points) it is nil,
// which means time.Now to whoever takes a clock.
//
// It is harsher than a real step: the difference of two of its times shows the step even where the kernel's monotonic clock would hide it.
func (p *Points) Clock() func() time.Time {
	if p == nil {
		return nil
	}
	var mu sync.Mutex
	var looked time.Time
	var offset time.Duration
	return func() time.Time {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if now.Sub(looked) >= clockLook {
			looked, offset = now, ClockOffset(p.dir)
		}
		return now.Add(offset)
	}
}
