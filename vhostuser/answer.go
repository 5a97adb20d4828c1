package vhostuser

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// answer does what a message says and replies if the frontend expects it. A message that cannot be done is refused if the frontend wants
// to know, and ends the connection if not.
func (d *Device) answer(m *message) error {
	d.greet(m)
	payload, fd, replies, err := d.query(m)
	if replies && err == nil {
		err = d.ch.reply(m.request, payload, fd)
		return errors.Join(err, closeFD(fd))
	}
	if !replies {
		err = d.change(m)
	}
	acks := d.protocol&protoReplyAck != 0 && m.flags&flagNeedReply != 0
	logReply := m.request == reqSetLogBase && d.protocol&protoLogShmFD != 0
	if err != nil && (!acks || replies) {
		return err
	}
	if !acks && !logReply {
		return nil
	}
	status := uint64(0)
	if err != nil {
		d.log.Warn("a vhost-user message was refused", "request", m.request, "err", err)
		status = 1
	}
	return d.ch.reply(m.request, u64(status), -1)
}

// greet looks at the first message. QEMU does not notice that its backend died before the guest used the disk: it goes on with the next one where it was,
// and takes what it agreed upon with the one before as agreed, answers included. (In 7.2 vhost_user_async_close does nothing until the device is started.)
func (d *Device) greet(m *message) {
	if d.greeted {
		return
	}
	d.greeted = true
	switch m.request {
	case reqGetFeatures, reqSetOwner, reqGetProtocolFeatures, reqSetProtocolFeatures:
		return
	}
	d.protocol = protocolFeatures
	d.mu.Lock()
	d.resumed = true
	d.mu.Unlock()
}

// query answers the messages that ask for something; replies is false for all others.
func (d *Device) query(m *message) (payload []byte, fd int, replies bool, err error) {
	fd, replies = -1, true
	switch m.request {
	case reqGetFeatures:
		payload = u64(features(d.cfg.ReadOnly))
	case reqGetProtocolFeatures:
		payload = u64(protocolFeatures)
	case reqGetQueueNum:
		payload = u64(maxQueues)
	case reqGetMaxMemSlots:
		payload = u64(maxRegions)
	case reqGetConfig:
		payload, err = d.getConfig(m)
	case reqGetVringBase:
		payload, err = d.getVringBase(m)
	case reqGetInflightFD:
		payload, fd, err = d.getInflight(m)
	default:
		replies = false
	}
	return payload, fd, replies, err
}

// change does the messages that change something.
func (d *Device) change(m *message) error {
	switch m.request {
	case reqSetOwner, reqResetOwner, reqSetLogFD:
		return nil // nothing depends on them
	case reqSetFeatures:
		return d.setFeatures(m)
	case reqSetProtocolFeatures:
		if err := m.sized(8); err != nil {
			return err
		}
		f := order.Uint64(m.payload)
		if f&^uint64(protocolFeatures) != 0 {
			return bad("the protocol features %#x were not offered", f&^uint64(protocolFeatures))
		}
		d.protocol = f
		return nil
	case reqSetMemTable:
		return d.setMemTable(m)
	case reqAddMemReg:
		return d.addMemReg(m)
	case reqRemMemReg:
		return d.remMemReg(m)
	case reqSetLogBase:
		return d.setLogBase(m)
	case reqSetBackendReqFD:
		return d.setBackendFD(m)
	case reqSetInflightFD:
		return d.setInflight(m)
	case reqSetConfig:
		return bad("the configuration of the disk cannot be changed by the guest")
	case reqSetVringNum, reqSetVringAddr, reqSetVringBase, reqSetVringEnable, reqSetVringKick, reqSetVringCall, reqSetVringErr:
		return d.setVring(m)
	}
	return bad("request %d is not known", m.request)
}

func (d *Device) setFeatures(m *message) error {
	if err := m.sized(8); err != nil {
		return err
	}
	f := order.Uint64(m.payload)
	if extra := f &^ features(d.cfg.ReadOnly); extra != 0 {
		return bad("the features %#x were not offered", extra)
	}
	d.features = f
	d.logging.Store(f&featLogAll != 0)
	if f&featProtocol == 0 { // rings are enabled from the start then
		for _, q := range d.queueList {
			q.mu.Lock()
			q.enabled = true
			q.mu.Unlock()
		}
	}
	return nil
}

// getConfig answers with a part of the configuration space.
func (d *Device) getConfig(m *message) ([]byte, error) {
	if err := m.sized(12); err != nil {
		return nil, err
	}
	off, n := order.Uint32(m.payload), order.Uint32(m.payload[4:])
	if off > maxConfig || n > maxConfig-off {
		return nil, bad("%d bytes at %d of the disk's configuration", n, off)
	}
	return append(m.payload[:12:12], blkConfig(d.size.Load(), d.cfg.ReadOnly)[off:off+n]...), nil
}

func (d *Device) setBackendFD(m *message) error {
	fd, err := m.takeFD()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err = closeFD(d.backendFD)
	d.backendFD = fd
	return err
}

// getInflight makes the memory for requests in flight, for the frontend to keep.
func (d *Device) getInflight(m *message) (payload []byte, fd int, err error) {
	if err := m.sized(inflightMessage); err != nil {
		return nil, -1, err
	}
	queues, ring := int(order.Uint16(m.payload[16:])), int(order.Uint16(m.payload[18:]))
	if queues < 1 || queues > maxQueues || ring < 1 || ring > maxRing {
		return nil, -1, bad("in-flight memory for %d queues of %d descriptors", queues, ring)
	}
	size := uint64(queues) * inflightStride(ring)
	fd, mem, err := newShared("vhost-inflight", size)
	if err != nil {
		return nil, -1, fmt.Errorf("cannot make in-flight memory: %w", err)
	}
	area := &inflightArea{mem: mem, queues: queues, ring: ring}
	area.format()
	if err := unmap(mem); err != nil {
		return nil, -1, errors.Join(err, unix.Close(fd))
	}
	payload = append(u64(size), u64(0)...)
	payload = order.AppendUint16(payload, uint16(queues))
	payload = order.AppendUint16(payload, uint16(ring))
	// QEMU's message has padding at its end, and the reply must be as long.
	return append(payload, make([]byte, len(m.payload)-inflightMessage)...), fd, nil
}

// setInflight maps the memory that the frontend kept.
func (d *Device) setInflight(m *message) error {
	if err := m.sized(inflightMessage); err != nil {
		return err
	}
	fd, err := m.takeFD()
	if err != nil {
		return err
	}
	size, off := order.Uint64(m.payload), order.Uint64(m.payload[8:])
	area := &inflightArea{queues: int(order.Uint16(m.payload[16:])), ring: int(order.Uint16(m.payload[18:]))}
	switch {
	case area.queues < 1 || area.queues > maxQueues || area.ring < 1 || area.ring > maxRing || size < uint64(area.queues)*inflightStride(area.ring):
		err = bad("in-flight memory of %d bytes for %d queues of %d descriptors", size, area.queues, area.ring)
	case d.anyRunning():
		err = bad("the in-flight memory cannot be changed while a ring runs")
	default:
		area.mem, err = mapFD(fd, off, size, "in-flight memory")
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return errors.Join(err, unmap(area.mem))
	}
	old := d.inflight
	d.inflight = area
	if old != nil {
		return unmap(old.mem)
	}
	return nil
}

func (d *Device) anyRunning() bool {
	for _, q := range d.queueList {
		q.mu.Lock()
		running := q.running
		q.mu.Unlock()
		if running {
			return true
		}
	}
	return false
}
