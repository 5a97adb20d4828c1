package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
	"drover/manifest"
)

// pool is all layers of one directory.
type pool struct {
	env
	fences   fences
	keys     *keys
	absorber absorber
	// wiping is nudged when there is something to be wiped.
	wiping chan struct{}

	// Background copies run under ctx, and wg waits for them.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	uploads uploads

	mu     sync.Mutex
	layers map[drover.LayerID]*layer
	// broken has the layers that could not be opened, and why. They are in nobody's way.
	broken map[drover.LayerID]error
	// needed has what those of them lie over whose records can be read.
	needed map[drover.LayerID]drover.LayerID
	turns  map[string]chan struct{}
}

// openPool opens every layer. A layer that is damaged is refused; the others are served.
func openPool(cfg Config, dial dialFunc) (*pool, error) {
	p := &pool{
		env:      env{pool: cfg.Dir, run: cfg.RunDir, boot: cfg.Boot, cfg: cfg, budget: newBudget(), space: newSpace(cfg.Dir, cfg.Floor, cfg.RoomWait), dial: dial},
		fences:   fences{dir: filepath.Join(cfg.Dir, "fences"), known: map[drover.DiskID]drover.Epoch{}},
		absorber: absorber{wake: make(chan struct{}, 1)}, wiping: make(chan struct{}, 1),
		layers: map[drover.LayerID]*layer{}, broken: map[drover.LayerID]error{}, needed: map[drover.LayerID]drover.LayerID{}, turns: map[string]chan struct{}{},
	}
	p.find, p.changed = p.findLayer, p.absorber.nudge
	var err error
	if p.codec, err = manifest.NewCodec(codecUsers); err != nil {
		return nil, err
	}
	p.chunks = newChunkCache()
	p.uploads.init(cfg.UploadLimit)
	if cfg.Objects != nil {
		p.snapshots = p.againstSnapshot
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, dir := range []string{"layers", "fences", "new", "trash"} {
		if err := durable.MkdirAll(filepath.Join(cfg.Dir, dir), 0o700); err != nil {
			return nil, drover.Errorf(drover.Internal, "cannot make the pool: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(cfg.RunDir, "maps"), 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the directory of live maps: %w", err)
	}
	if err := p.sweep(); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot clean up the pool %s: %w", cfg.Dir, err)
	}
	if p.reserve, err = openReserve(cfg.Dir); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot reserve space in the pool %s: %w", cfg.Dir, err)
	}
	p.fences.reserve = p.reserve
	if p.keys, err = openKeys(cfg.RunDir); err != nil {
		return nil, errors.Join(err, p.reserve.close())
	}
	p.loadSettings()
	p.wg.Go(func() { p.space.watch(p.ctx) })
	if err := p.loadAll(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.forgetKeys()
	return p, nil
}

// sweep removes what a crash left of layers that were being made or deleted.
func (p *pool) sweep() error {
	for _, dir := range []string{"new", "trash"} {
		entries, err := os.ReadDir(filepath.Join(p.pool, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), wipeSuffix) {
				continue // goes on being wiped
			}
			if err := durable.Remove(filepath.Join(p.pool, dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return errors.Join(durable.RemoveTemp(p.pool), durable.RemoveTemp(p.fences.dir))
}

// loadAll opens the layers, each after what is below it.
func (p *pool) loadAll() error {
	entries, err := os.ReadDir(filepath.Join(p.pool, "layers"))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot list the layers of the pool %s: %w", p.pool, err)
	}
	records := map[drover.LayerID]*meta{}
	for _, e := range entries {
		id := drover.LayerID(e.Name())
		err := durable.RemoveTemp(p.layerDir(id))
		var m *meta
		if err == nil {
			m, err = readMeta(filepath.Join(p.layerDir(id), metaFile), id)
		}
		if err != nil {
			p.refuse(id, err)
			continue
		}
		records[id] = m
	}
	complete := len(records) == len(entries)
	if err := p.removeLeftLayers(records, complete); err != nil {
		return err
	}
	begun := map[drover.LayerID]bool{}
	var load func(id drover.LayerID)
	load = func(id drover.LayerID) {
		m := records[id]
		if m == nil || begun[id] {
			return
		}
		begun[id] = true
		load(m.Spec.Base)
		p.load(id)
	}
	for id := range records {
		load(id)
	}
	if !complete {
		return nil // a live map may be that of a layer whose record cannot be read
	}
	known := map[string]bool{}
	for _, m := range records {
		known[filepath.Base(p.livePath(m))] = true
	}
	return p.removeStrayMaps(known)
}

// removeLeftLayers removes what a crash left of a split, a take-in or a deletion, and takes it out of the records. Without all of the
// records nothing is known of what lies over a layer.
func (p *pool) removeLeftLayers(records map[drover.LayerID]*meta, complete bool) error {
	for id, m := range records {
		if m.heldBy(records[m.SplitFrom]) {
			p.cfg.Log.Info("what is left of a split is removed", "layer", string(id))
			if err := p.removeLayerDir(id, false); err != nil {
				return err
			}
			delete(records, id)
		}
	}
	for id := unneeded(records, complete); id != ""; id = unneeded(records, complete) {
		if !complete {
			p.refuse(id, errors.New("the layer that takes it in is not known, since the record of another layer cannot be read"))
		} else if err := p.removeLayerDir(id, records[id].Wipe); err != nil {
			return err
		}
		delete(records, id)
	}
	return nil
}

// heldBy reports whether the other layer has the content that this record names: the split had not come to its commit.
func (m *meta) heldBy(other *meta) bool { return other != nil && other.Incarnation == m.Incarnation }

// unneeded returns a layer that is unwanted and lies under nothing, empty for none. Unless all records are known only those count that are
// being taken in: their files may be another layer's already.
func unneeded(records map[drover.LayerID]*meta, complete bool) drover.LayerID {
	bases := map[drover.LayerID]bool{}
	for _, m := range records {
		bases[m.Spec.Base] = true
	}
	for id, m := range records {
		if m.Unwanted && !bases[id] && (complete || m.Absorbed) {
			return id
		}
	}
	return ""
}

// removeLayerDir removes the directory of a layer that was never loaded.
func (p *pool) removeLayerDir(id drover.LayerID, wipe bool) error {
	trash, err := p.moveToTrash(id, wipe)
	if err == nil {
		err = p.emptyTrash(trash)
	}
	return ioError(id, "remove what is left of", err)
}

// removeStrayMaps removes the live maps of layers that are gone.
func (p *pool) removeStrayMaps(known map[string]bool) error {
	maps, err := os.ReadDir(filepath.Join(p.run, "maps"))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot list the live maps: %w", err)
	}
	for _, e := range maps {
		if !known[strings.TrimSuffix(e.Name(), fetchedSuffix)] {
			if err := os.Remove(filepath.Join(p.run, "maps", e.Name())); err != nil {
				return drover.Errorf(drover.Internal, "cannot remove a stray live map: %w", err)
			}
		}
	}
	return nil
}

// load opens one layer; the epoch it was open at counts only if the fence has not passed it.
func (p *pool) load(id drover.LayerID) {
	l, err := p.loadLayer(id)
	if err != nil {
		p.refuse(id, err)
		if m, err := readMeta(filepath.Join(p.layerDir(id), metaFile), id); err == nil && m.Spec.Base != "" {
			p.mu.Lock()
			p.needed[id] = m.Spec.Base
			p.mu.Unlock()
		}
		return
	}
	if l.writable != 0 {
		fence, err := p.fences.epoch(l.meta().Spec.Disk)
		if err != nil || fence > l.writable {
			l.log.Warn("layer is not open for writing any more", "epoch", l.writable, "fence", fence, "err", err)
			l.writable = 0
		}
	}
	l.withdrawn = l.meta().Unwanted
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers[id] = l
}

// refuse remembers why a layer cannot be served.
func (p *pool) refuse(id drover.LayerID, err error) {
	p.cfg.Log.Error("layer is refused", "layer", string(id), "err", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken[id] = drover.Errorf(drover.Internal, "layer %s cannot be used: %w", id, err)
}

// findLayer returns a layer: NotFound for an unknown one, and the reason for one that is refused.
func (p *pool) findLayer(id drover.LayerID) (*layer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.layers[id]; l != nil {
		return l, nil
	}
	if err := p.broken[id]; err != nil {
		return nil, err
	}
	return nil, drover.Errorf(drover.NotFound, "layer %q is not in the pool of host %s", id, p.cfg.Host)
}

// all returns the layers as they are now.
func (p *pool) all() []*layer {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*layer, 0, len(p.layers))
	for _, l := range p.layers {
		out = append(out, l)
	}
	return out
}

// ofDisk returns the layers of a disk.
func (p *pool) ofDisk(disk drover.DiskID) []*layer {
	var out []*layer
	for _, l := range p.all() {
		if l.meta().Spec.Disk == disk {
			out = append(out, l)
		}
	}
	return out
}

// turn waits until no other lifecycle operation with the key is under way. The number of keys is that of the disks
// ever named.
func (p *pool) turn(ctx context.Context, key string) (done func(), err error) {
	p.mu.Lock()
	ch := p.turns[key]
	if ch == nil {
		ch = make(chan struct{}, 1)
		p.turns[key] = ch
	}
	p.mu.Unlock()
	select {
	case ch <- struct{}{}:
		return func() { <-ch }, nil
	case <-ctx.Done():
		return nil, drover.Errorf(drover.Canceled, "gave up waiting for another operation on %s: %w", key, context.Cause(ctx))
	}
}

// turnOf finds a layer and takes the turn of its disk.
func (p *pool) turnOf(ctx context.Context, id drover.LayerID) (*layer, func(), error) {
	l, err := p.find(id)
	if err != nil {
		return nil, nil, err
	}
	done, err := p.turn(ctx, "disk "+string(l.meta().Spec.Disk))
	if err != nil {
		return nil, nil, err
	}
	if now, err := p.find(id); now != l {
		done()
		if err == nil {
			err = drover.Errorf(drover.Conflict, "layer %s was deleted and made again meanwhile", id)
		}
		return nil, nil, err
	}
	return l, done, nil
}

// close ends all work. With everything flushed, a host that is shut down in order loses nothing.
func (p *pool) close() error {
	p.cancel()
	p.wg.Wait()
	var errs []error
	for _, l := range p.all() { // a content keeps open what lies under it
		errs = append(errs, l.close(true))
	}
	return errors.Join(append(errs, p.reserve.close())...)
}

// lockFile takes a lock that ends with the process.
func lockFile(path, what string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot open %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = drover.Errorf(drover.Conflict, "another storage daemon uses %s (%s is locked): stop it first, or give this one a directory of its own", what, path)
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
