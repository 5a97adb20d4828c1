package volume

import (
	"container/list"
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"drover"
	"drover/manifest"
)

const (
	// cachedChunks is how many chunks of snapshots a daemon remembers, all layers together: guests read on where they have read, and
	// hydration asks for parts of a chunk that are not aligned to it.
	cachedChunks = 24
	// guestChunks and hydrationChunks bound how many are fetched at the same time.
	guestChunks     = 8
	hydrationChunks = 8
)

// chunkCache fetches chunks of snapshots, each by one at a time of those who want it, and remembers the last.
type chunkCache struct {
	guest, hydration *semaphore.Weighted
	buffers          sync.Pool

	mu      sync.Mutex
	entries map[chunkKey]*cachedChunk
	// idle has the chunks that nobody reads now, the one used last in front.
	idle list.List
}

type chunkKey struct {
	volume drover.VolumeID
	hash   manifest.Hash
}

// cachedChunk is a chunk that is here or on its way.
type cachedChunk struct {
	key  chunkKey
	data []byte
	// done is closed when the chunk is here or err says why not.
	done chan struct{}
	err  error
	// refs counts those who wait for it or read it; at zero it is in the idle list, at place.
	refs  int
	place *list.Element
}

func newChunkCache() *chunkCache {
	c := &chunkCache{guest: semaphore.NewWeighted(guestChunks), hydration: semaphore.NewWeighted(hydrationChunks), entries: map[chunkKey]*cachedChunk{}}
	c.buffers.New = func() any { b := make([]byte, manifest.ChunkSize); return &b }
	return c
}

func (c *chunkCache) slots(who class) *semaphore.Weighted {
	if who == guestClass {
		return c.guest
	}
	return c.hydration
}

// read copies a part of a chunk. fetch fills a chunk; it is called once for all who want the chunk meanwhile.
func (c *chunkCache) read(ctx context.Context, who class, key chunkKey, p []byte, at int64, fetch func(ctx context.Context, chunk []byte) error) error {
	for {
		e, mine := c.join(key)
		if mine {
			e.err = c.fetch(ctx, who, e, fetch)
			close(e.done)
		} else {
			select {
			case <-e.done:
			case <-ctx.Done():
				c.part(e)
				return context.Cause(ctx)
			}
		}
		err := e.err
		if err == nil {
			copy(p, e.data[at:])
		}
		c.part(e)
		if err == nil || mine || !drover.Is(err, drover.Canceled) {
			return err
		}
		// The one who fetched gave up; that is no reason for others to.
	}
}

// fetch gets a chunk.
func (c *chunkCache) fetch(ctx context.Context, who class, e *cachedChunk, do func(ctx context.Context, chunk []byte) error) error {
	slots := c.slots(who)
	err := slots.Acquire(ctx, 1)
	if err == nil {
		defer slots.Release(1)
		buf, _ := c.buffers.Get().(*[]byte) // New makes nothing else
		if err = do(ctx, *buf); err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			e.data = *buf
			return nil
		}
		c.buffers.Put(buf)
	}
	if ctx.Err() != nil {
		return drover.Errorf(drover.Canceled, "the chunk was not waited for: %w", context.Cause(ctx))
	}
	return err
}

// join returns the entry of a chunk, and whether the caller must fetch it. part must be called with it.
func (c *chunkCache) join(key chunkKey) (e *cachedChunk, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.entries[key]; e == nil {
		e, mine = &cachedChunk{key: key, done: make(chan struct{})}, true
		c.entries[key] = e
	}
	if e.refs++; e.place != nil {
		c.idle.Remove(e.place)
		e.place = nil
	}
	return e, mine
}

// part ends what join began. A chunk that could not be fetched is forgotten, and the chunks that were not used for longest are.
func (c *chunkCache) part(e *cachedChunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.data == nil && c.entries[e.key] == e {
		select {
		case <-e.done: // it failed
			delete(c.entries, e.key)
		default:
		}
	}
	if e.refs--; e.refs > 0 || e.data == nil {
		return
	}
	e.place = c.idle.PushFront(e)
	for c.idle.Len() > cachedChunks {
		last, _ := c.idle.Remove(c.idle.Back()).(*cachedChunk) // nothing else is put there
		delete(c.entries, last.key)
		c.buffers.Put(&last.data)
	}
}
