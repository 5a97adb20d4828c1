package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"drover"
)

// StreamSnapshots is the stream that Objects keeps the snapshots of a fleet in.
const StreamSnapshots = "snapshots-data"

const (
	// headerParts and headerSize are those of an object's part 0; the others have none.
	headerParts = "Drover-Parts"
	headerSize  = "Drover-Size"
	// headerRoom is what a message keeps free of its payload for its headers.
	headerRoom = 4 << 10
	// maxPart bounds the size of a part where the server would take larger messages.
	maxPart = 2 << 20
	// objectTimeout bounds one message to or from the store: a part, which is synced to the servers' disks.
	objectTimeout = 10 * time.Second
	// namesAtOnce is how many names are asked for at once.
	namesAtOnce = 250
)

// ObjectOptions describes a store that does not exist yet.
type ObjectOptions struct {
	// Replicas is how many servers hold the store; 0 means as many as hold the fleet's volumes.
	Replicas int
	// Made says that others make the store: this process may not.
	Made bool
}

// Objects is an object store in a JetStream stream. An object is a message, or a few when it is larger than a message may be, under a
// subject that is made of its name, part by part, so that the server lists, finds and deletes by name. (The libraries' object store
// hides the name in a hash of one token: to list one volume there is to read the names of all.) Safe for concurrent use.
type Objects struct {
	conn *Conn
	name string
	opts ObjectOptions

	mu     sync.Mutex
	stream jetstream.Stream
	// distrust is set when several servers hold the stream: one that is behind may not know of an object yet.
	distrust bool
}

var _ drover.ObjectStore = (*Objects)(nil)

// NewObjects returns the store, which is made at the first use if it is not there. It asks nothing of the bus yet.
func NewObjects(conn *Conn, name string, opts ObjectOptions) *Objects {
	return &Objects{conn: conn, name: name, opts: opts}
}

// subject is what the parts of an object lie under: a slash separates tokens, and a dot, which does so on the bus, is written as "=",
// which no object's name has.
func (o *Objects) subject(object string) string {
	return o.name + "." + strings.NewReplacer("/", ".", ".", "=").Replace(object)
}

func (o *Objects) object(subject string) (name, part string) {
	tokens := strings.TrimPrefix(subject, o.name+".")
	i := max(0, strings.LastIndexByte(tokens, '.'))
	return strings.NewReplacer(".", "/", "=", ".").Replace(tokens[:i]), tokens[i+1:]
}

func (o *Objects) doing(verb, object string) string {
	return fmt.Sprintf("cannot %s object %s of %s", verb, object, o.name)
}

// open finds or makes the stream, once. Unavailable when the bus does not answer.
func (o *Objects) open(ctx context.Context) (jetstream.Stream, error) {
	o.mu.Lock()
	s := o.stream
	o.mu.Unlock()
	if s != nil {
		return s, nil
	}
	var found jetstream.Stream
	err := o.tries(ctx, tryTimeout, func(ctx context.Context) (err error) { found, err = o.find(ctx); return err })
	if err != nil {
		return nil, translate(err, fmt.Sprintf("cannot open the object store %s", o.name))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stream, o.distrust = found, found.CachedInfo().Config.Replicas > 1
	return found, nil
}

// Ensure makes the store if it is not there; it tries until ctx ends.
func (o *Objects) Ensure(ctx context.Context) {
	for ctx.Err() == nil {
		_, err := o.open(ctx)
		if err == nil {
			return
		}
		o.conn.log.Debug("the object store is not made yet", "store", o.name, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (o *Objects) find(ctx context.Context) (jetstream.Stream, error) {
	replicas := o.opts.Replicas
	s, err := o.conn.js.Stream(ctx, o.name)
	switch {
	case err == nil:
		if err := checkFormat(o.name, s); err != nil {
			return nil, err
		}
		if replicas == 0 || replicas == s.CachedInfo().Config.Replicas {
			return s, nil
		}
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, err
	case o.opts.Made:
		return nil, err // the control side has not made it yet
	case replicas == 0:
		volumes, err := o.conn.js.Stream(ctx, "KV_"+BucketVolumes)
		if err != nil {
			return nil, err // the control side has not made its buckets yet
		}
		replicas = volumes.CachedInfo().Config.Replicas
	}
	return o.conn.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: o.name, Subjects: []string{o.name + ".>"}, Storage: jetstream.FileStorage, Replicas: replicas,
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew,
		// Objects never change, so that any server may answer; what one does not have yet the leader is asked for.
		AllowDirect: true,
		Metadata:    map[string]string{formatKey: format},
	})
}

// again forgets the stream after an error that says that it is gone.
func (o *Objects) again(err error) {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		o.mu.Lock()
		o.stream = nil
		o.mu.Unlock()
	}
}

// tries makes a request up to three times, the first ones with less patience than most: one that is made before a leader exists is dropped
// without an answer.
func (o *Objects) tries(ctx context.Context, most time.Duration, do func(context.Context) error) (err error) {
	for try := range 3 {
		if ctx.Err() != nil {
			return drover.Errorf(drover.Canceled, "the object store %s was not waited for: %w", o.name, context.Cause(ctx))
		}
		bound, cancel := bounded(ctx, min(most, tryTimeout<<(2*try)))
		err = do(bound)
		cancel()
		if err == nil || codeOf(err) != drover.Unavailable || errors.Is(err, jetstream.ErrStreamNotFound) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectDelay(try)):
		}
	}
	if err != nil && ctx.Err() != nil {
		return drover.Errorf(drover.Canceled, "the object store %s was not waited for: %w", o.name, context.Cause(ctx))
	}
	o.again(err)
	return err
}

// partSize is what the server takes in one message.
func (o *Objects) partSize() int {
	if most := int(o.conn.nc.MaxPayload()) - headerRoom; most > 0 {
		return min(most, maxPart)
	}
	return maxPart // not connected yet: the server will say
}

// Put is drover.ObjectStore's. Part 0 is written last: without it the object is not there.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	if err := drover.CheckObjectName(name); err != nil {
		return err
	}
	if len(data) > int(drover.MaxObject) {
		return drover.Errorf(drover.Invalid, "%s: it has %d bytes, more than an object may have", o.doing("write", name), len(data))
	}
	if _, err := o.open(ctx); err != nil {
		return err
	}
	size := o.partSize()
	parts := max(1, (len(data)+size-1)/size)
	for i := parts - 1; i >= 0; i-- {
		m := nats.NewMsg(o.subject(name) + "." + strconv.Itoa(i))
		m.Data = data[i*size : min((i+1)*size, len(data))]
		if i == 0 {
			m.Header.Set(headerParts, strconv.Itoa(parts))
			m.Header.Set(headerSize, strconv.Itoa(len(data)))
		}
		err := o.tries(ctx, objectTimeout, func(ctx context.Context) error { _, err := o.conn.js.PublishMsg(ctx, m); return err })
		if err != nil {
			return translate(err, o.doing("write", name))
		}
	}
	return nil
}

// part reads one message.
func (o *Objects) part(ctx context.Context, name string, i int) (m *jetstream.RawStreamMsg, err error) {
	s, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	subject := o.subject(name) + "." + strconv.Itoa(i)
	for range 3 {
		err = o.tries(ctx, objectTimeout, func(ctx context.Context) (err error) { m, err = s.GetLastMsgForSubject(ctx, subject); return err })
		if err == nil || codeOf(err) != drover.NotFound || !o.behind(ctx, s, subject) {
			break
		}
	}
	return m, err
}

// behind reports whether the leader has what a server that answered does not have yet.
func (o *Objects) behind(ctx context.Context, s jetstream.Stream, subject string) bool {
	o.mu.Lock()
	distrust := o.distrust
	o.mu.Unlock()
	if !distrust {
		return false
	}
	there, err := o.there(ctx, s, subject)
	return err == nil && there
}

// there asks the leader.
func (o *Objects) there(ctx context.Context, s jetstream.Stream, subject string) (bool, error) {
	var info *jetstream.StreamInfo
	err := o.tries(ctx, tryTimeout, func(ctx context.Context) (err error) {
		info, err = s.Info(ctx, jetstream.WithSubjectFilter(subject))
		return err
	})
	return err == nil && len(info.State.Subjects) > 0, err
}

// Get is drover.ObjectStore's.
func (o *Objects) Get(ctx context.Context, name string) ([]byte, error) {
	if err := drover.CheckObjectName(name); err != nil {
		return nil, err
	}
	m, err := o.part(ctx, name, 0)
	if err != nil {
		return nil, translate(err, o.doing("read", name))
	}
	parts, err := strconv.Atoi(m.Header.Get(headerParts))
	size, serr := strconv.Atoi(m.Header.Get(headerSize))
	if err != nil || serr != nil || parts < 1 || size < 0 || size > int(drover.MaxObject) || parts > size+1 {
		return nil, drover.Errorf(drover.Internal, "%s: its headers say %q parts, %q bytes", o.doing("read", name), m.Header.Get(headerParts), m.Header.Get(headerSize))
	}
	data := m.Data
	for i := 1; i < parts && len(data) < size; i++ {
		if m, err = o.part(ctx, name, i); err != nil {
			return nil, translate(err, o.doing("read", name))
		}
		data = append(data, m.Data...)
	}
	if len(data) != size {
		return nil, drover.Errorf(drover.Internal, "%s: it has %d bytes where %d are expected", o.doing("read", name), len(data), size)
	}
	return data, nil
}

// Has is drover.ObjectStore's.
func (o *Objects) Has(ctx context.Context, name string) (bool, error) {
	if err := drover.CheckObjectName(name); err != nil {
		return false, err
	}
	s, err := o.open(ctx)
	if err != nil {
		return false, err
	}
	there, err := o.there(ctx, s, o.subject(name)+".0")
	if err != nil {
		return false, translate(err, o.doing("look for", name))
	}
	return there, nil
}

// Delete is drover.ObjectStore's.
func (o *Objects) Delete(ctx context.Context, name string) error {
	if err := drover.CheckObjectName(name); err != nil {
		return err
	}
	s, err := o.open(ctx)
	if err != nil {
		return err
	}
	err = o.tries(ctx, objectTimeout, func(ctx context.Context) error {
		return s.Purge(ctx, jetstream.WithPurgeSubject(o.subject(name)+".*"))
	})
	if err != nil {
		return translate(err, o.doing("delete", name))
	}
	return nil
}

// List is drover.ObjectStore's. The headers of all messages are read, a batch at a time.
func (o *Objects) List(ctx context.Context, prefix string, fn func(name string, size drover.Bytes) error) error {
	s, err := o.open(ctx)
	if err != nil {
		return err
	}
	filter := o.name + ".>"
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		filter = o.subject(prefix[:i]) + ".>"
	}
	what := fmt.Sprintf("cannot list %s* of %s", prefix, o.name)
	var reader jetstream.Consumer
	err = o.tries(ctx, tryTimeout, func(ctx context.Context) (err error) {
		reader, err = s.CreateConsumer(ctx, jetstream.ConsumerConfig{FilterSubject: filter, HeadersOnly: true, AckPolicy: jetstream.AckNonePolicy,
			DeliverPolicy: jetstream.DeliverAllPolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute})
		return err
	})
	if err != nil {
		return translate(err, what)
	}
	defer func() {
		clean, cancel := bounded(context.WithoutCancel(ctx), tryTimeout)
		defer cancel()
		if err := s.DeleteConsumer(clean, reader.CachedInfo().Name); err != nil {
			o.conn.log.Debug("a list's reader stays for a minute", "err", err)
		}
	}()
	for left := reader.CachedInfo().NumPending; left > 0; {
		if ctx.Err() != nil {
			return translate(context.Cause(ctx), what)
		}
		n, err := o.listBatch(ctx, reader, int(min(left, namesAtOnce)), func(name string, size drover.Bytes) error {
			if !strings.HasPrefix(name, prefix) {
				return nil
			}
			return fn(name, size)
		})
		var told *fnError
		switch {
		case errors.As(err, &told):
			return told.err
		case err != nil:
			return translate(err, what)
		case n == 0:
			return drover.Errorf(drover.Unavailable, "%s: the bus sent none of the %d names that are left", what, left)
		}
		left -= min(n, left)
	}
	return nil
}

// listBatch calls fn for up to most names, and returns how many messages those took. An error of fn comes as an *fnError.
func (o *Objects) listBatch(ctx context.Context, reader jetstream.Consumer, most int, fn func(name string, size drover.Bytes) error) (n uint64, err error) {
	ctx, cancel := bounded(ctx, objectTimeout)
	defer cancel() // ends the library's goroutine
	got, err := reader.Fetch(most, jetstream.FetchContext(ctx))
	if err != nil {
		return 0, err
	}
	for m := range got.Messages() {
		n++
		name, part := o.object(m.Subject())
		if part != "0" {
			continue
		}
		size, err := strconv.ParseInt(m.Headers().Get(headerSize), 10, 64)
		if err != nil {
			return n, drover.Errorf(drover.Internal, "object %s of %s has the size %q", name, o.name, m.Headers().Get(headerSize))
		}
		if err := fn(name, drover.Bytes(size)); err != nil {
			return n, &fnError{err}
		}
	}
	return n, got.Error()
}
