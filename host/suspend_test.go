package host

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
)

// Changes of the desired state, as the control side makes them.
func toSuspended(m *drover.Machine) { m.Goal, m.Resume = drover.GoalSuspended, false; m.Suspend++ }
func toResumed(m *drover.Machine)   { m.Goal, m.Resume = drover.GoalStarted, true; m.Run++ }
func toStopped(m *drover.Machine)   { m.Goal, m.Resume = drover.GoalStopped, false }
func toStarted(m *drover.Machine)   { m.Goal, m.Resume = drover.GoalStarted, false; m.Run++ }

// suspended brings a machine up on h1 and suspends it.
func suspended(w *world) (*fakeHost, drover.ApplyRequest) {
	h := w.host["h1"]
	h.up(0)
	req := h.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	h.apply(&req, toSuspended)
	w.awaitState("m1", drover.StateSuspended)
	return h, req
}

func (w *world) boots(h *fakeHost) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.booted
}

// memories lists the layers that hold memory.
func (h *fakeHost) memories() (ids []drover.LayerID) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for id, l := range h.layers {
		if l.spec.Disk.HoldsMemory() {
			ids = append(ids, id)
		}
	}
	return ids
}

// told reports whether an event of the machine has the words.
func (w *world) told(words string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.status["m1"].Events, func(e drover.Event) bool { return strings.Contains(e.Text, words) })
}

func TestASuspendedMachineGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h, req := suspended(w)
		w.check()
		if got := w.running("m1"); len(got) != 0 {
			t.Errorf("runs on %v while it is suspended", got)
		}
		if ids := h.memories(); len(ids) != 1 || h.layers[ids[0]].spec.Cipher == nil {
			t.Fatalf("its memory is on %v, and is to be encrypted as its volume is", ids)
		}
		for range 2 { // the second time from a VM that was resumed itself
			pass(time.Hour)
			h.down()
			h.powerAgain() // it stays suspended, and keeps its memory
			pass(time.Minute)
			if s := w.status["m1"]; s.State != drover.StateSuspended {
				t.Fatalf("after a power cut it is %s", s.State)
			}
			h.apply(&req, toResumed)
			s := w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
			if s.Restarts != 0 || !w.told("it goes on with its memory") {
				t.Errorf("it did not go on: %+v", s.Events)
			}
			pass(time.Minute)
			w.check()
			if ids := h.memories(); len(ids) != 0 {
				t.Errorf("its memory is still there: %v", ids)
			}
			h.apply(&req, toSuspended)
			w.awaitState("m1", drover.StateSuspended)
		}
		if h.clockSet != 2 {
			t.Errorf("the guest's clock was set %d times", h.clockSet)
		}
		// A guest that has gone on ends by itself, and the restart policy holds as for any other.
		h.apply(&req, toResumed)
		w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
		w.mu.Lock()
		vm := h.vms["m1"]
		vm.report(report{Kind: reportExited, Code: 3})
		vm.endLocked("the guest powered off")
		w.mu.Unlock()
		s := w.await("m1", "started again", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Restarts == 1 })
		if s.ExitCode == nil || *s.ExitCode != 3 {
			t.Errorf("its exit was not taken for its own: %+v", s)
		}
	})
}

// powerAgain brings a host that is down back after a power cut.
func (h *fakeHost) powerAgain() {
	h.up(0)
	h.powerCut()
	h.up(0)
}

// What ends a suspension otherwise gives the memory up: nothing ever goes on from it.
func TestOtherEndsOfASuspension(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *drover.Machine)
		state  drover.MachineState
	}{
		"stop":                  {toStopped, drover.StateStopped},
		"restart":               {toStarted, drover.StateStarted},
		"update":                {func(m *drover.Machine) { toStarted(m); m.Instance = "i2" }, drover.StateStarted},
		"update without launch": {func(m *drover.Machine) { m.Instance = "i2"; m.Goal = drover.GoalStopped }, drover.StateStopped},
		"destroy":               {func(m *drover.Machine) { m.Goal = drover.GoalDestroyed }, drover.StateDestroyed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h, req := suspended(w)
				boots := w.boots(h)
				h.apply(&req, c.change)
				w.awaitState("m1", c.state)
				pass(time.Minute)
				w.check()
				if ids := h.memories(); len(ids) != 0 {
					t.Errorf("its memory is still there: %v", ids)
				}
				if c.state != drover.StateStarted {
					return
				}
				if vm := h.vms["m1"]; w.boots(h) != boots+1 || vm.spec.Incoming {
					t.Error("it did not boot")
				}
			})
		})
	}
}

// A machine that cannot go on with its memory boots, and says why.
func TestMemoryThatIsOfNoUse(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(h *fakeHost)
		words string
	}{
		"refused by the VMM":  {func(h *fakeHost) { h.hollow = true }, "the state is of no use"},
		"another VMM":         {func(h *fakeHost) { h.down(); h.platform = "fake 2"; h.up(0) }, `"fake 2"`},
		"gone":                {func(h *fakeHost) { delete(h.layers, h.anyMemory()) }, "no layer"},
		"damaged":             {func(h *fakeHost) { h.layers[h.anyMemory()].data[memoryData][5000] ^= 1 }, "its checksum is wrong"},
		"without a head":      {func(h *fakeHost) { delete(h.layers[h.anyMemory()].data, 0) }, "it has no head"},
		"with a damaged head": {func(h *fakeHost) { h.layers[h.anyMemory()].data[0][50] ^= 1 }, "the checksum of its head is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h, req := suspended(w)
				c.spoil(h)
				h.apply(&req, toResumed)
				s := w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
				if !w.told("the machine boots, because its memory is of no use") || !w.told(c.words) {
					t.Errorf("it does not say why it boots: %+v", s.Events)
				}
				if h.vms["m1"].spec.Incoming {
					t.Error("it did not boot")
				}
				pass(time.Minute)
				w.check()
				if ids := h.memories(); len(ids) != 0 {
					t.Errorf("the memory is still there: %v", ids)
				}
			})
		})
	}
}

// anyMemory is the layer with the memory; the caller knows that there is one.
func (h *fakeHost) anyMemory() drover.LayerID { return h.memories()[0] }

// A machine that cannot be suspended runs on, says why, and is not asked again and again.
func TestASuspensionThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		spoil, mend func(h *fakeHost)
		words       string
	}{
		"full disk": {func(h *fakeHost) { h.full = true }, func(h *fakeHost) { h.full = false }, "the disk is full"},
		"no room":   {func(h *fakeHost) { h.free = 100 * drover.MiB }, func(h *fakeHost) { h.free = 100 * drover.GiB }, "MiB of disk left"},
		"blocked":   {func(h *fakeHost) { h.vms["m1"].plan.blocker = "a device" }, func(h *fakeHost) { h.vms["m1"].plan.blocker = "" }, "a device"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := w.host["h1"]
				h.up(0)
				req := h.create(machineSpec("m1"))
				w.awaitState("m1", drover.StateStarted)
				set := func(fn func(*fakeHost)) { w.mu.Lock(); fn(h); w.mu.Unlock() }
				set(c.spoil)
				h.apply(&req, toSuspended)
				pass(time.Minute)
				h.down()
				h.up(0)
				pass(time.Minute)
				s := w.status["m1"]
				if s.State != drover.StateStarted || !strings.Contains(s.Reason, c.words) || len(w.running("m1")) != 1 {
					t.Fatalf("%+v", s)
				}
				n := 0
				for _, e := range s.Events {
					if strings.Contains(e.Text, "it cannot be suspended") {
						n++
					}
				}
				if n != 1 || len(h.memories()) != 0 {
					t.Errorf("told %d times; left behind: %v", n, h.memories())
				}
				boots := w.boots(h)
				h.apply(&req, toResumed) // what it is already
				s = w.await("m1", "started", func(s drover.MachineStatus) bool {
					return s.State == drover.StateStarted && s.Run == req.Machine.Run && s.Reason == ""
				})
				if w.boots(h) != boots {
					t.Error("a machine that could not be suspended was restarted by the start")
				}
				set(c.mend)
				h.apply(&req, toSuspended)
				w.awaitState("m1", drover.StateSuspended)
				w.check()
			})
		})
	}
}

// A start that comes in the middle of a suspending: the machine goes on where it was, from its VM or from its disk.
func TestAStartInTheMiddleOfASuspending(t *testing.T) {
	for _, point := range []string{"host.suspend.before", "host.suspend.created", "host.suspend.saved", "host.suspend.written", "host.suspend.before-mark", "host.kill.before",
		"host.kill.after", "host.close.before"} {
		t.Run(point, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				h := w.host["h1"]
				h.up(0)
				req := h.create(machineSpec("m1"))
				w.awaitState("m1", drover.StateStarted)
				turned := make(chan struct{})
				w.onHit = func(_ *fakeHost, p string) {
					if p == point {
						w.onHit = nil
						defer close(turned)
						toResumed(&req.Machine)
						if _, err := h.agent.apply(t.Context(), req); err != nil {
							t.Error(err)
						}
					}
				}
				h.apply(&req, toSuspended)
				<-turned
				w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
				pass(time.Minute)
				w.check()
				if len(w.running("m1")) != 1 || len(h.memories()) != 0 || w.told("boots") {
					t.Errorf("%v %s\n%+v", w.running("m1"), h.describe(), w.status["m1"].Events)
				}
			})
		})
	}
}

// The host is cut at every step of a suspending, and of a resuming: the machine ends suspended, or goes on, or boots and says why; the world's checks
// see to it that it never goes on twice from one memory, nor with disks that lack what it had written.
func TestACrashAtEveryStepOfASuspension(t *testing.T) {
	for _, resume := range []bool{false, true} {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("resume=%v power=%v", resume, power), func(t *testing.T) {
				for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
					bubble(t, func(t *testing.T, w *world) { reached = cutSuspension(t, w, resume, power, k) })
					if !reached {
						t.Logf("%d places to cut at", k-1)
					}
				}
			})
		}
	}
}

func cutSuspension(t *testing.T, w *world, resume, power bool, k int) bool {
	h := w.host["h1"]
	h.power = power
	h.up(0)
	req := h.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	if resume {
		h.apply(&req, toSuspended)
		w.awaitState("m1", drover.StateSuspended)
	}
	h.cut(k)
	s := h.sess
	if !resume {
		h.apply(&req, toSuspended)
		got := w.await("m1", "at rest", func(s drover.MachineStatus) bool {
			return s.State == drover.StateSuspended || s.State == drover.StateStopped && s.Reason == ""
		})
		pass(time.Minute)
		w.revive()
		pass(time.Minute)
		w.check()
		if lost := w.told("the memory is lost"); (got.State == drover.StateStopped) != lost || lost && !power {
			t.Errorf("it is %s, and told that its memory is lost: %v", got.State, lost)
		}
		if n := len(h.memories()); (n == 1) != (got.State == drover.StateSuspended) {
			t.Errorf("it is %s with %d memories", got.State, n)
		}
	}
	h.apply(&req, toResumed)
	w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
	pass(time.Minute)
	w.revive()
	w.await("m1", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == req.Machine.Run })
	pass(time.Minute)
	w.check()
	w.mu.Lock()
	incoming := h.vms["m1"] != nil && h.vms["m1"].spec.Incoming
	w.mu.Unlock()
	if len(w.running("m1")) != 1 || len(h.memories()) != 0 {
		t.Errorf("%v %s", w.running("m1"), h.describe())
	}
	if !power && !incoming {
		t.Errorf("nothing but the agent was cut, and its memory was lost: %+v", w.status["m1"].Events)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where, incoming)
	if t.Failed() {
		t.Logf("k=%d cut %s\n%s\n%+v", k, s.where, h.describe(), w.status["m1"])
	}
	return s.dead && s.where != ""
}

// A suspended machine has given its memory back: another may have it, and then there is no room for the start, which says so.
func TestTheMemoryOfASuspendedMachineIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		size := drover.Guest{CPUs: 1, MemoryMB: 2500} // of 4096
		large := machineSpec("m1")
		large.Config.Guest = size
		req := h.create(large)
		w.awaitState("m1", drover.StateStarted)
		other := drover.Machine{ID: "m2", App: "app", Instance: "i1", Goal: drover.GoalStarted, Run: 1, Image: large.Image,
			Config: drover.MachineConfig{Image: "img", Guest: size}}
		second := drover.ApplyRequest{Machine: other, Epoch: w.place("m2", "h1", "")}
		if _, err := order[drover.MachineStatus](h, drover.OrderApply, second); !drover.Is(err, drover.Exhausted) {
			t.Fatalf("while the first one runs: %v", err)
		}
		h.apply(&req, toSuspended)
		w.awaitState("m1", drover.StateSuspended)
		w.mu.Lock()
		w.machines["m2"] = other
		w.mu.Unlock()
		insist[drover.MachineStatus](h, drover.OrderApply, second)
		w.await("m2", "started", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted })
		refused := req
		toResumed(&refused.Machine)
		if _, err := order[drover.MachineStatus](h, drover.OrderApply, refused); !drover.Is(err, drover.Exhausted) {
			t.Fatalf("a start without room: %v", err)
		}
		if len(h.memories()) != 1 || w.status["m1"].State != drover.StateSuspended {
			t.Fatalf("a start that was refused changed something: %+v", w.status["m1"])
		}
		h.apply(&second, func(m *drover.Machine) { m.Goal = drover.GoalDestroyed })
		w.await("m2", "destroyed", func(s drover.MachineStatus) bool { return s.State == drover.StateDestroyed })
		h.apply(&req, toResumed)
		w.awaitState("m1", drover.StateStarted)
		pass(time.Minute)
		w.check()
		if !h.vms["m1"].spec.Incoming {
			t.Error("it did not go on with its memory")
		}
	})
}
