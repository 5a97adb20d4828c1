package fleet

import (
	"testing"

	"drover"
)

func TestAMachineFromCreationToItsEnd(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h2")
	v := w.machine(n, CreateMachine{Name: "web", Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}})
	id := v.Machine.ID
	if v.Placement.Host != "h2" || v.Machine.Address != "fdaa:0:1:0:1::2" || v.Machine.Region != "ams" || v.HostStatus != drover.HostOK {
		t.Fatalf("machine is %+v", v)
	}
	if name := v.Machine.Config.Mounts[0].Name; name != vol.Volume.Name || name == "" {
		t.Errorf("the mount is called %q, its volume %q", name, vol.Volume.Name)
	}
	got, err := n.Volume(ctx, "shop", vol.Volume.ID)
	if err != nil || got.Volume.Machine != id {
		t.Fatalf("volume is %+v, %v", got, err)
	}
	_, err = n.DestroyVolume(ctx, "shop", vol.Volume.ID)
	wantError(t, err, drover.Precondition, "", "")

	if _, err = n.StopMachine(ctx, "shop", id, drover.StopConfig{}); err != nil {
		t.Fatal(err)
	}
	if _, err = n.WaitMachine(ctx, "shop", id, drover.StateStopped, ""); err != nil {
		t.Fatal(err)
	}
	v, err = n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, CurrentVersion: v.Machine.Instance, Cordon: true,
		Config: drover.MachineConfig{Image: "busybox:2", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/other"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if v, err = n.WaitMachine(ctx, "shop", id, drover.StateStarted, v.Machine.Instance); err != nil || v.Machine.Run != 2 || !v.Machine.Cordoned || v.Serves() {
		t.Fatalf("%+v, %v", v, err)
	}
	if res, err := n.ExecMachine(ctx, "shop", drover.ExecRequest{Machine: id, Command: []string{"hostname"}}); err != nil || string(res.Stdout) != "hello from h2" {
		t.Fatalf("%+v, %v", res, err)
	}
	wantError(t, n.DestroyMachine(ctx, "shop", id, false), drover.Precondition, "", "")
	if err := n.DestroyMachine(ctx, "shop", id, true); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WaitMachine(ctx, "shop", id, drover.StateDestroyed, ""); err != nil {
		t.Fatal(err)
	}
	if list, err := n.Machines(ctx, "shop"); err != nil || len(list) != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	w.eventually("what is left of it is cleared away, and how it ended can be read", func() bool {
		v, err := n.Machine(ctx, "shop", id)
		return err == nil && v.Placement.Host == "" && v.Status.State == drover.StateDestroyed && v.Status.Host == "h2" && v.Status.Run == 2
	})
	if err := n.DestroyMachine(ctx, "shop", id, true); err != nil {
		t.Fatalf("destroying once more: %v", err)
	}
	got, err = n.Volume(ctx, "shop", vol.Volume.ID)
	if err != nil || got.Volume.Machine != "" || got.Volume.Host != "h2" || got.Volume.Epoch != v.Placement.Epoch {
		t.Fatalf("volume is %+v, %v", got, err)
	}
	again := w.machine(n, CreateMachine{Name: "web", SkipLaunch: true, Cordoned: true})
	if !again.Machine.Cordoned {
		t.Errorf("it was to be made cordoned: %+v", again.Machine)
	}
	if again.Machine.Address != "fdaa:0:1:0:2::2" {
		t.Fatalf("an address was given twice, or skipped: %s", again.Machine.Address)
	}
	if err := n.DestroyMachine(ctx, "shop", again.Machine.ID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WaitMachine(ctx, "shop", again.Machine.ID, drover.StateDestroyed, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := n.DestroyVolume(ctx, "shop", vol.Volume.ID); err != nil {
		t.Fatal(err)
	}
	w.destroyApp(n, "shop")
	_, err = n.App(ctx, "shop")
	wantError(t, err, drover.NotFound, "", "")
	w.checkEmpty(n)
}

// checkEmpty makes sure that nothing is left anywhere.
func (w *world) checkEmpty(n *node) {
	w.t.Helper()
	w.eventually("every key is destroyed", func() bool {
		ring, err := n.Keyring(w.t.Context())
		return err == nil && len(ring.Keys) == 0
	})
	w.eventually("every claim is given up", func() bool { return len(n.state.claims.all()) == 0 })           // a removed snapshot's comes after it
	w.eventually("every volume's record is removed", func() bool { return len(n.state.volumes.all()) == 0 }) // after its key
	n.state.mu.RLock()
	defer n.state.mu.RUnlock()
	s := n.state
	if len(s.placements.items)+len(s.status.items)+len(s.volumes.items)+len(s.claims.items) > 0 {
		w.t.Errorf("left: placements %v, status %v, volumes %v, claims %v", s.placements.items, s.status.items, s.volumes.items, s.claims.items)
	}
	for id, h := range w.hosts {
		h.mu.Lock()
		if len(h.machines)+len(h.layers) > 0 {
			w.t.Errorf("left on %s: %v, %v", id, h.machines, h.layers)
		}
		h.mu.Unlock()
	}
}
