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

// The streams of the audit trail. What tokens do not allow has a stream of its own, so that a flood of refusals pushes nothing else out.
const (
	StreamAudit        = "audit"
	StreamAuditRefused = "audit-refused"
)

// TrailOptions describes a trail.
type TrailOptions struct {
	// Replicas is how many servers hold the trail; 0 means 1.
	Replicas int
	// MaxAge and MaxEntries are what is kept.
	MaxAge     time.Duration
	MaxEntries int64
	// Labels is how many labels an entry has.
	Labels int
}

// Trail is a list that is only ever appended to, whose entries are the JSON form of T and can be selected by labels. Safe for concurrent use.
type Trail[T any] struct {
	conn   *Conn
	name   string
	labels int
	stream jetstream.Stream
}

// noLabel stands for a label that an entry does not have.
const noLabel = "_"

// OpenTrail makes the trail if it is not there, or changes how much of it is kept, and opens it. It tries until ctx ends (Unavailable).
func OpenTrail[T any](ctx context.Context, conn *Conn, name string, opts TrailOptions) (*Trail[T], error) {
	cfg := jetstream.StreamConfig{
		Name: name, Subjects: []string{name + ".>"}, Storage: jetstream.FileStorage, Replicas: max(opts.Replicas, 1), Compression: jetstream.S2Compression,
		MaxAge: opts.MaxAge, MaxMsgs: opts.MaxEntries, Discard: jetstream.DiscardOld, DenyDelete: true, DenyPurge: true,
		Metadata: map[string]string{formatKey: format},
	}
	for {
		try, cancel := bounded(ctx, opTimeout)
		s, err := conn.js.CreateOrUpdateStream(try, cfg)
		cancel()
		if err == nil {
			if err := checkFormat(name, s); err != nil {
				return nil, err
			}
			return &Trail[T]{conn: conn, name: name, labels: opts.Labels, stream: s}, nil
		}
		e := translate(err, fmt.Sprintf("cannot open trail %q", name))
		if e.Code == drover.Exhausted {
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

// subject is that of entries with the labels; empty ones become what stands for none.
func (t *Trail[T]) subject(none string, labels []string) string {
	parts := append(make([]string, 0, t.labels+1), t.name)
	for i := range t.labels {
		if i >= len(labels) || labels[i] == "" || strings.ContainsAny(labels[i], ".*> \t\r\n") {
			parts = append(parts, none)
		} else {
			parts = append(parts, labels[i])
		}
	}
	return strings.Join(parts, ".")
}

// Append writes an entry. It is durable when nil is returned. Calls with the same ID within two minutes write one entry.
func (t *Trail[T]) Append(ctx context.Context, id string, entry T, labels ...string) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot write to trail %q: %w", t.name, err)
	}
	msg := nats.NewMsg(t.subject(noLabel, labels))
	msg.Data = data
	msg.Header.Set(nats.MsgIdHdr, id)
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	if _, err := t.conn.js.PublishMsg(ctx, msg); err != nil {
		return translate(err, fmt.Sprintf("cannot write to trail %q", t.name))
	}
	return nil
}

// Read calls fn for every entry since a moment that has the labels, oldest first; an empty label selects all. An error of fn ends it.
func (t *Trail[T]) Read(ctx context.Context, since time.Time, labels []string, fn func(T) error) error {
	what := fmt.Sprintf("cannot read trail %q", t.name)
	try, cancel := bounded(ctx, opTimeout)
	defer cancel()
	cfg := jetstream.ConsumerConfig{FilterSubject: t.subject("*", labels), AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute}
	if !since.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	reader, err := t.stream.CreateConsumer(try, cfg)
	if err != nil {
		return translate(err, what)
	}
	defer func() {
		clean, cancel := bounded(context.WithoutCancel(ctx), tryTimeout)
		defer cancel()
		if err := t.stream.DeleteConsumer(clean, reader.CachedInfo().Name); err != nil {
			t.conn.log.Debug("a trail's reader stays for a minute", "err", err)
		}
	}()
	for left := reader.CachedInfo().NumPending; left > 0; {
		n, err := t.readBatch(ctx, reader, int(min(left, namesAtOnce)), fn)
		var told *fnError
		switch {
		case errors.As(err, &told):
			return told.err
		case err != nil:
			return translate(err, what)
		case n == 0:
			return nil // what was left has become too old meanwhile
		}
		left -= min(n, left)
	}
	return nil
}

func (t *Trail[T]) readBatch(ctx context.Context, reader jetstream.Consumer, most int, fn func(T) error) (n uint64, err error) {
	ctx, cancel := bounded(ctx, opTimeout)
	defer cancel()
	got, err := reader.Fetch(most, jetstream.FetchContext(ctx))
	if err != nil {
		return 0, err
	}
	for m := range got.Messages() {
		n++
		var entry T
		if err := json.Unmarshal(m.Data(), &entry); err != nil {
			t.conn.log.Error("entry of a trail is broken and is left out", "trail", t.name, "err", err)
			continue
		}
		if err := fn(entry); err != nil {
			return n, &fnError{err}
		}
	}
	return n, got.Error()
}
