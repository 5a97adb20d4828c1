package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"

	"drover"
	"drover/internal/durable"
)

// resize makes a layer larger. The data file is given a second name and more room, and a larger map is made beside it; the layer's record,
// which names both, is the commit.
func (p *pool) resize(ctx context.Context, id drover.LayerID, size drover.Bytes) error {
	if err := checkSize(size); err != nil {
		return drover.Errorf(drover.Invalid, "cannot resize layer %s: %w", id, err).WithField("size")
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	switch m := l.meta(); {
	case m.State != drover.LayerReady:
		return drover.Errorf(drover.Precondition, "cannot resize layer %s: its state is %s", id, m.State)
	case m.Spec.Size == size:
		return nil
	case m.Spec.Size > size:
		return drover.Errorf(drover.Invalid, "cannot resize layer %s from %d to %d bytes: a layer can only become larger", id, m.Spec.Size, size).WithField("size")
	}
	if err := l.content().failure(); err != nil {
		return err
	}
	p.absorber.stop(l)
	l.stopHydration()
	defer p.resumeHydration(l)
	if err := l.content().Flush(ctx); err != nil { // what is dirty when the valve closes makes the pause longer
		return err
	}
	g := &growth{pool: p, l: l, was: l.meta(), from: l.content(), next: grownRecord(l.meta(), size)}
	if err := g.prepare(); err != nil {
		return err
	}
	p.cfg.Faults.Hit("volume.resize.ready")
	open, err := l.closeValve(ctx, true)
	if err != nil {
		return errors.Join(err, g.undo())
	}
	err = g.exchange(ctx)
	open()
	if err != nil {
		return errors.Join(err, g.undo())
	}
	l.log.Info("layer resized", "from", int64(g.was.Spec.Size), "to", int64(size))
	l.tellSize(int64(size))
	if err := g.clean(); err != nil {
		l.log.Warn("cannot remove the old names of a resized layer's files", "err", err)
	}
	return nil
}

// grownRecord names the files of the larger content.
func grownRecord(was *meta, size drover.Bytes) *meta {
	m := was.clone()
	m.keepAsked()
	m.Spec.Size, m.Incarnation, m.SumsOf = size, newIncarnation(), was.sumsOf()
	m.Files = m.Incarnation
	return m
}

// growth is the making of a larger content from a layer's own.
type growth struct {
	pool       *pool
	l          *layer
	was, next  *meta
	from, into *content
}

// prepare makes and opens the files, while the guest goes on.
func (g *growth) prepare() error {
	dir := g.l.dir
	err := linkContent(dir, dir, g.was.Files, g.next.Files, withoutMap()...)
	if err == nil {
		err = os.Truncate(filepath.Join(dir, fileName(dataFile, g.next.Files)), int64(g.next.Spec.Size))
	}
	if err == nil && g.was.Mapped {
		present, _ := g.l.presentUpTo(int64(g.next.Spec.Size) / blockSize)
		err = makeMap(dir, g.next, present)
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err == nil {
		g.into, err = g.pool.openContent(dir, g.next, g.from.under.Load(), g.l.log)
	}
	if err != nil {
		return errors.Join(ioError(g.l.id, "make the larger files of", err), g.pool.removeContent(dir, g.next))
	}
	return nil
}

// carry takes over what the old content has in memory.
func (g *growth) carry() {
	old, fresh := g.from.enter(), g.into.enter()
	defer old.leave()
	defer fresh.leave()
	if old != nil {
		for b := old.present.next(0, old.present.n, true); b < old.present.n; { // the marks made since the map was
			end := old.present.next(b, old.present.n, false)
			if !fresh.present.all(b, end) {
				fresh.mark(b, end)
			}
			b = old.present.next(end, old.present.n, true)
		}
		if old.fetched != nil && fresh.fetched != nil {
			for w := range old.fetched.words {
				atomic.OrUint64(&fresh.fetched.words[w], loadWord(old.fetched, int64(w)))
			}
		}
		if was, src := old.src.Load(), fresh.src.Load(); was != nil && src != nil {
			src.copied.Store(was.copied.Load())
		}
	}
}

// exchange makes the change. The valve is closed.
func (g *growth) exchange(ctx context.Context) error {
	if err := g.from.failure(); err != nil { // the new open file would not tell of it
		return err
	}
	g.from.stopAhead() // no gate holds it, and it fills the same file
	g.carry()
	if err := g.into.Flush(ctx); err != nil { // the new map says "present" of all that is
		return err
	}
	if err := g.l.replaceRecord(func(m *meta) { *m = *g.next.clone() }); err != nil {
		return err
	}
	g.into.sums.follow(g.from.sums)
	g.pool.cfg.Faults.Hit("volume.resize.committed")
	g.l.take(g.into, g.l.below.Load())
	return nil
}

// undo gives up what was prepared, unless nobody knows whether the disk has the record that needs it: see replaceRecord.
func (g *growth) undo() error {
	err := g.into.close()
	if g.from.failure() != nil {
		return err
	}
	return errors.Join(err, g.pool.removeContent(g.l.dir, g.next))
}

// clean gives up the old content.
func (g *growth) clean() error {
	var err error
	if g.from.parent != nil {
		err = g.from.parent.close()
	}
	return errors.Join(err, g.from.close(), removeStrayFiles(g.l.dir, g.l.meta()), removeLive(g.pool.livePath(g.was)))
}

// tellSize calls those connections' clients that can be told of a new size.
func (l *layer) tellSize(size int64) {
	l.mu.Lock()
	var calls []func(int64)
	for s := range l.sessions {
		if call := s.resized.Load(); call != nil {
			calls = append(calls, *call)
		}
	}
	l.mu.Unlock()
	for _, call := range calls {
		call(size)
	}
}
