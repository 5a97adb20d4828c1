package fleet

import (
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
)

// victim is a machine with a volume on h1, and a snapshot of that.
func (w *world) victim(n *node) (drover.MachineID, drover.VolumeID) {
	w.t.Helper()
	vol := w.volume(n, "h1")
	v := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}})
	w.snapshot(n, vol.Volume.ID)
	return v.Machine.ID, vol.Volume.ID
}

// dead cuts the power of h1 and waits until everybody knows; confirmed says so to the fleet.
func (w *world) dead(n *node) {
	w.t.Helper()
	w.powerOff("h1")
	w.eventually("h1 is unreachable", func() bool {
		h, err := n.Host(w.t.Context(), "h1")
		return err == nil && h.Reach == drover.ReachNone
	})
}

func (w *world) confirmed(n *node) {
	w.t.Helper()
	if _, err := n.ConfirmOff(w.t.Context(), ConfirmOff{Host: "h1", Reason: "the test says so", Actor: "test"}); err != nil {
		w.t.Fatal(err)
	}
}

// recovered waits until a recovery has ended.
func (w *world) recovered(n *node, id drover.RecoveryID) (r drover.Recovery) {
	w.t.Helper()
	w.eventually("recovery "+string(id)+" ends", func() bool {
		var err error
		r, err = n.Recovery(w.t.Context(), id)
		return err == nil && r.State.Ended()
	})
	return r
}

func TestADeadHostsMachineRunsElsewhereOnceTheFenceIsCertain(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id, vol := w.victim(n)
	bare := w.volume(n, "h1")
	lone := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: bare.Volume.ID, Path: "/data"}}}})
	ctx := t.Context()
	confirm := ConfirmOff{Host: "h1", Reason: "looked at it", Actor: "eve"}
	_, err := n.ConfirmOff(ctx, confirm)
	wantError(t, err, drover.Precondition, "", `host "h1" is not off: it is heard on the bus`)

	// Its agent is silent, and others reach it: it runs.
	w.hosts["h1"].halt()
	w.eventually("h1 is silent", func() bool {
		h, err := n.Host(ctx, "h1")
		return err == nil && h.Reach == drover.ReachSilent && len(h.Conditions) == 1 && h.Conditions[0].Code == drover.HostIsSilent
	})
	if _, err = n.ConfirmOff(ctx, confirm); !drover.Is(err, drover.Precondition) || !strings.Contains(err.Error(), "h2, h3 reach h1") {
		t.Errorf("a host that others reach is confirmed to be off: %v", err)
	}
	w.dead(n)
	if _, err = n.StartRecovery(ctx, StartRecovery{Host: "h1"}); !drover.Is(err, drover.Precondition) || !strings.Contains(err.Error(), "not certain") {
		t.Errorf("without a fence: %v", err)
	}
	_, err = n.ConfirmOff(ctx, ConfirmOff{Host: "h1", Reason: " "})
	wantError(t, err, drover.Invalid, "reason", "")
	fence, err := n.ConfirmOff(ctx, confirm)
	if err != nil || fence.Actor != "eve" || fence.By != drover.FenceByOperator {
		t.Fatalf("%+v, %v", fence, err)
	}

	plan, err := n.RecoveryPlan(ctx, "h1")
	if err != nil || plan.Fence == nil || len(plan.Machines) != 2 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	for _, p := range plan.Machines {
		if want := p.Machine == lone.Machine.ID; (p.Problem != "") != want {
			t.Errorf("planned: %+v", p)
		}
	}
	if _, err = n.StartRecovery(ctx, StartRecovery{Machine: id, AcceptAge: time.Nanosecond}); !drover.Is(err, drover.Precondition) || !strings.Contains(err.Error(), "accepted") {
		t.Errorf("with too old a copy: %v", err)
	}
	if _, err = n.StartRecovery(ctx, StartRecovery{Machine: lone.Machine.ID}); !drover.Is(err, drover.Precondition) || !strings.Contains(err.Error(), "neither a standby nor a snapshot") {
		t.Errorf("without a copy: %v", err)
	}
	started, err := n.StartRecovery(ctx, StartRecovery{Host: "h1", Actor: "eve"})
	if err != nil || len(started.Recoveries) != 1 || len(started.Left) != 1 {
		t.Fatalf("%+v, %v", started, err)
	}
	r := w.recovered(n, started.Recoveries[0].ID)
	if r.State != drover.RecoveryDone || r.Target != "h2" || r.Actor != "eve" || r.RunningAt.IsZero() || r.ToEpoch <= r.FromEpoch || r.Sources[0].Kind != drover.FromSnapshot {
		t.Errorf("recovery %+v", r)
	}
	w.checkOwner(n, id, "h2", true)
	w.eventually("the volume is complete there", func() bool {
		v, err := n.Volume(ctx, "shop", vol)
		return err == nil && v.Volume.Host == "h2" && v.Volume.State == drover.VolumeCreated && v.Volume.Epoch >= r.ToEpoch
	})

	w.powerOn(n, "h1")
	w.eventually("the fence has ended", func() bool {
		f, _, ok := n.state.fences.seen("h1")
		return ok && !f.ReturnedAt.IsZero()
	})
	w.checkOwner(n, id, "h2", true)
	w.checkOwner(n, lone.Machine.ID, "h1", true)
	if _, err = n.StartRecovery(ctx, StartRecovery{Host: "h1"}); !drover.Is(err, drover.Precondition) {
		t.Errorf("of a host that is back: %v", err)
	}
}

// begin asks for the recovery of a machine again and again, until the controller is dead or has ended it.
func (w *world) begin(n *node, id drover.MachineID) {
	w.t.Helper()
	w.eventually("the recovery has ended, or the controller is dead", func() bool {
		select {
		case <-n.dead:
			return true
		default:
		}
		go func() { _, _ = n.StartRecovery(w.t.Context(), StartRecovery{Machine: id, Actor: "test"}) }() // dies with its controller
		list, err := n.Recoveries(w.t.Context())
		return err == nil && len(list) > 0 && list[0].State.Ended()
	})
}

// checkRecovered makes sure that a machine and its volume are together somewhere, whole, and that nothing is left elsewhere.
func (w *world) checkRecovered(n *node, id drover.MachineID, vol drover.VolumeID) drover.HostID {
	w.t.Helper()
	w.eventually("every recovery ends", func() bool {
		list, err := n.Recoveries(w.t.Context())
		for _, r := range list {
			if !r.State.Ended() {
				return false
			}
		}
		return err == nil && len(list) > 0
	})
	p, err := n.state.placementOf(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.checkOwner(n, id, p.Host, true)
	w.eventually("the volume is where its machine is, and whole", func() bool {
		v, err := n.Volume(w.t.Context(), "shop", vol)
		return err == nil && v.Volume.Host == p.Host && v.Volume.State == drover.VolumeCreated
	})
	if p.Host == "h1" {
		w.checkLayers("h2")
	}
	return p.Host
}

// TestAControllerMayDieEverywhereInARecovery kills one controller after the other, each at the next point of one recovery.
func TestAControllerMayDieEverywhereInARecovery(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id, vol := w.victim(n)
	w.dead(n)
	w.confirmed(n)
	for _, point := range RecoveryFaultPoints() {
		n.kill()
		n = w.control("c1", killOnce(point))
		w.begin(n, id)
		select {
		case <-n.dead:
		default:
			t.Errorf("%s was not reached", point)
		}
	}
	n.kill()
	n = w.control("c1", nil)
	if at := w.checkRecovered(n, id, vol); at != "h2" {
		t.Errorf("the machine is on %s", at)
	}
}

// TestAHostMayComeBackAnywhereInARecovery: the controller dies at a point, and the host is back when the next one looks. Before the switch the
// machine is the host's, and nothing is left elsewhere; after it the machine is the other's.
func TestAHostMayComeBackAnywhereInARecovery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		point string
		owner drover.HostID
	}{{"fleet.recovery.record.after", "h1"}, {"fleet.recovery.made.after", "h1"}, {"fleet.recovery.switch.before", "h1"}, {"fleet.recovery.switch.after", "h2"}} {
		t.Run(c.point, func(t *testing.T) {
			t.Parallel()
			w, n := newWorld(t)
			id, vol := w.victim(n)
			w.dead(n)
			w.confirmed(n)
			n.kill()
			n = w.control("c1", killOnce(c.point))
			w.begin(n, id)
			n.kill()
			n = w.control("c1", nil)
			if err := n.await(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.powerOn(n, "h1")
			if at := w.checkRecovered(n, id, vol); at != c.owner {
				t.Errorf("the machine is on %s, want %s", at, c.owner)
			}
		})
	}
}

// Whoever begins the recovery of a machine at the same time, on whichever control host, begins one.
func TestTwoWhoRecoverAMachineAtOnceRecoverItOnce(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id, vol := w.victim(n)
	other := w.control("c2", nil)
	w.dead(n)
	w.confirmed(n)
	w.eventually("both control hosts know", func() bool {
		a, aerr := n.RecoveryPlan(t.Context(), "h1")
		b, berr := other.RecoveryPlan(t.Context(), "h1")
		return aerr == nil && berr == nil && a.Fence != nil && b.Fence != nil
	})
	var group sync.WaitGroup
	for _, f := range []*node{n, other, n, other} {
		group.Go(func() {
			if _, err := f.StartRecovery(t.Context(), StartRecovery{Machine: id, Actor: "test"}); err != nil && !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.NotFound) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if at := w.checkRecovered(n, id, vol); at != "h2" {
		t.Errorf("it is on %s", at)
	}
	if list, err := n.Recoveries(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestAnAppThatAgreedIsRecoveredByItself(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id, _ := w.victim(n)
	_, err := n.SetRecovery(t.Context(), "shop", "perhaps")
	wantError(t, err, drover.Invalid, "recovery", `recovery: "perhaps" is unknown: use ask or automatic`)
	if a, err := n.SetRecovery(t.Context(), "shop", drover.RecoverAutomatic); err != nil || a.Recovery != drover.RecoverAutomatic {
		t.Fatalf("%+v, %v", a, err)
	}
	w.dead(n)
	w.confirmed(n)
	w.eventually("it is recovered", func() bool {
		list, err := n.Recoveries(t.Context())
		return err == nil && len(list) == 1 && list[0].State == drover.RecoveryDone && list[0].Automatic
	})
	w.checkOwner(n, id, "h2", true)
}
