package network

import (
	"slices"
	"testing"
	"time"

	"drover"
)

// Hosts that joined at one moment with one schedule begin apart from each other, each in time, and each key is there for as long as the one before.
func TestHostsWithOneScheduleGetTheirKeysApart(t *testing.T) {
	since := time.Unix(1764000000, 0)
	for _, c := range []struct {
		every, apart time.Duration
		hosts        uint64
	}{{time.Hour, 3 * time.Second, 200}, {720 * time.Hour, 30 * time.Minute, 200}, {720 * time.Hour, 24 * time.Hour, 5}} {
		var all []time.Time
		period := c.every - c.every/keySlack
		for number := uint64(1); number <= c.hosts; number++ {
			due := keyDue(number, since, c.every)
			if age := due.Sub(since); age <= period/2-1 || age > period {
				t.Errorf("host %d begins after %s of %s", number, age, c.every)
			}
			if next := keyDue(number, due.Add(10*time.Second), c.every); next.Sub(due).Round(time.Microsecond) != period {
				t.Errorf("host %d begins again after %s of %s", number, next.Sub(due), period)
			}
			all = append(all, due)
		}
		slices.SortFunc(all, time.Time.Compare)
		for i := range all[1:] {
			if gap := all[i+1].Sub(all[i]); gap < c.apart {
				t.Errorf("%d hosts, every %s: two of them begin %s apart", c.hosts, c.every, gap)
			}
		}
	}
}

// scheduled is a host that has joined and gets a key every hour.
func scheduled(t *testing.T, w *keyWorld) *Daemon {
	t.Helper()
	d := newDaemon(t, t.TempDir(), w)
	d.cfg.KeyEvery, d.now, d.ends = time.Hour, func() time.Time { return w.clock }, w
	if err := d.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.clock = d.id.file.KeySince
	return d
}

// begins tells when the host begins to get another key, looked at every second from now on.
func begins(t *testing.T, w *keyWorld, d *Daemon) time.Time {
	t.Helper()
	for range 2 * 3600 {
		if err := d.beginDue(); err != nil {
			t.Fatal(err)
		}
		if d.keyLocked().Rotation.Running() {
			return w.clock
		}
		w.clock = w.clock.Add(time.Second)
	}
	t.Fatal("it never begins")
	return w.clock
}

func TestAHostWithAScheduleGetsAnotherKeyByItself(t *testing.T) {
	w := newKeyWorld(t)
	d := scheduled(t, w)
	next := d.keyLocked().NextAt
	if began := begins(t, w, d); began.Before(next) || began.Sub(next) > time.Second || d.keyLocked().Rotation.By != drover.BySchedule {
		t.Errorf("it begins at %s, and said %s: %+v", began, next, d.keyLocked().Rotation)
	}
	if at := d.keyLocked().NextAt; !at.IsZero() {
		t.Errorf("while it gets one, it tells of the next at %s", at)
	}
}

// While another host gets another key this one waits, but not for longer than its schedule allows.
func TestAHostWaitsForAnotherThatGetsAKey(t *testing.T) {
	other := drover.HostIdentity{Host: "h2", NextKey: "k", Rotation: &drover.KeyRotation{ID: "r"}}
	w := newKeyWorld(t)
	d := scheduled(t, w)
	since, next := d.id.file.KeySince, d.keyLocked().NextAt
	d.feed.identities["h2"] = other
	if began := begins(t, w, d); began.Sub(since) < time.Hour || began.Sub(since) > time.Hour+keyApart {
		t.Errorf("beside a host that never ends it begins after %s", began.Sub(since))
	}

	w = newKeyWorld(t)
	d = scheduled(t, w)
	d.feed.identities["h2"] = other
	since, next = d.id.file.KeySince, d.keyLocked().NextAt
	for w.clock.Before(next.Add(5 * time.Second)) {
		if err := d.beginDue(); err != nil || d.keyLocked().Rotation.Running() {
			t.Fatalf("it does not wait: %v", err)
		}
		w.clock = w.clock.Add(time.Second)
	}
	delete(d.feed.identities, "h2")
	if began := begins(t, w, d); began.Sub(next) > 10*time.Second+keyApart || began.Sub(since) > time.Hour {
		t.Errorf("it begins %s after its time", began.Sub(next))
	}
}

// Hosts that were off when they should have begun do not all begin when they are back.
func TestHostsThatWereOffBeginApart(t *testing.T) {
	var all []time.Duration
	for number := uint64(1); number <= 5; number++ {
		w := newKeyWorld(t)
		w.number = number
		d := scheduled(t, w)
		back := d.id.file.KeySince.Add(3 * time.Hour)
		w.clock = back
		all = append(all, begins(t, w, d).Sub(back))
	}
	slices.Sort(all)
	for i := range all[1:] {
		if all[i+1]-all[i] < 5*time.Second {
			t.Errorf("they begin after %v", all)
		}
	}
	if last := all[len(all)-1]; last > keyApart {
		t.Errorf("the last begins after %s", last)
	}
}
