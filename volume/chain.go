package volume

import (
	"slices"

	"drover"
)

// maxChain bounds how many frozen layers lie under a layer: each costs a read that goes down to the last one a look at a map.
const maxChain = 32

// filled returns the layer of the chain that is still filled from a parent, this one or one below that has its disk; nil for none.
func (l *layer) filled() *layer {
	for x := l; x != nil; x = x.below.Load() {
		if m := x.meta(); m.Spec.Disk == l.meta().Spec.Disk && m.parent() != nil {
			return x
		}
	}
	return nil
}

// depth counts the layers under this one.
func (l *layer) depth() (n int) {
	for x := l.below.Load(); x != nil; x = x.below.Load() {
		n++
	}
	return n
}

// over returns the layers whose base this is.
func (p *pool) over(id drover.LayerID) []*layer {
	return p.matching(func(m *meta) bool { return m.Spec.Base == id })
}

// filledFrom returns the layers of this host that are still filled from this one.
func (p *pool) filledFrom(id drover.LayerID) []*layer {
	return p.matching(func(m *meta) bool {
		parent := m.parent()
		return parent != nil && parent.Host == p.cfg.Host && parent.Layer == id
	})
}

func (p *pool) matching(which func(*meta) bool) []*layer {
	out := slices.DeleteFunc(p.all(), func(l *layer) bool { return !which(l.meta()) })
	slices.SortFunc(out, func(a, b *layer) int { return compareIDs(a.id, b.id) })
	return out
}

func compareIDs(a, b drover.LayerID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
