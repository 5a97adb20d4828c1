package vhostuser

import (
	"errors"
	"slices"
	"sync/atomic"
)

// regionSize is the size of a region in a message.
const regionSize = 32

// region is a part of the guest's memory.
type region struct {
	guest  uint64 // where it is in the guest
	user   uint64 // where it is in the frontend, which gives the rings' addresses in its own terms
	size   uint64
	offset uint64 // where it is in the file
	mem    []byte
	// shared counts the tables that have the region; the last one unmaps it.
	shared *atomic.Int32
}

// parseRegion reads a region from a message and checks that its ends can be computed with.
func parseRegion(p []byte) (region, error) {
	r := region{guest: order.Uint64(p), size: order.Uint64(p[8:]), user: order.Uint64(p[16:]), offset: order.Uint64(p[24:])}
	if r.size == 0 || r.guest+r.size < r.guest || r.user+r.size < r.user || r.offset+r.size < r.offset {
		return r, bad("a memory region of %d bytes at %#x makes no sense", r.size, r.guest)
	}
	return r, nil
}

// mapRegion maps the region of the descriptor.
func (r *region) mapRegion(fd int) (err error) {
	if r.mem, err = mapFD(fd, r.offset, r.size, "guest memory"); err != nil {
		return err
	}
	r.shared = &atomic.Int32{}
	return nil
}

// memory is a table of the guest's memory. It does not change; another table takes its place. The device and each request that is under
// way hold it, so that it is unmapped only when nobody uses it any more.
type memory struct {
	regions []region
	refs    atomic.Int64
	broken  func(error) // told when it cannot be unmapped
}

// newMemory makes a table of regions that are mapped. The caller has one reference.
func newMemory(regions []region, broken func(error)) *memory {
	m := &memory{regions: slices.Clone(regions), broken: broken}
	for _, r := range m.regions {
		r.shared.Add(1)
	}
	slices.SortFunc(m.regions, func(a, b region) int { return int(min(max(int64(b.size-a.size), -1), 1)) }) // the largest is asked for most
	m.refs.Store(1)
	return m
}

func (m *memory) hold() { m.refs.Add(1) }

func (m *memory) release() {
	if m == nil || m.refs.Add(-1) != 0 {
		return
	}
	var errs []error
	for _, r := range m.regions {
		if r.shared.Add(-1) == 0 {
			errs = append(errs, unmap(r.mem))
		}
	}
	if err := errors.Join(errs...); err != nil {
		m.broken(err)
	}
}

// overlaps reports whether a region has guest addresses that the table knows already.
func overlaps(regions []region, r region) bool {
	return slices.ContainsFunc(regions, func(o region) bool { return r.guest < o.guest+o.size && o.guest < r.guest+r.size })
}

// at returns the guest's memory from an address on, at most n bytes of it; nothing when no region has the address.
func (m *memory) at(addr, n uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.guest; off < r.size {
			return r.mem[off:min(off+n, r.size)] // n is a 32-bit length: the sum cannot overflow
		}
	}
	return nil
}

// whole returns n bytes of the guest's memory that lie in one region.
func (m *memory) whole(addr, n uint64) ([]byte, bool) {
	b := m.at(addr, n)
	return b, uint64(len(b)) == n
}

// userRange returns n bytes at an address of the frontend.
func (m *memory) userRange(addr, n uint64) ([]byte, bool) {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.user; off < r.size {
			if r.size-off < n {
				return nil, false
			}
			return r.mem[off : off+n], true
		}
	}
	return nil, false
}
