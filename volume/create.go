package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
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
	if err := checkSpec(p.cfg.Host, spec); err != nil {
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
		if err := p.checkBase(spec); err != nil {
			return nil, err
		}
	}
	if err := p.checkLocalParent(spec); err != nil {
		return nil, err
	}
	if spec.Snapshot != nil && p.cfg.Objects == nil {
		return nil, noStore(p.cfg.Host)
	}
	if err := p.checkRoom(spec); err != nil {
		return nil, err
	}
	m := &meta{Incarnation: newIncarnation(), Spec: spec, State: drover.LayerReady}
	m.Mapped = spec.Base != "" || m.origin() != nil
	m.Activated = spec.Snapshot != nil // it does not change, unlike the layer of another host before the switch
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

// checkBase makes sure that there is a base and that it does not change.
func (p *pool) checkBase(spec drover.LayerSpec) error {
	base, err := p.find(spec.Base)
	if err != nil {
		return drover.Errorf(drover.CodeOf(err), "cannot create layer %s: its base: %w", spec.ID, err)
	}
	m := base.meta()
	switch {
	case m.State == drover.LayerReady:
		return drover.Errorf(drover.Precondition, "cannot create layer %s: its base %s is neither an image nor frozen", spec.ID, spec.Base).WithField("base")
	case m.Unwanted:
		return drover.Errorf(drover.Precondition, "cannot create layer %s: its base %s was deleted", spec.ID, spec.Base).WithField("base")
	case !m.Spec.Cipher.Equal(spec.Cipher):
		return mixedCiphers(spec, "base "+string(spec.Base), m.Spec.Cipher)
	case m.Spec.Size > spec.Size:
		return drover.Errorf(drover.Invalid, "cannot create layer %s of %d bytes: its base %s has %d", spec.ID, spec.Size, spec.Base, m.Spec.Size).WithField("size")
	}
	return nil
}

// checkLocalParent makes sure that a parent on this host does not change.
func (p *pool) checkLocalParent(spec drover.LayerSpec) error {
	if spec.Parent == nil || spec.Parent.Host != p.cfg.Host {
		return nil
	}
	parent, err := p.find(spec.Parent.Layer)
	if err != nil {
		return drover.Errorf(drover.CodeOf(err), "cannot create layer %s: its parent: %w", spec.ID, err)
	}
	m := parent.meta()
	switch {
	case m.State != drover.LayerFrozen:
		return drover.Errorf(drover.Precondition, "cannot create layer %s: its parent %s is not frozen", spec.ID, parent.id).
			WithField("parent").WithHint("split it, and fork what was split off")
	case m.Unwanted:
		return drover.Errorf(drover.Precondition, "cannot create layer %s: its parent %s was deleted", spec.ID, parent.id).WithField("parent")
	case m.Spec.Size != spec.Parent.Size:
		return drover.Errorf(drover.Invalid, "cannot create layer %s: its parent %s has %d bytes, not %d", spec.ID, parent.id, m.Spec.Size, spec.Parent.Size).
			WithField("parent.size")
	}
	return nil
}

// mixedCiphers says that blocks of a layer would come from where they are encrypted in another way.
func mixedCiphers(spec drover.LayerSpec, from string, has *drover.Cipher) error {
	return drover.Errorf(drover.Invalid, "cannot create layer %s, which is %s: its %s is %s", spec.ID, spec.Cipher, from, has).WithField("cipher")
}

func checkSpec(host drover.HostID, spec drover.LayerSpec) error {
	if !validLayerID(spec.ID) {
		return drover.Errorf(drover.Invalid, "%q is no layer ID: letters, digits, dots, hyphens and underscores are expected", spec.ID).WithField("id")
	}
	if !validLayerID(drover.LayerID(spec.Disk)) {
		return drover.Errorf(drover.Invalid, "%q is no disk ID: letters, digits, dots, hyphens and underscores are expected", spec.Disk).WithField("disk")
	}
	if err := checkSize(spec.Size); err != nil {
		return drover.Errorf(drover.Invalid, "cannot create layer %s: %w", spec.ID, err).WithField("size")
	}
	if err := spec.Cipher.Check(); err != nil {
		return drover.AsError(fmt.Errorf("cannot create layer %s: %w", spec.ID, err))
	}
	if spec.Snapshot != nil {
		if err := checkSnapshotSource(spec); err != nil {
			return drover.Errorf(drover.Invalid, "cannot create layer %s: %w", spec.ID, err).WithField("snapshot")
		}
	}
	if err := checkLimits(spec.ID, spec.Limits); err != nil {
		return err
	}
	if p := spec.Parent; p != nil {
		if err := checkSize(p.Size); err != nil || p.Size > spec.Size {
			return drover.Errorf(drover.Invalid, "cannot create layer %s of %d bytes over a parent of %d: the layer may be larger than its parent, but not smaller",
				spec.ID, spec.Size, p.Size).WithField("parent.size")
		}
		if !p.Cipher.Equal(spec.Cipher) {
			return mixedCiphers(spec, "parent "+string(p.Layer), p.Cipher)
		}
		if p.Host == host && p.Layer != "" {
			return nil
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
	asked := m.asked()
	if spec.Size == m.Spec.Size {
		asked.Size = spec.Size // it may have grown since
	}
	if m.State != drover.LayerReady && m.State != drover.LayerFrozen || m.SplitFrom != "" || !sameSpec(asked, spec) {
		return drover.Errorf(drover.Exists, "layer %s exists already with another specification (disk %s, %d bytes)", spec.ID, m.Spec.Disk, m.Spec.Size)
	}
	l = l.filled() // a split may have given the parent to a layer below
	if l == nil || spec.Parent == nil || l.meta().Spec.Parent.Address == spec.Parent.Address {
		return nil
	}
	if err := l.update(func(m *meta) { e := *spec.Parent; m.Spec.Parent = &e }); err != nil {
		return err
	}
	if remote, ok := l.content().parent.(*parent); ok {
		remote.moveTo(*spec.Parent)
	}
	return nil
}

// checkRoom refuses a clone whose data could not fit. What is written later is not reserved.
func (p *pool) checkRoom(spec drover.LayerSpec) error {
	origin := (&meta{Spec: spec}).origin()
	if origin == nil {
		return nil
	}
	free, err := p.space.free()
	if err != nil {
		return ioError(spec.ID, "look for room for", err)
	}
	if origin.Allocated > free {
		return drover.Errorf(drover.Exhausted, "cannot create layer %s: its parent holds %d bytes, the pool of host %s has %d free for guests",
			spec.ID, origin.Allocated, p.cfg.Host, max(free, 0))
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

func newIncarnation() string {
	b := make([]byte, incarnationLen/2)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	return hex.EncodeToString(b)
}
