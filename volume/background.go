package volume

import (
	"context"
	"math/rand/v2"
	"time"

	"drover"
)

const (
	retryMin = time.Second
	retryMax = 30 * time.Second
)

// hydrate starts the background copy of a layer, or changes its limit.
func (p *pool) hydrate(ctx context.Context, id drover.LayerID, limit drover.Bytes) error {
	if limit < 0 {
		return drover.Errorf(drover.Invalid, "the limit %d of the hydration of layer %s is negative", limit, id).WithField("limit")
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if l = l.filled(); l == nil {
		return nil
	}
	err = l.update(func(m *meta) {
		m.Activated = true
		if m.Hydration == nil {
			m.Hydration = &hydrationRecord{}
		}
		if !m.Hydration.Started {
			m.Hydration.StartedAt = time.Now().UTC()
		}
		m.Hydration.Started, m.Hydration.Limit = true, limit
	})
	if err != nil {
		return err
	}
	p.startHydration(l)
	return nil
}

// pauseHydration stops the background copy of a layer, or lets it go on.
func (p *pool) pauseHydration(ctx context.Context, id drover.LayerID, paused bool) error {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if l = l.filled(); l == nil {
		return nil
	}
	if m := l.meta(); m.Hydration == nil && !paused || m.Hydration != nil && m.Hydration.Paused == paused {
		return nil
	}
	err = l.update(func(m *meta) {
		if m.Hydration == nil {
			m.Hydration = &hydrationRecord{}
		}
		m.Hydration.Paused = paused
	})
	if err != nil {
		return err
	}
	l.hydrator.pace.pause(paused)
	l.log.Info("hydration paused or resumed", "paused", paused)
	return nil
}

// resume goes on with what was under way when the last process ended.
func (p *pool) resume() {
	p.wg.Go(func() { p.absorb(p.ctx) })
	p.wg.Go(func() { p.wipe(p.ctx) })
	for _, l := range p.all() {
		p.resumeHydration(l)
		p.resumeUpload(l)
		p.resumeVerifying(l)
	}
}

// startHydration runs the copy, unless it runs already.
func (p *pool) startHydration(l *layer) {
	h := &l.hydrator
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pace.setLimit(l.meta().Hydration.Limit)
	h.pace.pause(l.meta().Hydration.Paused)
	if h.running {
		return
	}
	h.pace.touch()
	ctx, cancel := context.WithCancel(p.ctx)
	h.running, h.cancel, h.done = true, cancel, make(chan struct{})
	p.wg.Go(func() {
		defer close(h.done)
		l.runHydration(ctx)
		p.readBack(l)
		p.settleIdle(ctx, l)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running = false
		cancel()
	})
}

// stopHydration ends the copy and waits for it.
func (l *layer) stopHydration() {
	h := &l.hydrator
	h.mu.Lock()
	cancel, done := h.cancel, h.done
	h.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// runHydration copies until all is here. What goes wrong on this host (a full disk) is tried again, with growing pauses.
func (l *layer) runHydration(ctx context.Context) {
	begun := time.Now()
	l.log.Info("hydration runs", "parent", l.content().parent.name())
	for failures := 0; ; failures++ {
		err := l.content().hydrate(ctx, l.hydrator.pace, l.checkpoint)
		if err == nil {
			err = l.hydrated(l.finalRecord)
		}
		if err == nil {
			l.hydrator.trouble.Store(nil)
			rec := l.meta().Hydration
			l.env.changed()
			l.log.Info("hydration done", "copied", int64(rec.Copied), "wire", int64(rec.Wire), "total", int64(rec.Total), "dur", time.Since(begun),
				"verified", int64(l.meta().Verification.Checked), "repaired", int64(l.meta().Verification.Repaired),
				"compare", time.Duration(l.hydrator.pace.compared.Load()))
			return
		}
		if ctx.Err() != nil {
			return
		}
		text := err.Error()
		l.hydrator.trouble.Store(&text)
		pause := min(retryMin<<min(failures, 8), retryMax)
		pause = pause/2 + rand.N(pause/2+1)
		l.log.Warn("hydration stands still", "again_in", pause, "err", err)
		if waitFor(ctx, nil, pause) != nil {
			return
		}
		l.hydrator.trouble.Store(nil)
	}
}

// checkpoint records how much was fetched.
func (l *layer) checkpoint() error {
	o := l.content().enter()
	if o == nil {
		return nil
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil {
		return nil
	}
	copied, wire := drover.Bytes(src.copied.Load()), l.content().wire()
	return l.update(func(m *meta) {
		if m.Hydration != nil {
			m.Hydration.Copied, m.Hydration.Wire = copied, wire
			m.Verification, m.Against = l.hydrator.pace.verification.status(), nil
		}
	})
}

// finalRecord is what is remembered of a hydration that is done.
func (l *layer) finalRecord() hydrationRecord {
	rec := *l.meta().Hydration
	rec.DoneAt = time.Now().UTC()
	o := l.content().enter()
	if o == nil {
		return rec
	}
	defer o.leave()
	if src := o.src.Load(); src != nil {
		rec.Copied, rec.Wire = drover.Bytes(src.copied.Load()), l.content().wire()
		rec.Total, _, _ = src.progress(o)
	}
	rec.Skipped = max(0, rec.Total-rec.Copied)
	return rec
}
