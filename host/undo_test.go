package host

import (
	"testing"

	"drover"
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
