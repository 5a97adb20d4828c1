package host

import (
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
)

func TestAMachineIsCreatedStartedStoppedStartedAndDestroyed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		req := h.create(machineSpec("m1"))
		s := w.awaitState("m1", drover.StateStarted)
		if s.Run != 1 || s.Instance != "i1" || s.StartedAt.IsZero() {
			t.Errorf("status %+v", s)
		}
		h.apply(&req, func(m *drover.Machine) { m.Goal = drover.GoalStopped })
		s = w.awaitState("m1", drover.StateStopped)
		if s.ExitCode == nil || *s.ExitCode != 130 {
			t.Errorf("exit code %v", s.ExitCode)
		}
		pass(5 * time.Second)
		w.check()
		h.apply(&req, func(m *drover.Machine) { m.Goal, m.Run = drover.GoalStarted, 2 })
		w.await("m1", "started again", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == 2 })
		h.apply(&req, func(m *drover.Machine) { m.Run = 3 })
		w.await("m1", "restarted", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == 3 })
		h.apply(&req, func(m *drover.Machine) { m.Goal = drover.GoalDestroyed })
		w.awaitState("m1", drover.StateDestroyed)
		pass(2 * time.Minute)
		w.check()
		if len(h.layers) != 2 || h.layers["vol_1"] == nil {
			t.Errorf("left: %s", h.describe())
		}
		w.mu.Lock()
		delete(w.placements, "m1")
		w.mu.Unlock()
		pass(2 * time.Minute)
		if _, err := h.agent.machine("m1"); !drover.Is(err, drover.NotFound) {
			t.Errorf("the machine is not forgotten: %v", err)
		}
	})
}

// started runs fn with a started machine.
func started(t *testing.T, change func(h *fakeHost, m *drover.Machine), fn func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest)) {
	t.Helper()
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		m := machineSpec("m1")
		if change != nil {
			change(h, &m)
		}
		h.up(0)
		req := h.create(m)
		w.awaitState("m1", drover.StateStarted)
		fn(t, w, h, &req)
	})
}

func TestAnAgentThatRestartsDoesNotTouchTheVM(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
		vm, events := h.vms["m1"], len(w.status["m1"].Events)
		for range 3 {
			h.down()
			h.up(0)
			pass(time.Minute)
		}
		if h.vms["m1"] != vm || len(w.status["m1"].Events) != events {
			t.Errorf("another VM, or more events: %+v", w.status["m1"].Events)
		}
		got, err := order[drover.ExecResult](h, drover.OrderExec, drover.ExecRequest{Machine: "m1", Command: []string{"date"}})
		if err != nil || string(got.Stdout) != "date" {
			t.Errorf("exec: %+v, %v", got, err)
		}
	})
}

func TestAfterAPowerCutMachinesRunAgainWhateverTheirPolicy(t *testing.T) {
	for _, policy := range []drover.RestartPolicy{drover.RestartNo, drover.RestartOnFailure, drover.RestartAlways} {
		t.Run(string(policy), func(t *testing.T) {
			started(t, func(_ *fakeHost, m *drover.Machine) { m.Config.Restart.Policy = policy }, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
				w.setBus(false) // nobody helps
				for range 4 {
					h.powerCut()
					h.up(0)
					pass(20 * time.Second)
					if len(w.running("m1")) != 1 {
						t.Fatal("the machine does not run")
					}
				}
				w.setBus(true)
				s := w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted })
				if s.Restarts != 0 {
					t.Errorf("%d restarts are counted", s.Restarts)
				}
			})
		})
	}
}

func TestARunThatWasOverStaysOverAfterAPowerCut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.boot = func(int) bootPlan { return bootPlan{start: time.Second, exit: time.Second} }
		h.up(0)
		h.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStopped)
		h.powerCut()
		h.up(0)
		pass(time.Minute)
		if h.booted != 1 || w.status["m1"].State != drover.StateStopped {
			t.Errorf("booted %d times, state %s", h.booted, w.status["m1"].State)
		}
		w.check()
	})
}

func TestAVMThatIsKilledIsStartedAgain(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
		w.mu.Lock()
		h.vms["m1"].endLocked("signal: killed")
		w.mu.Unlock()
		s := w.await("m1", "started again", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Restarts == 1 })
		if s.ExitCode != nil {
			t.Errorf("an exit code came from nowhere: %d", *s.ExitCode)
		}
	})
}

func TestOnFailureGivesUpAfterItsRetriesAndAUserStartsItAnew(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.boot = func(n int) bootPlan {
			if n < 4 {
				return bootPlan{start: time.Second, exit: time.Second, code: 1}
			}
			return defaultBoot(n)
		}
		m := machineSpec("m1")
		m.Config.Restart.MaxRetries = 3
		h.up(0)
		req := h.create(m)
		s := w.awaitState("m1", drover.StateFailed)
		if h.booted != 4 || s.Restarts != 3 || s.Reason == "" || *s.ExitCode != 1 {
			t.Errorf("booted %d times: %+v", h.booted, s)
		}
		pass(time.Minute)
		w.check()
		h.apply(&req, func(m *drover.Machine) { m.Run++ })
		s = w.awaitState("m1", drover.StateStarted)
		if s.Restarts != 0 || s.Reason != "" {
			t.Errorf("%+v", s)
		}
	})
}

func TestABootThatHangsIsTriedThreeTimes(t *testing.T) {
	for _, good := range []int{2, 99} {
		bubble(t, func(t *testing.T, w *world) {
			h := w.host["h1"]
			h.boot = func(n int) bootPlan {
				if n < good {
					return bootPlan{start: -1}
				}
				return defaultBoot(n)
			}
			h.up(0)
			h.create(machineSpec("m1"))
			if good == 2 {
				w.awaitState("m1", drover.StateStarted)
				return
			}
			if s := w.awaitState("m1", drover.StateFailed); h.booted != maxTries || s.Reason == "" {
				t.Errorf("booted %d times: %s", h.booted, s.Reason)
			}
			pass(time.Minute)
			w.check()
		})
	}
}

func TestAGuestThatTakesNoStopIsKilled(t *testing.T) {
	started(t, func(h *fakeHost, _ *drover.Machine) {
		h.boot = func(int) bootPlan { return bootPlan{start: time.Second, deaf: true} }
	},
		func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
			from := time.Now()
			h.apply(req, func(m *drover.Machine) {
				m.Goal, m.Stop.Timeout = drover.GoalStopped, drover.Duration(20*time.Second)
			})
			w.awaitState("m1", drover.StateStopped)
			if took := time.Since(from); took < 20*time.Second || took > 40*time.Second {
				t.Errorf("took %s", took)
			}
		})
}

func TestAutoDestroy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.boot = func(int) bootPlan { return bootPlan{start: time.Second, exit: time.Second} }
		m := machineSpec("m1")
		m.Config.AutoDestroy = true
		h.up(0)
		h.create(m)
		w.awaitState("m1", drover.StateDestroyed)
		w.check()
		if h.layers["root_m1"] != nil || h.layers["vol_1"] == nil {
			t.Error(h.describe())
		}
	})
}

func TestWhatCannotBeStartedSaysWhy(t *testing.T) {
	for _, code := range []drover.Code{drover.NotFound, drover.Unavailable} {
		bubble(t, func(t *testing.T, w *world) {
			h := w.host["h1"]
			h.images = drover.Errorf(code, "no such image")
			h.up(0)
			req := h.create(machineSpec("m1"))
			if code == drover.NotFound {
				if s := w.awaitState("m1", drover.StateFailed); s.Reason == "" || h.ensured != 1 {
					t.Errorf("%d tries: %q", h.ensured, s.Reason)
				}
			} else {
				w.await("m1", "waiting", func(s drover.MachineStatus) bool { return s.State == drover.StateStarting && s.Reason != "" })
				pass(10 * time.Minute)
			}
			w.mu.Lock()
			h.images = nil
			w.mu.Unlock()
			if code == drover.NotFound {
				h.apply(&req, func(m *drover.Machine) { m.Run++ })
			}
			if s := w.awaitState("m1", drover.StateStarted); s.Reason != "" {
				t.Errorf("reason %q", s.Reason)
			}
		})
	}
}

func TestANewRunDoesNotWaitForAnOldBackoff(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.images = drover.Errorf(drover.Unavailable, "registry")
		h.up(0)
		req := h.create(machineSpec("m1"))
		pass(10 * time.Minute)
		w.mu.Lock()
		h.images = nil
		w.mu.Unlock()
		from := time.Now()
		h.apply(&req, func(m *drover.Machine) { m.Run++ })
		w.awaitState("m1", drover.StateStarted)
		if took := time.Since(from); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestOrdersThatAreOldAreRefused(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		old := *req
		old.Epoch--
		old.Machine.Goal = drover.GoalDestroyed
		if _, err := order[drover.MachineStatus](h, drover.OrderApply, old); !drover.Is(err, drover.Conflict) {
			t.Errorf("an order of an older epoch: %v", err)
		}
		h.apply(req, func(m *drover.Machine) { m.Run = 5 })
		late := *req
		late.Machine.Run, late.Machine.Goal = 4, drover.GoalStopped
		if _, err := order[drover.MachineStatus](h, drover.OrderApply, late); err != nil {
			t.Error(err)
		}
		s := w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == 5 })
		pass(time.Minute)
		if s = w.status["m1"]; s.State != drover.StateStarted {
			t.Errorf("an order that was overtaken was obeyed: %s", s.State)
		}
	})
}

func TestAMachineThatDoesNotFitIsRefusedAndLeavesNothing(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
		big := machineSpec("m2")
		big.Config.Mounts = nil
		big.Config.Guest.MemoryMB = 4000
		req := drover.ApplyRequest{Machine: big, Epoch: w.place("m2", "h1", "")}
		_, err := order[drover.MachineStatus](h, drover.OrderApply, req)
		if !drover.Is(err, drover.Exhausted) {
			t.Errorf("apply: %v", err)
		}
		_, err = order[drover.Empty](h, drover.OrderMoveReserve, drover.MoveReserveRequest{Spec: big,
			MoveRequest: drover.MoveRequest{Migration: "mig_1", Machine: "m2"}})
		if !drover.Is(err, drover.Exhausted) {
			t.Errorf("reserve: %v", err)
		}
		offer, err := order[drover.Offer](h, drover.OrderOffer, drover.OfferRequest{Machine: "m2", MemoryMB: 4000, CPUs: 9, Disk: 1000 * drover.GiB})
		if err != nil || len(offer.Reasons) != 3 {
			t.Errorf("offer %+v, %v", offer, err)
		}
		pass(time.Second)
		if _, err := h.agent.machine("m2"); !drover.Is(err, drover.NotFound) {
			t.Errorf("something of the machine is left: %v", err)
		}
		none := machineSpec("m3")
		none.Config.Mounts[0].Volume = "vol_none"
		_, err = order[drover.MachineStatus](h, drover.OrderApply, drover.ApplyRequest{Machine: none, Epoch: 99})
		if !drover.Is(err, drover.Precondition) {
			t.Errorf("a volume that is not there: %v", err)
		}
		_, err = order[drover.Empty](h, drover.OrderVolumeDestroy, drover.VolumeRequest{Volume: testVolume})
		if !drover.Is(err, drover.Precondition) {
			t.Errorf("a volume that is mounted was destroyed: %v", err)
		}
	})
}

func TestABusThatIsDownHoldsNothingUp(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		w.setBus(false)
		pass(time.Hour)
		w.mu.Lock()
		h.vms["m1"].endLocked("signal: killed")
		w.mu.Unlock()
		pass(10 * time.Second)
		if len(w.running("m1")) != 1 {
			t.Error("the machine was not started again")
		}
		w.setBus(true)
		w.await("m1", "started again", func(s drover.MachineStatus) bool { return s.Restarts == 1 && s.State == drover.StateStarted })
	})
}

func TestAJournalThatCannotBeWrittenStopsTheAgentAndNoVM(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		h.sess.mu.Lock()
		h.sess.cutAt = h.sess.n + 1 // the next effect is the journal's
		h.sess.mu.Unlock()
		changed := *req
		changed.Machine.Goal = drover.GoalStopped
		if _, err := order[drover.MachineStatus](h, drover.OrderApply, changed); err == nil {
			t.Error("an order was acknowledged that is stored nowhere")
		}
		<-h.ended
		h.ended <- nil
		if len(w.running("m1")) != 1 {
			t.Error("the VM was ended")
		}
	})
}

// An order that comes in the middle of a start is obeyed, and what the machine tells of itself is what runs.
func TestARestartIsObeyedAtEveryStepOfAStart(t *testing.T) {
	for _, point := range FaultPoints() {
		if !strings.HasPrefix(point, "host.start.") || point == "host.start.before-root-delete" {
			continue // the root disk is replaced by an update alone
		}
		t.Run(point, func(t *testing.T) {
			started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
				met := sync.OnceFunc(func() { h.apply(req, func(m *drover.Machine) { m.Run++ }) })
				w.onHit = func(_ *fakeHost, p string) {
					if p == point {
						met()
					}
				}
				h.apply(req, func(m *drover.Machine) { m.Run++; m.Instance = "i2"; m.Image.Digest = "sha256:bb" })
				pass(time.Minute)
				w.await("m1", "restarted", func(s drover.MachineStatus) bool { return s.Run == 3 && s.State == drover.StateStarted })
				if len(w.running("m1")) != 1 {
					t.Error("it does not run")
				}
			})
		})
	}
}
