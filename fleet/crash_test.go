package fleet

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover"
)

// killOnce returns a fault that strikes once, at the point.
func killOnce(point string) func(string) bool {
	var struck atomic.Bool
	return func(p string) bool { return p == point && struck.CompareAndSwap(false, true) }
}

// TestAControllerMayDieAnywhereInAMove kills the controller at every fault point, starts another, and looks at the end.
func TestAControllerMayDieAnywhereInAMove(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	v := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}})
	id := v.Machine.ID
	at, other := drover.HostID("h1"), drover.HostID("h2")
	for _, point := range FaultPoints() {
		n.kill()
		n = w.control("c1", killOnce(point))
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: other})
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		<-n.dead
		n.kill()
		n = w.control("c1", nil)
		m = w.ended(n, m.ID)
		if m.Outcome != drover.Succeeded {
			t.Fatalf("%s: %s, %v", point, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, other, true)
		if got, err := n.Volume(t.Context(), "shop", vol.Volume.ID); err != nil || got.Volume.Host != other || got.Volume.State != drover.VolumeCreated {
			t.Fatalf("%s: volume is %+v, %v", point, got, err)
		}
		tries := 0
		for _, s := range m.Steps {
			tries += s.Tries
		}
		if point != "fleet.move.done.after" && tries <= len(m.Steps) {
			t.Errorf("%s: the record shows no second try: %+v", point, m.Steps)
		}
		at, other = other, at
	}
	if err := n.DestroyMachine(t.Context(), "shop", id, true); err != nil {
		t.Fatal(err)
	}
	if _, err := n.DestroyVolume(t.Context(), "shop", vol.Volume.ID); err != nil {
		t.Fatal(err)
	}
	w.checkEmpty(n)
}

// TestAControllerMayDieAnywhereInAnAbort does the same with a move that a user gives up, in every phase before the switch.
func TestAControllerMayDieAnywhereInAnAbort(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	points := append(AbortFaultPoints(), "fleet.move.done.before")
	for i, order := range []drover.Order{drover.OrderMoveReserve, drover.OrderMoveClone, drover.OrderMoveQuiesce, drover.OrderMoveFreeze} {
		point := points[i%len(points)]
		n.kill()
		n = w.control("c1", killOnce(point))
		w.hosts["h1"].failing(drover.Unavailable, true, order)
		w.hosts["h2"].failing(drover.Unavailable, true, order)
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
		if err != nil {
			t.Fatal(err)
		}
		w.eventually("the record says what it waits for", func() bool {
			m, err = n.Migration(t.Context(), m.ID)
			return err == nil && m.Problem != nil
		})
		if _, err = n.AbortMigration(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
		<-n.dead
		n.kill()
		w.hosts["h1"].failing("", false)
		w.hosts["h2"].failing("", false)
		n = w.control("c1", nil)
		m = w.ended(n, m.ID)
		if m.Outcome != drover.Aborted || m.Problem == nil || m.Problem.Code != drover.Canceled {
			t.Fatalf("%s at %s: %s, %v", point, order, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, "h1", true)
		w.checkLayers("h2")
	}
}

// checkLayers makes sure that a host has no layer, in the end.
func (w *world) checkLayers(host drover.HostID) {
	w.t.Helper()
	h := w.hosts[host]
	w.eventually("no layer is left on "+string(host), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.layers) == 0
	})
}

// TestAMakerMayDieAnywhere kills the control host while it makes a machine, and looks for leftovers.
func TestAMakerMayDieAnywhere(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	mounts := []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}
	for _, point := range []string{"fleet.make.name.after", "fleet.make.volumes.after", "fleet.make.number.after", "fleet.make.placement.after", "fleet.make.lease.after",
		"fleet.make.record.before", "fleet.make.record.after"} {
		n.kill()
		n = w.control("c1", killOnce(point))
		go func() {
			_, err := n.CreateMachine(t.Context(), CreateMachine{App: "shop", Name: "web", LeaseTTL: time.Hour, Config: drover.MachineConfig{Image: "busybox", Mounts: mounts}})
			t.Errorf("%s: the maker lived on: %v", point, err)
		}()
		<-n.dead
		n.kill()
		n = w.control("c1", nil)
		if point == "fleet.make.record.after" {
			// The record was there: the machine exists, and is made whole.
			w.eventually("the machine runs", func() bool {
				list, err := n.Machines(t.Context(), "shop")
				return err == nil && len(list) == 1 && w.hosts["h1"].running(list[0].Machine.ID)
			})
			continue
		}
		w.eventually(point+": the claims are gone", func() bool {
			got, err := n.Volume(t.Context(), "shop", vol.Volume.ID)
			n.state.mu.RLock()
			defer n.state.mu.RUnlock()
			return err == nil && got.Volume.Machine == "" && len(n.state.claims.items) == 0 && len(n.state.placements.items) == 0 && len(n.state.machineLeases.items) == 0
		})
		if list, err := n.Machines(t.Context(), "shop"); err != nil || len(list) != 0 {
			t.Fatalf("%s: %+v, %v", point, list, err)
		}
	}
}

// TestAMoveThatWasClaimedButNeverBegunIsSwept kills the control host between the claim and the record.
func TestAMoveThatWasClaimedButNeverBegunIsSwept(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	n.kill()
	n = w.control("c1", killOnce("fleet.begin.claim.after"))
	go func() {
		_, err := n.MoveMachine(t.Context(), Move{Machine: id})
		t.Errorf("the maker lived on: %v", err)
	}()
	<-n.dead
	n.kill()
	n = w.control("c1", nil)
	var m drover.Migration
	w.eventually("the machine can be moved", func() (ok bool) {
		var err error
		m, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
		return err == nil
	})
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	if list, err := n.Migrations(t.Context()); err != nil || len(list) != 1 {
		t.Fatalf("migrations %+v, %v", list, err)
	}
}

// TestThePowerOfTheControlHostGoesOut takes bus and controller away together, in the middle of a move.
func TestThePowerOfTheControlHostGoesOut(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	to := []drover.HostID{"h2", "h1"}
	for i, point := range []string{"fleet.move.freeze.after", "fleet.move.switch.before", "fleet.move.switch.after", "fleet.move.start.after"} {
		n.kill()
		n = w.control("c1", killOnce(point))
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: to[i%2]})
		if err != nil {
			t.Fatal(err)
		}
		<-n.dead
		n.kill()
		w.server.Shutdown()
		w.startBus()
		n = w.control("c1", nil)
		if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
			t.Fatalf("%s: %s, %v", point, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, to[i%2], true)
	}
}

// TestTheBusMayRestartUnderARunningFleet restarts the bus alone.
func TestTheBusMayRestartUnderARunningFleet(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	w.hosts["h2"].set(func() { w.hosts["h2"].polls = 1 << 30 })
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("it hydrates", func() bool {
		m, err = n.Migration(t.Context(), m.ID)
		return err == nil && m.Phase == drover.PhaseHydrate
	})
	w.server.Shutdown()
	_, err = n.CreateApp(t.Context(), drover.App{Name: "late"})
	wantError(t, err, drover.Unavailable, "", "")
	w.startBus()
	w.hosts["h2"].set(func() { w.hosts["h2"].moves[m.ID].left = 1 })
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	w.checkOwner(n, id, "h2", true)
	w.eventually("machines can be made again", func() bool {
		_, err := n.CreateMachine(t.Context(), CreateMachine{App: "shop", Name: "late", Config: drover.MachineConfig{Image: "busybox"}})
		return err == nil || drover.Is(err, drover.Exists)
	})
}

// TestTwoControllersAtOnceSwitchOnce lets two control hosts drive the same migrations, as if the lease did not exist.
func TestTwoControllersAtOnceSwitchOnce(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	second := w.control("c2", nil)
	if err := second.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); second.control(ctx) }()
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	at := drover.HostID("h1")
	for _, to := range []drover.HostID{"h2", "h3", "h1", "h2"} {
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: to})
		if err != nil {
			t.Fatal(err)
		}
		m = w.ended(n, m.ID)
		if m.Outcome != drover.Succeeded || m.Source != at {
			t.Fatalf("%s from %s: %v", m.Outcome, m.Source, m.Problem)
		}
		w.checkOwner(n, id, to, true)
		p, err := n.state.placementOf(t.Context(), id)
		if err != nil || p.Epoch != m.ToEpoch || p.Migration != m.ID {
			t.Fatalf("placement %+v, %v; the record says epoch %d", p, err, m.ToEpoch)
		}
		at = to
	}
	cancel()
	<-ended
}

// TestTheLeaseGoesToAnotherWhenItsHolderDies starts a second control host, and kills the first in the middle of a move.
func TestTheLeaseGoesToAnotherWhenItsHolderDies(t *testing.T) {
	t.Parallel()
	w, first := newWorld(t)
	id := w.machine(first, CreateMachine{Host: "h1"}).Machine.ID
	first.kill()
	first = w.control("c1", killOnce("fleet.move.switch.after"))
	second := w.control("c2", func(p string) bool {
		if strings.HasPrefix(p, "fleet.move.") && !first.isDead() {
			t.Errorf("c2 is at %s while c1 has the lease", p)
		}
		return false
	})
	if err := second.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("c1 has the lease", func() bool {
		l, _, err := second.state.leases.get(t.Context(), leaseKey)
		return err == nil && l.Holder == "c1"
	})
	m, err := second.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	<-first.dead
	if m = w.ended(second, m.ID); m.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	w.checkOwner(second, id, "h2", true)
}

func (n *node) isDead() bool {
	select {
	case <-n.dead:
		return true
	default:
		return false
	}
}

// TestFaultPointsAreAllReached makes sure that no point in the list is a name only, and none is missing in it.
func TestFaultPointsAreAllReached(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	n.kill()
	reached := make(chan string, 1000)
	n = w.control("c1", func(p string) bool { reached <- p; return false })
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	want := FaultPoints()
	var got []string
	for !slices.Contains(got, "fleet.move.done.after") { // the record says that it has ended a moment before
		select {
		case p := <-reached:
			if strings.HasPrefix(p, "fleet.move.") && !slices.Contains(got, p) {
				got = append(got, p)
			}
		case <-time.After(eventuallyBound):
			t.Fatalf("migration %s is not done; reached %v", m.ID, got)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("reached %v\nwant %v", got, want)
	}
	want = append(want, LateFaultPoints()...)
	for _, p := range drover.Phases {
		if p == drover.PhaseConverge {
			p = "round"
		}
		if !slices.Contains(want, "fleet.move."+string(p)+".before") || !slices.Contains(want, "fleet.move."+string(p)+".after") {
			t.Errorf("phase %s has no fault points", p)
		}
	}
}
