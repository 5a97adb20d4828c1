package network

import (
	"math/bits"
	"time"

	"drover"
)

// Hosts that have one schedule for their keys would all rotate at one moment, were they to go by the time since their last key alone: they joined together, or rotated together. So each has
// instants of its own, by its number, and looks whether another host is at it before it begins.
const (
	// keySlack is the part of the time between two keys that a host may wait for others without being late.
	keySlack = 16
	// keyApart bounds by how much hosts are kept apart that would begin at one moment all the same: all were off when they should have, or waited for the same other one.
	keyApart = 2 * time.Minute
	// golden is 2^64 divided by the golden ratio: its multiples by 1, 2, 3 and so on, modulo 2^64, lie apart from each other about as far as so many can.
	golden = 0x9e3779b97f4a7c15
)

// share is a part of a span: another one for each host, by its number.
func share(number uint64, span time.Duration) time.Duration {
	part, _ := bits.Mul64(number*golden, uint64(span))
	return time.Duration(part)
}

// keyDue tells when a host with a key since a moment begins to get another one: at the last of its instants that leaves it the slack before every has passed. There are
// two of them in the time between two keys, so that no key is there for less than half of that, and from the second one on each for as long as the one before.
func keyDue(number uint64, since time.Time, every time.Duration) time.Time {
	period := every - every/keySlack
	step := period / 2
	last := since.Add(period)
	past := time.Duration(uint64(last.UnixNano()-int64(share(number, step))) % uint64(step))
	return last.Add(-past)
}

// scheduleLocked tells when the schedule lets the host begin to get another key, and from when on that would be late; zero for never.
func (d *Daemon) scheduleLocked() (due, late time.Time) {
	f := d.id.file
	since := f.KeySince
	if since.IsZero() { // of an earlier version
		since = f.Allotted.Since
	}
	if f.Rotation != nil && f.Rotation.EndedAt.After(since) { // canceled: who did that wants none for a while
		since = f.Rotation.EndedAt
	}
	if d.cfg.KeyEvery <= 0 || f.Rotation.Running() || since.IsZero() || f.Allotted.Number == 0 {
		return time.Time{}, time.Time{}
	}
	return keyDue(f.Allotted.Number, since, d.cfg.KeyEvery), since.Add(d.cfg.KeyEvery)
}

// beginDue begins a rotation when the schedule asks for one, and no other host is at it.
func (d *Daemon) beginDue() error {
	d.keys.Lock()
	due, late := d.scheduleLocked()
	apart := share(d.id.file.Allotted.Number, min(keyApart, d.cfg.KeyEvery/keySlack))
	d.keys.Unlock()
	now := d.now()
	switch {
	case due.IsZero() || now.Before(due):
		d.keyWait = time.Time{}
		return nil
	case d.keyWait.IsZero():
		// What should have begun before was kept from it, as perhaps with all others: by the power, by the bus.
		if d.keyWait = due; now.Sub(due) > settleTime {
			d.keyWait = now.Add(apart)
		}
	}
	if now.Before(d.keyWait) {
		return nil
	}
	if other := d.feed.rotates(); other != "" && now.Before(late) {
		d.keyWait = now.Add(rotateEvery + apart)
		d.cfg.Log.Info("this host gets another key when another host has its own", "peer", other)
		return nil
	}
	_, err := d.Rotate(drover.BySchedule, false)
	return err
}

// rotates names another host that is getting another key now; empty for none.
func (f *feed) rotates() drover.HostID {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, rec := range f.identities {
		if id != f.self && (rec.NextKey != "" || rec.Rotation.Running()) {
			return id
		}
	}
	return ""
}
