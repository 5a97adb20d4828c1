package fault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// heldSuffix marks, in the fault directory, a place at which a process is being held.
const heldSuffix = ".held"

// holdMost bounds how long a process is held when nobody releases it, holdPoll is how often it looks.
const (
	holdMost = 2 * time.Minute
	holdPoll = 5 * time.Millisecond
)

// hold keeps the process where it is until the mark is removed. The mark is made before the fault is disarmed, so that a Release at any
// moment removes one of them at least.
func hold(path string) {
	mark := path + heldSuffix
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // another process is held already, or nothing can be marked
	}
	f.Close()
	if err := os.Remove(path); err != nil {
		os.Remove(mark)
		return // released meanwhile
	}
	for end := time.Now().Add(holdMost); time.Now().Before(end); time.Sleep(holdPoll) {
		if _, err := os.Stat(mark); err != nil {
			return
		}
	}
	os.Remove(mark) // nobody came; whoever looks must not think that it still waits
}

// Held reports whether a process waits at the place.
func Held(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name+heldSuffix))
	return err == nil
}

// Release lets the process that is held at the place go on, and disarms what has not struck. It may be repeated.
func Release(dir, name string) error {
	for _, path := range []string{filepath.Join(dir, name), filepath.Join(dir, name+heldSuffix)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
