package vhostuser

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// setMemTable takes a new table of the guest's memory.
func (d *Device) setMemTable(m *message) (err error) {
	if err := m.sized(8); err != nil {
		return err
	}
	n := int(min(order.Uint32(m.payload), maxTableRegions+1))
	if err := m.sized(8 + n*regionSize); n < 1 || n > maxTableRegions || len(m.fds) != n || err != nil {
		return errors.Join(err, bad("a memory table of %d regions with %d descriptors", n, len(m.fds)))
	}
	var regions []region
	defer func() {
		if err != nil {
			err = errors.Join(err, unmapAll(regions))
		}
	}()
	for i := range n {
		r, err := parseRegion(m.payload[8+i*regionSize:])
		if err != nil {
			return err
		}
		if overlaps(regions, r) {
			return bad("two memory regions have the guest address %#x", r.guest)
		}
		if err := r.mapRegion(m.fds[i]); err != nil {
			return err
		}
		regions = append(regions, r)
	}
	return d.useMemory(regions)
}

// addMemReg adds a region to the table.
func (d *Device) addMemReg(m *message) error {
	if err := m.sized(8 + regionSize); err != nil {
		return err
	}
	r, err := parseRegion(m.payload[8:])
	if err != nil {
		return err
	}
	fd, err := m.takeFD()
	if err != nil {
		return err
	}
	known := d.regions()
	switch {
	case len(known) >= maxRegions:
		err = bad("more than %d memory regions", maxRegions)
	case overlaps(known, r):
		err = bad("two memory regions have the guest address %#x", r.guest)
	default:
		err = r.mapRegion(fd)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return errors.Join(err, unmap(r.mem))
	}
	if err := d.useMemory(append(slices.Clone(known), r)); err != nil {
		return errors.Join(err, unmap(r.mem))
	}
	return nil
}

// remMemReg takes a region out of the table.
func (d *Device) remMemReg(m *message) error {
	if err := m.sized(8 + regionSize); err != nil {
		return err
	}
	r, err := parseRegion(m.payload[8:])
	if err != nil {
		return err
	}
	left := slices.Clone(d.regions())
	i := slices.IndexFunc(left, func(o region) bool { return o.guest == r.guest && o.user == r.user && o.size == r.size })
	if i < 0 {
		return bad("there is no memory region of %d bytes at %#x to be removed", r.size, r.guest)
	}
	return d.useMemory(slices.Delete(left, i, i+1))
}

func (d *Device) regions() []region {
	if d.mem == nil {
		return nil
	}
	return d.mem.regions
}

func unmapAll(regions []region) error {
	var errs []error
	for _, r := range regions {
		if r.shared.Load() == 0 {
			errs = append(errs, unmap(r.mem))
		}
	}
	return errors.Join(errs...)
}

// useMemory makes the regions the guest's memory. Rings that run are found in it, or else stay where they were and nothing is
// changed. Requests that are under way keep the memory they have.
func (d *Device) useMemory(regions []region) error {
	next := newMemory(regions, func(err error) { d.log.Warn("cannot unmap guest memory", "err", err) })
	var locked []*queue
	defer func() {
		for _, q := range locked {
			q.usedMu.Unlock()
			q.mu.Unlock()
		}
	}()
	for _, q := range d.queueList {
		q.mu.Lock()
		q.usedMu.Lock()
		locked = append(locked, q)
		if moved := q.ring; q.running {
			if err := moved.place(next, q.at); err != nil {
				for _, r := range next.regions {
					r.shared.Add(-1)
				}
				return err
			}
		}
	}
	for _, q := range d.queueList {
		if q.running {
			_ = q.ring.place(next, q.at) // has just been possible
		}
	}
	old := d.mem
	d.mem = next
	old.release()
	return nil
}

// setLogBase takes the bitmap in which pages of guest memory are marked that were written.
func (d *Device) setLogBase(m *message) error {
	if err := m.sized(16); err != nil {
		return err
	}
	fd, err := m.takeFD()
	if err != nil {
		return err
	}
	mem, err := mapFD(fd, order.Uint64(m.payload[8:]), order.Uint64(m.payload), "the dirty log")
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return errors.Join(err, unmap(mem))
	}
	for _, q := range d.queueList {
		q.usedMu.Lock() // whoever marks holds it
	}
	old := d.dirty.Swap(&dirtyLog{mem: mem})
	for _, q := range d.queueList {
		q.usedMu.Unlock()
	}
	if old != nil {
		return unmap(old.mem)
	}
	return nil
}
