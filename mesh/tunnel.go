package mesh

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
)

// The IPv6 header (RFC 8200): its length, and where what is.
const (
	headerLen     = 40
	lengthAt      = 4
	nextHeaderAt  = 6
	hopLimitAt    = 7
	sourceAt      = 8
	destinationAt = 24
)

// nextIPv6 says that an IPv6 packet follows (RFC 2473); outerHops is how many routers a packet may pass between two hosts of the mesh: none does more
// than one.
const (
	nextIPv6  = 41
	outerHops = 64
)

// tunnel stands between WireGuard and the TUN device: towards WireGuard every packet has a second header, from host to host.
type tunnel struct {
	tun.Device
	table  *Table
	end    *end
	log    *slog.Logger
	events chan tun.Event
}

var _ tun.Device = (*tunnel)(nil)

// Read reads packets that machines send and puts the header before each. The device leaves room for it, so nothing is copied. A packet that cannot go
// anywhere gets size 0, which WireGuard passes over, as does one that goes by another end.
func (t *tunnel) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	first, mine, err := t.end.tun.wait()
	if err != nil {
		return 0, err
	}
	if !mine {
		return t.end.tun.take(first, bufs, sizes, offset, func(int, conn.Endpoint) {}), nil
	}
	n, err := t.Device.Read(bufs, sizes, offset+headerLen)
	if err != nil && !deviceGone(err) {
		// A guest says itself how its large packets are to be cut (struct virtio_net_hdr). WireGuard ends with the first that makes no sense;
		// here it costs that packet.
		t.table.malformed.Add(1)
		if !errors.Is(err, tun.ErrTooManySegments) {
			n = 0
		}
		err = nil
	}
	for i, e := range t.wrapAll(bufs[:n], sizes, offset) {
		e.tun.copied(bufs[i][offset:offset+sizes[i]], nil)
		sizes[i] = 0
	}
	return n, err
}

// wrapAll wraps all packets, and tells which of them go by another end.
func (t *tunnel) wrapAll(bufs [][]byte, sizes []int, offset int) (others map[int]*end) {
	t.table.mu.RLock()
	defer t.table.mu.RUnlock()
	for i := range bufs {
		var by *end
		sizes[i], by = t.wrapLocked(bufs[i][offset:], sizes[i])
		if sizes[i] == 0 || by == t.end {
			continue
		}
		if others == nil {
			others = map[int]*end{}
		}
		others[i] = by
	}
	return others
}

// deviceGone reports whether an error is one of the device and not of a packet.
func deviceGone(err error) bool {
	var file *fs.PathError
	return errors.Is(err, os.ErrClosed) || errors.As(err, &file)
}

// wrapLocked writes the outer header in front of a packet of the size, and returns the size with it, and by which end it goes; 0 when it goes nowhere.
func (t *tunnel) wrapLocked(b []byte, size int) (int, *end) {
	if size < headerLen {
		t.table.malformed.Add(1)
		return 0, nil
	}
	inner := b[headerLen : headerLen+size]
	from, to := (*[16]byte)(inner[sourceAt:destinationAt]), (*[16]byte)(inner[destinationAt:headerLen])
	if inner[0]>>4 != 6 || !private(*to) {
		t.table.malformed.Add(1)
		return 0, nil
	}
	way := t.table.lookupLocked(from, to)
	if way == nil || way.host == t.end.host {
		if t.table.toUserLocked(*from, *to) {
			return copy(b, inner), cmp.Or(t.table.people, t.end)
		}
		t.table.unknown.Add(1)
		return 0, nil
	}
	by := way.by
	if by == nil {
		by = t.end
	}
	copy(b, inner[:lengthAt]) // version, class and flow are the inner packet's
	binary.BigEndian.PutUint16(b[lengthAt:], uint16(size))
	b[nextHeaderAt], b[hopLimitAt] = nextIPv6, outerHops
	copy(b[sourceAt:], by.address[:])
	copy(b[destinationAt:], way.to[:])
	return size + headerLen, by
}

// Write takes the header off what comes from other hosts and hands the packets to the device; what comes from users has none. WireGuard has proven who
// sent each.
func (t *tunnel) Write(bufs [][]byte, offset int) (int, error) {
	kept := bufs[:0]
	var users [][]byte
	for _, b := range bufs {
		switch {
		case t.unwraps(b[offset:]):
			kept = append(kept, b)
		case t.table.fromUser(b[offset:]):
			users = append(users, b)
		default:
			t.table.malformed.Add(1)
		}
	}
	if len(users) > 0 {
		if n, err := t.Device.Write(users, offset); err != nil {
			return n, err
		}
	}
	if len(kept) == 0 {
		return len(users), nil
	}
	n, err := t.Device.Write(kept, offset+headerLen)
	return len(users) + n, err
}

// unwraps reports whether there is a packet between private addresses in what came from a host: only hosts may say who sent a packet.
func (t *tunnel) unwraps(b []byte) bool {
	if len(b) < 2*headerLen || b[0]>>4 != 6 || b[nextHeaderAt] != nextIPv6 || !t.end.reach.Load() || [16]byte(b[destinationAt:headerLen]) != t.end.address ||
		!inFleetNetwork([16]byte(b[sourceAt:destinationAt])) {
		return false
	}
	inner := b[headerLen:]
	return inner[0]>>4 == 6 && int(binary.BigEndian.Uint16(inner[lengthAt:]))+headerLen == len(inner) &&
		private([16]byte(inner[sourceAt:destinationAt])) && private([16]byte(inner[destinationAt:headerLen]))
}

// MTU is what WireGuard may be handed: the device's, and the header.
func (t *tunnel) MTU() (int, error) {
	mtu, err := t.Device.MTU()
	return mtu + headerLen, err
}

// Events tells of nothing: what happens to the device is not this end's business.
func (t *tunnel) Events() <-chan tun.Event { return t.events }

// Close ends this end's part; the device stays.
func (t *tunnel) Close() error {
	t.end.shut()
	close(t.events)
	return nil
}
