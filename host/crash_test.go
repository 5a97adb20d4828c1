package host

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"drover"
)

// wish is one change of a machine's life, and the state that it must end in whatever is cut on the way.
type wish struct {
	name   string
	change func(m *drover.Machine)
	state  drover.MachineState
	// fresh: the machine is created with it.
	fresh bool
}

var wishes = []wish{
	{"start", func(*drover.Machine) {}, drover.StateStarted, true},
	{"create without launch", func(m *drover.Machine) { m.Goal, m.Run = drover.GoalStopped, 0 }, drover.StateStopped, true},
	{"stop", func(m *drover.Machine) { m.Goal = drover.GoalStopped }, drover.StateStopped, false},
	{"restart", func(m *drover.Machine) { m.Run++ }, drover.StateStarted, false},
	{"update", func(m *drover.Machine) { m.Run++; m.Instance = "i2"; m.Image.Digest = "sha256:bb" }, drover.StateStarted, false},
	{"destroy", func(m *drover.Machine) { m.Goal = drover.GoalDestroyed }, drover.StateDestroyed, false},
	{"stop for good", func(m *drover.Machine) { m.Goal, m.Config.AutoDestroy = drover.GoalStopped, true }, drover.StateDestroyed, false},
}

func TestACrashAtEveryStepOfALife(t *testing.T) {
	for _, wish := range wishes {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s power=%v", wish.name, power), func(t *testing.T) {
				for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
					bubble(t, func(t *testing.T, w *world) { reached = cutLife(t, w, wish, power, k) })
					if !reached {
						t.Logf("%d places to cut at", k-1)
					}
				}
			})
		}
	}
}

// cutLife grants one wish while the host is cut at the k-th place. It tells whether the place was reached.
func cutLife(t *testing.T, w *world, wish wish, power bool, k int) bool {
	h := w.host["h1"]
	w.secrets = testSecrets(1, "once")
	h.up(0)
	h.power = power
	first := machineSpec("m1")
	if !wish.fresh {
		req := h.create(first)
		w.awaitState("m1", drover.StateStarted)
		pass(5 * time.Second)
		h.cut(k)
		s := h.sess
		h.apply(&req, wish.change)
		return livedThrough(t, w, wish, s, req.Machine, k)
	}
	h.cut(k)
	s := h.sess
	wish.change(&first)
	h.create(first)
	return livedThrough(t, w, wish, s, first, k)
}

// cut lets the present agent die at the k-th place from now.
func (h *fakeHost) cut(k int) {
	h.sess.mu.Lock()
	defer h.sess.mu.Unlock()
	h.sess.cutAt = h.sess.n + k
}

func livedThrough(t *testing.T, w *world, wish wish, s *session, m drover.Machine, k int) bool {
	h := w.host["h1"]
	w.await("m1", wish.name, func(s drover.MachineStatus) bool {
		return s.State == wish.state && (wish.state == drover.StateDestroyed || s.Run == m.Run && s.Instance == m.Instance)
	})
	pass(2 * sweepEvery)
	w.revive()
	pass(2 * sweepEvery)
	w.await("m1", wish.name, func(s drover.MachineStatus) bool { return s.State == wish.state && s.Reason == "" })
	w.check()
	toldOnce(t, w.status["m1"].Events, wish, h.power)
	if wish.state == drover.StateStarted && h.guestSecret() != "once" {
		t.Errorf("the guest was given %q", h.guestSecret())
	}
	if runs := len(w.running("m1")) == 1; runs != (wish.state == drover.StateStarted) {
		t.Errorf("state %s, a VM runs: %v", wish.state, runs)
	}
	root := drover.LayerID("root_m1")
	h.w.mu.Lock()
	l, ok := h.layers[root]
	if ok == (wish.state == drover.StateDestroyed) {
		t.Errorf("the root layer is there: %v", ok)
	}
	if ok && l.spec.Base != drover.LayerID("img_"+m.Image.Digest) {
		t.Errorf("the root disk is over %s", l.spec.Base)
	}
	h.w.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where)
	if t.Failed() {
		t.Logf("k=%d cut %s\n%s\n%+v", k, s.where, h.describe(), w.status["m1"])
	}
	return s.dead && s.where != ""
}

func TestACrashAtEveryStepOfAnAbort(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		mv.toSwitch()
		h := w.host[victim]
		h.power = power
		h.cut(k)
		s := h.sess
		if err := mv.abort(); err != nil {
			t.Errorf("k=%d: %v", k, err)
		}
		mv.settled(a)
		s.mu.Lock()
		defer s.mu.Unlock()
		walked(t, k, s.where)
		return s.dead && s.where != ""
	})
}

// A source that comes back with the mark of the freeze, while the bus is down, must wait, and say so.
func TestAFrozenSourceWaitsForThePlacement(t *testing.T) {
	for _, switched := range []bool{false, true} {
		t.Run(fmt.Sprintf("switched=%v", switched), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, req := twoHosts(w)
				mv := newMover(w, a, b, req)
				mv.toSwitch()
				w.setBus(false)
				a.powerCut()
				b.powerCut()
				if switched {
					mv.commit()
				} else {
					mv.record(drover.Aborted)
				}
				a.up(0)
				b.up(0)
				pass(time.Hour)
				if got := w.running("m1"); len(got) != 0 {
					t.Fatalf("runs on %v while nobody can know where it may", got)
				}
				m, err := a.agent.machine("m1")
				if err != nil || m.status().Reason == "" {
					t.Errorf("the source does not say what it waits for: %v", err)
				}
				w.setBus(true)
				if !switched {
					mv.settled(a)
					return
				}
				w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
				for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				mv.settled(b)
			}, "a", "b")
		})
	}
}

// A controller that dies after the quiesce: the source runs the machine again, and never freezes for that migration.
func TestASourceGivesUpWhenNobodyAsks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		for _, step := range mv.before()[:4] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		w.setBus(false)
		pass(2 * controllerSilent)
		if got := w.running("m1"); !slices.Equal(got, []drover.HostID{"a"}) {
			t.Errorf("runs on %v", got)
		}
		w.setBus(true)
		if _, err := order[drover.MoveFrozen](a, drover.OrderMoveFreeze, mv.id()); !drover.Is(err, drover.Canceled) {
			t.Errorf("the freeze: %v", err)
		}
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
		mv.settled(a)
	}, "a", "b")
}

// A machine whose placement names another host, without a migration from here, is ended; its layers are kept.
func TestAMachineThatIsAnotherHostsIsEnded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.host["a"]
		a.up(0)
		a.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
		w.place("m1", "b", "")
		pass(time.Minute)
		if got := w.running("m1"); len(got) != 0 {
			t.Errorf("runs on %v", got)
		}
		w.check()
		pass(time.Hour)
		if a.layers["root_m1"] == nil || a.layers["vol_1"] == nil {
			t.Errorf("layers that were never frozen are gone: %s", a.describe())
		}
	}, "a", "b")
}

func TestThingsWithoutARecordAreRemovedAndLayersKept(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		vm := &fakeVM{h: h, spec: drover.VMSpec{Machine: "stray"}, done: make(chan struct{}), move: &fakeMove{}}
		h.vms["stray"], h.taps["stray"] = vm, true
		h.layers["stray"] = &fakeLayer{spec: LayerSpec{ID: "stray"}, status: drover.LayerStatus{ID: "stray", State: drover.LayerReady}}
		h.up(0)
		pass(time.Second)
		if len(h.vms) != 0 || len(h.taps) != 0 || len(h.layers) != 1 {
			t.Error(h.describe())
		}
	})
}
