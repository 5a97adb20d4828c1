package fleet

import (
	"slices"
	"testing"

	"drover"
)

func TestSuspendAndWhatEndsIt(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	v := w.machine(n, CreateMachine{Name: "web"})
	id := v.Machine.ID
	suspend := func() {
		t.Helper()
		if _, err := n.WaitMachine(ctx, "shop", id, drover.StateStarted, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := n.SuspendMachine(ctx, "shop", id); err != nil {
			t.Fatal(err)
		}
		if v, err := n.WaitMachine(ctx, "shop", id, drover.StateSuspended, ""); err != nil || v.Machine.Goal != drover.GoalSuspended {
			t.Fatalf("%+v %v", v, err)
		}
	}
	suspend()
	before := v.Machine
	// Asked again it is left alone, and a destruction needs no force.
	v, err := n.SuspendMachine(ctx, "shop", id)
	if err != nil || v.Machine.Suspend != before.Suspend+1 {
		t.Fatalf("%+v %v", v.Machine, err)
	}
	if runs(v) || !rests(v) {
		t.Errorf("it counts as running: %+v", v)
	}
	check := func(what string, v MachineView, err error, state drover.MachineState, resumed bool) {
		t.Helper()
		if err == nil {
			v, err = n.WaitMachine(ctx, "shop", id, state, "")
		}
		if err != nil || v.Machine.Resume != resumed {
			t.Fatalf("%s: %+v %+v %v", what, v.Machine, v.Status, err)
		}
	}
	v, err = n.StartMachine(ctx, "shop", id)
	check("start", v, err, drover.StateStarted, true)
	suspend()
	v, err = n.RestartMachine(ctx, "shop", id, drover.StopConfig{})
	check("restart", v, err, drover.StateStarted, false)
	suspend()
	v, err = n.StopMachine(ctx, "shop", id, drover.StopConfig{})
	check("stop", v, err, drover.StateStopped, false)
	_, err = n.SuspendMachine(ctx, "shop", id)
	wantError(t, err, drover.Precondition, "", "")
	if err == nil {
		t.Error("a machine that does not run was suspended")
	}
	v, err = n.StartMachine(ctx, "shop", id)
	check("start after a stop", v, err, drover.StateStarted, false)
	suspend()
	v, err = n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, Config: drover.MachineConfig{Image: "busybox:2"}, SkipLaunch: true})
	check("update without launch", v, err, drover.StateStopped, false)
	v, err = n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, Config: drover.MachineConfig{Image: "busybox:3"}})
	check("update", v, err, drover.StateStarted, false)
	suspend()
	if err := n.DestroyMachine(ctx, "shop", id, false); err != nil {
		t.Fatal(err)
	}
	_, err = n.SuspendMachine(ctx, "shop", "00000000000000")
	wantError(t, err, drover.NotFound, "", "")
}

// A suspended machine moves with the disk that its memory is on, and does not run on the way.
func TestASuspendedMachineMovesWithItsMemory(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	v := w.machine(n, CreateMachine{Name: "web"})
	id := v.Machine.ID
	if _, err := n.SuspendMachine(ctx, "shop", id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WaitMachine(ctx, "shop", id, drover.StateSuspended, ""); err != nil {
		t.Fatal(err)
	}
	check, err := n.CheckMove(ctx, Move{Machine: id, Target: "h2"})
	if err != nil || !check.Possible || !slices.ContainsFunc(check.Findings, func(f drover.MoveFinding) bool { return f.Check == "suspended" && f.OK }) {
		t.Errorf("the check before it: %+v %v", check, err)
	}
	mig := w.moved(n, Move{Machine: id, Target: "h2"})
	if mig.WasRunning || len(mig.Disks) != 2 {
		t.Errorf("the migration begins with %+v", mig)
	}
	v, err = n.WaitMachine(ctx, "shop", id, drover.StateSuspended, "")
	if err != nil || v.Placement.Host != mig.Target {
		t.Errorf("%+v %v", v, err)
	}
}

// A drain takes suspended machines along with their memory. They hold up nothing: those that run are waited for as ever, in the same group too.
func TestADrainMovesSuspendedMachines(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.addHost(n, "h4")
	ctx := t.Context()
	ids := w.machines(n, "h1", 3, map[string]string{drover.LabelGroup: "g"})
	for _, id := range ids[:2] {
		if _, err := n.SuspendMachine(ctx, "shop", id); err != nil {
			t.Fatal(err)
		}
		if _, err := n.WaitMachine(ctx, "shop", id, drover.StateSuspended, ""); err != nil {
			t.Fatal(err)
		}
	}
	d := w.drained(n, w.drain(n, "h1", brisk()).ID)
	if d.State != drover.DrainDone {
		t.Errorf("the drain is %s", d.State)
	}
	for i, id := range ids {
		v, err := n.Machine(ctx, "shop", id)
		want := drover.StateSuspended
		if i == 2 {
			want = drover.StateStarted
		}
		if err != nil || v.Placement.Host == "h1" || v.Status.State != want {
			t.Errorf("machine %d is %s on %s: %v", i, v.Status.State, v.Placement.Host, err)
		}
	}
	for _, i := range d.Items {
		if i.State != drover.ItemMoved || (i.Machine != ids[2]) != (i.Bytes == 200*drover.MiB) {
			t.Errorf("item %+v", i)
		}
	}
}
