package host

import (
	"testing"
	"time"

	"drover"
)

// everySuspension goes through all that a suspension can come to.
func everySuspension(t *testing.T, w *world) {
	a, _, req := twoHosts(w)
	a.vms["m1"].plan.blocker = "a device"
	a.apply(&req, toSuspended)
	w.await("m1", "refused", func(s drover.MachineStatus) bool { return s.Reason != "" })
	w.mu.Lock()
	a.vms["m1"].plan.blocker = ""
	w.mu.Unlock()
	for _, hollow := range []bool{false, true} {
		a.apply(&req, toSuspended)
		w.awaitState("m1", drover.StateSuspended)
		a.hollow = hollow
		a.apply(&req, toResumed)
		w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
	}
	a.apply(&req, toSuspended)
	w.awaitState("m1", drover.StateSuspended)
	a.apply(&req, toStopped)
	w.awaitState("m1", drover.StateStopped)
	pass(time.Minute)
}

// goesOnOn starts a suspended machine on the host that it came to, which must go on with its memory there.
func goesOnOn(t *testing.T, w *world, h *fakeHost, mv *mover) {
	t.Helper()
	req := mv.req
	req.Epoch = w.placements["m1"].Epoch
	h.apply(&req, toResumed)
	w.await("m1", "started", func(s drover.MachineStatus) bool {
		return s.State == drover.StateStarted && s.Run == req.Machine.Run && s.Host == h.id
	})
	pass(time.Minute)
	w.check()
	w.mu.Lock()
	vm := h.vms["m1"]
	w.mu.Unlock()
	if vm == nil || !vm.spec.Incoming || w.told("boots") {
		t.Errorf("it did not go on with its memory: %+v", w.status["m1"].Events)
	}
	if ids := h.memories(); len(ids) != 0 {
		t.Errorf("its memory is still there: %v", ids)
	}
}

// A suspended machine moves with its memory, whatever is cut on the way, and goes on where it comes to.
func TestACrashAtEveryStepOfAMoveOfASuspendedMachine(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		a, b, req := twoHosts(w)
		a.apply(&req, toSuspended)
		w.awaitState("m1", drover.StateSuspended)
		mv := newMover(w, a, b, req)
		mv.rounds = k % 2
		h := w.host[victim]
		h.power = power
		h.cut(k)
		s := h.sess
		moved, err := mv.run()
		if err != nil {
			t.Fatalf("k=%d: %v", k, err)
		}
		at := a
		if moved {
			at = b
		}
		w.await("m1", "suspended", func(s drover.MachineStatus) bool {
			return s.State == drover.StateSuspended && s.Host == at.id && s.Reason == ""
		})
		pass(2 * testGrace)
		w.revive()
		pass(time.Minute)
		w.check()
		if len(w.running("m1")) != 0 {
			t.Errorf("runs on %v", w.running("m1"))
		}
		for _, h := range w.host {
			if n := len(h.memories()); (h == at) != (n == 1) {
				t.Errorf("host %s has %d memories, the machine is on %s", h.id, n, at.id)
			}
		}
		s.mu.Lock()
		s.cutAt = 0 // the walk is over the move; TestACrashAtEveryStepOfASuspension walks over the rest
		s.mu.Unlock()
		goesOnOn(t, w, at, mv)
		s.mu.Lock()
		defer s.mu.Unlock()
		walked(t, k, s.where)
		if t.Failed() {
			t.Logf("k=%d cut %s moved %v\n%s\n%s\n%+v", k, s.where, moved, a.describe(), b.describe(), w.status["m1"])
		}
		return s.dead && s.where != ""
	})
}

// What is asked while a suspended machine moves waits for the end of the move: a source that went on from the memory that the target was told of
// would leave it behind to be gone on from a second time.
func TestAStartInTheMiddleOfAMoveOfASuspendedMachine(t *testing.T) {
	for _, abort := range []bool{false, true} {
		for n := range 5 {
			bubble(t, func(t *testing.T, w *world) {
				a, b, req := twoHosts(w)
				a.apply(&req, toSuspended)
				w.awaitState("m1", drover.StateSuspended)
				mv := newMover(w, a, b, req)
				at := b
				for i, step := range mv.before() {
					if err := step(); err != nil {
						t.Fatal(err)
					}
					if i == n && n > 0 {
						a.apply(&mv.req, toResumed)
						pass(5 * time.Second)
						if got := w.running("m1"); len(got) != 0 {
							t.Errorf("it goes on on %v while it moves", got)
						}
					}
				}
				if abort {
					at = a
					if err := mv.abort(); err != nil {
						t.Fatal(err)
					}
				} else {
					mv.commit()
					for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
						if err := step(); err != nil {
							t.Fatal(err)
						}
					}
				}
				if n == 0 {
					goesOnOn(t, w, at, mv)
					return
				}
				w.await("m1", "started", func(s drover.MachineStatus) bool {
					return s.State == drover.StateStarted && s.Host == at.id && s.Run == mv.req.Machine.Run
				})
				pass(time.Minute)
				w.check()
				if vm := at.vms["m1"]; !vm.spec.Incoming || w.told("boots") {
					t.Errorf("it did not go on with its memory: %+v", w.status["m1"].Events)
				}
			}, "a", "b")
		}
	}
}

// A move that is taken back does not bring back the memory that it took along: it was gone on from elsewhere.
func TestAnUndoneMoveDoesNotReviveAMemory(t *testing.T) {
	for _, resumed := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a, b, req := twoHosts(w)
			a.apply(&req, toSuspended)
			w.awaitState("m1", drover.StateSuspended)
			mv := newMover(w, a, b, req)
			if moved, err := mv.run(); err != nil || !moved {
				t.Fatal(moved, err)
			}
			req = mv.req
			req.Epoch = mv.epoch
			if resumed {
				b.apply(&req, toResumed)
				w.awaitState("m1", drover.StateStarted)
			}
			mv = undoer(w, mv, req)
			if moved, err := mv.run(); err != nil || !moved {
				t.Fatal(moved, err)
			}
			want := drover.StateStopped
			if resumed {
				want = drover.StateStarted
			}
			w.await("m1", "back", func(s drover.MachineStatus) bool { return s.State == want && s.Host == "a" })
			if vm := a.vms["m1"]; vm != nil && vm.spec.Incoming {
				t.Error("it went on with a memory that was taken elsewhere")
			}
			pass(2 * testGrace)
			for _, h := range w.host {
				if ids := h.memories(); len(ids) != 0 {
					t.Errorf("host %s: %v is left", h.id, ids)
				}
			}
		}, "a", "b")
	}
}

// A suspended machine that went on elsewhere without its host leaves no memory there, whatever was going on.
func TestAMemoryOfAMachineThatIsAnotherHosts(t *testing.T) {
	for n := range 4 {
		bubble(t, func(t *testing.T, w *world) {
			a, b, req := twoHosts(w)
			a.apply(&req, toSuspended)
			w.awaitState("m1", drover.StateSuspended)
			mv := newMover(w, a, b, req)
			for _, step := range mv.before()[:n] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			w.place("m1", "c", "")
			pass(time.Minute)
			if n > 0 {
				if err := mv.abort(); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Hour)
			w.check()
			for _, h := range []*fakeHost{a, b} {
				if ids := h.memories(); len(ids) != 0 {
					t.Errorf("step %d: host %s still has %v\n%s", n, h.id, ids, h.describe())
				}
			}
		}, "a", "b", "c")
	}
}
