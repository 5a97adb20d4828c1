package volume

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"drover"
)

// status describes the layer.
func (l *layer) status() (drover.LayerStatus, error) {
	m := l.meta()
	s := drover.LayerStatus{ID: l.id, Disk: m.Spec.Disk, State: m.State, Size: m.Spec.Size, Exports: slices.Clone(m.Exports), Limits: m.Spec.Limits}
	l.mu.Lock()
	s.Writer, s.Clients = l.writable, len(l.sessions)
	l.mu.Unlock()
	var err error
	if s.Allocated, err = l.allocatedNow(m); err != nil {
		return s, err
	}
	if err := l.content().failure(); err != nil {
		s.Trouble = err.Error()
	}
	s.Hydration = l.hydration(m)
	return s, nil
}

// allocatedNow is what the layer holds. Of a layer that does not change any more it is exact: what a full copy of it would
// transfer. Of another it is what the file takes now, which costs less to find out.
func (l *layer) allocatedNow(m *meta) (drover.Bytes, error) {
	if m.State == drover.LayerReady || m.parent() != nil {
		return l.content().taken()
	}
	if n := l.frozenData.Load(); n >= 0 {
		return drover.Bytes(n), nil
	}
	n, err := l.content().allocated()
	if err == nil {
		l.frozenData.Store(int64(n))
	}
	return n, err
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
	if m.Spec.Parent == nil {
		return nil
	}
	h := &drover.Hydration{Total: m.Spec.Parent.Allocated}
	if rec := m.Hydration; rec != nil {
		h.Copied, h.StartedAt, h.DoneAt = rec.Copied, rec.StartedAt, rec.DoneAt
		if m.ParentDone {
			h.Total, h.Skipped = rec.Total, rec.Skipped
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
	h.Copied, h.BytesPerSecond = drover.Bytes(src.copied.Load()), drover.Bytes(src.rate.rate())
	h.Skipped = max(0, total-absent-h.Copied)
	h.TotalKnown = known
	if known || total > h.Total {
		h.Total = total
	}
	h.Waiting = src.from.trouble()
	if why := l.hydrator.trouble.Load(); why != nil {
		h.Waiting = *why
	}
	return h
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
