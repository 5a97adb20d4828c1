package fleet

import (
	"testing"
	"time"

	"drover"
)

// follows waits until a standby has a whole step beyond one.
func (w *world) follows(n *node, id drover.StandbyID, beyond int) (s drover.Standby) {
	w.t.Helper()
	w.eventually("standby "+string(id)+" has another whole step", func() bool {
		var err error
		s, err = n.Standby(w.t.Context(), "", id)
		return err == nil && s.Complete > beyond && s.State == drover.StandbyFollowing
	})
	return s
}

// noStandbys waits until nothing of any standby is left, on any host.
func (w *world) noStandbys(n *node) {
	w.t.Helper()
	w.eventually("no standby is left", func() bool {
		left := len(n.state.standbys.all())
		for _, h := range w.hosts {
			h.set(func() {
				left += len(h.standbys)
				for id := range h.frozen {
					if _, there := h.layers[id]; there {
						left++
					}
				}
			})
		}
		return left == 0
	})
}

// onlyStandby waits until a volume has one standby, on a host that serves.
func (w *world) onlyStandby(n *node, vol drover.VolumeID, serves func(drover.HostID) bool) (s drover.Standby) {
	w.t.Helper()
	w.eventually("the volume has one whole standby where it should", func() bool {
		list, err := n.Standbys(w.t.Context(), "shop", vol)
		if err != nil || len(list) != 1 || list[0].Complete == 0 || !serves(list[0].Host) {
			return false
		}
		s = list[0]
		return true
	})
	return s
}

func TestAStandbyFollowsItsVolumeAndTakesItsPlace(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	id, vol := w.victim(n)
	for _, c := range []struct {
		req   CreateStandby
		code  drover.Code
		field string
	}{
		{CreateStandby{Every: 1}, drover.Invalid, "every"},
		{CreateStandby{Host: "h1"}, drover.Invalid, "host"},
		{CreateStandby{Host: "h9"}, drover.NotFound, "host"},
		{CreateStandby{Region: "nowhere"}, drover.Invalid, "region"},
		{CreateStandby{Volume: "vol_0"}, drover.NotFound, ""},
	} {
		if c.req.App = "shop"; c.req.Volume == "" {
			c.req.Volume = vol
		}
		_, err := n.CreateStandby(ctx, c.req)
		wantError(t, err, c.code, c.field, "")
	}
	s, err := n.CreateStandby(ctx, CreateStandby{App: "shop", Volume: vol, Host: "h2", Every: drover.Duration(time.Second)})
	if err != nil || s.Host != "h2" || s.LagSeconds != -1 {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = n.CreateStandby(ctx, CreateStandby{App: "shop", Volume: vol, Host: "h2"})
	wantError(t, err, drover.Exists, "host", "")
	s = w.follows(n, s.ID, 1)
	if s.LagSeconds < 0 || s.CompleteFrom != "h1" {
		t.Errorf("%+v", s)
	}

	// It follows the volume to another host.
	m, err := n.MoveMachine(ctx, Move{Machine: id, Target: "h3"})
	if err != nil {
		t.Fatal(err)
	}
	w.ended(n, m.ID)
	w.eventually("steps come from h3", func() bool {
		s, err = n.Standby(ctx, "", s.ID)
		return err == nil && s.CompleteFrom == "h3"
	})
	w.eventually("h1 has nothing of it", func() (none bool) {
		w.hosts["h1"].set(func() { none = len(w.hosts["h1"].layers) == 0 })
		return none
	})
	if m, err = n.MoveMachine(ctx, Move{Machine: id, Target: "h1"}); err != nil {
		t.Fatal(err)
	}
	w.ended(n, m.ID)
	w.eventually("steps come from h1", func() bool {
		s, err = n.Standby(ctx, "", s.ID)
		return err == nil && s.CompleteFrom == "h1"
	})

	// Its volume's host dies.
	w.dead(n)
	w.confirmed(n)
	plan, err := n.RecoveryPlan(ctx, "h1")
	if err != nil || len(plan.Machines) != 1 || plan.Machines[0].Sources[0].Kind != drover.FromStandby {
		t.Fatalf("%+v, %v", plan, err)
	}
	started, err := n.StartRecovery(ctx, StartRecovery{Host: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	if r := w.recovered(n, started.Recoveries[0].ID); r.Target != "h2" || r.State != drover.RecoveryDone || r.Sources[0].Standby != s.ID {
		t.Errorf("%+v", r)
	}
	w.checkOwner(n, id, "h2", true)
	// Where the volume is now there can be no standby of it: another is made, then this one goes.
	w.eventually("h3 has a whole one", func() bool {
		list, err := n.Standbys(ctx, "shop", vol)
		return err == nil && len(list) == 2 && list[1].Host == "h3" && list[1].Complete > 0 && list[0].State == drover.StandbyDeleting
	})
	w.powerOn(n, "h1") // which has still to give up what it froze
	next := w.onlyStandby(n, vol, func(h drover.HostID) bool { return h == "h3" })
	w.follows(n, next.ID, next.Complete)
	if _, err := n.DeleteStandby(ctx, "shop", next.ID); err != nil {
		t.Fatal(err)
	}
	w.noStandbys(n)
}

// TestAControllerMayDieAnywhereInTheLifeOfAStandby kills one controller after the other, while a standby is made, follows, goes to another host
// because its volume comes to its own, and goes with its volume.
func TestAControllerMayDieAnywhereInTheLifeOfAStandby(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	id, vol := w.victim(n)
	if _, err := n.CreateStandby(ctx, CreateStandby{App: "shop", Volume: vol, Host: "h2", Every: drover.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	dies := func(points ...string) {
		t.Helper()
		for _, point := range points {
			n.kill()
			n = w.control("c1", killOnce(point))
			w.eventually("it dies at "+point, func() bool {
				select {
				case <-n.dead:
					return true
				default:
					return false
				}
			})
		}
		n.kill()
		n = w.control("c1", nil)
		if err := n.await(ctx); err != nil {
			t.Fatal(err)
		}
	}
	dies("fleet.standby.step.after", "fleet.standby.frozen.after", "fleet.standby.copied.after", "fleet.standby.released.after")
	w.eventually("the hosts are heard", func() bool { return n.reachable("h1") && n.reachable("h2") && n.reachable("h3") })
	m, err := n.MoveMachine(ctx, Move{Machine: id, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	w.ended(n, m.ID)
	dies("fleet.standby.replaced.after", "fleet.standby.dropped.after")
	s := w.onlyStandby(n, vol, func(h drover.HostID) bool { return h != "h2" })
	w.follows(n, s.ID, s.Complete)
	w.eventually("the hosts are heard", func() bool { return n.reachable("h1") && n.reachable("h2") && n.reachable("h3") })
	if err := n.DestroyMachine(ctx, "shop", id, true); err != nil {
		t.Fatal(err)
	}
	w.eventually("the volume is destroyed", func() bool {
		_, err := n.DestroyVolume(ctx, "shop", vol)
		return err == nil || drover.Is(err, drover.NotFound)
	})
	w.noStandbys(n)
}
