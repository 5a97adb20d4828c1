package volume

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"drover"
	"drover/internal/snapstore"
	"drover/manifest"
)

const (
	// uploadsAtOnce is how many layers of a pool are uploaded at the same time, uploadWorkers how many chunks of one.
	uploadsAtOnce = 2
	uploadWorkers = 4
	// codecUsers is how many chunks are packed or unpacked at the same time.
	codecUsers = 4
	// uploadRetryMin is the first pause after trouble; they grow to retryMax.
	uploadRetryMin = 200 * time.Millisecond
)

// uploadRecord is what is remembered of a layer's way into the object store.
type uploadRecord struct {
	Snapshot drover.SnapshotID `json:"snapshot"`
	Volume   drover.VolumeID   `json:"volume"`
	BegunAt  time.Time         `json:"begun_at"`
	// Full: nothing that the store has is relied on.
	Full bool `json:"full,omitempty"`
	// Compared: Previous was looked for, and is the snapshot that this one is compared with; empty for none.
	Compared bool              `json:"compared,omitempty"`
	Previous drover.SnapshotID `json:"previous,omitempty"`
	// NextPage is the first page that is not in the store yet, Pages those before it that are not empty.
	NextPage int64              `json:"next_page,omitempty"`
	Pages    []manifest.PageRef `json:"pages,omitempty"`
	Total    drover.Bytes       `json:"total,omitempty"`
	Read     drover.Bytes       `json:"read,omitempty"`
	Stored   drover.Bytes       `json:"stored,omitempty"`
	// Done: the manifest is in the store, with this SHA-256. Pages are forgotten then.
	Done     bool      `json:"done,omitempty"`
	Manifest string    `json:"manifest,omitempty"`
	DoneAt   time.Time `json:"done_at,omitzero"`
}

// uploads is what the uploads of a pool share.
type uploads struct {
	limit   *rate.Limiter
	turns   chan struct{}
	buffers sync.Pool
}

func (u *uploads) init(limit drover.Bytes) {
	u.limit = rate.NewLimiter(rate.Inf, manifest.ChunkSize)
	if limit > 0 {
		u.limit.SetLimit(rate.Limit(limit))
	}
	u.turns = make(chan struct{}, uploadsAtOnce)
	u.buffers.New = func() any { b := make([]byte, manifest.ChunkSize, manifest.MaxChunkEncoded); return &b }
}

// uploader is the upload of one layer.
type uploader struct {
	mu      sync.Mutex
	running bool
	cancel  context.CancelFunc
	done    chan struct{}
	// total, read and stored are what the record will say.
	total, read, stored atomic.Int64
	// waiting is why nothing moves; nil while it does.
	waiting atomic.Pointer[string]
}

// uploading reports whether the layer's content is needed for an upload that is under way.
func (m *meta) uploading() bool { return m.Upload != nil && !m.Upload.Done && !m.Unwanted }

// upload begins, or goes on with, copying a frozen layer into the object store.
func (p *pool) upload(ctx context.Context, id drover.LayerID, src *drover.SnapshotSource) (drover.LayerStatus, error) {
	l, err := p.beginUpload(ctx, id, src)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	return l.status()
}

func (p *pool) beginUpload(ctx context.Context, id drover.LayerID, src *drover.SnapshotSource) (*layer, error) {
	if src == nil {
		return nil, drover.Errorf(drover.Invalid, "cannot upload layer %s: no snapshot is named", id).WithField("snapshot")
	}
	if err := manifest.CheckSnapshot(src.Snapshot); err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot upload layer %s: %w", id, err).WithField("snapshot")
	}
	if err := manifest.CheckVolume(src.Volume); err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot upload layer %s: %w", id, err).WithField("snapshot.volume")
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := p.mayUpload(l, src); err != nil {
		return nil, err
	}
	if u := l.meta().Upload; u == nil || u.Snapshot != src.Snapshot {
		l.uploader.total.Store(0)
		l.uploader.read.Store(0)
		l.uploader.stored.Store(0)
		rec := &uploadRecord{Snapshot: src.Snapshot, Volume: src.Volume, BegunAt: time.Now().UTC(), Full: src.Full}
		if err := l.update(func(m *meta) { m.Upload = rec }); err != nil {
			return nil, err
		}
		p.cfg.Faults.Hit("volume.upload.begun")
	}
	p.resumeUpload(l)
	return l, nil
}

func (p *pool) mayUpload(l *layer, src *drover.SnapshotSource) error {
	m := l.meta()
	switch {
	case p.cfg.Objects == nil:
		return noStore(p.cfg.Host)
	case m.State != drover.LayerFrozen:
		return drover.Errorf(drover.Precondition, "cannot upload layer %s: its state is %s, and only what does not change can be a snapshot", l.id, m.State).
			WithHint("split the layer, and upload what was split off")
	case m.Unwanted || m.Absorbed:
		return drover.Errorf(drover.Precondition, "cannot upload layer %s: it was deleted", l.id)
	case m.parent() != nil && !m.Activated:
		return drover.Errorf(drover.Precondition, "cannot upload layer %s: it was never opened, and until the switch its parent may still change", l.id)
	case m.Upload != nil && m.Upload.Snapshot == src.Snapshot && m.Upload.Volume != src.Volume:
		return drover.Errorf(drover.Conflict, "layer %s is uploaded as snapshot %s of volume %s, not of %s", l.id, src.Snapshot, m.Upload.Volume, src.Volume)
	case m.uploading() && m.Upload.Snapshot != src.Snapshot:
		return drover.Errorf(drover.Conflict, "layer %s is being uploaded as snapshot %s", l.id, m.Upload.Snapshot)
	}
	return nil
}

// resumeUpload goes on with the upload of a layer if one is under way, unless it runs already.
func (p *pool) resumeUpload(l *layer) {
	if !l.meta().uploading() {
		return
	}
	u := &l.uploader
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.running {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	u.running, u.cancel, u.done = true, cancel, make(chan struct{})
	p.wg.Go(func() {
		defer close(u.done)
		p.runUpload(ctx, l)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.running = false
		cancel()
	})
}

// stopUpload ends the upload and waits for it. It goes on from there when it is asked for again.
func (l *layer) stopUpload() {
	u := &l.uploader
	u.mu.Lock()
	cancel, done := u.cancel, u.done
	u.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// runUpload tries until all is in the store. Trouble of any kind may pass: the store comes back, its credentials are replaced.
func (p *pool) runUpload(ctx context.Context, l *layer) {
	u, rec := &l.uploader, l.meta().Upload
	log := l.log.With("snapshot", string(rec.Snapshot))
	u.total.Store(int64(rec.Total))
	wait := func(text string) { u.waiting.Store(&text) }
	wait("other snapshots of this host go first")
	select {
	case p.uploads.turns <- struct{}{}:
		defer func() { <-p.uploads.turns }()
	case <-ctx.Done():
		return
	}
	u.waiting.Store(nil)
	log.Info("upload runs")
	begun := time.Now()
	run := &uploadRun{pool: p, layer: l, log: log}
	for failures := 0; ; failures++ {
		before := u.read.Load()
		err := run.attempt(ctx)
		if err == nil {
			rec := l.meta().Upload
			log.Info("upload done", "read", int64(rec.Read), "stored", int64(rec.Stored), "dur", time.Since(begun))
			return
		}
		if ctx.Err() != nil {
			return
		}
		if u.read.Load() != before {
			failures = 0
		}
		wait(err.Error())
		pause := min(uploadRetryMin<<min(failures, 10), retryMax)
		pause = pause/2 + rand.N(pause/2+1)
		log.Warn("upload stands still", "again_in", pause, "err", err)
		if waitFor(ctx, nil, pause) != nil {
			return
		}
	}
}

// progressed says that something moves.
func (u *uploader) progressed() {
	if u.waiting.Load() != nil {
		u.waiting.Store(nil)
	}
}

// upload describes the layer's way into the object store; nil if it has none.
func (l *layer) upload(m *meta) *drover.Upload {
	rec := m.Upload
	if rec == nil {
		return nil
	}
	out := &drover.Upload{Snapshot: rec.Snapshot, Total: rec.Total, Read: rec.Read, Stored: rec.Stored, Done: rec.Done, Manifest: rec.Manifest}
	if rec.Done {
		return out
	}
	u := &l.uploader
	out.Total = max(out.Total, drover.Bytes(u.total.Load()))
	out.Read = max(out.Read, drover.Bytes(u.read.Load()))
	out.Stored = max(out.Stored, drover.Bytes(u.stored.Load()))
	if out.Total > 0 {
		out.Read = min(out.Read, out.Total) // what was sent twice was read twice
	}
	if why := u.waiting.Load(); why != nil {
		out.Waiting = *why
	}
	return out
}

// newStore returns the part of the object store that a volume's snapshots are in.
func (e *env) newStore(volume drover.VolumeID) (*snapstore.Store, error) {
	return snapstore.New(e.cfg.Objects, volume, e.codec)
}
