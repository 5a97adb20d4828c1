package volume

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"drover"
	"drover/internal/durable"
)

// The files of a layer's directory.
const (
	metaFile = "meta.json"
	dataFile = "data"
	mapName  = "map"
)

// layer is one layer of the pool: its durable record, its content, and who is connected to it.
type layer struct {
	id      drover.LayerID
	dir     string
	live    string // path of the live map
	log     *slog.Logger
	reserve *reserve

	metaMu sync.Mutex // held by the one who writes meta.json
	record atomic.Pointer[meta]

	body   atomic.Pointer[content] // see content
	parent *parent                 // nil without one; closed when it is needed no more

	mu sync.Mutex
	// writable is the epoch at which connections may write, 0 for none.
	writable drover.Epoch
	// withdrawn: the layer is being deleted or the daemon ends; no connection is taken any more.
	withdrawn bool
	sessions  map[*session]struct{}
	sequence  uint64
	// writer is the session that wrote last; only it may write on.
	writer     atomic.Pointer[session]
	takeoverMu sync.Mutex

	// throttle keeps the writer to the layer's limits; nil without any.
	throttle atomic.Pointer[throttle]

	hydrator hydrator
	// frozenData is the data of a layer that does not change any more; -1 while nobody has looked.
	frozenData atomic.Int64
}

// hydrator is the background copy of one layer.
type hydrator struct {
	mu      sync.Mutex
	limit   *rate.Limiter
	running bool
	cancel  context.CancelFunc
	done    chan struct{}
	// trouble is why the copy stands still for a reason of this host; nil when it does not.
	trouble atomic.Pointer[string]
}

// content returns what the layer holds now. It changes when the layer is split or takes its base in, so whoever needs one and the
// same content for several steps keeps what content returned.
func (l *layer) content() *content { return l.body.Load() }

// meta returns the record, which must not be changed.
func (l *layer) meta() *meta { return l.record.Load() }

// update changes the record, durably. Nothing is changed if it cannot be written.
func (l *layer) update(change func(*meta)) error {
	l.metaMu.Lock()
	defer l.metaMu.Unlock()
	m := l.meta().clone()
	change(m)
	if err := l.reserve.with(func() error { return writeMeta(filepath.Join(l.dir, metaFile), m) }); err != nil {
		return ioError(l.id, "write the record of", err)
	}
	l.record.Store(m)
	return nil
}

// env is what the layers of a pool share.
type env struct {
	pool, run string
	boot      string
	cfg       Config
	budget    *budget
	reserve   *reserve
	space     *space
	dial      dialFunc
}

func (e *env) layerDir(id drover.LayerID) string { return filepath.Join(e.pool, "layers", string(id)) }
func (e *env) livePath(id drover.LayerID) string {
	return filepath.Join(e.run, "maps", string(id)+".map")
}

// loadLayer opens a layer's files. baseOf finds the content of an image layer.
func (e *env) loadLayer(id drover.LayerID, baseOf func(drover.LayerID) (*content, error)) (_ *layer, err error) {
	l := &layer{id: id, dir: e.layerDir(id), live: e.livePath(id), log: e.cfg.Log.With("layer", string(id)),
		reserve: e.reserve, sessions: map[*session]struct{}{}}
	l.frozenData.Store(-1)
	m, err := readMeta(filepath.Join(l.dir, metaFile), id)
	if err != nil {
		return nil, err
	}
	l.record.Store(m)
	var base *content
	if m.Spec.Base != "" {
		if base, err = baseOf(m.Spec.Base); err != nil {
			return nil, err
		}
	}
	data, err := openFile(filepath.Join(l.dir, dataFile), int64(m.Spec.Size), m.State == drover.LayerImage)
	if err != nil {
		return nil, err
	}
	if m.parent() != nil {
		data = data.filling(filepath.Join(l.dir, dataFile))
	}
	c := newContent(id, int64(m.Spec.Size), data)
	c.faults, c.space = e.cfg.Faults, e.space
	l.body.Store(c)
	l.writable = m.Writer
	l.applyLimits()
	if !m.Mapped {
		return l, l.removeMap()
	}
	if err := e.openOverlay(l, base); err != nil {
		return nil, errors.Join(err, data.Close())
	}
	return l, l.simplify()
}

// simplify makes a layer a plain one whose guest has written every block of it.
func (l *layer) simplify() error {
	o := l.content().enter()
	defer o.leave()
	if l.parent != nil || !o.present.all(0, o.present.n) {
		return nil
	}
	if err := l.content().Flush(context.Background()); err != nil {
		return err
	}
	if err := l.update(func(m *meta) { m.Mapped = false }); err != nil {
		return err
	}
	l.content().dropOverlay()
	return nil
}

// openOverlay gives the content its map, from the live map if this boot made it, else from the one on disk.
func (e *env) openOverlay(l *layer, base *content) error {
	m := l.meta()
	head := mapHeader{blocks: int64(m.Spec.Size) / blockSize, incarnation: m.Incarnation, boot: e.boot}
	f, err := openFile(filepath.Join(l.dir, mapName), mapFileSize(head.blocks), false)
	if err != nil {
		return err
	}
	table := newMapFile(f, head.blocks)
	stored, err := table.load(m.Incarnation)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	live, found, err := openLiveMap(l.live, head)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	adopt(live.bitmap, stored, table)
	o := &overlay{present: live.bitmap, table: table, base: base, spoil: live.spoil}
	o.release = func() { l.releaseOverlay(f, live) }
	l.content().setOverlay(o)
	if err := l.content().sanitize(o); err != nil {
		l.content().dropOverlay()
		return err
	}
	if !found {
		live.seal(head)
	}
	if p := m.parent(); p != nil {
		l.parent = newParent(*p, e.dial, l.log)
		src := newSource(l.parent, int64(m.Spec.Size), base != nil, e.cfg.ParentWait, e.budget)
		if m.Hydration != nil {
			src.copied.Store(int64(m.Hydration.Copied))
		}
		o.src.Store(src)
	}
	return nil
}

// adopt adds the stored map to the live one, and remembers which sectors of the stored one are behind.
func adopt(live, stored *bitmap, table *mapFile) {
	for w := range stored.words {
		if live.words[w]&^stored.words[w] != 0 {
			s := int64(w) / sectorWords
			table.dirty.set(s, s+1)
		}
		live.words[w] |= stored.words[w]
	}
}

// releaseOverlay runs when nobody uses the overlay any more.
func (l *layer) releaseOverlay(f file, live *liveMap) {
	err := errors.Join(f.Close(), live.close())
	if !l.meta().Mapped {
		err = errors.Join(err, l.removeMap())
	}
	if err != nil {
		l.log.Warn("cannot release the map", "err", err)
	}
}

// removeMap removes the maps of a layer that needs none.
func (l *layer) removeMap() error {
	errs := []error{os.Remove(l.live), nil}
	path := filepath.Join(l.dir, mapName)
	if _, err := os.Stat(path); err == nil {
		errs[1] = durable.Remove(path)
	}
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			errs[i] = nil
		}
	}
	return ioError(l.id, "remove the map of", errors.Join(errs...))
}

// hydrated is called when every block of the parent is here, durably. The parent is dropped, and with it the map when no block is absent.
func (l *layer) hydrated(now func() hydrationRecord) error {
	o := l.content().enter()
	defer o.leave()
	plain := o != nil && o.present.all(0, o.present.n)
	if plain {
		// Marks that were made since the last flush must be durable before the map is not needed any more.
		if err := l.content().Flush(context.Background()); err != nil {
			return err
		}
	}
	if !plain && l.meta().Spec.Base == "" {
		return drover.Errorf(drover.Internal, "layer %s has absent blocks after its hydration", l.id)
	}
	done := now()
	if err := l.update(func(m *meta) { m.ParentDone, m.Mapped, m.Hydration = true, !plain, &done }); err != nil {
		return err
	}
	l.content().faults.Hit("volume.hydrate.complete")
	if o != nil {
		o.src.Store(nil)
	}
	if f, ok := l.content().data.(osFile); ok {
		f.filled()
	}
	if plain {
		l.content().dropOverlay()
	}
	if err := l.parent.close(); err != nil {
		l.log.Debug("the parent's connection ended with an error", "err", err)
	}
	return nil
}

// close ends all connections and the use of the files.
func (l *layer) close(flush bool) error {
	l.cut(drover.Errorf(drover.Unavailable, "layer %s is withdrawn", l.id), func(*session) bool { return true }, true)
	var errs []error
	if flush && l.content().failure() == nil {
		errs = append(errs, l.content().Flush(context.Background()))
	}
	if l.parent != nil {
		if err := l.parent.close(); err != nil {
			l.log.Debug("the parent's connection ended with an error", "err", err)
		}
	}
	return errors.Join(append(errs, l.content().close())...)
}
