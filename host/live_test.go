package host

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"drover"
)

// liveMover plays the controller of a migration with the memory.
type liveMover struct {
	*mover
	incarnation *drover.Incarnation
	address     string
	live        drover.MoveLive
}

func newLiveMover(w *world, src, dst *fakeHost, req drover.ApplyRequest) *liveMover {
	return &liveMover{mover: newMover(w, src, dst, req)}
}

// before lists the steps before the switch.
func (mv *liveMover) before() []func() error {
	cold := mv.mover.before()
	return []func() error{
		cold[0],
		func() error {
			got, err := press[drover.MoveExports](mv.src, drover.OrderMoveExport, drover.MoveExportRequest{MoveRequest: mv.id(), Target: mv.dst.id})
			if err == nil && got.Incarnation == nil {
				return drover.Errorf(drover.Precondition, "no VM runs that could be described")
			}
			mv.exports, mv.incarnation = got.Exports, got.Incarnation
			return err
		},
		cold[2],
		func() error {
			got, err := press[drover.MoveIncoming](mv.dst, drover.OrderMoveIncoming, drover.MoveIncomingRequest{MoveRequest: mv.id(), Exports: mv.exports,
				Source: mv.src.id, Incarnation: *mv.incarnation})
			mv.address = got.Address
			return err
		},
		func() error {
			for range 300 {
				got, err := press[drover.MoveLive](mv.src, drover.OrderMoveLive, drover.MoveLiveRequest{MoveRequest: mv.id(), Address: mv.address, Target: mv.dst.id})
				if err != nil || got.Paused {
					mv.live = got
					return err
				}
				if got.Memory.Total == 0 && got.Memory.Transferred != 0 {
					return fmt.Errorf("progress %+v", got)
				}
			}
			return fmt.Errorf("the memory is never sent: %s", mv.src.describe())
		},
	}
}

func (mv *liveMover) activate() error {
	mv.w.mu.Lock()
	st := mv.w.status[mv.req.Machine.ID]
	mv.w.mu.Unlock()
	apply := mv.req
	apply.Epoch = mv.epoch
	_, err := press[drover.MachineStatus](mv.dst, drover.OrderMoveActivate, drover.MoveActivateRequest{MoveRequest: mv.id(), Apply: apply,
		Exports: mv.exports, Status: st, Live: true, Handover: mv.live.Handover})
	return err
}

// run makes the whole move, and aborts it when a host refuses before the switch.
func (mv *liveMover) run() (moved bool, err error) {
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

// twoHosts has a machine that runs on a.
func twoHosts(w *world) (a, b *fakeHost, req drover.ApplyRequest) {
	a, b = w.host["a"], w.host["b"]
	a.up(0)
	b.up(0)
	req = a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	pass(5 * time.Second)
	return a, b, req
}

func TestAMachineMovesLiveThereAndBack(t *testing.T) {
	for _, twice := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a, b, req := twoHosts(w)
			w.twice = twice
			started := w.status["m1"].StartedAt
			for _, pair := range [][2]*fakeHost{{a, b}, {b, a}, {a, b}} {
				mv := newLiveMover(w, pair[0], pair[1], req)
				if moved, err := mv.run(); err != nil || !moved {
					t.Fatalf("moved %v, %v", moved, err)
				}
				mv.settled(pair[1])
				p, err := order[drover.MoveProgress](pair[1], drover.OrderMoveProgress, mv.id())
				if err != nil || p.ColdReason != "" || p.ResumedAt.IsZero() || p.ResumedAt.Before(mv.live.StoppedAt) {
					t.Errorf("progress %+v, %v", p, err)
				}
				req.Epoch = mv.epoch
			}
			if a.booted != 2 || b.booted != 2 { // one of its own, the others to take the memory
				t.Errorf("%d VMs were started on a, %d on b", a.booted, b.booted)
			}
			s := w.status["m1"]
			if !s.StartedAt.Equal(started) || s.Restarts != 0 || slices.ContainsFunc(s.Events, func(e drover.Event) bool { return e.Type == "restart" || e.Type == "exit" }) {
				t.Errorf("it did not go on: %+v", s)
			}
			// Its reports are its own still: the main process is stopped, and that is told.
			b.apply(&req, func(m *drover.Machine) { m.Goal = drover.GoalStopped })
			if s := w.awaitState("m1", drover.StateStopped); s.ExitCode == nil || *s.ExitCode != 130 {
				t.Errorf("the end was not told: %+v", s)
			}
		}, "a", "b")
	}
}

func TestAbortALiveMoveAtEachStep(t *testing.T) {
	for steps := range 6 {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, req := twoHosts(w)
				w.twice = true
				mv := newLiveMover(w, a, b, req)
				for _, step := range mv.before()[:steps] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				if err := mv.abort(); err != nil {
					t.Fatal(err)
				}
				mv.settled(a)
				if a.booted != 1 {
					t.Errorf("%d VMs were started on the source", a.booted)
				}
				// It can move after that.
				w.twice = false
				mv = newLiveMover(w, a, b, req)
				if moved, err := mv.run(); err != nil || !moved {
					t.Fatalf("moved %v, %v", moved, err)
				}
				mv.settled(b)
			}, "a", "b")
		})
	}
}

// An abort while the memory is on its way is done at once, and the machine has not stood still.
func TestAbortWhileTheMemoryIsSent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newLiveMover(w, a, b, req)
		for _, step := range mv.before()[:4] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- mv.before()[4]() }()
		pass(fakeCopy / 2)
		began := time.Now()
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the abort took %s", took)
		}
		if err := <-done; !drover.Is(err, drover.Canceled) && !drover.Is(err, drover.Precondition) {
			t.Errorf("the order to send: %v", err)
		}
		mv.settled(a)
		if vm := a.vms["m1"]; !vm.move.paused.IsZero() || !vm.move.resumed.IsZero() {
			t.Error("the machine stood still")
		}
	}, "a", "b")
}

// What a VM that takes the memory can do wrong before the switch leaves the machine where it is; after it, the machine is started anew.
func TestTheVMThatTakesTheMemoryEnds(t *testing.T) {
	for steps := 4; steps <= 6; steps++ {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, req := twoHosts(w)
				mv := newLiveMover(w, a, b, req)
				for _, step := range mv.before()[:min(steps, 5)] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				if steps == 6 {
					mv.commit()
				}
				w.mu.Lock()
				b.vms["m1"].endLocked("it crashed")
				w.mu.Unlock()
				if steps == 4 {
					if err := mv.before()[4](); !drover.Is(err, drover.Precondition) {
						t.Errorf("the memory was sent to nobody: %v", err)
					}
					if err := mv.abort(); err != nil {
						t.Fatal(err)
					}
					mv.settled(a)
					return
				}
				if steps == 5 {
					mv.commit()
				}
				for _, step := range []func() error{mv.activate, mv.hydrated} {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				p, err := order[drover.MoveProgress](b, drover.OrderMoveProgress, mv.id())
				if err != nil || p.ColdReason == "" || !p.ResumedAt.IsZero() {
					t.Errorf("progress %+v, %v", p, err)
				}
				if err := mv.release(); err != nil {
					t.Fatal(err)
				}
				mv.settled(b)
			}, "a", "b")
		})
	}
}

// The controller dies after the switch: the target goes on with the memory by itself.
func TestATargetResumesByThePlacement(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newLiveMover(w, a, b, req)
		mv.toSwitch()
		mv.commit()
		w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
		pass(time.Minute)
		for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		mv.settled(b)
		if b.booted != 1 {
			t.Errorf("%d VMs were started on the target", b.booted)
		}
	}, "a", "b")
}

func TestAMachineThatCannotMoveLiveIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.host["a"].boot = func(int) bootPlan {
			return bootPlan{start: time.Second, stopIn: time.Second / 5, blocker: "its disks are odd"}
		}
		a, b, req := twoHosts(w)
		mv := newLiveMover(w, a, b, req)
		for i, step := range mv.before() {
			if err := step(); i < 4 && err != nil || i == 4 && !drover.Is(err, drover.Precondition) {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		// The same migration may be made cold.
		for _, step := range mv.mover.before()[3:] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		mv.commit()
		for _, step := range []func() error{mv.mover.activate, mv.hydrated, mv.release} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		mv.settled(b)
	}, "a", "b")
}

// Nobody asks about the memory any more: the source stops sending by itself.
func TestASourceStopsSendingWhenNobodyAsks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newLiveMover(w, a, b, req)
		for _, step := range mv.before()[:4] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		w.setBus(false)
		if _, err := order[drover.MoveLive](a, drover.OrderMoveLive, drover.MoveLiveRequest{MoveRequest: mv.id(), Address: "nowhere", Target: "b"}); err == nil {
			t.Fatal("it was sent to nowhere")
		}
		pass(2 * controllerSilent)
		if _, err := order[drover.MoveLive](a, drover.OrderMoveLive, drover.MoveLiveRequest{MoveRequest: mv.id(), Address: mv.address, Target: "b"}); !drover.Is(err, drover.Canceled) {
			t.Errorf("an order that came too late: %v", err)
		}
		w.setBus(true)
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
		mv.settled(a)
	}, "a", "b")
}

func TestACrashAtEveryStepOfALiveMove(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		return cutLiveMove(t, w, victim, power, k, false)
	})
}

func TestACrashAtEveryStepOfALiveMovesAbort(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		return cutLiveMove(t, w, victim, power, k, true)
	})
}

// cutLiveMove cuts a host at its k-th effect of a move, or of the abort of one that was ready to be switched. It tells whether that was reached.
func cutLiveMove(t *testing.T, w *world, victim drover.HostID, power bool, k int, abort bool) bool {
	a, b, req := twoHosts(w)
	h, mv := w.host[victim], newLiveMover(w, a, b, req)
	h.power = power
	if abort {
		mv.toSwitch()
	}
	h.cut(k)
	s := h.sess
	on := a
	if abort {
		if err := mv.abort(); err != nil {
			t.Errorf("k=%d: %v", k, err)
		}
	} else if moved, err := mv.run(); err != nil {
		t.Errorf("k=%d: moved %v: %v\n%s\n%s", k, moved, err, a.describe(), b.describe())
	} else if moved {
		on = b
	}
	mv.settled(on)
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where, on.id)
	if t.Failed() {
		t.Logf("k=%d cut %s, the machine is on %s", k, s.where, on.id)
	}
	return s.dead && s.where != ""
}

// everyPartOfALiveMove makes one that is given up, one that fails, one whose end is cold, and a good one.
func everyPartOfALiveMove(t *testing.T, w *world) {
	a, b, req := twoHosts(w)
	for n := range 4 {
		mv := newLiveMover(w, a, b, req)
		for _, step := range mv.before()[:4] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if n == 1 {
			mv.address = "nowhere"
		}
		if err := mv.before()[4](); (err != nil) != (n == 1) {
			t.Fatal(err)
		}
		if n < 2 {
			if err := mv.abort(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		mv.commit()
		if n == 2 { // its memory is lost on the way: a host that has none cannot go on with it
			w.mu.Lock()
			b.vms["m1"].move.state = drover.TransferFailed
			w.mu.Unlock()
		}
		for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		req.Epoch = mv.epoch
		a, b = b, a
	}
}
