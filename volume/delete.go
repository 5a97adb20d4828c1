package volume

import (
	"context"
	"path/filepath"

	"drover"
	"drover/internal/durable"
)

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
	}
	if err := p.mayDelete(id, l); err != nil {
		return "", err
	}
	if l != nil {
		l.stopHydration()
		l.stopUpload()
	}
	if trash, err = p.moveToTrash(id, false); err != nil {
		return "", ioError(id, "delete", err)
	}
	p.cfg.Faults.Hit("volume.delete.renamed")
	p.forget(id)
	if l != nil {
		if err := l.close(false); err != nil {
			l.log.Warn("cannot close a deleted layer", "err", err)
		}
		return trash, l.removeLiveMap()
	}
	return trash, nil
}

// mayDelete names whoever still needs the layer. l is nil for one that is refused.
func (p *pool) mayDelete(id drover.LayerID, l *layer) error {
	if over := p.over(id); len(over) > 0 {
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is the base of layer %s", id, over[0].id)
	}
	if forks := p.filledFrom(id); len(forks) > 0 {
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: layer %s is still filled from it", id, forks[0].id).
			WithHint("wait until its hydration is done, or delete it first")
	}
	if l == nil {
		return nil
	}
	if m := l.meta(); m.Writer != 0 {
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is open for writing at epoch %d", id, m.Writer)
	} else if len(m.Exports) > 0 {
		return drover.Errorf(drover.Precondition, "cannot delete layer %s: it is exported to %v", id, m.Exports)
	}
	return nil
}

// forget takes a layer out of the list.
func (p *pool) forget(id drover.LayerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.layers, id)
	delete(p.broken, id)
}

// moveToTrash takes a layer's directory out of the way in one step.
func (p *pool) moveToTrash(id drover.LayerID, wipe bool) (trash string, err error) {
	trash = filepath.Join(p.pool, "trash", string(id)+"."+newIncarnation())
	if wipe {
		trash += wipeSuffix
	}
	return trash, p.reserve.with(func() error { return durable.Rename(p.layerDir(id), trash) })
}

// wipeSuffix ends the names of directories in the trash whose data is to be overwritten.
const wipeSuffix = ".wipe"
