package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"drover"
)

// lockWait is how long Open waits for another process that is just ending.
const lockWait = 500 * time.Millisecond

// metaBucket holds what the package itself remembers; no Bucket may have this name.
const metaBucket = "boltstore"

// formatKey is where the number of the newest applied migration is kept.
const formatKey = "format"

// DB is one open file. It is safe for concurrent use; there is one writing transaction at a time.
type DB struct {
	bolt *bbolt.DB
	path string
}

// Tx is one transaction; it ends with the function that got it.
type Tx struct{ bolt *bbolt.Tx }

// Open opens the file at path, or makes it. Conflict when another process has it open, Internal when it cannot be read.
func Open(path string) (*DB, error) {
	b, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, drover.Errorf(drover.Conflict, "cannot open %s: another process has it open", path).
			WithHint("one agent per data directory: stop the other one first")
	}
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot open %s: %w", path, err)
	}
	return &DB{bolt: b, path: path}, nil
}

// Close waits for the transactions that are under way and lets go of the file.
func (d *DB) Close() error {
	if err := d.bolt.Close(); err != nil {
		return drover.Errorf(drover.Internal, "cannot close %s: %w", d.path, err)
	}
	return nil
}

// Path tells which file it is.
func (d *DB) Path() string { return d.path }

// Update runs fn in a transaction that may write, and commits it durably when fn returns nil. An error of fn comes back
// as it is; then nothing was written.
func (d *DB) Update(fn func(tx *Tx) error) error {
	var fault error
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		fault = fn(&Tx{bolt: tx})
		return fault
	})
	if err != nil && fault == nil {
		return drover.Errorf(drover.Internal, "cannot write %s: %w", d.path, err).
			WithHint("see whether the file system is full or read-only")
	}
	return err
}

// View runs fn in a transaction that only reads.
func (d *DB) View(fn func(tx *Tx) error) error {
	return d.bolt.View(func(tx *bbolt.Tx) error { return fn(&Tx{bolt: tx}) })
}

// Migration is one step that changes the form of a whole file. Steps are numbered from 1 without gaps, and a released one is
// never changed or removed.
type Migration struct {
	// To is the format that the file has after the step.
	To uint64
	// Name says what the step does, for errors.
	Name  string
	Apply func(tx *Tx) error
}

// Migrate brings the file to the newest format that the list knows. Each step and its number are written in one
// transaction. A file with a newer format than the list knows is refused with Precondition.
func (d *DB) Migrate(steps []Migration) error {
	for i, step := range steps {
		if step.To != uint64(i)+1 {
			return drover.Errorf(drover.Internal, "migration %q of %s has number %d in place of %d", step.Name, d.path, step.To, i+1)
		}
	}
	format, err := d.Format()
	if err != nil {
		return err
	}
	if known := uint64(len(steps)); format > known {
		return drover.Errorf(drover.Precondition, "%s has format %d, this program knows up to %d", d.path, format, known).
			WithHint("it was written by a newer drover: run that version")
	}
	for _, step := range steps[format:] {
		err := d.Update(func(tx *Tx) error {
			if err := step.Apply(tx); err != nil {
				return fmt.Errorf("cannot migrate %s to format %d (%s): %w", d.path, step.To, step.Name, err)
			}
			return tx.setFormat(step.To)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Format tells the number of the newest migration that was applied; 0 for a file that had none.
func (d *DB) Format() (uint64, error) {
	var format uint64
	err := d.View(func(tx *Tx) error {
		b := tx.bolt.Bucket([]byte(metaBucket))
		if b == nil {
			return nil
		}
		v := b.Get([]byte(formatKey))
		if v == nil {
			return nil
		}
		if len(v) != 8 {
			return drover.Errorf(drover.Internal, "%s holds a format of %d bytes in place of 8", d.path, len(v))
		}
		format = binary.BigEndian.Uint64(v)
		return nil
	})
	return format, err
}

func (tx *Tx) setFormat(n uint64) error {
	b, err := tx.bolt.CreateBucketIfNotExists([]byte(metaBucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(formatKey), binary.BigEndian.AppendUint64(nil, n))
}
