package host

import (
	"slices"
	"testing"
	"time"

	"drover"
	"drover/boltstore"
)

// undoer makes a mover that takes back what another one has moved.
func undoer(w *world, moved *mover, req drover.ApplyRequest) *mover {
	mv := newMover(w, moved.dst, moved.src, req)
	mv.undoes = moved.mig
	return mv
}

func TestACrashAtEveryStepOfAnUndo(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		a, b, req := twoHosts(w)
		there := newMover(w, a, b, req)
		if moved, err := there.run(); err != nil || !moved {
			t.Fatalf("moved %v, %v", moved, err)
		}
		req.Epoch = there.epoch
		h := w.host[victim]
		h.power = power
		h.cut(k)
		return undoer(w, there, req).walked(t, h.sess, k)
	})
}

func TestAnUndoNeedsACopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		there := newMover(w, a, b, req)
		if moved, err := there.run(); err != nil || !moved {
			t.Fatalf("moved %v, %v", moved, err)
		}
		req.Epoch = there.epoch
		check := func() (until bool) {
			got, err := order[drover.MoveChecked](a, drover.OrderMoveCheck, drover.MoveCheckRequest{Machine: "m1", Source: "b", Target: "a", Spec: req.Machine,
				Volumes: req.Volumes, Undoes: there.mig})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range got.Findings {
				if f.Check == "kept" && f.OK == got.KeptUntil.IsZero() {
					t.Errorf("%+v", got)
				}
			}
			return !got.KeptUntil.IsZero()
		}
		if !check() {
			t.Error("the copy is not there")
		}
		mv := undoer(w, there, req)
		for _, step := range mv.before()[:3] { // an undo that is given up
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
		if !check() {
			t.Error("an undo that was given up has taken the copy with it")
		}
		pass(testGrace + 2*sweepEvery)
		if check() {
			t.Error("the copy is kept for ever")
		}
		mv = undoer(w, there, req)
		if moved, err := mv.run(); err != nil || moved {
			t.Errorf("moved %v, %v without a copy", moved, err)
		}
		mv.settled(b)
	}, "a", "b")
}

// A copy that a newer migration has made useless goes when that has succeeded, and no sooner, whatever dies meanwhile; the newest copy stays for its time.
func TestACrashAtEveryStepOfOutdating(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		a, b, first := pingPong(w, 1)
		req := first.req
		h := w.host[victim]
		h.power = power
		h.cut(k)
		s := h.sess
		onA, back := first, newMover(w, b, a, req)
		moved, err := back.run()
		if err != nil {
			t.Fatalf("k=%d: %v", k, err)
		}
		onB := (*mover)(nil)
		if moved {
			onA, onB = nil, back
		}
		pass(2 * sweepEvery)
		w.revive()
		pass(3 * sweepEvery)
		w.check()
		wantKept(w, a, onA)
		wantKept(w, b, onB)
		s.mu.Lock()
		defer s.mu.Unlock()
		walked(t, k, s.where)
		return s.dead && s.where != ""
	})
}

func TestPingPongLeavesTheNewestCopyOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, before := pingPong(w, 99)
		req := before.req
		last := newMover(w, b, a, req)
		if moved, err := last.run(); err != nil || !moved {
			t.Fatalf("moved %v, %v", moved, err)
		}
		pass(2 * sweepEvery)
		wantKept(w, a, nil)
		wantKept(w, b, last)
		if moved, err := undoer(w, last, req).run(); err != nil || !moved {
			t.Fatalf("the newest cannot be taken back: %v, %v", moved, err)
		}
	}, "a", "b")
}

// A machine that has moved on, and whose data is still on the way, may yet come back to where it was: no copy is outdated before that is decided.
func TestNoCopyIsOutdatedWhileTheNextMigrationIsUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, first := pingPong(w, 1)
		back := newMover(w, b, a, first.req)
		for _, step := range back.before() {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		back.commit()
		if err := back.activate(); err != nil {
			t.Fatal(err)
		}
		pass(5 * sweepEvery)
		wantKept(w, a, first)
		w.setBus(false)
		back.record(drover.Succeeded)
		pass(5 * sweepEvery)
		wantKept(w, a, first)
		w.setBus(true)
		pass(2 * sweepEvery)
		wantKept(w, a, nil)
	}, "a", "b")
}

// pingPong moves a machine so many times between two hosts that keep copies for long, and returns the last move. An odd number leaves it on b.
func pingPong(w *world, times int) (a, b *fakeHost, last *mover) {
	w.t.Helper()
	w.host["a"].grace, w.host["b"].grace = 1000*time.Hour, 1000*time.Hour
	a, b, req := twoHosts(w)
	src, dst := a, b
	for range times {
		last = newMover(w, src, dst, req)
		if moved, err := last.run(); err != nil || !moved {
			w.t.Fatalf("moved %v, %v", moved, err)
		}
		req.Epoch = last.epoch
		last.req = req
		src, dst = dst, src
	}
	return a, b, last
}

// keptOn lists the layers of a host that are none of a machine that is there.
func keptOn(w *world, h *fakeHost) (kept []drover.LayerID) {
	w.t.Helper()
	var here []drover.LayerID
	err := h.agent.cfg.Store.View(func(tx *boltstore.Tx) error {
		return diskBucket.ForEach(tx, func(_ string, d diskRecord, err error) error {
			here = append(here, d.Layer)
			return err
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, l := range h.layers {
		if l.status.State != drover.LayerImage && !slices.Contains(here, id) {
			kept = append(kept, id)
		}
	}
	return kept
}

// wantKept expects a host to keep the copy of one migration and no other; nil for none.
func wantKept(w *world, h *fakeHost, of *mover) {
	w.t.Helper()
	var want []drover.LayerID
	if of != nil {
		for _, e := range of.exports {
			want = append(want, e.Layer)
		}
	}
	got := keptOn(w, h)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("host %s keeps %v, want %v", h.id, got, want)
	}
}
