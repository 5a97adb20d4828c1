package host

import (
	"fmt"
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
	for _, c := range []struct {
		host  drover.HostID
		power bool
	}{{"a", false}, {"a", true}, {"b", false}, {"b", true}} {
		t.Run(fmt.Sprintf("%s power=%v", c.host, c.power), func(t *testing.T) {
			for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.host["a"], w.host["b"]
					a.up(0)
					b.up(0)
					req := a.create(machineSpec("m1"))
					w.awaitState("m1", drover.StateStarted)
					there := newMover(w, a, b, req)
					if moved, err := there.run(); err != nil || !moved {
						t.Fatalf("moved %v, %v", moved, err)
					}
					req.Epoch = there.epoch
					victim := w.host[c.host]
					victim.power = c.power
					victim.cut(k)
					s := victim.sess
					mv := undoer(w, there, req)
					moved, err := mv.run()
					if err != nil {
						t.Errorf("k=%d: %v\n%s\n%s", k, err, a.describe(), b.describe())
						return
					}
					on := b
					if moved {
						on = a
					}
					mv.settled(on)
					s.mu.Lock()
					defer s.mu.Unlock()
					reached = s.dead && s.where != ""
					walked(t, k, s.where, moved)
					if t.Failed() {
						t.Logf("k=%d cut %s moved=%v", k, s.where, moved)
					}
				}, "a", "b")
			}
		})
	}
}

func TestAnUndoNeedsACopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.host["a"], w.host["b"]
		a.up(0)
		b.up(0)
		req := a.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
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
