package volume

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// status describes the layer.
func (l *layer) status() (drover.LayerStatus, error) {
	m := l.meta()
	s := drover.LayerStatus{ID: l.id, Disk: m.Spec.Disk, State: m.State, Size: m.Spec.Size, Base: m.Spec.Base, Unwanted: m.Unwanted,
		Exports: slices.Clone(m.Exports), Cipher: m.Spec.Cipher, Limits: m.Spec.Limits}
	l.mu.Lock()
	s.Writer, s.Clients = l.writable, len(l.sessions)
	l.mu.Unlock()
	s.Upload = l.upload(m)
	c, err := l.use()
	if err != nil {
		return s, err
	}
	s.Allocated, err = l.allocatedNow(m, c)
	if err == nil {
		s.Own, err = c.taken()
	}
	if failed := c.failure(); failed != nil {
		s.Trouble = failed.Error()
	}
	if f := l.filledOnce(); f != nil {
		s.Hydration = f.hydration(f.meta())
	}
	s.Verification = l.verification(m)
	return s, errors.Join(err, c.close())
}

// filledOnce returns the layer of the chain whose hydration is that of this layer: the first that has, or had, a parent.
func (l *layer) filledOnce() *layer {
	for x := l; x != nil; x = x.below.Load() {
		if m := x.meta(); m.Spec.Disk == l.meta().Spec.Disk && m.origin() != nil {
			return x
		}
	}
	return nil
}

// allocatedNow is what the layer holds. Of a layer that does not change any more it is exact: what a full copy of it would
// transfer. Of another it is what the file takes now, which costs less to find out.
func (l *layer) allocatedNow(m *meta, c *content) (drover.Bytes, error) {
	if m.State == drover.LayerReady || m.parent() != nil {
		own, err := c.taken()
		if err != nil {
			return 0, err
		}
		under, err := l.takenBelow(m)
		return own + under, err
	}
	if l.filled() != nil {
		return c.allocated() // what lies below still gets more
	}
	if n := l.frozenData.Load(); n >= 0 {
		return drover.Bytes(n), nil
	}
	n, err := c.allocated()
	if err == nil {
		l.frozenData.Store(int64(n))
	}
	return n, err
}

// takenBelow is what the frozen layers of the same disk under a layer take. What it has written over since is counted twice, so the sum is
// never too little: whoever moves or copies the layer looks for room by it.
func (l *layer) takenBelow(m *meta) (drover.Bytes, error) {
	below := l.below.Load()
	if below == nil || below.meta().Spec.Disk != m.Spec.Disk {
		return 0, nil
	}
	c, err := below.use()
	if err != nil {
		return 0, err
	}
	own, err := c.taken()
	under, uerr := below.takenBelow(below.meta())
	return own + under, errors.Join(err, uerr, c.close())
}

// taken is what the file takes on the host's disk.
func (c *content) taken() (drover.Bytes, error) {
	f, ok := c.data.(osFile)
	if !ok {
		return c.allocated()
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, ioError(c.name, "examine", err)
	}
	return drover.Bytes(st.Blocks) * 512, nil
}

// hydration describes the progress of the copy; nil for a layer that never had a parent.
func (l *layer) hydration(m *meta) *drover.Hydration {
	origin := m.origin()
	if origin == nil {
		return nil
	}
	h := &drover.Hydration{Total: origin.Allocated}
	if rec := m.Hydration; rec != nil {
		h.Limit, h.Paused = rec.Limit, rec.Paused && !m.ParentDone
		h.Copied, h.Wire, h.StartedAt, h.DoneAt = rec.Copied, rec.Wire, rec.StartedAt, rec.DoneAt
		if m.ParentDone {
			h.Total, h.Skipped, h.Verified, h.Repaired = rec.Total, rec.Skipped, rec.Verified, rec.Repaired
		}
	}
	h.Done = m.ParentDone
	if h.Done {
		h.TotalKnown = true
		return h
	}
	o := l.content().enter()
	if o == nil {
		return h
	}
	defer o.leave()
	src := o.src.Load()
	if src == nil {
		return h
	}
	total, absent, known := src.progress(o)
	h.Copied, h.Wire, h.BytesPerSecond = drover.Bytes(src.copied.Load()), l.content().wire(), drover.Bytes(src.rate.rate())
	h.Skipped = max(0, total-absent-h.Copied)
	h.TotalKnown = known
	if known || total > h.Total {
		h.Total = total
	}
	if m.Loss != nil { // nothing more will come
		h.Done, h.DoneAt, h.BytesPerSecond = true, m.Loss.At, 0
		h.Holes, h.Lost = l.holes()
		return h
	}
	l.describeWaiting(h, src)
	return h
}

// describeWaiting says why nothing moves, and whether that is so for too long.
func (l *layer) describeWaiting(h *drover.Hydration, src *source) {
	pace := l.hydrator.pace
	h.Waiting = src.from.trouble()
	for _, why := range []*string{pace.refusal.Load(), l.hydrator.trouble.Load()} {
		if why != nil {
			h.Waiting = *why
		}
	}
	stands := pace.standing()
	if l.hydrator.trouble.Load() != nil && !h.Paused {
		stands = max(stands, time.Duration(time.Now().UnixNano()-pace.moved.Load()))
	}
	if h.Stalled = stands > l.env.settings.stallAfter(); h.Stalled && h.Waiting == "" {
		h.Waiting = fmt.Sprintf("nothing has come from the parent for %v", stands.Round(time.Second))
	}
}

// statusOf describes one layer. One that is refused is described by the reason.
func (p *pool) statusOf(id drover.LayerID) (drover.LayerStatus, error) {
	l, err := p.find(id)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	return l.status()
}

// statuses describes all layers, those that are refused too.
func (p *pool) statuses() ([]drover.LayerStatus, error) {
	out := []drover.LayerStatus{}
	for _, l := range p.all() {
		s, err := l.status()
		if err != nil {
			s.Trouble = err.Error()
		}
		out = append(out, s)
	}
	p.mu.Lock()
	for id, err := range p.broken {
		out = append(out, drover.LayerStatus{ID: id, Trouble: err.Error()})
	}
	p.mu.Unlock()
	slices.SortFunc(out, func(a, b drover.LayerStatus) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}
