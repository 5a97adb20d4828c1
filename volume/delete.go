package volume

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"drover"
	"drover/internal/durable"
)

// deleteLayer removes a layer, or, if it lies under another one, has that one take it in. An unknown one is gone already.
func (p *pool) deleteLayer(ctx context.Context, id drover.LayerID, wipe bool) error {
	trash, err := p.discardLayer(ctx, id, wipe)
	if err != nil {
		return err
	}
	return ioError(id, "remove the files of", p.emptyTrash(trash...))
}

// discardLayer takes the layer, and those below it that nobody needs then, out of the list and their directories out of the way.
func (p *pool) discardLayer(ctx context.Context, id drover.LayerID, wipe bool) (trash []string, err error) {
	done, err := p.turn(ctx, makingTurn)
	if err != nil {
		return nil, err
	}
	defer done()
	l, turnDone, err := p.turnOf(ctx, id)
	p.mu.Lock()
	_, refused := p.broken[id]
	p.mu.Unlock()
	switch {
	case drover.Is(err, drover.NotFound):
		return nil, nil
	case err != nil && !refused:
		return nil, err
	case err != nil:
		return p.discardRefused(id, wipe)
	}
	defer turnDone()
	if err := p.mayDelete(l); err != nil {
		return nil, err
	}
	if len(p.over(id)) > 0 {
		return nil, p.giveUp(l, wipe)
	}
	if err := p.wipeBelow(l, wipe); err != nil {
		return nil, err
	}
	for ; l != nil; l = l.unneededBelow(p) {
		p.absorber.stop(l)
		t, err := p.dismiss(l, wipe || l.meta().Wipe)
		if err != nil {
			return trash, err
		}
		trash = append(trash, t)
	}
	return trash, nil
}

// wipeBelow records that the unwanted layers under a deleted one are to be wiped, too, before the first of them goes: a crash in between
// leaves them to the next start.
func (p *pool) wipeBelow(l *layer, wipe bool) error {
	if !wipe {
		return nil
	}
	for b := l.below.Load(); b != nil && b.meta().Unwanted; b = b.below.Load() {
		if b.meta().Wipe {
			continue
		}
		if err := b.update(func(m *meta) { m.Wipe = true }); err != nil {
			return err
		}
	}
	return nil
}

// discardRefused is for a layer whose files cannot be used.
func (p *pool) discardRefused(id drover.LayerID, wipe bool) ([]string, error) {
	if over := p.over(id); len(over) > 0 {
		return nil, drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layer %s", id, over[0].id)
	}
	if over := p.refusedOver(id); over != "" {
		return nil, drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layer %s, and neither can be used now", id, over).
			WithHint("restart the storage daemon when what is wrong with them is mended")
	}
	if forks := p.filledFrom(id); len(forks) > 0 {
		return nil, drover.Errorf(drover.Precondition, "cannot delete layer %s: layer %s is still filled from it", id, forks[0].id)
	}
	trash, err := p.moveToTrash(id, wipe)
	if err != nil {
		return nil, ioError(id, "delete", err)
	}
	p.forget(id)
	return []string{trash}, nil
}

// unneededBelow returns the layer under a deleted one if that was all that kept it, nil if not.
func (l *layer) unneededBelow(p *pool) *layer {
	below := l.below.Load()
	if below == nil || !below.meta().Unwanted || len(p.over(below.id)) > 0 || p.refusedOver(below.id) != "" {
		return nil
	}
	return below
}

// mayDelete names whoever still needs the layer.
func (p *pool) mayDelete(l *layer) error {
	m := l.meta()
	if forks := p.filledFrom(l.id); len(forks) > 0 {
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: layer %s is still filled from it", l.id, forks[0].id).
			WithHint("wait until its hydration is done, or delete it first")
	}
	if over := p.refusedOver(l.id); over != "" {
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layer %s, which cannot be used now", l.id, over).
			WithHint("repair layer %s and restart the storage daemon, or delete it first", over)
	}
	switch over := p.over(l.id); {
	case m.Writer != 0:
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is open for writing at epoch %d", l.id, m.Writer)
	case len(m.Exports) > 0:
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is exported to %v", l.id, m.Exports)
	case len(over) > 1:
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layers %s and %s", l.id, over[0].id, over[1].id)
	case len(over) == 1 && (m.State != drover.LayerFrozen || over[0].meta().Spec.Disk != m.Spec.Disk):
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layer %s", l.id, over[0].id)
	}
	return nil
}

// giveUp records that the layer is unwanted. The one over it takes it in in the background.
func (p *pool) giveUp(l *layer, wipe bool) error {
	if m := l.meta(); !m.Unwanted || wipe && !m.Wipe {
		l.stopUpload()
		err := l.update(func(m *meta) {
			if m.Unwanted, m.Wipe = true, m.Wipe || wipe; m.uploading() {
				m.Upload = nil // the snapshot is given up
			}
		})
		if err != nil {
			p.resumeUpload(l)
			return err
		}
		p.cfg.Faults.Hit("volume.unwanted.marked")
		l.log.Info("frozen layer is unwanted")
	}
	l.cut(drover.Errorf(drover.Unavailable, "layer %s was deleted", l.id), func(*session) bool { return true }, true)
	l.stopUpload()
	l.stopVerifying()
	p.absorber.nudge()
	return nil
}

// dismiss takes a layer that nothing needs out of the list and its directory out of the way.
func (p *pool) dismiss(l *layer, wipe bool) (trash string, err error) {
	l.stopHydration()
	l.stopUpload()
	l.stopVerifying()
	wipe = wipe && l.meta().Spec.Cipher == nil // what is encrypted is unreadable without its key
	if trash, err = p.moveToTrash(l.id, wipe); err != nil {
		return "", ioError(l.id, "delete", err)
	}
	p.cfg.Faults.Hit("volume.delete.renamed")
	p.forget(l.id)
	p.forgetKeys()
	if err := l.close(false); err != nil {
		l.log.Warn("cannot close a deleted layer", "err", err)
	}
	p.absorber.nudge()
	return trash, l.removeLiveMap()
}

// forget takes a layer out of the list.
func (p *pool) forget(id drover.LayerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.layers, id)
	delete(p.broken, id)
	delete(p.needed, id)
}

// refusedOver returns a layer over this one that cannot be used, but may be repaired; empty for none.
func (p *pool) refusedOver(id drover.LayerID) drover.LayerID {
	p.mu.Lock()
	defer p.mu.Unlock()
	for over, base := range p.needed {
		if base == id {
			return over
		}
	}
	return ""
}

// moveToTrash takes a layer's directory out of the way in one step.
func (p *pool) moveToTrash(id drover.LayerID, wipe bool) (trash string, err error) {
	trash = filepath.Join(p.pool, "trash", string(id)+"."+newIncarnation())
	if wipe {
		trash += wipeSuffix
	}
	return trash, p.reserve.with(func() error { return durable.Rename(p.layerDir(id), trash) })
}

// emptyTrash removes what was moved there, or leaves it to the background if it is to be wiped.
func (p *pool) emptyTrash(trash ...string) error {
	var errs []error
	for _, dir := range slices.DeleteFunc(trash, isToBeWiped) {
		errs = append(errs, durable.Remove(dir))
	}
	select {
	case p.wiping <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}
