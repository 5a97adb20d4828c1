package host

import (
	"fmt"
	"testing"
	"time"

	"drover"
)

// halfMoved moves the machine from a to b and holds the copying up before it is done.
func halfMoved(w *world, rounds int) (there *mover) {
	w.t.Helper()
	a, b, req := twoHosts(w)
	there = newMover(w, a, b, req)
	there.rounds = rounds
	for _, step := range there.before() {
		if err := step(); err != nil {
			w.t.Fatal(err)
		}
	}
	there.copying(false)
	there.commit()
	if err := there.activate(); err != nil {
		w.t.Fatal(err)
	}
	w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
	pass(hydrateAfter)
	there.req.Epoch = there.epoch
	return there
}

// copying lets the clones be filled, or not.
func (mv *mover) copying(on bool) {
	mv.w.mu.Lock()
	defer mv.w.mu.Unlock()
	for _, e := range mv.exports {
		if l := mv.dst.layers[drover.LayerFor(e.Disk, mv.mig)]; l != nil && l.status.Hydration != nil {
			h := *l.status.Hydration
			h.Paused = !on
			l.status.Hydration = &h
		}
	}
}

// goesOn is the rest of a migration that was to be taken back, and was not.
func (mv *mover) goesOn() {
	mv.w.t.Helper()
	mv.copying(true)
	if err := mv.hydrated(); err != nil {
		mv.w.t.Fatal(err)
	}
	if err := mv.release(); err != nil {
		mv.w.t.Fatal(err)
	}
	mv.record(drover.Succeeded)
	mv.settled(mv.dst)
}

func TestACrashAtEveryStepOfAnUndoWhileTheDataIsOnTheWay(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		there := halfMoved(w, 2)
		h := w.host[victim]
		h.power = power
		h.cut(k)
		sess := h.sess
		back := undoer(w, there, there.req)
		moved, err := back.run()
		if err != nil {
			t.Errorf("k=%d: %v\n%s\n%s", k, err, there.src.describe(), there.dst.describe())
			return false
		}
		if moved {
			there.record(drover.Aborted)
			back.settled(there.src)
		} else {
			w.revive()
			there.goesOn()
		}
		sess.mu.Lock()
		defer sess.mu.Unlock()
		walked(t, k, sess.where, moved)
		if t.Failed() {
			t.Logf("k=%d cut %s moved=%v", k, sess.where, moved)
		}
		return sess.dead && sess.where != ""
	})
}

// An undo that is given up leaves both hosts as they were: the copying goes on, and ends as if nothing had been asked.
func TestAnUndoWhileTheDataIsOnTheWayIsAbortedAtEachStep(t *testing.T) {
	for steps := range 6 {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				there := halfMoved(w, steps%3)
				w.twice = true
				back := undoer(w, there, there.req)
				for _, step := range back.before()[:steps] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				if steps > 0 {
					// The source does not let go of its copy while it is the one to come back to.
					if _, err := order[drover.Empty](there.src, drover.OrderMoveRelease, there.id()); !drover.Is(err, drover.Conflict) {
						t.Errorf("a release in the middle of an undo: %v", err)
					}
				}
				if err := back.abort(); err != nil {
					t.Fatal(err)
				}
				w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
				for i, step := range back.before() {
					if err := step(); err == nil {
						t.Errorf("step %d of an aborted migration was obeyed", i)
					}
				}
				if steps < 2 {
					there.copying(true) // the other host was not asked to stop
				}
				there.goesOn()
			}, "a", "b")
		})
	}
}

// A host that is off while its machine is taken back finds out when it returns, and starts nothing. Nobody asks anything of it.
func TestAHostThatWasOffIsNotAskedForAnUndo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		there := halfMoved(w, 1)
		b := there.dst
		w.undoneWithout(there)
		w.await("m1", "started on a", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "a" })
		b.up(0)
		pass(time.Minute)
		if got := w.running("m1"); len(got) != 1 || got[0] != "a" {
			t.Errorf("runs on %v", got)
		}
		w.check()
		w.mu.Lock()
		for _, l := range b.layers {
			if h := l.status.Hydration; h != nil && !h.Done && !h.Paused && l.spec.Parent != nil {
				t.Errorf("layer %s is still to be filled", l.spec.ID)
			}
		}
		w.mu.Unlock()
		pass(testKeepAside + 2*sweepEvery)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(b.layers, "img_sha256:aa")
		if len(b.layers) != 0 {
			t.Errorf("left on b: %v", b.layers)
		}
	}, "a", "b")
}

// undoneWithout takes a migration back while its target is off.
func (w *world) undoneWithout(there *mover) {
	w.t.Helper()
	there.dst.powerCut()
	there.copying(true)
	back := undoer(w, there, there.req)
	before := back.before()
	for _, step := range []func() error{before[0], before[2]} { // reserve, undo
		if err := step(); err != nil {
			w.t.Fatal(err)
		}
	}
	back.commit()
	for _, step := range []func() error{back.activate, back.hydrated} {
		if err := step(); err != nil {
			w.t.Fatal(err)
		}
	}
	back.record(drover.Succeeded)
	there.record(drover.Aborted)
}

// everyPartOfATurn takes a migration back in the middle of its copying.
func everyPartOfATurn(w *world) {
	there := halfMoved(w, 1)
	back := undoer(w, there, there.req)
	if moved, err := back.run(); err != nil || !moved {
		w.t.Fatal(moved, err)
	}
	pass(2 * testGrace)
}
