package fleet

import (
	"context"
	"maps"
	"sync"

	"drover/natsbus"
)

// table is one bucket with its image in memory. The image follows the bucket by watching; what this process writes is in it at once.
type table[T any] struct {
	name string
	// mu is shared by all tables, so that several can be read at one moment. It guards what follows.
	mu    *sync.RWMutex
	items map[string]item[T]
	// gone has the revisions of deletions that this process made and the watch has not told yet, so that older news does not
	// bring the record back.
	gone map[string]uint64
	// told is the newest revision that the watch has told, of any key. It tells in order, so what this process reads or writes and
	// takes in later than that is old news: the record may have been removed since.
	told uint64
	// changed keeps indexes right; it is called under mu with what was and what is, nil for nothing.
	changed func(key string, old, now *T)
	// group names a second key whose waiters are woken with a key's; nil for none.
	group func(key string) string
	// waiters are closed at the next change of their key.
	waiters map[string]chan struct{}

	bucket *natsbus.Bucket[T]
	synced chan struct{}
}

// item is a record with its revision.
type item[T any] struct {
	value T
	rev   uint64
}

func newTable[T any](mu *sync.RWMutex, name string) *table[T] {
	return &table[T]{name: name, mu: mu, items: map[string]item[T]{}, gone: map[string]uint64{}, changed: func(string, *T, *T) {},
		waiters: map[string]chan struct{}{}, synced: make(chan struct{})}
}

func (t *table[T]) open(ctx context.Context, conn *natsbus.Conn, replicas int) (err error) {
	t.bucket, err = natsbus.OpenBucket[T](ctx, conn, t.name, natsbus.BucketOptions{Replicas: replicas})
	return err
}

// follow keeps the image up to date until ctx ends. told is called after each change, without the lock.
func (t *table[T]) follow(ctx context.Context, told func(key string)) error {
	first := true
	return t.bucket.Watch(ctx, func(e natsbus.Entry[T]) error {
		switch {
		case e.Synced:
			if first {
				close(t.synced)
				first = false
			}
			return nil
		case e.Deleted:
			t.drop(e.Key, e.Revision, true)
		default:
			t.set(e.Key, e.Value, e.Revision, true)
		}
		told(e.Key)
		return nil
	})
}

// set takes in a record unless a newer one, or its deletion, is known.
func (t *table[T]) set(key string, value T, rev uint64, fromWatch bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch gone := t.gone[key]; {
	case fromWatch:
		t.told = max(t.told, rev)
		if gone > rev {
			return
		}
		delete(t.gone, key)
	case gone > rev, rev <= t.told:
		return
	}
	old, had := t.items[key]
	if had && old.rev >= rev {
		return
	}
	t.items[key] = item[T]{value, rev}
	if had {
		t.tellLocked(key, &old.value, &value)
	} else {
		t.tellLocked(key, nil, &value)
	}
}

// drop takes in a deletion; revision 0 is that of a record which a new watch did not find.
func (t *table[T]) drop(key string, rev uint64, fromWatch bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case fromWatch:
		t.told = max(t.told, rev)
		if t.gone[key] <= rev || rev == 0 {
			delete(t.gone, key)
		}
	case rev > t.told:
		t.gone[key] = rev
	}
	old, had := t.items[key]
	if !had || (rev != 0 && old.rev > rev) {
		return
	}
	delete(t.items, key)
	t.tellLocked(key, &old.value, nil)
}

func (t *table[T]) tellLocked(key string, old, now *T) {
	t.changed(key, old, now)
	second := anyKey
	if t.group != nil {
		second = t.group(key)
	}
	for _, k := range [...]string{key, anyKey, second} {
		if ch, ok := t.waiters[k]; ok {
			close(ch)
			delete(t.waiters, k)
		}
	}
}

// anyKey stands for all keys of a table in next.
const anyKey = "*"

// next is closed at the next change of the key. Ask for it before looking at what is there now.
func (t *table[T]) next(key string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch, ok := t.waiters[key]
	if !ok {
		ch = make(chan struct{})
		t.waiters[key] = ch
	}
	return ch
}

// heard returns the newest revision that the watch has told.
func (t *table[T]) heard() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.told
}

// seen returns what is in memory.
func (t *table[T]) seen(key string) (value T, rev uint64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.items[key]
	return i.value, i.rev, ok
}

// all returns every record in memory.
func (t *table[T]) all() []item[T] {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]item[T], 0, len(t.items))
	for _, i := range t.items {
		out = append(out, i)
	}
	return out
}

// snapshot returns every record in memory by its key.
func (t *table[T]) snapshot() map[string]item[T] {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.items)
}

// get reads the newest record from the store.
func (t *table[T]) get(ctx context.Context, key string) (T, uint64, error) {
	value, rev, err := t.bucket.Get(ctx, key)
	if err == nil {
		t.set(key, value, rev, false)
	}
	return value, rev, err
}

func (t *table[T]) create(ctx context.Context, key string, value T) (uint64, error) {
	rev, err := t.bucket.Create(ctx, key, value)
	if err == nil {
		t.set(key, value, rev, false)
	}
	return rev, err
}

func (t *table[T]) update(ctx context.Context, key string, value T, rev uint64) (uint64, error) {
	rev, err := t.bucket.Update(ctx, key, value, rev)
	if err == nil {
		t.set(key, value, rev, false)
	}
	return rev, err
}

func (t *table[T]) remove(ctx context.Context, key string, rev uint64) error {
	gone, err := t.bucket.Delete(ctx, key, rev)
	if err == nil {
		t.drop(key, gone, false)
	}
	return err
}
