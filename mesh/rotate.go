package mesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"drover"
)

// A host gets another key without a packet being lost: for a while it is reached by both. The ends with the two keys have different outer addresses, so that
// neither is refused what the other would take. Each host tries every pair of keys, and sends by the newest that it gets answers over; when all peers say
// that they send by the new key (Unconfirmed), and what was on its way has come, nobody needs the old one.

// turnWait bounds how long the old end may take to let go of what it reads.
const turnWait = 10 * time.Second

// BeginKey lets other hosts reach this one by another key too, from now on. It may be repeated. Conflict when another one has been begun.
func (d *Device) BeginKey(next PrivateKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next != nil { // one that is taken back stays so
		if d.next.key.Public() != next.Public() {
			return drover.Errorf(drover.Conflict, "another key of this host has been begun")
		}
		return nil
	}
	if d.current.key.Public() == next.Public() {
		return nil
	}
	e, err := d.openEnd(next, true, d.current.number+1)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot start WireGuard with the next key: %w", err)
	}
	for _, p := range d.peers {
		if err == nil {
			err = e.setHost(p, Peer{})
		}
	}
	if err == nil {
		err = e.start(d.sockets)
	}
	if err != nil {
		e.close()
		return drover.Errorf(drover.Internal, "cannot start WireGuard with the next key: %w", err)
	}
	d.next = e
	d.table.mu.Lock()
	d.table.ends[slotOf(e.number)] = e
	d.table.mu.Unlock()
	go d.attend(e) // ends with the end
	return nil
}

// Promote makes the key that was begun the only one. Peers that have not confirmed it are sent to by it all the same. People go on to know the host by the
// key by which they do, or, with people, by the new one: the peers that they have do not reach it any more.
func (d *Device) Promote(ctx context.Context, people bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next == nil {
		return nil
	}
	old, before := d.current, d.people
	if people {
		for _, u := range d.users {
			if err := d.next.setUser(u); err != nil {
				return err
			}
		}
	}
	d.current, d.next = d.next, nil
	if people {
		d.people = d.current
	}
	d.table.mu.Lock()
	d.table.ends[slotOf(old.number)], d.table.people = nil, d.people
	d.table.mu.Unlock()
	old.reach.Store(false)
	for _, p := range d.peers {
		d.chooseLocked(p, time.Now())
	}
	if err := d.handOver(ctx, old); err != nil {
		return err
	}
	for _, e := range []*end{old, before} {
		if !slices.Contains(d.endsLocked(), e) && !e.retired {
			d.retireLocked(e)
		}
	}
	if !old.retired { // people's
		for _, p := range d.peers {
			if err := old.dropKeys(p.keys()); err != nil {
				return drover.Errorf(drover.Internal, "cannot forget host %q: %w", p.Host, err)
			}
		}
	}
	return nil
}

func (d *Device) retireLocked(e *end) {
	e.retired = true
	d.sockets.mu.Lock()
	d.sockets.ends = slices.DeleteFunc(d.sockets.ends, func(o *end) bool { return o == e })
	d.sockets.mu.Unlock()
	e.close()
}

// turnTo lets an end read all that the ends share, as soon as whoever reads now lets go.
func (d *Device) turnTo(e *end) {
	for i, l := range d.sockets.lanes {
		l.want.Store(e)
		e.sockets[i].hand(parcel{}) // it may wait for what is handed on
	}
	d.lane.want.Store(e)
	e.tun.hand(parcel{})
}

// handOver lets the current end read, and waits until the old one does not. What that reads meanwhile it hands on. It may wait for a packet, so it gets some.
func (d *Device) handOver(ctx context.Context, old *end) error {
	ctx, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	d.turnTo(d.current)
	for {
		reads := old.tun.has.Load()
		for _, r := range old.sockets {
			reads = reads || r.has.Load()
		}
		if !reads {
			return nil
		}
		d.wake()
		select {
		case <-ctx.Done():
			return drover.Errorf(drover.Internal, "the old key's end does not let go of the network: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wake sends a packet to everything that is read. They are nobody's.
func (d *Device) wake() {
	nowhere := d.cfg.Address.As16()
	nowhere[15] = pairs | 2
	for network, to := range map[string]string{
		"udp4":  fmt.Sprintf("127.0.0.1:%d", d.sockets.port),
		"udp6":  fmt.Sprintf("[::1]:%d", d.sockets.port),
		"udp6 ": netip.AddrPortFrom(netip.AddrFrom16(nowhere), ProbePort).String(),
	} {
		c, err := net.Dial(network[:4], to)
		if err != nil {
			d.cfg.Log.Debug("nothing can be sent to wake the reader", "to", to, "err", err)
			continue
		}
		if _, err := c.Write([]byte{0}); err != nil {
			d.cfg.Log.Debug("nothing can be sent to wake the reader", "to", to, "err", err)
		}
		c.Close()
	}
}
