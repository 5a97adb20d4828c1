package mesh

import (
	"slices"
	"time"

	"drover"
)

// A key that was begun may be taken back, without a packet being lost: first this host sends by it no more, then others are told that it is not there, and
// only when nobody sends by it its end goes. Who is not told finds that nobody answers over it any more, and goes back to the other key by itself (wayLost).

// Withdraw lets this host send nothing by the next key, and answer nobody who asks whether it works; what comes by it is still taken. It may be repeated;
// nothing to take back is no error.
func (d *Device) Withdraw(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next == nil || !d.next.withdrawn.IsZero() {
		return
	}
	d.next.withdrawn, d.next.used = now, map[drover.HostID]time.Time{}
	for _, p := range d.peers {
		d.chooseLocked(p, now)
	}
}

// SendsByNext lists the peers that may still send by the key that is taken back.
func (d *Device) SendsByNext(now time.Time) []drover.HostID {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next == nil || d.next.withdrawn.IsZero() {
		return nil
	}
	var out []drover.HostID
	for host := range d.peers {
		last := d.next.withdrawn
		if used := d.next.used[host]; used.After(last) {
			last = used
		}
		if now.Sub(last) <= wayLost {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return out
}

// DropNext ends what others reach this host by with the key that was taken back; nothing to end is no error.
func (d *Device) DropNext() {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.next
	if e == nil || e.withdrawn.IsZero() {
		return
	}
	d.next = nil
	d.table.mu.Lock()
	d.table.ends[slotOf(e.number)] = nil
	d.table.mu.Unlock()
	for _, w := range d.ways { // the key that comes next has the same slot: what was seen of this one says nothing of it
		for one := range w.seen {
			if one.own == slotOf(e.number) {
				delete(w.seen, one)
			}
		}
	}
	d.retireLocked(e)
}
