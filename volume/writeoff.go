package volume

import (
	"context"
	"fmt"
	"time"

	"drover"
	"drover/nbd"
)

// A parent that will never answer again can be written off: what had not come from it are holes. They are damaged blocks of another kind: reads of them fail, they are
// passed on to nobody, and each is one until it is written. In the map they are absent, and come from a parent that refuses every read.

// maxHoles bounds how many runs of blocks a record names. Beyond, whatever is absent counts as a hole, which is never too little.
const maxHoles = 1 << 16

// lookForWritten is how often it is looked whether all holes were written.
const lookForWritten = 2 * time.Second

// lossRecord is what was written off of a layer.
type lossRecord struct {
	At time.Time `json:"at"`
	// Runs are the holes at that time, first block and length after each other; some were written since. Everything: all that is absent is one.
	Runs       []int64 `json:"runs,omitempty"`
	Everything bool    `json:"everything,omitempty"`
}

// bitmap has the holes of a layer of which the parent has so many blocks.
func (r *lossRecord) bitmap(blocks int64) *bitmap {
	holes := newBitmap(blocks)
	if r.Everything {
		holes.set(0, blocks)
	}
	for i := 0; i+1 < len(r.Runs); i += 2 {
		holes.set(min(r.Runs[i], blocks), min(r.Runs[i]+r.Runs[i+1], blocks))
	}
	return holes
}

// lostParent is what is left of a parent that was written off. It knows where it had something, and gives nothing. It implements upstream.
type lostParent struct {
	was   string
	holes *bitmap
}

var _ upstream = (*lostParent)(nil)

func newLostParent(m *meta) *lostParent {
	e := m.parent()
	return &lostParent{was: fmt.Sprintf("parent %s at host %s", e.Layer, e.Host), holes: m.Loss.bitmap(m.filledBlocks())}
}

func (p *lostParent) name() string    { return p.was + ", which was written off" }
func (p *lostParent) close() error    { return nil }
func (p *lostParent) trouble() string { return "" }

func (p *lostParent) read(_ context.Context, _ class, _ []byte, off int64) error {
	return &refused{drover.Errorf(drover.Internal, "offset %d never came from %s", off, p.name()).
		WithHint("write the block again in the guest, or restore the volume from a snapshot")}
}

// extents tells of holes that they hold data, and of all else that there is none.
func (p *lostParent) extents(_ context.Context, _ class, metaContext string, off, n int64) (out []nbd.Extent, err error) {
	hole, rest := uint32(0), uint32(nbd.FlagZero)
	switch metaContext {
	case nbd.ContextAllocation:
	case nbd.ContextPresent:
		hole, rest = nbd.FlagPresent, 0
	default: // its checksums went with it
		return nil, drover.Errorf(drover.Precondition, "%s cannot be asked for %s", p.name(), metaContext)
	}
	first, end := blocksOf(off, n)
	for b := first; b < end; {
		flags, is := rest, p.holes.get(b)
		if is {
			flags = hole
		}
		stop := p.holes.next(b, end, !is)
		out = append(out, nbd.Extent{Length: (stop - b) * blockSize, Flags: flags})
		b = stop
	}
	return out, nil
}

// writeOff gives up what has not come from a layer's parent on another host. That this host is not just slow is for the caller to know.
func (p *pool) writeOff(ctx context.Context, id drover.LayerID) (drover.LayerStatus, error) {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	defer done()
	f := l.filled()
	if f == nil || f.meta().Loss != nil {
		return l.status()
	}
	remote, ok := f.content().parent.(*parent)
	if !ok {
		return drover.LayerStatus{}, drover.Errorf(drover.Precondition, "cannot write off the parent of layer %s: it is %s", id, f.content().parent.name()).
			WithHint("it is no other host that can be lost")
	}
	if f.stopHydration(); f.content().parent != upstream(remote) {
		return drover.LayerStatus{}, drover.Errorf(drover.Conflict, "layer %s has changed meanwhile", id)
	}
	if err := p.writeOffNow(ctx, f, remote); err != nil {
		p.resumeHydration(f)
		return drover.LayerStatus{}, err
	}
	p.resumeHydration(f)
	return l.status()
}

// writeOffNow records the holes, and lets the parent give nothing any more.
func (p *pool) writeOffNow(ctx context.Context, l *layer, remote *parent) error {
	loss := l.loss()
	// What is not among the holes counts as good from here on, also after a power cut: so it must be durable first.
	if err := l.content().Flush(ctx); err != nil {
		return err
	}
	p.cfg.Faults.Hit("volume.write-off.flushed")
	if err := l.update(func(m *meta) {
		if m.Loss = loss; m.Hydration == nil {
			m.Hydration = &hydrationRecord{}
		}
		m.Activated, m.Hydration.Started, m.Hydration.Paused = true, true, false // what is left of it is to see its end
	}); err != nil {
		return err
	}
	p.cfg.Faults.Hit("volume.write-off.recorded")
	remote.lost.Store(newLostParent(l.meta()))
	l.log.Warn("what had not come from the parent was written off", "parent", remote.name(), "runs", len(loss.Runs)/2, "everything", loss.Everything)
	return remote.close() // whoever waits for it waits no more
}

// loss lists what would be lost now: what is absent, and wanted from the parent or not known not to be.
func (l *layer) loss() *lossRecord {
	loss := &lossRecord{At: time.Now().UTC()}
	o := l.content().enter()
	if o == nil {
		return loss
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil {
		return loss
	}
	src.missing(o, func(first, end int64) bool {
		loss.Runs = append(loss.Runs, first, end-first)
		loss.Everything = len(loss.Runs)/2 > maxHoles
		return !loss.Everything
	})
	if loss.Everything {
		loss.Runs = nil
	}
	return loss
}

// missing goes through what has to come from the parent, or may have to, and is absent, until each says no.
func (s *source) missing(o *overlay, each func(first, end int64) bool) {
	for b := o.present.next(0, s.blocks, false); b < s.blocks; {
		yes, to := s.wantsOrMay(b, o.present.next(b, s.blocks, true))
		if yes && !each(b, to) {
			return
		}
		b = o.present.next(to, s.blocks, false)
	}
}

// wantsOrMay is wants without steps of one block where nothing is known.
func (s *source) wantsOrMay(block, stop int64) (bool, int64) {
	_, high := s.bounds(block / chunkBlocks)
	if s.chunks[block/chunkBlocks].want.Load() == nil {
		return true, min(stop, high)
	}
	return s.wants(block, min(stop, high))
}

// holes lists what was written off of a layer and not written since: the first drover.MaxDamaged ranges, and how much it is in all.
func (l *layer) holes() (ranges []drover.ByteRange, sum drover.Bytes) {
	if l.meta().Loss == nil || l.meta().ParentDone {
		return nil, 0
	}
	o := l.content().enter()
	if o == nil {
		return nil, 0
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil {
		return nil, 0
	}
	src.missing(o, func(first, end int64) bool {
		n := drover.Bytes((end - first) * blockSize)
		sum += n
		at := drover.Bytes(first * blockSize)
		switch k := len(ranges); {
		case k > 0 && ranges[k-1].Offset+ranges[k-1].Length == at:
			ranges[k-1].Length += n
		case k < drover.MaxDamaged:
			ranges = append(ranges, drover.ByteRange{Offset: at, Length: n})
		}
		return true
	})
	return ranges, sum
}

// awaitOverwritten is what is left of a copy whose parent was written off: it is done when the guest has written every hole.
func (h *hydration) awaitOverwritten(ctx context.Context) error {
	for {
		if _, absent, known := h.src.progress(h.o); known && absent == 0 {
			return nil
		}
		if err := waitFor(ctx, nil, lookForWritten); err != nil {
			return err
		}
	}
}

// writtenOff reports whether the parent was given up.
func writtenOff(from reader) bool {
	switch p := from.(type) {
	case *lostParent:
		return true
	case *parent:
		return p.lost.Load() != nil
	}
	return false
}
