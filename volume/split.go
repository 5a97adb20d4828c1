package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"drover"
	"drover/internal/durable"
)

// split gives what the layer holds now to the new frozen layer into, and makes the layer an empty one over it. Until the layer's
// record is written nothing has happened; what was prepared is removed, by the next start if need be. From then on it has.
func (p *pool) split(ctx context.Context, id, into drover.LayerID) (drover.LayerStatus, error) {
	l, err := p.splitOff(ctx, id, into)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	// The layer's own flushes include this; here it makes the frozen layer one that a power cut cannot change.
	if err := l.content().seal(ctx); err != nil {
		return drover.LayerStatus{}, err
	}
	return l.status()
}

// splitOff returns the frozen layer, which is not flushed.
func (p *pool) splitOff(ctx context.Context, id, into drover.LayerID) (*layer, error) {
	if !validLayerID(into) || into == id {
		return nil, drover.Errorf(drover.Invalid, "%q is no ID for a layer split off layer %s", into, id).WithField("into")
	}
	done, err := p.turn(ctx, makingTurn)
	if err != nil {
		return nil, err
	}
	defer done()
	l, turnDone, err := p.turnOf(ctx, id)
	if err != nil {
		return nil, err
	}
	defer turnDone()
	if s, err := p.find(into); !drover.Is(err, drover.NotFound) {
		return s, p.splitAgain(l, into, s, err)
	}
	if err := l.maySplit(); err != nil {
		return nil, err
	}
	return p.splitNow(ctx, l, into)
}

// splitAgain answers a repeated request.
func (p *pool) splitAgain(l *layer, into drover.LayerID, s *layer, err error) error {
	switch {
	case err != nil:
		return err
	case s.meta().SplitFrom != l.id:
		return drover.Errorf(drover.Exists, "cannot split layer %s: layer %s exists already, and was not split off it", l.id, into)
	case s.meta().Unwanted:
		return drover.Errorf(drover.Exists, "cannot split layer %s: layer %s was split off it before, and was deleted", l.id, into).
			WithHint("use an ID that was never used")
	}
	return nil
}

func (l *layer) maySplit() error {
	m := l.meta()
	switch {
	case m.State != drover.LayerReady:
		return drover.Errorf(drover.Precondition, "cannot split layer %s: its state is %s", l.id, m.State)
	case m.parent() != nil && !m.Activated:
		return drover.Errorf(drover.Precondition, "cannot split layer %s: it was never opened, and until the switch its parent may still change", l.id)
	case m.Loss != nil && m.parent() != nil:
		return drover.Errorf(drover.Precondition, "cannot split layer %s: parts of it were written off with its source, and not written since", l.id).
			WithHint("overwrite them in the guest, or restore the volume from a snapshot from before")
	case l.depth() >= maxChain:
		return drover.Errorf(drover.Precondition, "cannot split layer %s: %d layers lie under it already", l.id, maxChain).
			WithHint("delete frozen layers that are not needed any more; what is under way is taken in first")
	}
	return l.content().failure()
}

// splitNow does it. The caller has the turns of the disk and of the list of layers.
func (p *pool) splitNow(ctx context.Context, l *layer, into drover.LayerID) (_ *layer, err error) {
	// What is dirty now would be flushed in the pause of a guest that sends a flush or FUA writes.
	if err := l.content().Flush(ctx); err != nil {
		return nil, err
	}
	p.absorber.stop(l)
	l.stopHydration()
	defer func() {
		if err != nil {
			p.resumeHydration(l)
		}
	}()
	fence, err := p.fences.epoch(l.meta().Spec.Disk)
	if err != nil {
		return nil, err
	}
	frozen, next := splitRecords(l.meta(), into, fence)
	if err := p.installFrozen(l, frozen); err != nil {
		return nil, ioError(into, "make", err)
	}
	p.cfg.Faults.Hit("volume.split.prepared")
	s := p.newLayer(frozen)
	fresh, err := p.makeContent(l, next, l.content())
	if err != nil {
		return nil, errors.Join(ioError(l.id, "split", err), p.removeLayerDir(into, false))
	}
	p.cfg.Faults.Hit("volume.split.ready")
	open, err := l.closeValve(ctx, false)
	if err != nil {
		return nil, errors.Join(err, p.undoSplit(l, next, fresh, into))
	}
	err = l.replaceRecord(func(m *meta) { *m = *next.clone() })
	if err == nil {
		p.cfg.Faults.Hit("volume.split.committed")
		p.handOver(l, s, fresh)
	}
	open()
	if err != nil {
		return nil, errors.Join(err, p.undoSplit(l, next, fresh, into))
	}
	l.log.Info("layer split", "into", string(into))
	if err := removeStrayFiles(l.dir, l.meta()); err != nil {
		l.log.Warn("cannot remove the old names of a split layer's files", "err", err)
	}
	p.resumeHydration(s)
	return s, nil
}

// splitRecords returns the record of the frozen layer, which is that of what there is, and the layer's own from now on.
func splitRecords(was *meta, into drover.LayerID, fence drover.Epoch) (frozen, next *meta) {
	frozen = was.clone()
	frozen.Spec.ID, frozen.Asked = into, nil
	frozen.State, frozen.FrozenAt, frozen.SplitFrom, frozen.Activated = drover.LayerFrozen, fence, was.Spec.ID, true
	frozen.Writer, frozen.Exports, frozen.Spec.Limits = 0, nil, drover.Limits{}
	next = was.clone()
	next.keepAsked()
	next.Incarnation, next.SumsOf = newIncarnation(), ""
	next.Files = next.Incarnation
	next.Spec.Base, next.Spec.Parent, next.Spec.Snapshot = into, nil, nil
	if v := next.Verification; v != nil && !v.Done && v.Against == againstParent {
		next.Verification = nil // the frozen layer's
	}
	next.Mapped, next.ParentDone, next.Hydration = true, false, nil
	return frozen, next
}

// installFrozen makes the frozen layer's directory, with the layer's files under second names.
func (p *pool) installFrozen(l *layer, m *meta) error {
	dir := filepath.Join(p.pool, "new", string(m.Spec.ID)+"."+newIncarnation())
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = linkContent(l.dir, dir, m.Files, m.Files, contentNames[:]...)
	}
	if err == nil {
		err = writeMeta(filepath.Join(dir, metaFile), m) // syncs the directory with everything in it
	}
	if err == nil {
		err = durable.Rename(dir, p.layerDir(m.Spec.ID))
	}
	if err != nil {
		return errors.Join(err, durable.Remove(dir))
	}
	return nil
}

// linkContent gives some of the files of a content a second name. The caller syncs the directory.
func linkContent(from, to, files, as string, names ...string) error {
	for _, name := range names {
		err := os.Link(filepath.Join(from, fileName(name, files)), filepath.Join(to, fileName(name, as)))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a complete content has no map
			return err
		}
	}
	return nil
}

// makeContent makes the files of an empty content that the record names, in the layer's directory, and opens them over another.
func (p *pool) makeContent(l *layer, m *meta, under *content) (_ *content, err error) {
	if err := makeFiles(l.dir, m); err != nil {
		return nil, errors.Join(err, removeFiles(l.dir, m.Files))
	}
	c, err := p.openContent(l.dir, m, under, l.log)
	if err != nil {
		return nil, errors.Join(err, p.removeContent(l.dir, m))
	}
	return c, nil
}

// makeFiles makes empty files for a content, durably.
func makeFiles(dir string, m *meta) error {
	data, err := createFile(filepath.Join(dir, fileName(dataFile, m.Files)), int64(m.Spec.Size))
	if err != nil {
		return err
	}
	if err := data.Close(); err != nil {
		return err
	}
	if err := makeMap(dir, m, newBitmap(int64(m.Spec.Size)/blockSize)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// makeMap makes a map file with some blocks present. The caller syncs the directory.
func makeMap(dir string, m *meta, present *bitmap) error {
	f, err := createFile(filepath.Join(dir, fileName(mapName, m.Files)), mapFileSize(present.n))
	if err != nil {
		return err
	}
	err = newMapFile(f, present.n).formatWith(mapHeader{blocks: present.n, incarnation: m.Incarnation}, present)
	return errors.Join(err, f.Close())
}

// removeFiles removes the files of a content.
func removeFiles(dir, files string) error {
	var errs []error
	for _, name := range contentNames {
		errs = append(errs, durable.Remove(filepath.Join(dir, fileName(name, files))))
	}
	return errors.Join(errs...)
}

// removeContent removes the files of a content that nobody has come to use, and its live map.
func (p *pool) removeContent(dir string, m *meta) error {
	return errors.Join(removeFiles(dir, m.Files), removeLive(p.livePath(m)))
}

// undoSplit removes what was prepared, unless nobody knows whether the disk has the record that needs it: see replaceRecord.
func (p *pool) undoSplit(l *layer, m *meta, c *content, into drover.LayerID) error {
	err := c.close()
	if l.content().failure() != nil {
		return err
	}
	return errors.Join(err, p.removeContent(l.dir, m), p.removeLayerDir(into, false))
}

// replaceRecord writes a record by which the layer's content becomes another one. If that fails, the old one is written again, so that
// the disk certainly has it; if that fails too nobody knows which one it has, and the layer is not written any more.
func (l *layer) replaceRecord(change func(*meta)) error {
	err := l.update(change)
	if err == nil {
		return nil
	}
	if again := l.update(func(*meta) {}); again != nil {
		return errors.Join(err, l.content().fail("write the record of", again))
	}
	return err
}

// handOver gives the layer's content to the frozen layer, and the fresh one to the layer. The valve is closed.
func (p *pool) handOver(l, s *layer, fresh *content) {
	s.take(l.content(), l.below.Load())
	p.mu.Lock()
	p.layers[s.id] = s
	p.mu.Unlock()
	l.take(fresh, s)
}

// resumeHydration goes on with the copy of a layer if it was under way.
func (p *pool) resumeHydration(l *layer) {
	if m := l.meta(); m.parent() != nil && m.Hydration != nil && m.Hydration.Started {
		p.startHydration(l)
	}
}
