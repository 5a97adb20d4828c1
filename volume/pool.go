package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

// pool is all layers of one directory.
type pool struct {
	env
	fences fences

	// Background copies run under ctx, and wg waits for them.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	layers map[drover.LayerID]*layer
	// broken has the layers that could not be opened, and why. They are in nobody's way.
	broken map[drover.LayerID]error
	turns  map[string]chan struct{}
}

// openPool opens every layer. A layer that is damaged is refused; the others are served.
func openPool(cfg Config, dial dialFunc) (*pool, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	p := &pool{
		env:    env{pool: cfg.Dir, run: cfg.RunDir, boot: boot, cfg: cfg, budget: newBudget(), space: newSpace(cfg.Dir, cfg.Floor), dial: dial},
		fences: fences{dir: filepath.Join(cfg.Dir, "fences"), known: map[drover.DiskID]drover.Epoch{}},
		layers: map[drover.LayerID]*layer{}, broken: map[drover.LayerID]error{}, turns: map[string]chan struct{}{},
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
	p.wg.Go(func() { p.space.watch(p.ctx) })
	if err := p.loadAll(); err != nil {
		return nil, errors.Join(err, p.close())
	}
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
			if err := durable.Remove(filepath.Join(p.pool, dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return durable.RemoveTemp(p.fences.dir)
}

// loadAll opens the layers, those without a base first, since the others need them.
func (p *pool) loadAll() error {
	entries, err := os.ReadDir(filepath.Join(p.pool, "layers"))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot list the layers of the pool %s: %w", p.pool, err)
	}
	known := map[string]bool{}
	var later []drover.LayerID
	for _, e := range entries {
		id := drover.LayerID(e.Name())
		known[e.Name()+".map"] = true
		if err := durable.RemoveTemp(p.layerDir(id)); err != nil {
			p.refuse(id, err)
			continue
		}
		if m, err := readMeta(filepath.Join(p.layerDir(id), metaFile), id); err == nil && m.Spec.Base != "" {
			later = append(later, id)
			continue
		}
		p.load(id)
	}
	for _, id := range later {
		p.load(id)
	}
	return p.removeStrayMaps(known)
}

// removeStrayMaps removes the live maps of layers that are gone.
func (p *pool) removeStrayMaps(known map[string]bool) error {
	maps, err := os.ReadDir(filepath.Join(p.run, "maps"))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot list the live maps: %w", err)
	}
	for _, e := range maps {
		if !known[e.Name()] {
			if err := os.Remove(filepath.Join(p.run, "maps", e.Name())); err != nil {
				return drover.Errorf(drover.Internal, "cannot remove a stray live map: %w", err)
			}
		}
	}
	return nil
}

// load opens one layer; the epoch it was open at counts only if the fence has not passed it.
func (p *pool) load(id drover.LayerID) {
	l, err := p.loadLayer(id, p.baseContent)
	if err != nil {
		p.refuse(id, err)
		return
	}
	if l.writable != 0 {
		fence, err := p.fences.epoch(l.meta().Spec.Disk)
		if err != nil || fence > l.writable {
			l.log.Warn("layer is not open for writing any more", "epoch", l.writable, "fence", fence, "err", err)
			l.writable = 0
		}
	}
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

// baseContent finds the content of an image layer.
func (p *pool) baseContent(id drover.LayerID) (*content, error) {
	l, err := p.find(id)
	if err != nil {
		return nil, fmt.Errorf("its base: %w", err)
	}
	if l.meta().State != drover.LayerImage {
		return nil, drover.Errorf(drover.Precondition, "its base %s is no image layer", id)
	}
	return l.content(), nil
}

// find returns a layer: NotFound for an unknown one, and the reason for one that is refused.
func (p *pool) find(id drover.LayerID) (*layer, error) {
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
	layers := p.all()
	for _, l := range layers { // those that lie over others first
		if l.meta().Spec.Base != "" {
			errs = append(errs, l.close(true))
		}
	}
	for _, l := range layers {
		if l.meta().Spec.Base == "" {
			errs = append(errs, l.close(true))
		}
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
