package vhostuser

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// queueOf finds the queue that a message is about. SET_VRING_KICK and its kin have more than the number in their payload.
func (d *Device) queueOf(index uint32) (*queue, error) {
	if index >= maxQueues {
		return nil, bad("queue %d of %d", index, maxQueues)
	}
	return d.queueList[index], nil
}

// setVring does one of the messages that prepare a ring.
func (d *Device) setVring(m *message) error {
	if err := m.sized(8); err != nil {
		return err
	}
	index, value := order.Uint32(m.payload), order.Uint32(m.payload[4:])
	switch m.request {
	case reqSetVringKick, reqSetVringCall, reqSetVringErr:
		return d.setVringFD(m)
	}
	q, err := d.queueOf(index)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch m.request {
	case reqSetVringAddr:
		return q.setAddrLocked(m)
	case reqSetVringEnable:
		q.enabled = value == 1
		if q.enabled && q.running {
			q.bell.ring() // its goroutine has to look again
		}
		if q.enabled && q.index == 0 {
			if err := d.tellSize(); err != nil { // it may have changed while nobody could tell
				d.log.Warn("a VM may not know how large its disk is", "err", err)
			}
		}
		return nil
	}
	if q.running {
		return bad("ring %d is changed while it runs", q.index)
	}
	switch m.request {
	case reqSetVringNum:
		if value == 0 || value > maxRing || value&(value-1) != 0 {
			return bad("a ring of %d descriptors: a power of two of at most %d is expected", value, maxRing)
		}
		q.num = int(value)
	case reqSetVringBase:
		q.base = uint16(value)
	}
	return nil
}

// setAddrLocked says where the ring is, and whether writes to it are logged. q.mu is held.
func (q *queue) setAddrLocked(m *message) error {
	if err := m.sized(40); err != nil {
		return err
	}
	p := m.payload
	at := ringAddress{logged: order.Uint32(p[4:])&1 != 0, desc: order.Uint64(p[8:]), used: order.Uint64(p[16:]), avail: order.Uint64(p[24:]),
		log: order.Uint64(p[32:])}
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	if q.running {
		if err := q.ring.place(q.d.mem, at); err != nil {
			return err
		}
	}
	q.at, q.logged, q.logAddr = at, at.logged, at.log
	return nil
}

// setVringFD takes one of a ring's event descriptors.
func (d *Device) setVringFD(m *message) error {
	value := order.Uint64(m.payload)
	q, err := d.queueOf(uint32(value & 0xff))
	if err != nil {
		return err
	}
	fd := -1
	if value&noFD == 0 {
		if fd, err = m.takeFD(); err != nil {
			return err
		}
		if err := prepareEvent(fd); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
	}
	if m.request == reqSetVringKick {
		return q.setKick(fd)
	}
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	if m.request == reqSetVringErr {
		q.failFD, fd = fd, q.failFD
		return closeFD(fd)
	}
	q.call, fd = fd, q.call
	q.signal() // what was completed before may not have been told; one interrupt too many does no harm
	return closeFD(fd)
}

// eventFile is what the kernel says that an event descriptor is.
const eventFile = "anon_inode:[eventfd]"

// prepareEvent checks a descriptor on which the rings wait, or which they write to: nothing else may hold them up.
func prepareEvent(fd int) error {
	name, err := os.Readlink(fdPath(fd))
	if err != nil || name != eventFile {
		return bad("%q is no event descriptor", name)
	}
	return unix.SetNonblock(fd, true)
}

// setKick begins with a ring.
func (q *queue) setKick(fd int) error {
	d := q.d
	if fd < 0 {
		return bad("ring %d is to be polled, which this backend does not do", q.index)
	}
	q.stop()
	if !d.started && d.cfg.Start != nil {
		if err := d.cfg.Start(); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
	}
	d.started = true
	b, err := newBell(fd)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	q.mu.Lock()
	err = q.start(b)
	q.mu.Unlock()
	if err != nil {
		return errors.Join(err, b.close())
	}
	return nil
}

// getVringBase stops a ring and tells where it was.
func (d *Device) getVringBase(m *message) ([]byte, error) {
	if err := m.sized(8); err != nil {
		return nil, err
	}
	q, err := d.queueOf(order.Uint32(m.payload))
	if err != nil {
		return nil, err
	}
	base := q.stop()
	return order.AppendUint32(order.AppendUint32(nil, uint32(q.index)), uint32(base)), nil
}
