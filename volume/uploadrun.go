package volume

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/snapstore"
	"drover/manifest"
	"drover/nbd"
)

// confirmRounds bounds how often what is missing in the store is sent again in one attempt.
const confirmRounds = 3

// uploadRun is the upload of a layer by one process. It is used by one goroutine; page uses several.
type uploadRun struct {
	pool  *pool
	layer *layer
	log   *slog.Logger
	store *snapstore.Store
	// previous is the manifest to compare with; nil for none.
	previous *manifest.Manifest
	// partial has what was found out of the page that an attempt did not finish.
	partial *pageWork
}

// attempt does all that is left, step by step; each step is recorded before the next.
func (r *uploadRun) attempt(ctx context.Context) (err error) {
	l := r.layer
	if r.store == nil {
		if r.store, err = r.pool.newStore(l.meta().Upload.Volume); err != nil {
			return err
		}
		if l.meta().Upload.Full {
			r.store = r.store.Rewriting()
		}
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	pages := manifest.Pages(l.meta().Spec.Size)
	for index := l.meta().Upload.NextPage; index < pages; index++ {
		if err := r.addPage(ctx, index); err != nil {
			return err
		}
	}
	m := r.manifest()
	if err := r.confirm(ctx, m); err != nil {
		return err
	}
	r.pool.cfg.Faults.Hit("volume.upload.confirmed")
	h, sent, err := r.store.PutManifest(ctx, m)
	if err != nil {
		return err
	}
	r.pool.cfg.Faults.Hit("volume.upload.manifest")
	if _, _, err := r.store.Manifest(ctx, m.Snapshot, h); err != nil { // it must be there, not only acknowledged
		return err
	}
	err = l.update(func(m *meta) {
		u := m.Upload
		u.Done, u.Manifest, u.DoneAt, u.Pages = true, h.String(), time.Now().UTC(), nil
		u.Read, u.Stored = u.Total, u.Stored+drover.Bytes(sent)
	})
	if err == nil {
		r.pool.cfg.Faults.Hit("volume.upload.done")
	}
	return err
}

// manifest makes the manifest of what the record has. It is the same each time.
func (r *uploadRun) manifest() *manifest.Manifest {
	rec, spec := r.layer.meta().Upload, r.layer.meta().Spec
	m := &manifest.Manifest{Volume: rec.Volume, Snapshot: rec.Snapshot, Parent: rec.Previous, Size: spec.Size, Cipher: spec.Cipher,
		BegunAt: rec.BegunAt, Pages: rec.Pages}
	for _, p := range rec.Pages {
		m.Chunks += int64(p.Chunks)
	}
	return m
}

// prepare finds the newest snapshot of the volume, most of whose chunks are this one's too, and how much is to be looked at. Which
// snapshot it is is recorded, for the manifest must not depend on when it is made.
func (r *uploadRun) prepare(ctx context.Context) (err error) {
	rec := r.layer.meta().Upload
	if !rec.Compared {
		if !rec.Full {
			if r.previous, err = r.store.Newest(ctx, rec.Snapshot); err != nil {
				return err
			}
		}
		return r.measure(ctx)
	}
	r.layer.uploader.read.Store(max(r.layer.uploader.read.Load(), int64(rec.Read)))
	r.layer.uploader.stored.Store(max(r.layer.uploader.stored.Load(), int64(rec.Stored)))
	if r.previous != nil || rec.Previous == "" {
		return nil
	}
	r.previous, _, err = r.store.Manifest(ctx, rec.Previous, manifest.Hash{})
	if err != nil && (snapstore.Damaged(err) || drover.Is(err, drover.Precondition)) {
		r.log.Warn("the snapshot to compare with is gone", "previous", string(rec.Previous), "err", err)
		return nil
	}
	return err
}

// measure finds out how much is to be looked at, and records it with what it is compared with.
func (r *uploadRun) measure(ctx context.Context) error {
	var total drover.Bytes
	for index := range manifest.Pages(r.layer.meta().Spec.Size) {
		chunks, err := r.candidates(ctx, index)
		if err != nil {
			return err
		}
		total += drover.Bytes(len(chunks)) * manifest.ChunkSize
	}
	r.layer.uploader.total.Store(int64(total))
	return r.layer.update(func(m *meta) {
		m.Upload.Total, m.Upload.Compared = total, true
		if r.previous != nil {
			m.Upload.Previous = r.previous.Snapshot
		}
	})
}

// candidates lists the chunks of a page that may hold something.
func (r *uploadRun) candidates(ctx context.Context, index int64) (chunks []int64, err error) {
	const page = manifest.ChunkSize * manifest.PageChunks
	c, err := r.layer.use()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for off, end := index*page, min((index+1)*page, c.size); off < end; {
		extents, err := c.extents(ctx, nbd.ContextAllocation, off, end-off)
		if err != nil {
			return nil, err
		}
		before := off
		for _, e := range extents {
			n := min(e.Length, end-off)
			if e.Flags&nbd.FlagZero == 0 {
				for i := off / manifest.ChunkSize; i*manifest.ChunkSize < off+n; i++ {
					if len(chunks) == 0 || chunks[len(chunks)-1] != i {
						chunks = append(chunks, i)
					}
				}
			}
			off += n
		}
		if off == before {
			return nil, drover.Errorf(drover.Internal, "layer %s describes nothing at offset %d", r.layer.id, off)
		}
	}
	return chunks, nil
}

// addPage stores the chunks of a page, then the page, then records it.
func (r *uploadRun) addPage(ctx context.Context, index int64) error {
	ref, err := r.storePage(ctx, index)
	if err != nil {
		return err
	}
	r.pool.cfg.Faults.Hit("volume.upload.page")
	u := &r.layer.uploader
	err = r.layer.update(func(m *meta) {
		rec := m.Upload
		rec.NextPage = index + 1
		if ref.Chunks > 0 {
			rec.Pages = append(rec.Pages, ref)
		}
		rec.Read, rec.Stored = drover.Bytes(u.read.Load()), drover.Bytes(u.stored.Load())
	})
	r.pool.cfg.Faults.Hit("volume.upload.page-recorded")
	return err
}

// storePage makes sure that a page and its chunks are in the store. An empty page is not stored.
func (r *uploadRun) storePage(ctx context.Context, index int64) (ref manifest.PageRef, err error) {
	w := r.partial
	if w == nil || w.index != index {
		if w, err = r.newPageWork(ctx, index); err != nil {
			return ref, err
		}
		r.partial = w
	}
	if err := w.run(ctx); err != nil {
		return ref, err
	}
	r.partial = nil
	page := manifest.NewPage(index, w.hashes)
	if page.Len() == 0 {
		return manifest.PageRef{Index: index}, nil
	}
	ref, sent, err := r.store.PutPage(ctx, page)
	r.layer.uploader.stored.Add(sent)
	return ref, err
}

// confirm makes sure that the store has all that the manifest needs: what was found there or acknowledged may be gone. What is missing is
// sent again.
func (r *uploadRun) confirm(ctx context.Context, m *manifest.Manifest) error {
	for range confirmRounds {
		missing, err := r.store.Missing(ctx, m)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		r.log.Warn("the object store has lost a part of the snapshot; it is sent again", "pages", len(missing))
		// What the snapshot before has is not to be relied on any more, nor is what was known of it.
		r.previous, r.partial = nil, nil
		for index := range missing {
			ref, err := r.storePage(ctx, index)
			if err != nil {
				return err
			}
			if was, _ := m.Page(index); was != ref {
				return drover.Errorf(drover.Internal, "page %d of layer %s has changed: it was %s, and is %s now", index, r.layer.id, was.Hash, ref.Hash)
			}
		}
	}
	return drover.Errorf(drover.Unavailable, "the object store does not keep what it was given for snapshot %s", m.Snapshot)
}

// unchanged returns what tells the chunks that the layer has from the snapshot before and need not be read; nil if nothing does. A frozen
// layer over the very layer that the snapshot before was made of differs from it where it has blocks of its own.
func (r *uploadRun) unchanged(c *content) func(i int64) bool {
	below := r.layer.below.Load()
	if r.previous == nil || below == nil || c.under.Load() == nil || c.under.Load() != below.content() {
		return nil
	}
	rec := below.meta().Upload
	if rec == nil || !rec.Done || rec.Snapshot != r.previous.Snapshot || rec.Volume != r.previous.Volume {
		return nil
	}
	o := c.enter()
	if o == nil {
		return nil
	}
	defer o.leave()
	if o.src.Load() != nil {
		return nil
	}
	present := o.present // stays readable as long as the content is used
	return func(i int64) bool {
		first, end := blocksOf(i*manifest.ChunkSize, min(manifest.ChunkSize, c.size-i*manifest.ChunkSize))
		return present.none(first, end)
	}
}

// pageWork is what is known of one page.
type pageWork struct {
	of     *uploadRun
	index  int64
	chunks []int64
	// before is the same page of the snapshot before; nil for none.
	before *manifest.Page

	mu sync.Mutex
	// done has the chunks that need nothing more, hashes those of them that hold something.
	done    map[int64]bool
	hashes  map[int64]manifest.Hash
	sending map[manifest.Hash]*sending
}

// sending is a chunk on its way, which another chunk of the same content waits for.
type sending struct {
	done chan struct{}
	err  error
}

func (r *uploadRun) newPageWork(ctx context.Context, index int64) (*pageWork, error) {
	chunks, err := r.candidates(ctx, index)
	if err != nil {
		return nil, err
	}
	w := &pageWork{of: r, index: index, chunks: chunks, done: map[int64]bool{}, hashes: map[int64]manifest.Hash{}, sending: map[manifest.Hash]*sending{}}
	if r.previous == nil {
		return w, nil
	}
	if ref, ok := r.previous.Page(index); ok {
		if w.before, err = r.store.Page(ctx, ref); err != nil && !snapstore.Damaged(err) {
			return nil, err
		}
	}
	return w, nil
}

// run looks at the chunks that are left, several at the same time.
func (w *pageWork) run(ctx context.Context) (err error) {
	c, err := w.of.layer.use()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	unchanged := w.of.unchanged(c)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(uploadWorkers)
	for _, i := range w.chunks {
		w.mu.Lock()
		done := w.done[i]
		w.mu.Unlock()
		if done {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			h, there, err := w.chunk(gctx, c, unchanged, i)
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.done[i] = true; there {
				w.hashes[i] = h
			}
			u := &w.of.layer.uploader
			u.read.Add(manifest.ChunkSize)
			u.progressed()
			return nil
		})
	}
	return group.Wait()
}

// chunk makes sure that a chunk is in the store, and returns its hash; false for one of zeroes.
func (w *pageWork) chunk(ctx context.Context, c *content, unchanged func(int64) bool, i int64) (h manifest.Hash, there bool, err error) {
	if w.before != nil && unchanged != nil && unchanged(i) {
		h, there = w.before.Chunk(i)
		return h, there, nil
	}
	p := w.of.pool
	if err := p.polite(ctx); err != nil {
		return h, false, err
	}
	buf, _ := p.uploads.buffers.Get().(*[]byte) // New makes nothing else
	defer p.uploads.buffers.Put(buf)
	data := (*buf)[:manifest.ChunkSize]
	off := i * manifest.ChunkSize
	n := min(manifest.ChunkSize, c.size-off)
	clear(data[n:])
	if err := c.ReadForOthers(ctx, data[:n], off); err != nil { // a flipped bit of this disk must not become a snapshot
		return h, false, err
	}
	if isZero(data) {
		return h, false, nil
	}
	h = manifest.Sum(data)
	if w.before != nil {
		if was, ok := w.before.Chunk(i); ok && was == h {
			return h, true, nil
		}
	}
	return h, true, w.send(ctx, data, h)
}

// send stores a chunk that is not there, once.
func (w *pageWork) send(ctx context.Context, data []byte, h manifest.Hash) error {
	w.mu.Lock()
	s := w.sending[h]
	mine := s == nil
	if mine {
		s = &sending{done: make(chan struct{})}
		w.sending[h] = s
	}
	w.mu.Unlock()
	if !mine {
		select {
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer close(s.done)
	p := w.of.pool
	buf, _ := p.uploads.buffers.Get().(*[]byte) // New makes nothing else
	defer p.uploads.buffers.Put(buf)
	var sent int64
	sent, s.err = w.of.store.PutChunk(ctx, *buf, data, h, w.of.layer.meta().Spec.Cipher == nil)
	w.of.layer.uploader.stored.Add(sent)
	if s.err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.sending, h) // the next attempt tries again
	} else if sent > 0 {
		p.cfg.Faults.Hit("volume.upload.chunk")
	}
	return s.err
}

// polite lets guests go first, and keeps to the limit. The waits are bounded, so that a guest that never rests slows uploads down and does
// not stop them.
func (p *pool) polite(ctx context.Context) error {
	const step, most = 2 * time.Millisecond, 25
	for i := 0; i < most && p.guestsBusy(); i++ {
		if err := waitFor(ctx, nil, step); err != nil {
			return err
		}
	}
	if err := p.uploads.limit.WaitN(ctx, manifest.ChunkSize); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return drover.Errorf(drover.Internal, "cannot keep to the limit of uploads: %w", err)
	}
	return nil
}

// guestsBusy reports whether a request of a writer is under way on any layer now. It costs the requests nothing.
func (p *pool) guestsBusy() bool { return slices.ContainsFunc(p.all(), (*layer).busy) }

// busy reports whether a request of the layer's writer is under way.
func (l *layer) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sessions {
		if s.writer.Load() && (s.gate.busy() || s.writes.busy()) {
			return true
		}
	}
	return false
}
