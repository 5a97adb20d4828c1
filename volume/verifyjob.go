package volume

import (
	"context"
	"errors"
	"sync"
	"time"

	"drover"
)

const (
	// verifyRate bounds what a comparison that was asked for reads, in bytes per second: it must not take the disk from the guests.
	verifyRate = 128 << 20
	// scrubRate is the same for the search for checksums that are not known.
	scrubRate = 16 << 20
	// scrubEvery is how often layers are looked at whose checksums may be unknown.
	scrubEvery = time.Minute
	// readAgainFor bounds how long a parent is waited for that is needed no more, for a block that the disk lost.
	readAgainFor = 10 * time.Second
)

// verifier is the comparison of one layer that was asked for.
type verifier struct {
	mu     sync.Mutex
	now    *verification // nil while none runs
	cancel context.CancelFunc
	done   chan struct{}
}

// snapshotSums finds what a layer should hold by a snapshot in the object store.
type snapshotSums func(ctx context.Context, l *layer, c *content, snapshot drover.SnapshotSource) (chunkSums, error)

// verify begins a comparison, or finds the one that runs.
func (p *pool) verify(ctx context.Context, id drover.LayerID, against *drover.SnapshotSource) (*layer, error) {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	name := againstChecksums
	if against != nil {
		name = string(against.Snapshot)
	}
	l.verifier.mu.Lock()
	running := l.verifier.now
	l.verifier.mu.Unlock()
	if running != nil {
		if now := running.status().Against; now != name && (now != againstParent || against != nil) {
			return nil, drover.Errorf(drover.Conflict, "layer %s is being compared with %s already", id, running.status().Against).
				WithHint("ask again when that has ended")
		}
		return l, nil
	}
	if against != nil && p.snapshots == nil {
		return nil, drover.Errorf(drover.Precondition, "cannot compare layer %s with snapshot %s: host %s has no object store", id, name, p.cfg.Host)
	}
	if against == nil && l.content().sums == nil {
		return nil, drover.Errorf(drover.Precondition, "cannot verify layer %s: it has no checksums", id)
	}
	if l.meta().parent() != nil {
		return nil, drover.Errorf(drover.Conflict, "cannot verify layer %s while it is filled from its parent", id).
			WithHint("it is compared with its parent when that is done")
	}
	begun := newVerification(name).status()
	if err := l.update(func(m *meta) { m.Verification, m.Against = begun, against }); err != nil {
		return nil, err
	}
	p.startVerifying(l, against)
	return l, nil
}

// resumeVerifying begins a comparison anew that the end of the last process cut short.
func (p *pool) resumeVerifying(l *layer) {
	if m := l.meta(); !m.Unwanted && m.Verification != nil && !m.Verification.Done && (m.Verification.Against != againstParent || m.ParentDone) {
		p.startVerifying(l, m.Against)
	}
}

// startVerifying runs the comparison that is in the record. The caller has seen that none runs.
func (p *pool) startVerifying(l *layer, against *drover.SnapshotSource) {
	ctx, cancel := context.WithCancel(p.ctx)
	v := newVerification(l.meta().Verification.Against)
	v.now.StartedAt, v.now.Repaired = l.meta().Verification.StartedAt, l.meta().Verification.Repaired
	r := &l.verifier
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.cancel, r.done = v, cancel, make(chan struct{})
	p.wg.Go(func() {
		defer close(r.done)
		defer cancel()
		p.runVerification(ctx, l, v, against)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.now = nil
	})
}

// readBack begins, after a hydration, to compare what the disk has of it.
func (p *pool) readBack(l *layer) {
	l.verifier.mu.Lock()
	running := l.verifier.now != nil
	l.verifier.mu.Unlock()
	if v := l.meta().Verification; l.meta().ParentDone && v != nil && !v.Done && !running && p.ctx.Err() == nil {
		p.startVerifying(l, nil)
	}
}

// stopVerifying ends the comparison and waits for it.
func (l *layer) stopVerifying() {
	l.verifier.mu.Lock()
	cancel, done := l.verifier.cancel, l.verifier.done
	l.verifier.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// runVerification compares and records the result. One that is cut short by the end of the daemon begins anew with the next.
func (p *pool) runVerification(ctx context.Context, l *layer, v *verification, against *drover.SnapshotSource) {
	c, err := l.use()
	if err != nil {
		return // it is being deleted
	}
	defer func() {
		if err := c.close(); err != nil {
			l.log.Warn("cannot close what was verified", "err", err)
		}
	}()
	var again readAgain
	if export := l.meta().Spec.Parent; v.status().Against == againstParent && export != nil && export.Host != p.cfg.Host {
		from := newParent(*export, p.dial, l.log)
		defer func() { _ = from.close() }() // it is of no use any more
		again = func(ctx context.Context, buf []byte, off int64) error {
			ctx, cancel := context.WithTimeout(ctx, readAgainFor)
			defer cancel()
			return from.read(ctx, hydrationClass, buf, off)
		}
	}
	var ref chunkSums
	if against != nil {
		if p.snapshots == nil {
			err = drover.Errorf(drover.Precondition, "host %s has no object store", p.cfg.Host)
		} else {
			ref, err = p.snapshots(ctx, l, c, *against)
		}
	}
	if err == nil {
		err = c.compareAll(ctx, ref, again, v)
	}
	if ctx.Err() != nil {
		return
	}
	end := v.end(err)
	if len(end.Damaged) > 0 {
		l.log.Error("layer is damaged", "against", end.Against, "damage", describeDamage(c.disk, l.id, end.Damaged))
	} else {
		l.log.Info("layer verified", "against", end.Against, "checked", int64(end.Checked), "unknown", int64(end.Unknown), "problem", end.Problem)
	}
	if err := l.update(func(m *meta) { m.Verification, m.Against = end, nil }); err != nil {
		l.log.Warn("cannot record a verification", "err", err)
	}
}

// compareAll compares the content with a snapshot, or, when ref is nil, it and the frozen ones below it with their own checksums. again
// reads what the content should hold from elsewhere; nil for nowhere.
func (c *content) compareAll(ctx context.Context, ref chunkSums, again readAgain, v *verification) error {
	chain, err := c.chain()
	defer func() {
		for _, x := range chain[1:] {
			x.release()
		}
	}()
	if err != nil {
		return err
	}
	var total drover.Bytes
	limit := newBucket(verifyRate)
	if ref != nil { // whole chunks, of which the disk may hold less
		err := c.eachChunk(ref, func(first, end int64) error { total += drover.Bytes((end - first) * blockSize); return nil })
		if err != nil {
			return err
		}
		v.begin(total)
		return c.compare(ctx, ref, v, limit.take)
	}
	for _, x := range chain {
		n, err := x.allocated()
		if err != nil {
			return err
		}
		total += n
	}
	v.begin(total)
	for _, x := range chain {
		kept := keptSums{c: x}
		if x == c {
			kept.again = again
		}
		if err := x.compare(ctx, kept, v, limit.take); err != nil {
			return err
		}
	}
	return nil
}

// chain returns the content and those below it up to an image; all but the first must be released.
func (c *content) chain() ([]*content, error) {
	out := []*content{c}
	for x := c; ; {
		under, err := x.useUnder()
		if err != nil || under == nil {
			return out, err
		}
		if under.image {
			under.release()
			return out, nil
		}
		out, x = append(out, under), under
	}
}

// verification describes the newest comparison, with what was found to be damaged at any time since.
func (l *layer) verification(m *meta) *drover.Verification {
	l.verifier.mu.Lock()
	running := l.verifier.now
	l.verifier.mu.Unlock()
	v := m.Verification
	switch {
	case running != nil:
		v = running.status()
	case m.parent() != nil && m.Hydration != nil && m.Hydration.Started:
		v = l.hydrator.pace.verification.status()
	}
	if m.Loss != nil && m.parent() != nil {
		lost := drover.Verification{Against: againstParent}
		if v != nil {
			lost = *v
		}
		lost.Done, lost.DoneAt, lost.Problem = true, m.Loss.At, "what had not come was written off with its source"
		v = &lost
	}
	holes, _ := l.holes()
	damaged := append(holes, l.content().damagedRanges()...)
	damaged = damaged[:min(len(damaged), drover.MaxDamaged)]
	if len(damaged) == 0 {
		return v
	}
	now := drover.Verification{Against: againstChecksums, Done: true}
	if v != nil {
		now = *v
	}
	if now.Against == againstChecksums || len(now.Damaged) == 0 || len(holes) > 0 {
		now.Damaged = damaged
	}
	return &now
}

// settleIdle makes the checksums of a layer count for ever that nobody writes and that is filled now.
func (p *pool) settleIdle(ctx context.Context, l *layer) {
	if l.meta().parent() != nil {
		return
	}
	now, done, err := p.turnOf(ctx, l.id)
	if err != nil {
		return // it is being deleted, or the daemon ends, which settles too
	}
	defer done()
	if now != l || l.meta().Writer != 0 {
		return
	}
	if err := l.content().seal(ctx); err != nil {
		l.log.Warn("cannot seal the checksums", "err", err)
	}
}

// scrub looks for checksums that are not known, one layer after the other, slowly, until ctx ends.
func (p *pool) scrub(ctx context.Context) {
	tick := time.NewTicker(scrubEvery)
	defer tick.Stop()
	limit := newBucket(scrubRate)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, l := range p.all() {
			if err := p.scrubLayer(ctx, l, limit); err != nil && ctx.Err() == nil {
				l.log.Warn("cannot find out checksums", "err", err)
			}
		}
	}
}

// scrubLayer learns the sums of one layer, unless there is nothing to learn.
func (p *pool) scrubLayer(ctx context.Context, l *layer, limit *bucket) error {
	c, err := l.use()
	if err != nil {
		return nil // it is being deleted
	}
	if c.sums == nil || c.sums.gone.Load() || !c.sums.unknown.Swap(false) {
		return c.close()
	}
	if err := c.learnSums(ctx, limit); err != nil {
		c.sums.unknown.Store(true)
		return errors.Join(err, c.close())
	}
	p.settleIdle(ctx, l)
	return c.close()
}

// here reports whether the layer has the block itself.
func (c *content) here(block int64) bool {
	o := c.enter()
	defer o.leave()
	return o == nil || o.present.get(block)
}

// learnSums computes the sums of present blocks with data that are not known.
func (c *content) learnSums(ctx context.Context, limit *bucket) error {
	p := make([]byte, blockSize)
	for off := int64(0); off < c.size; {
		start, stop, err := c.data.NextData(off, c.size)
		if err != nil {
			return ioError(c.name, "examine", err)
		}
		for off = start / blockSize * blockSize; off < stop; off += blockSize {
			if c.sums.get(off/blockSize) != unknownSum || !c.here(off/blockSize) {
				continue
			}
			if err := limit.take(ctx, blockSize); err != nil {
				return err
			}
			if err := c.sums.open(); err != nil {
				return ioError(c.name, "open the checksums of", c.sums.giveUp(err))
			}
			if _, err := c.learnSum(off/blockSize, p); err != nil {
				return err
			}
		}
		if off = max(off, stop); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}
