package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/time/rate"

	"drover"
	"drover/internal/durable"
)

// takeIn makes the content of a layer that of the unwanted one below it: the blocks that the upper layer has are copied down into the
// lower one's data file, which then becomes the upper layer's. Nothing but the upper layer's record says that it has happened; until
// that is written the copied blocks are hidden by the ones that they were copied from.
type takeIn struct {
	pool         *pool
	upper, lower *layer
	limit        *rate.Limiter

	ctx       context.Context
	cancel    context.CancelFunc
	done      chan struct{}
	committed bool

	// from is what the upper layer holds, into what it is to hold: the lower layer's data file with a map of its own. adopt makes
	// a record name it.
	from, into *content
	adopt      func(*meta)
	files      *meta // names the files of into; nil if they are those of from
	was        *meta // the upper layer's record before
	// changed has the blocks to be copied.
	changed *bitmap
	// retired: the lower layer's checksums are kept by into, which has the same file.
	retired bool
}

const (
	// takeInRest is how many blocks are left for the pause at most when that is reached, takeInMost at all events.
	takeInRest = 128
	takeInMost = 16384
	// takeInCalm is how many passes keep to the rate. Those after them chase a guest that writes as fast.
	takeInCalm = 2
	// takeInPasses bounds how often the absorber goes after a guest that writes faster than it copies, before others get their turn.
	takeInPasses = 20
)

// prepare opens what the upper layer is to hold. The caller has the turns of the disk and of the list of layers.
func (t *takeIn) prepare() (err error) {
	if t.from, err = t.upper.use(); err != nil {
		return err
	}
	t.was = t.upper.meta()
	o := t.from.enter()
	if o == nil {
		err = t.prepareDetached()
	} else {
		err = t.prepareMerged(o)
		o.leave()
	}
	if err != nil {
		return errors.Join(err, t.from.close())
	}
	return nil
}

// prepareDetached is for an upper layer that has every block itself: its own files, with nothing under them.
func (t *takeIn) prepareDetached() (err error) {
	t.adopt = func(m *meta) {
		m.keepAsked()
		m.Spec.Base, m.Mapped = "", false
	}
	m := t.upper.meta().clone()
	t.adopt(m)
	t.into, err = t.pool.openContent(t.upper.dir, m, nil, t.upper.log)
	return ioError(t.upper.id, "open again", err)
}

// prepareMerged makes the lower layer's data file, under a second name, the upper layer's next content.
func (t *takeIn) prepareMerged(o *overlay) error {
	if !t.lower.meta().Absorbed {
		if err := t.lower.update(func(m *meta) { m.Absorbed = true }); err != nil {
			return err
		}
	}
	t.pool.cfg.Faults.Hit("volume.take-in.marked")
	present, mapped := t.lower.presentUpTo(o.present.n)
	was, incarnation := t.lower.meta(), newIncarnation()
	t.adopt = func(m *meta) {
		m.keepAsked()
		m.Incarnation, m.Files, m.Mapped, m.Spec.Base = incarnation, incarnation, mapped, was.Spec.Base
		m.SumsOf = was.sumsOf()
		if m.Spec.Parent == nil { // what is told of a hydration is that of the layer that had the parent
			m.Spec.Parent, m.Spec.Snapshot, m.ParentDone, m.Hydration = was.Spec.Parent, was.Spec.Snapshot, was.ParentDone, was.Hydration
		}
	}
	m := t.upper.meta().clone()
	t.adopt(m)
	t.files = m
	err := linkContent(t.lower.dir, t.upper.dir, was.Files, incarnation, withoutMap()...)
	if err == nil {
		err = os.Truncate(filepath.Join(t.upper.dir, fileName(dataFile, incarnation)), int64(m.Spec.Size))
	}
	if err == nil && mapped {
		err = makeMap(t.upper.dir, m, present)
	}
	if err == nil {
		err = durable.SyncDir(t.upper.dir)
	}
	if err == nil {
		t.retired = t.lower.content().sums.retire()
		t.into, err = t.pool.openContent(t.upper.dir, m, t.lower.content().under.Load(), t.upper.log)
	}
	if err != nil {
		t.revive()
		return errors.Join(ioError(t.upper.id, "prepare the files of", err), t.pool.removeContent(t.upper.dir, m))
	}
	t.watch(o)
	return nil
}

// watch makes the bitmap of what is to be copied. From here on nothing that the guest writes is missed: what it wrote before is in the map.
func (t *takeIn) watch(o *overlay) {
	t.changed = newBitmap(o.present.n)
	o.changed.Store(t.changed)
	for w := range t.changed.words {
		atomic.OrUint64(&t.changed.words[w], loadWord(o.present, int64(w)))
	}
}

// run copies until little is left, and then makes the change.
func (t *takeIn) run() error {
	for pass := 1; ; pass++ {
		if t.changed != nil {
			if err := t.copyChanged(pass <= takeInCalm); err != nil {
				return err
			}
			// What is dirty when the valve closes makes the pause longer.
			if err := t.into.Flush(t.ctx); err != nil {
				return err
			}
			if pass < takeInPasses && t.left() > takeInRest {
				continue
			}
			if t.left() <= takeInMost { // so that next to nothing is to be copied in the pause, but only flushed
				if err := t.copyChanged(false); err != nil {
					return err
				}
			}
		}
		t.pool.cfg.Faults.Hit("volume.take-in.copied")
		err := t.commit()
		if err == nil || pass >= takeInPasses || !drover.Is(err, drover.Unavailable) {
			return err
		}
		t.upper.log.Debug("the pause to take a base in is put off", "base", string(t.lower.id), "err", err)
		if err := waitFor(t.ctx, nil, takeInRetry); err != nil {
			return err
		}
	}
}

func (t *takeIn) left() int64 { return t.changed.count(0, t.changed.n) }

// copyChanged copies the blocks that changed since they were copied.
func (t *takeIn) copyChanged(throttled bool) error {
	n := t.changed.n
	for b := t.changed.next(0, n, true); b < n; {
		end := t.changed.next(b, min(n, b+maxFetch), false)
		if throttled {
			if err := t.limit.WaitN(t.ctx, int(end-b)*blockSize); err != nil {
				return err
			}
		}
		if err := t.copyRun(b, end); err != nil {
			return err
		}
		b = t.changed.next(end, n, true)
	}
	return nil
}

// copyRun copies one run. Its blocks are taken out of the bitmap before they are read, so that one that is written meanwhile is copied again.
func (t *takeIn) copyRun(first, end int64) error {
	for b := first; b < end; b++ {
		t.changed.take(b)
	}
	buf := make([]byte, (end-first)*blockSize)
	err := t.from.readToCopy(t.ctx, buf, first*blockSize)
	for b := first; err == nil && b < end; {
		part := buf[(b-first)*blockSize:]
		zero, stop := isZero(part[:blockSize]), b+1
		for stop < end && isZero(part[(stop-b)*blockSize:(stop-b+1)*blockSize]) == zero {
			stop++
		}
		n := (stop - b) * blockSize
		if zero {
			err = t.into.Discard(t.ctx, b*blockSize, n, false)
		} else {
			err = t.into.WriteAt(t.ctx, part[:n], b*blockSize, false)
			t.keepSums(b, part[:n])
		}
		b = stop
	}
	return err
}

// keepSums gives copied blocks the checksums that they were written with, where those are of something else: what the disk has
// damaged must be found later, and not be made good by the copy. A block that a guest is just writing is copied again.
func (t *takeIn) keepSums(first int64, p []byte) {
	for b := first; len(p) > 0; b, p = b+1, p[blockSize:] {
		want := t.from.sums.get(b)
		if want == unknownSum || want == sumOf(p[:blockSize]) || t.into.sums == nil {
			continue
		}
		t.into.sums.lock(b, b+1)
		t.into.sums.put(b, want)
		t.into.sums.unlock(b, b+1)
	}
}

// commit copies the rest and makes the change, while the guest waits.
func (t *takeIn) commit() error {
	p := t.pool
	done, err := p.turn(t.ctx, makingTurn)
	if err != nil {
		return err
	}
	defer done()
	_, turnDone, err := p.turnOf(t.ctx, t.upper.id)
	if err != nil {
		return err
	}
	defer turnDone()
	if p.mayTakeIn(t.lower) != t.upper || t.upper.content() != t.from {
		return nil // it is begun again
	}
	open, err := t.upper.closeValve(t.ctx, true)
	if err != nil {
		return err
	}
	err = t.exchange()
	open()
	if err != nil {
		return err
	}
	t.upper.log.Info("layer took its base in", "base", string(t.lower.id))
	t.clean()
	return nil
}

// exchange is what the guest waits for.
func (t *takeIn) exchange() error {
	if t.changed != nil {
		if t.left() > takeInMost {
			return drover.Errorf(drover.Unavailable, "the guest of layer %s writes faster than its blocks are copied", t.upper.id)
		}
		if err := t.copyChanged(false); err != nil {
			return err
		}
	}
	if err := t.from.failure(); err != nil { // another open file would not tell of it
		return err
	}
	if err := t.into.Flush(t.ctx); err != nil {
		return err
	}
	if err := t.upper.replaceRecord(t.adopt); err != nil {
		return err
	}
	t.committed = true
	if t.changed == nil {
		t.into.sums.follow(t.from.sums)
	}
	t.pool.cfg.Faults.Hit("volume.take-in.committed")
	below := t.lower.below.Load()
	if t.changed == nil {
		below = nil
	}
	t.upper.take(t.into, below)
	for _, l := range t.pool.over(t.upper.id) {
		if err := l.content().setUnder(t.into); err != nil {
			l.log.Warn("cannot close what was taken in", "err", err)
		}
	}
	return nil
}

// revive lets the lower layer keep its checksums again.
func (t *takeIn) revive() {
	if t.retired {
		t.lower.content().sums.revive()
	}
}

// clean removes what is needed no more. A start after a crash does the same.
func (t *takeIn) clean() {
	errs := []error{t.from.close(), t.from.close()} // the layer's use of it, and ours
	if t.files != nil {
		errs = append(errs, removeStrayFiles(t.upper.dir, t.upper.meta()), removeLive(t.pool.livePath(t.was)))
	}
	lower := t.lower.meta()
	trash, err := t.pool.dismiss(t.lower, lower.Wipe)
	if err == nil {
		err = t.pool.emptyTrash(trash)
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		t.upper.log.Warn("cannot remove what a take-in left; the next start of the storage daemon will", "err", err)
	}
}

// undo gives up what was prepared, unless nobody knows whether the disk has the record that needs it: see replaceRecord.
func (t *takeIn) undo() error {
	if o := t.from.enter(); o != nil {
		o.changed.Store(nil)
		o.leave()
	}
	err := errors.Join(t.into.close(), t.from.close())
	t.revive()
	if t.files == nil || t.from.failure() != nil {
		return err
	}
	return errors.Join(err, t.pool.removeContent(t.upper.dir, t.files))
}
