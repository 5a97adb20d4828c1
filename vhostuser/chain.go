package vhostuser

import "unsafe"

// maxSegments bounds the buffers of one request, and the length of an indirect table. It is what readv takes at once (IOV_MAX).
const maxSegments = 1024

// buffers are the parts of guest memory that a chain of descriptors names, in order.
type buffers struct {
	out   [][]byte // the guest wrote them, we read
	in    [][]byte // we write
	addrs []uint64 // the guest addresses of in
}

func (b *buffers) reset() { b.out, b.in, b.addrs = b.out[:0], b.in[:0], b.addrs[:0] }

// collect walks the chain that begins at head. Every descriptor is copied once, before it is looked at; loops, addresses outside of the
// guest's memory and tables that make no sense are errors.
func (b *buffers) collect(r *ring, m *memory, head uint16, indirect bool) error {
	b.reset()
	i := head
	for range r.num {
		d := r.direct(i)
		if d.flags&descIndirect != 0 {
			if !indirect || d.flags&descNext != 0 {
				return bad("descriptor %d has the flags %#x", i, d.flags)
			}
			return b.collectTable(m, d)
		}
		if err := b.add(m, d); err != nil {
			return err
		}
		if d.flags&descNext == 0 {
			return nil
		}
		if i = d.next; i >= r.num {
			return bad("a descriptor names %d of %d as the next", i, r.num)
		}
	}
	return bad("the chain of descriptor %d has no end", head)
}

// collectTable walks an indirect table.
func (b *buffers) collectTable(m *memory, table descriptor) error {
	n := table.size / descSize
	if table.size%descSize != 0 || n == 0 || n > maxSegments || table.addr%8 != 0 {
		return bad("an indirect table of %d bytes at %#x", table.size, table.addr)
	}
	mem, ok := m.whole(table.addr, uint64(table.size))
	if !ok || uintptr(unsafe.Pointer(&mem[0]))%8 != 0 {
		return bad("an indirect table at %#x is not in the guest's memory", table.addr)
	}
	i := uint32(0)
	for range n {
		d := parseDescriptor(unsafe.Pointer(&mem[i*descSize]))
		if d.flags&descIndirect != 0 {
			return bad("an indirect table in an indirect table")
		}
		if err := b.add(m, d); err != nil {
			return err
		}
		if d.flags&descNext == 0 {
			return nil
		}
		if i = uint32(d.next); i >= n {
			return bad("an indirect descriptor names %d of %d as the next", i, n)
		}
	}
	return bad("an indirect table's chain has no end")
}

// add adds one descriptor's memory, which may go on from one region to the next.
func (b *buffers) add(m *memory, d descriptor) error {
	addr, left := d.addr, uint64(d.size)
	write := d.flags&descWrite != 0
	if !write && len(b.in) > 0 {
		return bad("a descriptor to be read follows one to be written")
	}
	for left > 0 {
		part := m.at(addr, left)
		if len(part) == 0 {
			return bad("a descriptor names %d bytes at %#x, which are not all in the guest's memory", d.size, d.addr)
		}
		if len(b.out)+len(b.in) == maxSegments {
			return bad("a request has more than %d buffers", maxSegments)
		}
		if write {
			b.in, b.addrs = append(b.in, part), append(b.addrs, addr)
		} else {
			b.out = append(b.out, part)
		}
		addr, left = addr+uint64(len(part)), left-uint64(len(part))
	}
	return nil
}

// pull copies the first bytes of what the guest wrote and takes them off.
func (b *buffers) pull(p []byte) (n int) {
	for i := range b.out {
		k := copy(p[n:], b.out[i])
		n += k
		b.out[i] = b.out[i][k:]
		if n == len(p) {
			break
		}
	}
	b.out = dropEmpty(b.out)
	return n
}

// dropEmpty takes empty buffers off the front, keeping the array.
func dropEmpty(v [][]byte) [][]byte {
	n := 0
	for n < len(v) && len(v[n]) == 0 {
		n++
	}
	return append(v[:0], v[n:]...)
}

// takeLast takes the last byte of what we are to write off: the request's status.
func (b *buffers) takeLast() (p *byte, addr uint64, ok bool) {
	n := len(b.in)
	if n == 0 {
		return nil, 0, false
	}
	last := b.in[n-1]
	k := len(last) - 1
	p, addr = &last[k], b.addrs[n-1]+uint64(k)
	if b.in[n-1] = last[:k]; k == 0 {
		b.in, b.addrs = b.in[:n-1], b.addrs[:n-1]
	}
	return p, addr, true
}

// vecSize sums up buffers.
func vecSize(v [][]byte) (n int64) {
	for _, b := range v {
		n += int64(len(b))
	}
	return n
}
