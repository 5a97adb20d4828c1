package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"drover"
	"drover/internal/durable"
)

// makingTurn keeps apart what makes and removes layers.
const makingTurn = "the list of layers"

// createLayer makes a layer, or finds it.
func (p *pool) createLayer(ctx context.Context, spec drover.LayerSpec) (*layer, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	done, err := p.turn(ctx, makingTurn)
	if err != nil {
		return nil, err
	}
	defer done()
	if l, err := p.find(spec.ID); !drover.Is(err, drover.NotFound) {
		if err != nil {
			return nil, err
		}
		return l, p.again(l, spec)
	}
	if spec.Base != "" {
		base, err := p.baseContent(spec.Base)
		if err != nil {
			return nil, drover.Errorf(drover.CodeOf(err), "cannot create layer %s: %w", spec.ID, err)
		}
		if base.size > int64(spec.Size) {
			return nil, drover.Errorf(drover.Invalid, "cannot create layer %s of %d bytes: its base %s has %d", spec.ID, spec.Size, spec.Base, base.size).WithField("size")
		}
	}
	if err := p.checkRoom(spec); err != nil {
		return nil, err
	}
	m := &meta{Incarnation: newIncarnation(), Spec: spec, State: drover.LayerReady, Mapped: spec.Base != "" || spec.Parent != nil}
	err = p.install(m, func(dir string) error {
		data, err := createFile(filepath.Join(dir, dataFile), int64(spec.Size))
		if err != nil {
			return err
		}
		return data.Close()
	})
	if err != nil {
		return nil, err
	}
	return p.find(spec.ID)
}

func checkSpec(spec drover.LayerSpec) error {
	if !validLayerID(spec.ID) {
		return drover.Errorf(drover.Invalid, "%q is no layer ID: letters, digits, dots, hyphens and underscores are expected", spec.ID).WithField("id")
	}
	if !validLayerID(drover.LayerID(spec.Disk)) {
		return drover.Errorf(drover.Invalid, "%q is no disk ID: letters, digits, dots, hyphens and underscores are expected", spec.Disk).WithField("disk")
	}
	if err := checkSize(spec.Size); err != nil {
		return drover.Errorf(drover.Invalid, "cannot create layer %s: %w", spec.ID, err).WithField("size")
	}
	if err := checkLimits(spec.ID, spec.Limits); err != nil {
		return err
	}
	if p := spec.Parent; p != nil {
		if p.Size != spec.Size {
			return drover.Errorf(drover.Invalid, "cannot create layer %s of %d bytes over a parent of %d: the sizes must be equal", spec.ID, spec.Size, p.Size).WithField("parent.size")
		}
		if p.Address == "" || p.Name == "" || p.Host == "" {
			return drover.Errorf(drover.Invalid, "cannot create layer %s: the parent needs host, address and name", spec.ID).WithField("parent")
		}
	}
	return nil
}

// again answers a repeated request: the parent may have moved to another address meanwhile.
func (p *pool) again(l *layer, spec drover.LayerSpec) error {
	m := l.meta()
	if m.State == drover.LayerImage || !sameSpec(m.Spec, spec) {
		return drover.Errorf(drover.Exists, "layer %s exists already with another specification (disk %s, %d bytes)", spec.ID, m.Spec.Disk, m.Spec.Size)
	}
	if m.parent() == nil || m.Spec.Parent.Address == spec.Parent.Address {
		return nil
	}
	if err := l.update(func(m *meta) { e := *spec.Parent; m.Spec.Parent = &e }); err != nil {
		return err
	}
	l.parent.moveTo(*spec.Parent)
	return nil
}

// checkRoom refuses a clone whose data could not fit. What is written later is not reserved.
func (p *pool) checkRoom(spec drover.LayerSpec) error {
	if spec.Parent == nil {
		return nil
	}
	free, err := p.space.free()
	if err != nil {
		return ioError(spec.ID, "look for room for", err)
	}
	if spec.Parent.Allocated > free {
		return drover.Errorf(drover.Exhausted, "cannot create layer %s: its parent holds %d bytes, the pool of host %s has %d free for guests",
			spec.ID, spec.Parent.Allocated, p.cfg.Host, max(free, 0))
	}
	return nil
}

// importImage takes a raw disk image over as a read-only layer.
func (p *pool) importImage(ctx context.Context, id drover.LayerID, path string) (*layer, error) {
	if !validLayerID(id) {
		return nil, drover.Errorf(drover.Invalid, "%q is no layer ID: letters, digits, dots, hyphens and underscores are expected", id).WithField("id")
	}
	if l, err := p.image(id); !drover.Is(err, drover.NotFound) {
		return l, err
	}
	size, err := prepareImage(id, path)
	if err != nil {
		return nil, err
	}
	done, err := p.turn(ctx, makingTurn)
	if err != nil {
		return nil, err
	}
	defer done()
	if l, err := p.image(id); !drover.Is(err, drover.NotFound) {
		return l, err
	}
	m := &meta{Incarnation: newIncarnation(), Spec: drover.LayerSpec{ID: id, Size: drover.Bytes(size)}, State: drover.LayerImage}
	// A link, so that a crash leaves the caller its file; it is removed when the layer is there.
	err = p.install(m, func(dir string) error { return os.Link(path, filepath.Join(dir, dataFile)) })
	if err != nil {
		return nil, err
	}
	if err := durable.Remove(path); err != nil {
		return nil, ioError(id, "remove the imported file of", err)
	}
	return p.find(id)
}

// image finds a layer that must be an image.
func (p *pool) image(id drover.LayerID) (*layer, error) {
	l, err := p.find(id)
	if err == nil && l.meta().State != drover.LayerImage {
		return nil, drover.Errorf(drover.Exists, "layer %s exists already and is no image", id)
	}
	return l, err
}

// prepareImage makes the file a whole number of blocks, and durable.
func prepareImage(id drover.LayerID, path string) (size int64, err error) {
	st, err := os.Lstat(path)
	if err != nil {
		return 0, drover.Errorf(drover.Invalid, "cannot import layer %s: %w", id, err).WithField("path")
	}
	if !st.Mode().IsRegular() || st.Size() == 0 {
		return 0, drover.Errorf(drover.Invalid, "cannot import layer %s: %s is no raw disk image (%v, %d bytes)", id, path, st.Mode(), st.Size()).WithField("path")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, ioError(id, "open the image of", err)
	}
	size = (st.Size() + blockSize - 1) / blockSize * blockSize
	err = f.Truncate(size)
	err = errors.Join(err, f.Sync(), f.Close())
	if cerr := checkSize(drover.Bytes(size)); cerr != nil {
		err = errors.Join(err, cerr)
	}
	return size, ioError(id, "prepare the image of", err)
}

// install makes a layer's directory beside the others, whole, and then moves it to its place in one step.
func (p *pool) install(m *meta, data func(dir string) error) error {
	dir := filepath.Join(p.pool, "new", string(m.Spec.ID)+"."+m.Incarnation)
	err := p.fill(dir, m, data)
	if err == nil {
		p.cfg.Faults.Hit("volume.create.filled")
		err = durable.Rename(dir, p.layerDir(m.Spec.ID))
	}
	if err != nil {
		err = errors.Join(err, durable.Remove(dir))
		if errors.Is(err, syscall.EXDEV) {
			return drover.Errorf(drover.Invalid, "cannot create layer %s: the file is not on the file system of the pool %s: %w", m.Spec.ID, p.pool, err)
		}
		return ioError(m.Spec.ID, "create", err)
	}
	p.cfg.Faults.Hit("volume.create.installed")
	p.load(m.Spec.ID)
	return nil
}

func (p *pool) fill(dir string, m *meta, data func(dir string) error) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := data(dir); err != nil {
		return err
	}
	if m.Mapped {
		blocks := int64(m.Spec.Size) / blockSize
		f, err := createFile(filepath.Join(dir, mapName), mapFileSize(blocks))
		if err != nil {
			return err
		}
		err = newMapFile(f, blocks).format(mapHeader{blocks: blocks, incarnation: m.Incarnation})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return writeMeta(filepath.Join(dir, metaFile), m) // syncs the directory with everything in it
}

// deleteLayer removes a layer. An unknown one is gone already.
func (p *pool) deleteLayer(ctx context.Context, id drover.LayerID) error {
	trash, err := p.discardLayer(ctx, id)
	if err != nil || trash == "" {
		return err
	}
	if err := durable.Remove(trash); err != nil {
		return ioError(id, "remove the files of", err)
	}
	return nil
}

// discardLayer takes the layer out of the list and its directory out of the way.
func (p *pool) discardLayer(ctx context.Context, id drover.LayerID) (trash string, err error) {
	done, err := p.turn(ctx, makingTurn)
	if err != nil {
		return "", err
	}
	defer done()
	for _, other := range p.all() {
		if other.meta().Spec.Base == id {
			return "", drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layer %s", id, other.id)
		}
	}
	l, turnDone, err := p.turnOf(ctx, id)
	p.mu.Lock()
	_, refused := p.broken[id]
	p.mu.Unlock()
	switch {
	case drover.Is(err, drover.NotFound):
		return "", nil
	case err != nil && !refused:
		return "", err
	case err == nil:
		defer turnDone()
		if m := l.meta(); m.Writer != 0 {
			return "", drover.Errorf(drover.Precondition, "cannot delete layer %s: it is open for writing at epoch %d", id, m.Writer)
		} else if len(m.Exports) > 0 {
			return "", drover.Errorf(drover.Precondition, "cannot delete layer %s: it is exported to %v", id, m.Exports)
		}
		l.stopHydration()
	}
	trash = filepath.Join(p.pool, "trash", string(id)+"."+newIncarnation())
	if err := p.reserve.with(func() error { return durable.Rename(p.layerDir(id), trash) }); err != nil {
		return "", ioError(id, "delete", err)
	}
	p.cfg.Faults.Hit("volume.delete.renamed")
	p.mu.Lock()
	delete(p.layers, id)
	delete(p.broken, id)
	p.mu.Unlock()
	if l != nil {
		if err := l.close(false); err != nil {
			l.log.Warn("cannot close a deleted layer", "err", err)
		}
	}
	if err := os.Remove(p.livePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", ioError(id, "remove the live map of", err)
	}
	return trash, nil
}

func newIncarnation() string {
	b := make([]byte, incarnationLen/2)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	return hex.EncodeToString(b)
}
