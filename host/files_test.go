package host

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"drover"
	"drover/guest"
)

func TestReportsAreReadFromTheGuestsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	var f realFiles
	if got, next, err := f.Reports(t.Context(), path, 0); err != nil || next != 0 || len(got) != 0 {
		t.Fatalf("a file that is not there: %v %d %v", got, next, err)
	}
	var data []byte
	for _, ev := range []guest.StatusEvent{{T: 5, Run: "r", Event: guest.EventStarted}, {T: 9, Run: "r", Event: guest.EventExited, Code: 3, OOM: true},
		{Event: guest.EventFailed, Stage: "mount", Error: "no disk"}, {Run: "r", Event: guest.EventChecking, Stage: "check it"}} {
		line, err := json.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		data = append(append(data, line...), '\n')
	}
	half := append(slices.Clone(data), `{"t":1,"ev`...)
	if err := os.WriteFile(path, half, 0o600); err != nil {
		t.Fatal(err)
	}
	got, next, err := f.Reports(t.Context(), path, 0)
	if err != nil || next != int64(len(data)) || len(got) != 4 || got[3].Kind != reportChecking || got[3].Text != "check it" {
		t.Fatalf("%+v %d %v", got, next, err)
	}
	if got[0].Kind != reportStarted || got[0].Run != "r" {
		t.Errorf("%+v", got[0])
	}
	// The host's clock tells when the last report came, the guest's how long before that the others did.
	if st, err := os.Stat(path); err != nil || !got[1].At.Equal(st.ModTime()) || got[1].At.Sub(got[0].At) != 4 {
		t.Errorf("reported at %s and %s, the file was written at %s (%v)", got[0].At, got[1].At, st.ModTime(), err)
	}
	if got[1].Kind != reportExited || got[1].Code != 3 || !got[1].OOM {
		t.Errorf("%+v", got[1])
	}
	if got[2].Kind != reportFailed || got[2].Text != "mount: no disk" {
		t.Errorf("%+v", got[2])
	}
	if got, again, err := f.Reports(t.Context(), path, next); err != nil || again != next || len(got) != 0 {
		t.Errorf("read twice: %+v %d %v", got, again, err)
	}
}

func TestGuestConfig(t *testing.T) {
	image := drover.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"a"}, Env: []string{"PATH=/bin", "A=1"}, WorkDir: "/w", User: "u"}
	root := diskRecord{Image: &drover.ImageLayer{Run: image}}
	for _, c := range []struct {
		name string
		init drover.Init
		argv []string
		user string
	}{
		{"the image's", drover.Init{}, []string{"/entry", "a"}, "u"},
		{"own cmd", drover.Init{Cmd: []string{"b"}}, []string{"/entry", "b"}, "u"},
		{"own entrypoint", drover.Init{Entrypoint: []string{"/e"}}, []string{"/e"}, "u"},
		{"both", drover.Init{Entrypoint: []string{"/e"}, Cmd: []string{"b"}, User: "v"}, []string{"/e", "b"}, "v"},
		{"exec", drover.Init{Exec: []string{"/x", "y"}, Cmd: []string{"b"}}, []string{"/x", "y"}, "u"},
	} {
		m := machineSpec("m1")
		m.Config.Init, m.Config.Env = c.init, map[string]string{"A": "2"}
		cfg, err := guestConfig(guestInput{apply: drover.ApplyRequest{Machine: m}, root: root, volumes: []diskRecord{{Used: true}}, userNet: true, boot: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(cfg.Argv, c.argv) || cfg.User != c.user {
			t.Errorf("%s: argv %q, user %q", c.name, cfg.Argv, cfg.User)
		}
		if !slices.Contains(cfg.Env, "A=2") || cfg.WorkDir != "/w" || !cfg.Network.User || cfg.Volumes[0].MkFS || cfg.Volumes[0].Path != "/data" {
			t.Errorf("%s: %+v", c.name, cfg)
		}
	}
}

func TestFaultPointsAreAllNamed(t *testing.T) {
	listed := FaultPoints()
	if !slices.IsSorted(listed) || len(slices.Compact(slices.Clone(listed))) != len(listed) {
		t.Error("the list is not sorted, or names a point twice")
	}
	hit := map[string]int{}
	collect := func(w *world) {
		for _, h := range w.host {
			h.sess.mu.Lock()
			for p := range h.sess.hits {
				hit[p]++
			}
			h.sess.mu.Unlock()
		}
	}
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.host["a"], w.host["b"]
		a.up(0)
		b.up(0)
		req := a.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
		mv := newMover(w, a, b, req)
		mv.toSwitch()
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
		w.awaitState("m1", drover.StateStarted)
		mv = newMover(w, a, b, req)
		mv.rounds = 1
		if _, err := mv.run(); err != nil {
			t.Fatal(err)
		}
		req.Epoch = mv.epoch
		for range 2 { // back, and forth again
			mv = undoer(w, mv, req)
			if moved, err := mv.run(); err != nil || !moved {
				t.Fatal(moved, err)
			}
			req.Epoch = mv.epoch
		}
		pass(2 * testGrace)
		everyVolumeOrder(b, testVolume.ID)
		f := newForker(b, a)
		export := insist[drover.Export](b, drover.OrderVolumeFork, f.req)
		state := func(to drover.LayerState) {
			w.mu.Lock()
			defer w.mu.Unlock()
			b.layers[export.Layer].status.State = to
		}
		state(drover.LayerReady) // so that there is something to slow down
		insist[drover.LayerStatus](a, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: f.volume, Parent: &export})
		insist[drover.LayerStatus](a, drover.OrderVolumeHydration, drover.HydrationRequest{Volume: testFork})
		state(drover.LayerFrozen)
		pass(3 * fillEvery)
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		b.apply(&req, func(m *drover.Machine) { m.Run++; m.Image.Digest = "sha256:bb" })
		w.await("m1", "updated", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == 2 })
		b.apply(&req, func(m *drover.Machine) { m.Goal = drover.GoalDestroyed })
		w.awaitState("m1", drover.StateDestroyed)
		insist[drover.Empty](b, drover.OrderVolumeDestroy, drover.VolumeRequest{Volume: testVolume})
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		everyRecoveryOrder(w)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		everyStandbyOrder(w)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		w.secrets = testSecrets(1, "once")
		everyPartOfALiveMove(t, w)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		m := machineSpec("m1")
		m.Goal, m.Run = drover.GoalStopped, 0
		w.host["h1"].up(0)
		w.host["h1"].create(m)
		w.awaitState("m1", drover.StateStopped)
		collect(w)
	})
	bubble(t, func(t *testing.T, w *world) {
		everySuspension(t, w)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		everyPartOfATurn(w)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		pingPong(w, 3)
		pass(2 * sweepEvery)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		there := halfMoved(w, 0)
		w.undoneWithout(there)
		there.dst.up(0)
		pass(time.Minute)
		collect(w)
	}, "a", "b")
	bubble(t, func(t *testing.T, w *world) {
		there := halfMoved(w, 0)
		there.src.down()
		there.writtenOff()
		collect(w)
	}, "a", "b")
	for _, p := range listed {
		if hit[p] == 0 {
			t.Errorf("%s is listed and never hit", p)
		}
		delete(hit, p)
	}
	for p := range hit {
		t.Errorf("%s is hit and not listed", p)
	}
}
