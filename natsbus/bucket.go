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

// formatKey and format mark what a bucket's records look like. A bucket of a later format is not opened.
const (
	formatKey = "drover-format"
	format    = "1"
)

// markerTTL is how long the marker of a deleted record stays. A watch that was away for longer reads the whole bucket anew anyway.
const markerTTL = 24 * time.Hour

// confirmKey is a key of each bucket that GetConfirmed and All write to; watches do not show it.
const confirmKey = "_confirm"

// confirmTries bounds how often GetConfirmed reads again because the record changed between its two steps.
const confirmTries = 20

// Headers of the key-value convention (NATS ADR-8).
const (
	headerOperation = "KV-Operation"
	headerRollup    = "Nats-Rollup"
	headerReason    = "Nats-Marker-Reason"
)

// BucketOptions describes a bucket that does not exist yet.
type BucketOptions struct {
	// History is how many revisions are kept per key; 0 means 1. One with more takes messages that remove others: hosts must not write to it.
	History int
	// Memory keeps the bucket in memory only; it is empty after a restart of the server.
	Memory bool
	// Replicas is how many servers hold the bucket; 0 means 1.
	Replicas int
}

// Bucket is a key-value bucket whose values are the JSON form of T. Safe for concurrent use.
type Bucket[T any] struct {
	conn     *Conn
	name     string
	stream   jetstream.Stream
	kv       jetstream.KeyValue
	replicas int
	// history: more than one revision is kept of a key.
	history bool
}

// OpenBucket makes the bucket if it is not there, and opens it. It tries until ctx ends (Unavailable). Invalid when the bucket
// was written by a later version of Drover.
func OpenBucket[T any](ctx context.Context, conn *Conn, name string, opts BucketOptions) (*Bucket[T], error) {
	storage := jetstream.FileStorage
	if opts.Memory {
		storage = jetstream.MemoryStorage
	}
	cfg := jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: int64(max(opts.History, 1)),
		Storage:           storage,
		Replicas:          max(opts.Replicas, 1),
		Discard:           jetstream.DiscardNew,
		// A message with such a header removes others; hosts that may write one record must not remove all.
		AllowRollup: opts.History > 1,
		DenyDelete:  true,
		AllowMsgTTL: true,
		// Direct reads may be answered by any replica, with a value that is older than what was acknowledged.
		AllowDirect: false,
		Metadata:    map[string]string{formatKey: format},
	}
	return retryOpen(ctx, name, func(ctx context.Context) (*Bucket[T], error) {
		if err := makeStream(ctx, conn, name, cfg); err != nil {
			return nil, err
		}
		return openExisting[T](ctx, conn, name)
	})
}

// makeStream makes a bucket's stream, or changes what this version of Drover wants otherwise.
func makeStream(ctx context.Context, conn *Conn, name string, want jetstream.StreamConfig) error {
	found, err := conn.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = conn.js.CreateOrUpdateStream(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	if err := checkFormat(name, found); err != nil {
		return err
	}
	is := found.CachedInfo().Config
	if is.Replicas == want.Replicas && is.AllowDirect == want.AllowDirect && is.MaxMsgsPerSubject == want.MaxMsgsPerSubject && is.AllowMsgTTL == want.AllowMsgTTL &&
		is.AllowRollup == want.AllowRollup {
		return nil
	}
	is.Replicas, is.AllowDirect, is.MaxMsgsPerSubject, is.AllowMsgTTL = want.Replicas, want.AllowDirect, want.MaxMsgsPerSubject, want.AllowMsgTTL
	is.AllowRollup = want.AllowRollup
	_, err = conn.js.UpdateStream(ctx, is)
	return err
}

// retryOpen tries until it works, ctx ends, or the error is one that stays.
func retryOpen[T any](ctx context.Context, name string, open func(context.Context) (*Bucket[T], error)) (*Bucket[T], error) {
	for {
		try, cancel := bounded(ctx, tryTimeout)
		b, err := open(try)
		cancel()
		if err == nil {
			return b, nil
		}
		e := translate(err, fmt.Sprintf("cannot open bucket %q", name))
		if e.Code == drover.Invalid || e.Code == drover.Exhausted {
			return nil, e
		}
		select {
		case <-ctx.Done():
			e.Code = drover.Unavailable
			return nil, e
		case <-time.After(reconnectDelay(1)):
		}
	}
}

func checkFormat(name string, s jetstream.Stream) error {
	if got := s.CachedInfo().Config.Metadata[formatKey]; got != format {
		return drover.Errorf(drover.Invalid, "bucket %q has format %q, this version of Drover knows %q: use the newer version, or another NATS account",
			name, got, format)
	}
	return nil
}

func openExisting[T any](ctx context.Context, conn *Conn, name string) (*Bucket[T], error) {
	stream, err := conn.js.Stream(ctx, "KV_"+name)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(name, stream); err != nil {
		return nil, err
	}
	kv, err := conn.js.KeyValue(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Bucket[T]{conn: conn, name: name, stream: stream, kv: kv, replicas: stream.CachedInfo().Config.Replicas,
		history: stream.CachedInfo().Config.MaxMsgsPerSubject > 1}, nil
}

func (b *Bucket[T]) subject(key string) string { return "$KV." + b.name + "." + key }

func (b *Bucket[T]) doing(verb, key string) string {
	return fmt.Sprintf("cannot %s %s/%s", verb, b.name, key)
}

// Get reads the newest value from the leader of the bucket. NotFound when there is none.
func (b *Bucket[T]) Get(ctx context.Context, key string) (value T, rev uint64, err error) {
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	value, rev, _, err = b.last(ctx, key)
	return value, rev, err
}

// GetConfirmed is Get for decisions that must not rest on an old value: with several replicas it proves, by a write that a
// majority acknowledges, that the value was still the newest after it was read.
func (b *Bucket[T]) GetConfirmed(ctx context.Context, key string) (value T, rev uint64, err error) {
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	for range confirmTries {
		var seq uint64
		value, rev, seq, err = b.last(ctx, key)
		if b.replicas < 2 || (err != nil && !drover.Is(err, drover.NotFound)) {
			return value, rev, err
		}
		_, perr := b.conn.js.PublishMsg(ctx, nats.NewMsg(b.subject(confirmKey)), jetstream.WithExpectLastSequenceForSubject(seq, b.subject(key)))
		if perr == nil {
			return value, rev, err
		}
		if e := translate(perr, b.doing("confirm", key)); e.Code != drover.Conflict {
			return value, 0, e
		}
	}
	return value, 0, drover.Errorf(drover.Unavailable, "%s: it kept changing over %d reads", b.doing("read", key), confirmTries)
}

// last reads the newest message of the key. seq is that of the message, a delete marker's included; 0 if there is none at all.
func (b *Bucket[T]) last(ctx context.Context, key string) (value T, rev, seq uint64, err error) {
	var m *jetstream.RawStreamMsg
	for {
		try, cancel := bounded(ctx, tryTimeout)
		m, err = b.stream.GetLastMsgForSubject(try, b.subject(key))
		cancel()
		if err == nil || codeOf(err) != drover.Unavailable {
			break
		}
		select {
		case <-ctx.Done():
			return value, 0, 0, drover.Errorf(drover.Unavailable, "%s: %w", b.doing("read", key), err)
		case <-time.After(reconnectDelay(0)):
		}
	}
	if (err != nil && codeOf(err) == drover.NotFound) || (err == nil && isMarker(m.Header)) {
		if m != nil {
			seq = m.Sequence
		}
		return value, 0, seq, drover.Errorf(drover.NotFound, "no record %s/%s", b.name, key)
	}
	if err != nil {
		return value, 0, 0, translate(err, b.doing("read", key))
	}
	if err := json.Unmarshal(m.Data, &value); err != nil {
		return value, 0, 0, drover.Errorf(drover.Internal, "%s: its record is broken: %w", b.doing("read", key), err)
	}
	return value, m.Sequence, m.Sequence, nil
}

// Matching lists the keys that match a pattern of subjects, such as "m1.*", from the leader of the bucket; those of deleted records may be among them.
func (b *Bucket[T]) Matching(ctx context.Context, pattern string) ([]string, error) {
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	info, err := b.stream.Info(ctx, jetstream.WithSubjectFilter(b.subject(pattern)))
	if err != nil {
		return nil, translate(err, fmt.Sprintf("cannot list %s/%s", b.name, pattern))
	}
	keys := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		keys = append(keys, strings.TrimPrefix(subject, b.subject("")))
	}
	return keys, nil
}

func isMarker(h nats.Header) bool { return h.Get(headerOperation) != "" || h.Get(headerReason) != "" }

// Create writes the first value of a key. Exists when it has one.
func (b *Bucket[T]) Create(ctx context.Context, key string, value T) (rev uint64, err error) {
	rev, err = b.write(ctx, "create", key, value, jetstream.WithExpectLastSequencePerSubject(0))
	if !drover.Is(err, drover.Conflict) {
		return rev, err
	}
	rctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	_, _, marker, rerr := b.last(rctx, key)
	switch {
	case rerr == nil:
		return 0, drover.Errorf(drover.Exists, "%s/%s exists already", b.name, key)
	case !drover.Is(rerr, drover.NotFound):
		return 0, rerr
	}
	rev, err = b.write(ctx, "create", key, value, jetstream.WithExpectLastSequencePerSubject(marker))
	if drover.Is(err, drover.Conflict) {
		return 0, drover.Errorf(drover.Exists, "%s/%s was created by somebody else just now", b.name, key)
	}
	return rev, err
}

// Update replaces the value of the revision rev. Conflict when the key has another revision by now, or none.
func (b *Bucket[T]) Update(ctx context.Context, key string, value T, rev uint64) (uint64, error) {
	if rev == 0 {
		return 0, drover.Errorf(drover.Internal, "%s: revision 0 is none: use Create", b.doing("update", key))
	}
	return b.write(ctx, "update", key, value, jetstream.WithExpectLastSequencePerSubject(rev))
}

// WriteAfter writes the value of a key if the newest record of all keys that match a pattern of subjects, which may be the key's own or others', is that of
// the revision rev, 0 for none ever. Conflict when there is a newer one by now, or a deletion.
func (b *Bucket[T]) WriteAfter(ctx context.Context, key string, value T, rev uint64, pattern string) (uint64, error) {
	return b.write(ctx, "write", key, value, jetstream.WithExpectLastSequenceForSubject(rev, b.subject(pattern)))
}

// Put writes the value whatever was there.
func (b *Bucket[T]) Put(ctx context.Context, key string, value T) (uint64, error) {
	return b.write(ctx, "write", key, value)
}

func (b *Bucket[T]) write(ctx context.Context, verb, key string, value T, opts ...jetstream.PublishOpt) (uint64, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return 0, drover.Errorf(drover.Internal, "%s: %w", b.doing(verb, key), err)
	}
	msg := nats.NewMsg(b.subject(key))
	msg.Data = data
	return b.publish(ctx, verb, key, msg, opts)
}

func (b *Bucket[T]) publish(ctx context.Context, verb, key string, msg *nats.Msg, opts []jetstream.PublishOpt) (uint64, error) {
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	ack, err := b.conn.js.PublishMsg(ctx, msg, opts...)
	if err != nil {
		return 0, translate(err, b.doing(verb, key))
	}
	return ack.Sequence, nil
}

// Delete removes the record of the revision rev, 0 for any, and returns the revision of the deletion. Conflict when the key has another
// revision by now. Deleting what is not there is not an error with rev 0.
func (b *Bucket[T]) Delete(ctx context.Context, key string, rev uint64) (uint64, error) {
	msg := nats.NewMsg(b.subject(key))
	msg.Header.Set(headerOperation, "DEL")
	if b.history {
		msg.Header.Set(headerOperation, "PURGE")
		msg.Header.Set(headerRollup, "sub")
	}
	opts := []jetstream.PublishOpt{jetstream.WithMsgTTL(markerTTL)}
	if rev != 0 {
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(rev))
	}
	return b.publish(ctx, "delete", key, msg, opts)
}
