package mesh

import (
	"net/netip"
	"slices"
	"time"

	"drover"
)

// pair is one of this host's keys and one of a peer's. Hosts of which one is about to have another key reach each other by more than one pair, for a while.
type pair struct{ own, theirs slot }

// wayFresh is how long an answer counts: some in a row may be lost.
const wayFresh = 3 * probeEvery

// wayLost is how long answers over newer keys must be missing until older ones are gone back to: longer than what was said of a way counts with the peer, which may
// take the older key away meanwhile.
const wayLost = 10 * probeEvery

// ways are the pairs of keys by which a peer is reached.
type ways struct {
	// chosen is what packets go by.
	chosen pair
	seen   map[pair]wayState
}

// wayState is when the peer answered over a pair, and when it said that its own packets go by it.
type wayState struct{ answered, used time.Time }

// question is a probe over a pair.
type question struct {
	from, to netip.AddrPort
	// uses: packets to the peer go by this pair.
	uses bool
}

// pairsLocked lists the pairs for a peer, the newest keys first.
func (d *Device) pairsLocked(p Peer) []pair {
	var all []pair
	keys := p.keys()
	for _, e := range d.hostEndsLocked() { // the current one first
		if !e.withdrawn.IsZero() {
			continue
		}
		for _, k := range keys {
			all = append(all, pair{slotOf(e.number), slotOf(k.number)})
		}
	}
	slices.Reverse(all)
	return all
}

// chooseLocked lets packets to a peer go by the newest keys that are known to work; by what they go by, while nothing is known.
func (d *Device) chooseLocked(p Peer, now time.Time) {
	all := d.pairsLocked(p)
	if len(all) == 0 {
		return
	}
	w := d.ways[p.Host]
	if w == nil {
		w = &ways{chosen: all[len(all)-1], seen: map[pair]wayState{}}
		d.ways[p.Host] = w
	}
	if !slices.Contains(all, w.chosen) {
		w.chosen = all[len(all)-1]
	}
	for _, one := range all {
		if one == w.chosen && now.Sub(w.seen[one].answered) <= wayLost {
			break
		}
		if now.Sub(w.seen[one].answered) <= wayFresh {
			w.chosen = one
			break
		}
	}
	host := p.Address.As16()
	for _, e := range d.hostEndsLocked() {
		if slotOf(e.number) == w.chosen.own {
			d.table.goTo(host, addressAs(host, uint64(w.chosen.theirs)), e)
		}
	}
	if len(all) == 1 {
		clear(w.seen)
	}
}

// questions chooses the ways anew, and says what is to be asked: nothing while every host has one key.
func (d *Device) questions(now time.Time) []question {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []question
	self := d.cfg.Address.As16()
	for _, p := range d.peers {
		d.chooseLocked(p, now)
		all := d.pairsLocked(p)
		if len(all) < 2 {
			continue
		}
		w := d.ways[p.Host]
		for _, one := range all {
			out = append(out, question{netip.AddrPortFrom(pairAddress(self, one.own), ProbePort),
				netip.AddrPortFrom(pairAddress(p.Address.As16(), one.theirs), ProbePort), w.chosen == one && now.Sub(w.seen[one].answered) <= wayFresh})
		}
	}
	return out
}

// sawPair notes what came over a pair: from a peer's address to the one of this host's with the slot. It reports whether that is to be answered: no peer
// learns that a key works which is taken back.
func (d *Device) sawPair(from netip.Addr, own slot, kind uint32, now time.Time) bool {
	a := from.As16()
	if !isPair(a) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for host, p := range d.peers {
		w := d.ways[host]
		if p.Address.As16() != hostOf(a) || w == nil {
			continue
		}
		if d.next != nil && !d.next.withdrawn.IsZero() && slotOf(d.next.number) == own {
			if kind&kindUses != 0 {
				d.next.used[host] = now
			}
			return false
		}
		one := pair{own, slot(a[15] & 1)}
		s := w.seen[one]
		if kind&kindAnswer != 0 {
			s.answered = now
		}
		if kind&kindUses != 0 {
			s.used = now
		}
		w.seen[one] = s
		return true
	}
	return false
}

// Unconfirmed lists the peers that are not known to send by this host's next key, or are not sent to by it yet.
func (d *Device) Unconfirmed(now time.Time) []drover.HostID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []drover.HostID
	for host := range d.peers {
		if d.next == nil || !d.ways[host].confirmed(slotOf(d.next.number), now) {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return out
}

func (w *ways) confirmed(own slot, now time.Time) bool {
	if w == nil || w.chosen.own != own {
		return false
	}
	for one, s := range w.seen {
		if one.own == own && now.Sub(s.used) <= wayFresh {
			return true
		}
	}
	return false
}
