package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"drover"
)

// Entry is one thing that a watch tells.
type Entry[T any] struct {
	Key string
	// Revision is the record's, or that of its deletion; 0 when the deletion was noticed by the record's absence.
	Revision uint64
	Value    T
	Deleted  bool
	// Synced: everything that was in the bucket when the watch began, or began again, has been told. The other fields are empty.
	Synced bool
	// Created is when the server stored the record.
	Created time.Time
}

// errRestart ends one session of a watch, so that the next reads the whole bucket anew.
var errRestart = errors.New("watch begins again")

// watchOpenTimeout bounds how long the server may take to begin a watch.
const watchOpenTimeout = 5 * time.Second

// Watch calls fn for every record, then with Synced, then for every change, in order, from one goroutine. After each reconnection it
// reads the whole bucket again and ends that with Synced again; records that vanished meanwhile are told as deleted. It returns when ctx
// ends (nil) or fn fails (its error); all else is retried.
func (b *Bucket[T]) Watch(ctx context.Context, fn func(Entry[T]) error) error {
	w := watch[T]{bucket: b, fn: fn, live: map[string]uint64{}}
	return w.run(ctx)
}

// run watches, session after session.
func (w *watch[T]) run(ctx context.Context) error {
	b := w.bucket
	for attempt := 0; ; attempt++ {
		reconnected := b.conn.Connected()
		err := w.session(ctx, reconnected)
		var told *fnError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &told):
			return told.err
		case errors.Is(err, errRestart):
			attempt = 0
		default:
			b.conn.log.Debug("watch is retried", "bucket", b.name, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-reconnected:
		case <-time.After(reconnectDelay(attempt)):
		}
	}
}

// fnError carries the error of the caller's function through a session.
type fnError struct{ err error }

func (e *fnError) Error() string { return e.err.Error() }

type watch[T any] struct {
	bucket *Bucket[T]
	fn     func(Entry[T]) error
	// live has the revision of every record that was told and not yet told as deleted.
	live map[string]uint64
	// confirmed is told of each write that GetConfirmed or All made to prove something; nil when nobody asks.
	confirmed func(rev uint64) error
}

// session watches until the connection is replaced.
func (w *watch[T]) session(ctx context.Context, reconnected <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The context given to WatchAll lives as long as the watch; its beginning alone is bounded by the timer.
	timer := time.AfterFunc(watchOpenTimeout, cancel)
	kw, err := w.bucket.kv.WatchAll(ctx)
	if err != nil {
		timer.Stop()
		return err
	}
	if !timer.Stop() {
		return errors.Join(errors.New("watch took too long to begin"), kw.Stop())
	}
	defer func() {
		// The subscription may be gone with its connection; there is nothing left to be done about it then.
		if err := kw.Stop(); err != nil {
			w.bucket.conn.log.Debug("watch was gone already", "bucket", w.bucket.name, "err", err)
		}
	}()
	seen := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-reconnected:
			return errRestart
		case e, ok := <-kw.Updates():
			if !ok {
				return errors.New("watch was ended by the connection")
			}
			if err := w.tell(e, &seen); err != nil {
				return err
			}
		}
	}
}

// tell passes one update on. seen collects the keys until the first nil update, and is nil from then on.
func (w *watch[T]) tell(e jetstream.KeyValueEntry, seen *map[string]bool) error {
	if e == nil {
		return w.synced(seen)
	}
	if e.Key() == confirmKey && w.confirmed != nil {
		if err := w.confirmed(e.Revision()); err != nil {
			return &fnError{err}
		}
	}
	if strings.HasPrefix(e.Key(), "_") {
		return nil
	}
	if *seen != nil {
		(*seen)[e.Key()] = true
	}
	out := Entry[T]{Key: e.Key(), Revision: e.Revision(), Created: e.Created()}
	if e.Operation() != jetstream.KeyValuePut {
		if _, told := w.live[e.Key()]; !told {
			return nil
		}
		delete(w.live, e.Key())
		out.Deleted = true
		return w.call(out)
	}
	if w.live[e.Key()] == e.Revision() {
		return nil // told before the connection was replaced
	}
	if err := json.Unmarshal(e.Value(), &out.Value); err != nil {
		// One record that cannot be read must not hide the others.
		w.bucket.conn.log.Error("record is broken and is left out", "bucket", w.bucket.name, "key", e.Key(), "rev", e.Revision(), "err", err)
		return nil
	}
	w.live[e.Key()] = e.Revision()
	return w.call(out)
}

func (w *watch[T]) synced(seen *map[string]bool) error {
	if *seen == nil {
		return nil
	}
	for key := range w.live {
		if (*seen)[key] {
			continue
		}
		delete(w.live, key)
		if err := w.call(Entry[T]{Key: key, Deleted: true}); err != nil {
			return err
		}
	}
	*seen = nil
	return w.call(Entry[T]{Synced: true})
}

func (w *watch[T]) call(e Entry[T]) error {
	if err := w.fn(e); err != nil {
		return &fnError{err}
	}
	return nil
}

// Record is one record of All.
type Record[T any] struct {
	Value    T
	Revision uint64
}

// All reads every record of the bucket, as it was at some moment after the call. A watch may be served by a replica that lags behind; with
// several replicas a write is made first, and the reading is done when that was seen as well.
func (b *Bucket[T]) All(ctx context.Context) (map[string]Record[T], error) {
	ctx, cancel := bounded(ctx, 2*opTimeout)
	defer cancel()
	var proof uint64
	if b.replicas > 1 {
		ack, err := b.conn.js.PublishMsg(ctx, nats.NewMsg(b.subject(confirmKey)))
		if err != nil {
			return nil, translate(err, fmt.Sprintf("cannot read all of bucket %q", b.name))
		}
		proof = ack.Sequence
	}
	all := map[string]Record[T]{}
	done := errors.New("done")
	synced, proven := false, proof == 0
	enough := func() error {
		if synced && proven {
			return done
		}
		return nil
	}
	w := watch[T]{bucket: b, live: map[string]uint64{}, confirmed: func(rev uint64) error {
		proven = proven || rev >= proof
		return enough()
	}}
	w.fn = func(e Entry[T]) error {
		switch {
		case e.Synced:
			synced = true
		case e.Deleted:
			delete(all, e.Key)
		default:
			all[e.Key] = Record[T]{Value: e.Value, Revision: e.Revision}
		}
		return enough()
	}
	err := w.run(ctx)
	if !errors.Is(err, done) {
		return nil, drover.Errorf(drover.Unavailable, "cannot read all of bucket %q: the bus did not answer in time", b.name)
	}
	return all, nil
}

// Keys lists the keys that have a record and begin with the prefix.
func (b *Bucket[T]) Keys(ctx context.Context, prefix string) ([]string, error) {
	all, err := b.All(ctx)
	if err != nil {
		return nil, err
	}
	var keys []string
	for key := range all {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}
