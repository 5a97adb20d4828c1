package boltstore

import (
	"encoding/json"

	"drover"
)

// Bucket is a named set of records of one type. It is a plain value: declare it where the records are defined. Methods may be
// used in any transaction of any DB.
type Bucket[T any] struct {
	// Name is the bucket's name in the file.
	Name string
	// Version is the form in which records are written now; it starts at 1 and grows with each change that an older program
	// could not read.
	Version int
	// Upgrade reads a record of an older version; nil while there is none.
	Upgrade func(version int, data []byte) (T, error)
}

// envelope is how a record lies in the file.
type envelope struct {
	Version int             `json:"v"`
	Data    json.RawMessage `json:"d"`
}

// Get reads the record of the key. ok is false when there is none.
func (b Bucket[T]) Get(tx *Tx, key string) (record T, ok bool, err error) {
	bucket := tx.bolt.Bucket([]byte(b.Name))
	if bucket == nil {
		return record, false, nil
	}
	raw := bucket.Get([]byte(key))
	if raw == nil {
		return record, false, nil
	}
	record, err = b.decode(key, raw)
	return record, err == nil, err
}

// Put writes the record of the key in place of an older one.
func (b Bucket[T]) Put(tx *Tx, key string, record T) error {
	data, err := json.Marshal(record)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot encode %s %q: %w", b.Name, key, err)
	}
	raw, err := json.Marshal(envelope{Version: b.Version, Data: data})
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot encode %s %q: %w", b.Name, key, err)
	}
	bucket, err := tx.bolt.CreateBucketIfNotExists([]byte(b.Name))
	if err == nil {
		err = bucket.Put([]byte(key), raw)
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot write %s %q: %w", b.Name, key, err)
	}
	return nil
}

// Delete removes the record of the key. None there is no error.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	bucket := tx.bolt.Bucket([]byte(b.Name))
	if bucket == nil {
		return nil
	}
	if err := bucket.Delete([]byte(key)); err != nil {
		return drover.Errorf(drover.Internal, "cannot delete %s %q: %w", b.Name, key, err)
	}
	return nil
}

// ForEach calls fn for each record in the order of the keys, until fn returns an error. fn must not change the bucket. A
// record that cannot be read is given to fn as an error with its key, so that one bad record does not hide the others: fn
// returns nil to go on.
func (b Bucket[T]) ForEach(tx *Tx, fn func(key string, record T, err error) error) error {
	return b.ForEachOf(tx, func(string) bool { return true }, fn)
}

// ForEachOf is ForEach for the records of the keys that want names; the others are not read.
func (b Bucket[T]) ForEachOf(tx *Tx, want func(key string) bool, fn func(key string, record T, err error) error) error {
	bucket := tx.bolt.Bucket([]byte(b.Name))
	if bucket == nil {
		return nil
	}
	return bucket.ForEach(func(k, raw []byte) error {
		if !want(string(k)) {
			return nil
		}
		record, err := b.decode(string(k), raw)
		return fn(string(k), record, err)
	})
}

func (b Bucket[T]) decode(key string, raw []byte) (record T, err error) {
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return record, drover.Errorf(drover.Internal, "cannot read %s %q: %w", b.Name, key, err)
	}
	switch {
	case e.Version > b.Version:
		return record, drover.Errorf(drover.Precondition, "%s %q has version %d, this program knows up to %d", b.Name, key, e.Version, b.Version).
			WithHint("it was written by a newer drover: run that version")
	case e.Version < 1 || e.Version < b.Version && b.Upgrade == nil:
		return record, drover.Errorf(drover.Internal, "%s %q has version %d, which this program cannot read", b.Name, key, e.Version)
	case e.Version < b.Version:
		record, err = b.Upgrade(e.Version, e.Data)
	default:
		err = json.Unmarshal(e.Data, &record)
	}
	if err != nil {
		return record, drover.Errorf(drover.Internal, "cannot read %s %q: %w", b.Name, key, err)
	}
	return record, nil
}
