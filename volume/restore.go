package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"drover"
	"drover/internal/snapstore"
	"drover/manifest"
	"drover/nbd"
)

// keptPages is how many pages of its manifest a restore remembers: each describes 4 GiB in 140 KiB at most.
const keptPages = 8

// checkTimeout bounds CheckParent for a snapshot.
const checkTimeout = 20 * time.Second

// snapshotParent is a snapshot in the object store that a layer is filled from. It implements upstream: it waits while the store does not
// answer. What it returns has the SHA-256 that the snapshot says.
type snapshotParent struct {
	src drover.SnapshotSource
	// cipher is the layer's, which must be the snapshot's.
	cipher *drover.Cipher
	store  *snapstore.Store
	// unusable says why there is no store.
	unusable error
	cache    *chunkCache
	log      *slog.Logger
	why      atomic.Pointer[string]
	// closed is closed when nothing is needed any more.
	closed chan struct{}
	once   sync.Once

	// turn is held by the one who reads the manifest or a page.
	turn     chan struct{}
	mu       sync.Mutex
	manifest *manifest.Manifest
	pages    []*manifest.Page // the one used last at the end
}

func (e *env) newSnapshotParent(src drover.SnapshotSource, cipher *drover.Cipher, log *slog.Logger) *snapshotParent {
	p := &snapshotParent{src: src, cipher: cipher, cache: e.chunks, log: log, closed: make(chan struct{}), turn: make(chan struct{}, 1)}
	p.store, p.unusable = snapstore.New(e.cfg.Objects, src.Volume, e.codec)
	return p
}

// checkSnapshotSource refuses what cannot be restored.
func checkSnapshotSource(spec drover.LayerSpec) error {
	s := spec.Snapshot
	if spec.Parent != nil {
		return drover.Errorf(drover.Invalid, "it cannot be filled from a snapshot and from a layer")
	}
	if err := errors.Join(manifest.CheckVolume(s.Volume), manifest.CheckSnapshot(s.Snapshot)); err != nil {
		return err
	}
	if _, err := manifest.ParseHash(s.Manifest); err != nil {
		return drover.Errorf(drover.Invalid, "its manifest: %w", err)
	}
	if err := checkSize(s.Size); err != nil {
		return drover.Errorf(drover.Invalid, "the snapshot's %w", err)
	}
	if s.Size > spec.Size {
		return drover.Errorf(drover.Invalid, "snapshot %s has %d bytes, the layer %d: it may be larger, but not smaller", s.Snapshot, s.Size, spec.Size)
	}
	return nil
}

func noStore(host drover.HostID) error {
	return drover.Errorf(drover.Precondition, "host %s has no object store", host).WithHint("object_store in the host's configuration says which one to use")
}

func (p *snapshotParent) name() string {
	return fmt.Sprintf("snapshot %s of volume %s", p.src.Snapshot, p.src.Volume)
}

func (p *snapshotParent) close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *snapshotParent) trouble() string {
	if why := p.why.Load(); why != nil {
		return *why
	}
	return ""
}

// ask asks the store, again and again until it answers or the context ends. That something in the store is damaged is an answer.
func (p *snapshotParent) ask(ctx context.Context, request func(context.Context) error) error {
	for failures := 0; ; failures++ {
		err := p.unusable
		if err == nil {
			err = request(ctx)
		}
		if err == nil {
			p.well()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.troubled(err)
		if snapstore.Damaged(err) {
			return err
		}
		pause := min(backoffMin<<min(failures, 10), backoffMax)
		if err := waitFor(ctx, p.closed, pause/2+rand.N(pause/2+1)); err != nil {
			return err
		}
		select {
		case <-p.closed:
			return drover.Errorf(drover.Unavailable, "%s is not used any more", p.name())
		default:
		}
	}
}

func (p *snapshotParent) troubled(err error) {
	text := fmt.Sprintf("%s: %v", p.name(), err)
	if old := p.why.Swap(&text); old == nil {
		p.log.Warn("snapshot cannot be read", "snapshot", string(p.src.Snapshot), "err", err)
	}
}

func (p *snapshotParent) well() {
	if p.why.Load() != nil && p.why.Swap(nil) != nil {
		p.log.Info("snapshot can be read again", "snapshot", string(p.src.Snapshot))
	}
}

// read is reader's.
func (p *snapshotParent) read(ctx context.Context, who class, buf []byte, off int64) error {
	for len(buf) > 0 {
		i, at := off/manifest.ChunkSize, off%manifest.ChunkSize
		n := min(int64(len(buf)), manifest.ChunkSize-at)
		if err := p.readChunk(ctx, who, buf[:n], i, at); err != nil {
			return err
		}
		buf, off = buf[n:], off+n
	}
	return nil
}

// readChunk reads a part of one chunk.
func (p *snapshotParent) readChunk(ctx context.Context, who class, buf []byte, i, at int64) error {
	h, there, err := p.chunk(ctx, i)
	if err != nil {
		return err
	}
	if !there {
		clear(buf)
		return nil
	}
	err = p.cache.read(ctx, who, chunkKey{p.src.Volume, h}, buf, at, func(ctx context.Context, data []byte) error {
		return p.ask(ctx, func(ctx context.Context) error { return p.store.Chunk(ctx, data, h) })
	})
	if snapstore.Damaged(err) {
		return drover.Errorf(drover.Internal, "snapshot %s of volume %s is damaged at offset %d: %w", p.src.Snapshot, p.src.Volume, i*manifest.ChunkSize, err).
			WithHint("restore another snapshot")
	}
	return err
}

// chunk looks up the hash of a chunk; false for one that holds only zeroes.
func (p *snapshotParent) chunk(ctx context.Context, i int64) (manifest.Hash, bool, error) {
	page, err := p.page(ctx, i/manifest.PageChunks)
	if err != nil || page == nil {
		return manifest.Hash{}, false, err
	}
	h, ok := page.Chunk(i)
	return h, ok, nil
}

// page returns a page of the manifest; nil if there is nothing in it.
func (p *snapshotParent) page(ctx context.Context, index int64) (*manifest.Page, error) {
	if page, known := p.known(index); known {
		return page, nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if page, known := p.known(index); known {
		return page, nil
	}
	var page *manifest.Page
	err := p.ask(ctx, func(ctx context.Context) error {
		m, err := p.load(ctx)
		if err != nil {
			return err
		}
		if ref, ok := m.Page(index); ok {
			page, err = p.store.Page(ctx, ref)
		}
		return err
	})
	if err != nil {
		if snapstore.Damaged(err) {
			return nil, drover.Errorf(drover.Internal, "snapshot %s of volume %s is damaged from offset %d on: %w", p.src.Snapshot, p.src.Volume,
				index*manifest.PageChunks*manifest.ChunkSize, err).WithHint("restore another snapshot")
		}
		return nil, err
	}
	if page != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.pages = append(p.pages, page); len(p.pages) > keptPages {
			p.pages = append([]*manifest.Page(nil), p.pages[1:]...)
		}
	}
	return page, nil
}

// known looks a page up in what is remembered.
func (p *snapshotParent) known(index int64) (*manifest.Page, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.manifest == nil {
		return nil, false
	}
	if _, ok := p.manifest.Page(index); !ok {
		return nil, true
	}
	for i, page := range p.pages {
		if page.Index == index {
			last := len(p.pages) - 1
			p.pages[i], p.pages[last] = p.pages[last], page
			return page, true
		}
	}
	return nil, false
}

// load returns the manifest. It must be the one that the record of the snapshot names.
func (p *snapshotParent) load(ctx context.Context) (*manifest.Manifest, error) {
	p.mu.Lock()
	m := p.manifest
	p.mu.Unlock()
	if m != nil {
		return m, nil
	}
	want, err := manifest.ParseHash(p.src.Manifest)
	if err != nil {
		return nil, err
	}
	if m, _, err = p.store.Manifest(ctx, p.src.Snapshot, want); err != nil {
		return nil, err
	}
	if m.Size != p.src.Size {
		return nil, drover.Errorf(drover.Precondition, "%s has %d bytes, not %d", p.name(), m.Size, p.src.Size)
	}
	if !m.Cipher.Equal(p.cipher) {
		return nil, drover.Errorf(drover.Precondition, "%s is encrypted with another key than the layer, or one of them is not encrypted", p.name())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.manifest = m
	return m, nil
}

// extents is reader's: a chunk that is in the snapshot is data, and all of it is present. In other contexts nothing is known.
func (p *snapshotParent) extents(ctx context.Context, _ class, metaContext string, off, n int64) ([]nbd.Extent, error) {
	var out extentList
	for end := off + n; off < end && !out.full(); {
		i := off / manifest.ChunkSize
		stop := min(end, (i+1)*manifest.ChunkSize)
		flags := uint32(0)
		switch metaContext {
		case nbd.ContextPresent:
			flags = nbd.FlagPresent
		case nbd.ContextSum:
			flags = unknownSum // chunks were compared with their own checksums
		case nbd.ContextAllocation:
			_, there, err := p.chunk(ctx, i)
			if err != nil {
				return nil, err
			}
			if !there {
				flags = nbd.FlagHole | nbd.FlagZero
			}
		}
		out.add(stop-off, flags)
		off = stop
	}
	return out, nil
}

// check makes sure that the snapshot can be read: its manifest, a page and a chunk. It keeps nothing of the layer's.
func (p *snapshotParent) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, drover.Errorf(drover.Unavailable, "the object store did not answer for %v", checkTimeout))
	defer cancel()
	err := p.checkNow(ctx)
	if err == nil {
		return nil
	}
	code := drover.CodeOf(err)
	if code == drover.Canceled {
		code = drover.Unavailable
	}
	return drover.Errorf(code, "cannot read %s: %w", p.name(), err)
}

func (p *snapshotParent) checkNow(ctx context.Context) error {
	if p.unusable != nil {
		return p.unusable
	}
	m, err := p.load(ctx)
	if err != nil || len(m.Pages) == 0 {
		return err
	}
	page, err := p.page(ctx, m.Pages[0].Index)
	if err != nil {
		return err
	}
	page.Each(func(i int64, _ manifest.Hash) bool {
		err = p.readChunk(ctx, guestClass, make([]byte, blockSize), i, 0)
		return false
	})
	return err
}
