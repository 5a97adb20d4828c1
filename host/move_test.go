package host

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"drover"
)

// mover plays the controller of one migration against two agents.
type mover struct {
	w        *world
	src, dst *fakeHost
	req      drover.ApplyRequest
	mig      drover.MigrationID
	exports  []drover.Export
	epoch    drover.Epoch
	// rounds is how many rounds a late migration makes; 0 for an early one.
	rounds int
	// undoes is the migration that is taken back; empty for none.
	undoes drover.MigrationID
	// limit bounds the copying.
	limit drover.Bytes
}

func newMover(w *world, src, dst *fakeHost, req drover.ApplyRequest) *mover {
	mv := &mover{w: w, src: src, dst: dst, req: req, mig: drover.NewMigrationID()}
	mv.record(drover.Running)
	return mv
}

func (mv *mover) record(o drover.Outcome) {
	mv.w.mu.Lock()
	defer mv.w.mu.Unlock()
	mv.w.migrations[mv.mig] = drover.Migration{ID: mv.mig, Machine: mv.req.Machine.ID, Outcome: o}
}

func (mv *mover) id() drover.MoveRequest {
	return drover.MoveRequest{Migration: mv.mig, Machine: mv.req.Machine.ID}
}

// before lists the steps before the switch.
func (mv *mover) before() []func() error {
	steps := mv.early()
	for round := range mv.rounds {
		steps = slices.Insert(steps, 2+round, func() error { return mv.round(round + 1) })
	}
	return steps
}

// toSwitch takes every step before the switch; each must succeed.
func (mv *mover) toSwitch() {
	mv.w.t.Helper()
	for _, step := range mv.before() {
		if err := step(); err != nil {
			mv.w.t.Fatal(err)
		}
	}
}

// round freezes what changed, and waits until the target has copied it.
func (mv *mover) round(n int) error {
	frozen, err := press[drover.MoveExports](mv.src, drover.OrderMoveRound, drover.MoveRoundRequest{MoveRequest: mv.id(), Round: n})
	if err != nil {
		return err
	}
	if frozen.At.IsZero() || len(frozen.Exports) != len(mv.exports) || frozen.Changed == 0 {
		return fmt.Errorf("round %d is %+v", n, frozen)
	}
	for range 600 {
		got, err := press[drover.MoveCopied](mv.dst, drover.OrderMoveCopy, drover.MoveCopyRequest{MoveRequest: mv.id(), Round: n, Exports: frozen.Exports})
		if err != nil || got.Done {
			return err
		}
	}
	return fmt.Errorf("round %d is never copied: %s", n, mv.dst.describe())
}

// early lists the steps before the switch of an early migration.
func (mv *mover) early() []func() error {
	return []func() error{
		func() error {
			mv.w.mu.Lock()
			st := mv.w.status[mv.req.Machine.ID]
			mv.w.mu.Unlock()
			_, err := press[drover.Empty](mv.dst, drover.OrderMoveReserve, drover.MoveReserveRequest{MoveRequest: mv.id(), Spec: mv.req.Machine,
				Volumes: mv.req.Volumes, Status: st, Disk: drover.GiB, Undoes: mv.undoes})
			return err
		},
		func() error {
			got, err := press[drover.MoveExports](mv.src, drover.OrderMoveExport, drover.MoveExportRequest{MoveRequest: mv.id(), Target: mv.dst.id, Undoes: mv.undoes})
			mv.exports = got.Exports
			return err
		},
		func() error {
			if mv.undoes != "" {
				mv.exports = nil
				_, err := press[drover.Empty](mv.dst, drover.OrderMoveUndo, drover.MoveUndoRequest{MoveRequest: mv.id(), Undoes: mv.undoes})
				return err
			}
			_, err := press[drover.Empty](mv.dst, drover.OrderMoveClone, drover.MoveCloneRequest{MoveRequest: mv.id(), Exports: mv.exports})
			return err
		},
		func() error {
			_, err := press[drover.MoveQuiesced](mv.src, drover.OrderMoveQuiesce, mv.id())
			return err
		},
		func() error {
			got, err := press[drover.MoveFrozen](mv.src, drover.OrderMoveFreeze, mv.id())
			if err == nil && mv.undoes == "" && len(got.Allocated) != len(mv.exports) {
				return fmt.Errorf("allocated %v of exports %v", got.Allocated, mv.exports)
			}
			return err
		},
	}
}

func (mv *mover) commit() { mv.epoch = mv.w.place(mv.req.Machine.ID, mv.dst.id, mv.mig) }

func (mv *mover) activate() error {
	mv.w.mu.Lock()
	st := mv.w.status[mv.req.Machine.ID]
	mv.w.mu.Unlock()
	apply := mv.req
	apply.Epoch = mv.epoch
	_, err := press[drover.MachineStatus](mv.dst, drover.OrderMoveActivate, drover.MoveActivateRequest{MoveRequest: mv.id(), Apply: apply,
		Exports: mv.exports, Status: st, Undoes: mv.undoes, Limit: mv.limit})
	return err
}

func (mv *mover) hydrated() error {
	for range 600 {
		p, err := press[drover.MoveProgress](mv.dst, drover.OrderMoveProgress, mv.id())
		if err != nil {
			return err
		}
		if p.Done {
			return nil
		}
		pass(500 * time.Millisecond)
	}
	return fmt.Errorf("hydration never ends: %s", mv.dst.describe())
}

func (mv *mover) release() error {
	_, err := press[drover.Empty](mv.src, drover.OrderMoveRelease, mv.id())
	return err
}

func (mv *mover) abort() error {
	mv.record(drover.Aborting)
	if _, err := press[drover.Empty](mv.src, drover.OrderMoveAbort, mv.id()); err != nil {
		return err
	}
	_, err := press[drover.Empty](mv.dst, drover.OrderMoveAbort, mv.id())
	mv.record(drover.Aborted)
	return err
}

// run makes the whole move, and aborts it when a host refuses before the switch. It tells whether the machine moved.
func (mv *mover) run() (moved bool, err error) {
	for _, step := range mv.before() {
		if err := step(); err != nil {
			if !drover.Is(err, drover.Canceled) && !drover.Is(err, drover.Precondition) {
				return false, err
			}
			return false, mv.abort()
		}
	}
	mv.commit()
	for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
		if err := step(); err != nil {
			return true, err
		}
	}
	mv.record(drover.Succeeded)
	return true, nil
}

// settled waits until a started machine runs on the host where it belongs, and everything else is gone.
func (mv *mover) settled(on *fakeHost) {
	mv.w.t.Helper()
	id := mv.req.Machine.ID
	mv.w.await(id, "started on "+string(on.id), func(s drover.MachineStatus) bool {
		return s.State == drover.StateStarted && s.Host == on.id && s.Reason == ""
	})
	if got := mv.w.running(id); len(got) != 1 || got[0] != on.id {
		mv.w.t.Errorf("runs on %v, want %s", got, on.id)
	}
	pass(testGrace + sweepEvery + time.Second)
	mv.w.revive()
	pass(sweepEvery + testGrace)
	mv.w.check()
	for _, h := range []*fakeHost{mv.src, mv.dst} {
		want := 1 // the image
		if h == on {
			want = 3
		}
		h.w.mu.Lock()
		for lid, l := range h.layers {
			if len(l.exports) > 0 {
				mv.w.t.Errorf("host %s: layer %s is still exported", h.id, lid)
			}
		}
		delete(h.layers, "img_sha256:aa")
		n := len(h.layers)
		h.w.mu.Unlock()
		if n != want-1 {
			mv.w.t.Errorf("host %s has %d layers, want %d: %s", h.id, n, want-1, h.describe())
		}
		offer, err := order[drover.Offer](h, drover.OrderOffer, drover.OfferRequest{Machine: "other", MemoryMB: 1})
		used := 4*drover.GiB - offer.MemoryFree
		if err != nil || (used != 0) != (h == on) || offer.DiskFree != 99*drover.GiB {
			mv.w.t.Errorf("host %s: offer %+v, %v", h.id, offer, err)
		}
	}
}

func TestAMachineMovesThereAndBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		for _, pair := range [][2]*fakeHost{{a, b}, {b, a}} {
			mv := newMover(w, pair[0], pair[1], req)
			moved, err := mv.run()
			if err != nil || !moved {
				t.Fatalf("moved %v, %v", moved, err)
			}
			mv.settled(pair[1])
			req.Epoch = mv.epoch
		}
		s := w.status["m1"]
		if !slices.ContainsFunc(s.Events, func(e drover.Event) bool { return e.Type == "launch" }) {
			t.Errorf("the events did not go on: %+v", s.Events)
		}
	}, "a", "b")
}

func TestEveryOrderOfAMoveTwice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		w.twice = true
		mv := newMover(w, a, b, req)
		if moved, err := mv.run(); err != nil || !moved {
			t.Fatalf("moved %v, %v", moved, err)
		}
		mv.settled(b)
	}, "a", "b")
}

func TestAbortAtEachStep(t *testing.T) {
	for steps := range 6 {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, req := twoHosts(w)
				w.twice = true
				mv := newMover(w, a, b, req)
				for _, step := range mv.before()[:steps] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				if err := mv.abort(); err != nil {
					t.Fatal(err)
				}
				mv.settled(a)
				for i, step := range mv.before() {
					if err := step(); err == nil {
						t.Errorf("step %d of an aborted migration was obeyed", i)
					}
				}
			}, "a", "b")
		})
	}
}

func TestAnAbortAfterTheSwitchIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		mv.toSwitch()
		mv.commit()
		for _, h := range []*fakeHost{a, b} {
			if _, err := order[drover.Empty](h, drover.OrderMoveAbort, mv.id()); !drover.Is(err, drover.Precondition) {
				t.Errorf("host %s: %v", h.id, err)
			}
		}
		// Nobody tells the target: it finds out by itself.
		w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
		for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		mv.settled(b)
	}, "a", "b")
}

func TestACrashAtEveryStepOfAMove(t *testing.T) { walkMoves(t, 0) }

func TestACrashAtEveryStepOfALateMove(t *testing.T) { walkMoves(t, 2) }

func walkMoves(t *testing.T, rounds int) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		a, b, req := twoHosts(w)
		h := w.host[victim]
		h.power = power
		h.cut(k)
		mv := newMover(w, a, b, req)
		mv.rounds = rounds
		return mv.walked(t, h.sess, k)
	})
}

// walked runs the move while the session is cut at its k-th step, and tells whether it was.
func (mv *mover) walked(t *testing.T, s *session, k int) (reached bool) {
	on := mv.src
	moved, err := mv.run()
	if err != nil {
		t.Errorf("k=%d: %v\n%s\n%s", k, err, mv.src.describe(), mv.dst.describe())
		return false
	}
	if moved {
		on = mv.dst
	}
	mv.settled(on)
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where, moved)
	if t.Failed() {
		t.Logf("k=%d cut %s moved=%v", k, s.where, moved)
	}
	return s.dead && s.where != ""
}

// A machine that is destroyed while its volume is still on the way must not take the volume with it.
func TestAMachineDestroyedWhileItHydratesLeavesItsVolumeWhole(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		mv.toSwitch()
		w.mu.Lock()
		for _, l := range a.layers {
			delete(l.exports, "b") // the network between the two is gone: hydration waits
		}
		w.mu.Unlock()
		mv.commit()
		if err := mv.activate(); err != nil {
			t.Fatal(err)
		}
		w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
		req.Epoch = mv.epoch
		b.apply(&req, func(m *drover.Machine) { m.Goal = drover.GoalDestroyed })
		w.awaitState("m1", drover.StateDestroyed)
		pass(time.Minute)
		w.mu.Lock()
		for _, l := range a.layers {
			if l.spec.Base != "" || l.spec.ID == "vol_1" {
				l.exports["b"] = true
			}
		}
		delete(w.placements, "m1")
		w.mu.Unlock()
		if err := mv.hydrated(); err != nil {
			t.Fatal(err)
		}
		if err := mv.release(); err != nil {
			t.Fatal(err)
		}
		pass(2*testGrace + 2*sweepEvery)
		w.mu.Lock()
		defer w.mu.Unlock()
		clone := b.layers[drover.LayerFor("vol_1", mv.mig)]
		if clone == nil || !clone.status.Hydration.Done {
			t.Errorf("the volume is not whole: %+v", clone)
		}
	}, "a", "b")
}

// A bound is shared by the disks that are being copied: one that is complete leaves its part to the others. What an operator wishes of one goes
// before it.
func TestTheBoundOfAMoveIsThatOfWhatIsStillCopied(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		mv.limit = 60 * drover.MiB
		mv.toSwitch()
		volume := drover.LayerFor(req.Volumes[0].ID.Disk(), mv.mig)
		slow := func(paused bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			l := b.layers[volume]
			if l.status.Hydration == nil {
				l.status.Hydration = &drover.Hydration{}
			}
			hy := *l.status.Hydration
			hy.Paused = paused
			l.status.Hydration = &hy
		}
		limit := func() drover.Bytes {
			w.mu.Lock()
			defer w.mu.Unlock()
			return b.layers[volume].status.Hydration.Limit
		}
		slow(true)
		mv.commit()
		if err := mv.activate(); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := limit(); got != mv.limit {
			t.Errorf("the volume alone is copied at %d bytes per second at most, want %d", got, mv.limit)
		}
		wish := drover.MiB
		if _, err := order[drover.LayerStatus](b, drover.OrderVolumeHydration, drover.HydrationRequest{Volume: req.Volumes[0].ID, Limit: &wish}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := limit(); got != wish {
			t.Errorf("an operator's %d bytes per second became %d", wish, got)
		}
		slow(false)
		if err := mv.hydrated(); err != nil {
			t.Fatal(err)
		}
		if err := mv.release(); err != nil {
			t.Fatal(err)
		}
		mv.record(drover.Succeeded)
		mv.settled(b)
	}, "a", "b")
}
