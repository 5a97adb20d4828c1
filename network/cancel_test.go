package network

import (
	"testing"
	"time"

	"drover"
)

// A rotation waits for h9 until it is canceled; the process is cut at each of its effects in turn, before and after.
func TestACanceledRotationThatIsCutAnywhereLeavesTheOldKey(t *testing.T) {
	canceled, early := 0, 0
	for k := 1; ; k++ {
		w, dir := newKeyWorld(t), t.TempDir()
		w.cutAt, w.late = k, []drover.HostID{"h9"}
		first := newDaemon(t, dir, w).id.key.Public()
		var d *Daemon
		begun := func(d *Daemon) {
			if d.id.file.Rotation == nil {
				byAnn(t)(d)
			}
		}
		for range 2 { // it is begun, and waits
			d, _ = w.life(dir, 10, begun)
		}
		if d.id.file.Rotation == nil {
			t.Fatalf("cut at %d: nothing was begun", k)
		}
		w.late = nil
		if !d.id.file.Claimed {
			early++
		}
		if _, err := d.Cancel("ben"); err != nil {
			t.Fatalf("cut at %d: %v", k, err)
		}
		for range 3 {
			d, _ = w.life(dir, 20, nil)
		}
		f := d.id.file
		if f.KeyNumber != 0 || f.NextKey != "" || f.Rotation.Running() || f.Rotation.By != "ann" || f.Rotation.CanceledBy != "ben" || d.id.key.Public() != first || w.promoted != 0 {
			t.Fatalf("cut at %d: key %d, %+v", k, f.KeyNumber, f.Rotation)
		}
		if w.record.PublicKey != first || w.record.NextKey != "" || w.record.Rotation.Running() || !w.record.Rotation.Canceled() {
			t.Errorf("cut at %d: the fleet knows %+v with %+v", k, w.record, w.record.Rotation)
		}
		if m := d.id.mesh(); m.NextKey != "" || w.begun != "" || len(d.keyLocked().WaitsFor) != 0 {
			t.Errorf("cut at %d: others are told %+v, the host is reached by %q too", k, m, w.begun)
		}
		canceled++
		if w.effects < k {
			break
		}
	}
	if canceled < 8 {
		t.Errorf("a rotation that is canceled has %d effects", canceled-1)
	}
	t.Logf("canceled %d times, %d of them before the fleet knew of the key", canceled, early)
}

func TestBeforeTheFleetKnowsOfANextKeyItIsTakenBackToo(t *testing.T) {
	w, dir := newKeyWorld(t), t.TempDir()
	d, _ := w.life(dir, 0, byAnn(t))
	if _, err := d.Cancel("ben"); err != nil {
		t.Fatal(err)
	}
	d, _ = w.life(dir, 10, nil)
	if f := d.id.file; f.NextKey != "" || f.Rotation.Running() || w.record.NextKey != "" || w.record.Rotation == nil || w.record.Rotation.CanceledBy != "ben" {
		t.Errorf("the host has %+v, the fleet %+v", f.Rotation, w.record)
	}
}

func TestWhatCannotBeCanceledSaysWhy(t *testing.T) {
	w, dir := newKeyWorld(t), t.TempDir()
	d, _ := w.life(dir, 0, nil)
	if _, err := d.Cancel("ben"); !drover.Is(err, drover.Precondition) {
		t.Errorf("without a rotation: %v", err)
	}
	w.late = []drover.HostID{"h9"}
	d, _ = w.life(dir, 5, byAnn(t))
	for range 2 { // the second time it is the same
		if key, err := d.Cancel("ben"); err != nil || !key.Rotation.Canceled() || !key.Rotation.Running() {
			t.Fatalf("%+v, %v", key.Rotation, err)
		}
	}
	if _, err := d.Rotate("cat", false); !drover.Is(err, drover.Precondition) {
		t.Errorf("another while one is taken back: %v", err)
	}
	w.late = nil
	w.life(dir, 20, nil)
	d, ended := w.life(dir, 20, byAnn(t))
	if !ended {
		t.Fatal("none can be begun after one was canceled")
	}
	if _, err := d.Cancel("ben"); !drover.Is(err, drover.Precondition) {
		t.Errorf("after its end: %v", err)
	}
}

// Who cancels what the schedule has begun does not find it begun again at once.
func TestTheScheduleWaitsAfterACancellation(t *testing.T) {
	w, dir := newKeyWorld(t), t.TempDir()
	d, _ := w.life(dir, 5, func(d *Daemon) {
		d.cfg.KeyEvery = time.Hour
		w.late = []drover.HostID{"h9"}
		w.clock = d.id.file.KeySince.Add(time.Hour)
	})
	steps := func(n int) {
		var steady time.Time
		for range n {
			w.clock = w.clock.Add(time.Second)
			if err := d.beginDue(); err != nil {
				t.Fatal(err)
			}
			var err error
			if steady, err = d.rotateStep(t.Context(), steady); err != nil {
				t.Fatal(err)
			}
		}
	}
	steps(int(keyApart / time.Second))
	key, err := d.Cancel("ben")
	if err != nil || key.Rotation.By != drover.BySchedule {
		t.Fatalf("%+v, %v", key.Rotation, err)
	}
	steps(1600)
	if r := d.keyLocked().Rotation; r.ID != key.Rotation.ID || r.Running() {
		t.Errorf("nearly half an hour later there is %+v", r)
	}
	steps(2100)
	if r := d.keyLocked().Rotation; r.ID == key.Rotation.ID {
		t.Error("an hour later the schedule has begun nothing")
	}
}
