package fleet

import (
	"sync/atomic"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

// destroyApp destroys an app for good and waits until it is gone.
func (w *world) destroyApp(n *node, name drover.AppName) {
	w.t.Helper()
	if _, _, err := n.DestroyApp(w.t.Context(), DestroyApp{App: name, Now: true}); err != nil {
		w.t.Fatal(err)
	}
	w.gone(n, name)
}

func (w *world) gone(n *node, name drover.AppName) {
	w.t.Helper()
	w.eventually("app "+string(name)+" is gone", func() bool {
		_, err := n.AnyApp(w.t.Context(), name)
		return drover.Is(err, drover.NotFound)
	})
}

// keepingWorld is a world whose control hosts keep for a day what is destroyed, and have a clock that can be set ahead.
func keepingWorld(t *testing.T) (w *world, n *node, ahead *atomic.Int64) {
	t.Helper()
	w, n = newWorld(t)
	n.kill()
	ahead = &atomic.Int64{}
	w.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.KeepVolumes = 24 * time.Hour }
	n = w.control("c1", nil)
	w.eventually("hosts are heard of", func() bool { return n.reachable("h1") && n.reachable("h2") && n.reachable("h3") })
	return w, n, ahead
}

// stateOf is the state of a machine as its host tells, whatever became of the app.
func (n *node) stateOf(id drover.MachineID) drover.MachineState {
	status, _, _ := n.state.status.seen(string(id))
	return status.State
}

func TestADestroyedAppComesBackAsItWas(t *testing.T) {
	t.Parallel()
	w, n, _ := keepingWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	runs := w.machine(n, CreateMachine{Name: "runs", Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.ID, Path: "/data"}}}}).Machine
	rests := w.machine(n, CreateMachine{Name: "rests", SkipLaunch: true}).Machine
	w.setSecrets(n, "A", "one")

	app, gone, err := n.DestroyApp(ctx, DestroyApp{App: "shop", Actor: "ann"})
	if err != nil || gone || app.Destroyed.By != "ann" || app.Destroyed.WipeAt.Sub(app.Destroyed.At) != 24*time.Hour {
		t.Fatalf("%+v, %v, %v", app.Destroyed, gone, err)
	}
	at := app.Destroyed.WipeAt
	w.eventually("what ran is stopped", func() bool { return n.stateOf(runs.ID) == drover.StateStopped })
	if app, gone, err = n.DestroyApp(ctx, DestroyApp{App: "shop", Actor: "ben"}); err != nil || gone || !app.Destroyed.WipeAt.Equal(at) || app.Destroyed.By != "ann" {
		t.Errorf("destroyed again: %+v, %v, %v", app.Destroyed, gone, err)
	}
	if apps, err := n.Apps(ctx); err != nil || len(apps) != 0 {
		t.Errorf("apps are %+v, %v", apps, err)
	}
	if apps, err := n.DestroyedApps(ctx); err != nil || len(apps) != 1 || apps[0].Name != "shop" {
		t.Errorf("destroyed apps are %+v, %v", apps, err)
	}
	_, err = n.CreateApp(ctx, drover.App{Name: "shop"})
	wantError(t, err, drover.Exists, "app_name", "")
	for name, ask := range map[string]func() error{
		"app":   func() error { _, err := n.App(ctx, "shop"); return err },
		"label": func() error { _, err := n.SetAppLabel(ctx, "shop", "a", "b"); return err },
		"create": func() error {
			_, err := n.CreateMachine(ctx, CreateMachine{App: "shop", Config: runs.Config})
			return err
		},
		"start": func() error { _, err := n.StartMachine(ctx, "shop", runs.ID); return err },
		"volume": func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "x", Size: drover.GiB})
			return err
		},
		"release": func() error { _, err := n.CreateRelease(ctx, CreateRelease{App: "shop"}); return err },
		"secrets": func() error { _, err := n.ChangeSecrets(ctx, "shop", secretChanges("B", "x")); return err },
	} {
		if err := ask(); !drover.Is(err, drover.NotFound) {
			t.Errorf("%s in an app that is destroyed: %v", name, err)
		}
	}

	if app, err = n.UndeleteApp(ctx, "shop"); err != nil || app.Destroyed != nil {
		t.Fatalf("%+v, %v", app, err)
	}
	v, err := n.WaitMachine(ctx, "shop", runs.ID, drover.StateStarted, "")
	if err != nil || v.Machine.Run != runs.Run+1 || v.Machine.Address != runs.Address || v.Machine.GoalBefore != "" {
		t.Errorf("what ran: %+v, %v", v, err)
	}
	if v, err = n.Machine(ctx, "shop", rests.ID); err != nil || v.Machine.Run != rests.Run || v.Status.State != drover.StateStopped {
		t.Errorf("what did not run: %+v, %v", v, err)
	}
	if got, err := n.Volume(ctx, "shop", vol.ID); err != nil || got.Volume.Machine != runs.ID || got.Volume.State != drover.VolumeCreated {
		t.Errorf("%+v, %v", got, err)
	}
	if values, err := n.SecretValues(ctx, "shop"); err != nil || values.Values["A"].Reveal() != "one" {
		t.Errorf("secrets: %v", err)
	}
	_, err = n.UndeleteApp(ctx, "shop")
	wantError(t, err, drover.Precondition, "", "")
	w.destroyApp(n, "shop")
	w.checkEmpty(n)
}

// TestTheEndOfAnAppMayBeCutAnywhere kills the control host at every step of it; the next one goes on.
func TestTheEndOfAnAppMayBeCutAnywhere(t *testing.T) {
	t.Parallel()
	w, n, ahead := keepingWorld(t)
	for _, c := range []struct {
		point string
		comes func() // what makes the control host come to the point
	}{
		{"fleet.app.destroyed.after", func() {}}, {"fleet.app.settled.after", func() {}},
		{"fleet.app.wiping.after", func() { ahead.Add(int64(25 * time.Hour)) }}, {"fleet.app.machines.after", func() { ahead.Add(int64(25 * time.Hour)) }},
		{"fleet.app.emptied.after", func() { ahead.Add(int64(25 * time.Hour)) }},
	} {
		vol := w.volume(n, "h1").Volume
		id := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.ID, Path: "/data"}}}}).Machine.ID
		w.setSecrets(n, "A", "one")
		n.kill()
		n = w.control("c1", killOnce(c.point))
		w.eventually("h1 is heard of", func() bool { return n.reachable("h1") })
		asked := make(chan struct{})
		go func(n *node) { // it may die with the control host
			defer close(asked)
			_, _, _ = n.DestroyApp(t.Context(), DestroyApp{App: "shop"})
		}(n)
		<-asked
		c.comes()
		<-n.dead
		n.kill()
		n = w.control("c1", nil)
		w.eventually("h1 is heard of", func() bool { return n.reachable("h1") })
		if app, err := n.AnyApp(t.Context(), "shop"); err == nil && !app.Destroyed.Wiping && w.clock().Before(app.Destroyed.WipeAt) {
			w.eventually("its machine is stopped", func() bool { return n.stateOf(id) == drover.StateStopped })
			if _, err := n.UndeleteApp(t.Context(), "shop"); err != nil {
				t.Fatalf("%s: %v", c.point, err)
			}
			if _, err := n.WaitMachine(t.Context(), "shop", id, drover.StateStarted, ""); err != nil {
				t.Fatalf("%s: %v", c.point, err)
			}
			if _, _, err := n.DestroyApp(t.Context(), DestroyApp{App: "shop", Now: true}); err != nil {
				t.Fatalf("%s: %v", c.point, err)
			}
		}
		w.gone(n, "shop")
		if _, err := n.CreateApp(t.Context(), drover.App{Name: "shop"}); err != nil {
			t.Fatalf("%s: %v", c.point, err)
		}
		w.checkEmpty(n)
	}
}

func TestAnAppWithoutVolumesGoesAtOnce(t *testing.T) {
	t.Parallel()
	w, n, _ := keepingWorld(t)
	w.machine(n, CreateMachine{})
	if _, gone, err := n.DestroyApp(t.Context(), DestroyApp{App: "shop"}); err != nil || !gone {
		t.Fatalf("gone is %v, %v", gone, err)
	}
	if _, err := n.CreateApp(t.Context(), drover.App{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if list, err := n.Machines(t.Context(), "shop"); err != nil || len(list) != 0 {
		t.Errorf("the next app of the name has %+v, %v", list, err)
	}
	w.checkEmpty(n)
}

func TestTheEndOfAnAppWaitsForASilentHostAndForAMove(t *testing.T) {
	t.Parallel()
	w, n, ahead := keepingWorld(t)
	vol := w.volume(n, "h1").Volume
	moves := w.machine(n, CreateMachine{Host: "h2"}).Machine.ID
	silent := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.ID, Path: "/data"}}}}).Machine.ID
	m := w.onTheWay(n, moves, "h3")
	if _, gone, err := n.DestroyApp(t.Context(), DestroyApp{App: "shop"}); err != nil || gone {
		t.Fatalf("gone is %v, %v", gone, err)
	}
	w.arrives(m)
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		t.Errorf("the move: %s, %v", m.Outcome, m.Problem)
	}
	for _, id := range []drover.MachineID{moves, silent} {
		w.eventually("machines are stopped", func() bool { return n.stateOf(id) == drover.StateStopped })
	}
	w.hosts["h1"].halt()
	w.eventually("h1 is silent", func() bool { return !n.reachable("h1") })
	ahead.Add(int64(25 * time.Hour))
	w.eventually("it is being wiped", func() bool {
		app, err := n.AnyApp(t.Context(), "shop")
		return err == nil && app.Destroyed.Wiping
	})
	_, err := n.UndeleteApp(t.Context(), "shop")
	wantError(t, err, drover.Precondition, "", "")
	w.eventually("what is on other hosts is gone", func() bool {
		_, placed := n.state.placements.snapshot()[string(moves)]
		return !placed
	})
	if app, err := n.AnyApp(t.Context(), "shop"); err != nil || !app.Destroyed.Wiping {
		t.Errorf("with a silent host: %+v, %v", app, err)
	}
	w.hosts["h1"].start()
	w.gone(n, "shop")
	w.checkEmpty(n)
}
