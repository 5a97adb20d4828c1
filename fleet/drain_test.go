package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
)

// brisk are options of a drain in which nothing waits for its own sake.
func brisk() drover.DrainOptions {
	return drover.DrainOptions{MinHealthy: drover.Duration(time.Millisecond)}
}

// addHost adds a host to the region ams.
func (w *world) addHost(n *node, id drover.HostID) {
	w.t.Helper()
	w.hosts[id] = newFakeHost(w, id, "ams")
	w.eventually("host "+string(id)+" is there", func() bool { return n.reachable(id) })
}

// drain begins a drain.
func (w *world) drain(n *node, host drover.HostID, o drover.DrainOptions) drover.Drain {
	w.t.Helper()
	d, err := n.CreateDrain(w.t.Context(), StartDrain{Host: host, Actor: "ann", Reason: "new kernel", Options: o})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// drained waits until a drain has ended.
func (w *world) drained(n *node, id drover.DrainID) drover.Drain {
	w.t.Helper()
	return w.drainIs(n, id, "has ended", func(d drover.Drain) bool { return d.Ended() })
}

func (w *world) drainIs(n *node, id drover.DrainID, what string, ok func(drover.Drain) bool) drover.Drain {
	w.t.Helper()
	var d drover.Drain
	var err error
	defer func() {
		if w.t.Failed() {
			w.t.Logf("drain is %+v, %v", d, err)
		}
	}()
	w.eventually("drain "+string(id)+" "+what, func() bool {
		d, err = n.Drain(w.t.Context(), id)
		return err == nil && ok(d)
	})
	return d
}

// machines makes machines on a host, with 512 MiB each.
func (w *world) machines(n *node, host drover.HostID, count int, metadata map[string]string) []drover.MachineID {
	w.t.Helper()
	var ids []drover.MachineID
	for range count {
		v := w.machine(n, CreateMachine{Host: host, Config: drover.MachineConfig{Guest: drover.Guest{MemoryMB: 512}, Metadata: metadata}})
		ids = append(ids, v.Machine.ID)
	}
	return ids
}

func TestADrainEmptiesAHostAndReturns(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.addHost(n, "h4")
	ctx := t.Context()
	vol := w.volume(n, "h1")
	ids := w.machines(n, "h1", 3, nil)
	ids = append(ids, w.machine(n, CreateMachine{Config: drover.MachineConfig{Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID)
	ids = append(ids, w.machine(n, CreateMachine{Host: "h1", SkipLaunch: true}).Machine.ID)
	o := brisk()
	o.PerApp = 4
	plan, err := n.PlanDrain(ctx, StartDrain{Host: "h1", Actor: "ann", Reason: "new kernel", Options: o})
	if err != nil || plan.Problem != nil || len(plan.Items) != 5 || plan.ID != "" || plan.ExpectedSeconds <= 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if list, err := n.Drains(ctx); err != nil || len(list) != 0 || n.closed("h1") != "" {
		t.Fatalf("the dry run left %+v, %v, %q", list, err, n.closed("h1"))
	}
	begun := w.drain(n, "h1", o)
	_, err = n.CreateMachine(ctx, CreateMachine{App: "shop", Host: "h1", Config: drover.MachineConfig{Image: "busybox"}})
	wantError(t, err, drover.Exhausted, "", "")
	_, err = n.CreateDrain(ctx, StartDrain{Host: "h1", Actor: "bob", Reason: "me too"})
	wantError(t, err, drover.Conflict, "", "")
	d := w.drained(n, begun.ID)
	if d.State != drover.DrainDone || d.Totals.Moved != 5 || d.Actor != "ann" || d.Reason != "new kernel" || d.StartedAt.IsZero() {
		t.Fatalf("%+v", d)
	}
	if left, err := n.HostMachines(ctx, "h1"); err != nil || len(left) != 0 {
		t.Fatalf("left on h1: %+v, %v", left, err)
	}
	for k, id := range ids {
		i := d.Item(id)
		w.checkOwner(n, id, i.Target, k < 4)
		m, err := n.Migration(ctx, i.Migration)
		if err != nil || m.Drain != d.ID || m.Actor != "ann" || (k < 4) != (i.Interruption > 0) {
			t.Errorf("%+v, %v; %+v", m, err, i)
		}
	}
	info, err := n.Host(ctx, "h1")
	if err != nil || info.Mark == nil || info.Mark.Owner != "ann" || info.Mark.Drain != d.ID || info.Mark.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", info.Mark, err)
	}
	back, err := n.CreateDrain(ctx, StartDrain{Returns: d.ID, Actor: "bob", Reason: "kernel is in", Options: o})
	if err != nil {
		t.Fatal(err)
	}
	if back = w.drained(n, back.ID); back.State != drover.DrainDone || back.Kind != drover.DrainReturn || back.Host != "h1" || back.Totals.Moved != 5 {
		t.Fatalf("%+v", back)
	}
	if info, err = n.Host(ctx, "h1"); err != nil || info.Mark != nil {
		t.Fatalf("%+v, %v", info.Mark, err)
	}
	for k, id := range ids {
		w.checkOwner(n, id, "h1", k < 4)
	}
}

func TestADrainRefusesBeforeItTouchesAnything(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.machines(n, "h1", 3, nil)
	w.hosts["h2"].set(func() { w.hosts["h2"].memory = 600 * drover.MiB })
	_, err := n.CreateDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: "disk"})
	e := drover.AsError(err)
	if e == nil || e.Code != drover.Exhausted || !strings.Contains(e.Text, "room for 2 more 512 MiB machines in region ams") {
		t.Fatalf("%v", err)
	}
	if list, lerr := n.Migrations(t.Context()); lerr != nil || len(list) != 0 || n.closed("h1") != "" {
		t.Fatalf("%+v, %v, %q", list, lerr, n.closed("h1"))
	}
	o := brisk()
	o.AllowPartial = true
	d := w.drained(n, w.drain(n, "h1", o).ID)
	if d.State != drover.DrainFailed || d.Totals.Moved != 1 || d.Totals.NotMoved != 2 || d.Problem == nil || d.Problem.Code != drover.Precondition {
		t.Fatalf("%+v", d)
	}
}

func TestLabelsAreHonoured(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	never := w.machines(n, "h1", 1, map[string]string{drover.LabelMove: "never"})[0]
	ask := w.machines(n, "h1", 1, map[string]string{drover.LabelMove: "ask"})[0]
	replica := w.machines(n, "h1", 1, map[string]string{drover.LabelGroup: "pg", drover.LabelRole: "replica"})[0]
	primary := w.machines(n, "h1", 1, map[string]string{drover.LabelGroup: "pg", drover.LabelRole: "primary", drover.LabelPreMove: "switchover"})[0]
	_, err := n.CreateDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: "disk"})
	wantError(t, err, drover.Precondition, "", "")
	o := brisk()
	o.AllowPartial, o.PerApp = true, 4
	d := w.drain(n, "h1", o)
	w.drainIs(n, d.ID, "waits for an approval", func(d drover.Drain) bool {
		return d.Item(ask).State == drover.ItemWaiting && d.Item(replica).State == drover.ItemMoved
	})
	// The hook runs, and the role stays what it is until somebody says otherwise.
	w.drainIs(n, d.ID, "waits for the role", func(d drover.Drain) bool { return !d.Item(primary).HookDoneAt.IsZero() })
	w.checkOwner(n, primary, "h1", true)
	if _, err := n.SetMachineLabel(t.Context(), "shop", primary, drover.LabelRole, "replica"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ApproveMove(t.Context(), d.ID, ask, "bob"); err != nil {
		t.Fatal(err)
	}
	d = w.drained(n, d.ID)
	if d.Item(never).State != drover.ItemStuck || d.Item(ask).State != drover.ItemMoved || d.Item(ask).ApprovedBy != "bob" || d.Item(primary).State != drover.ItemMoved {
		t.Fatalf("%+v", d)
	}
	if d.Item(primary).HookAt.Before(d.Item(replica).HealthySince) {
		t.Errorf("the primary was touched at %v, before its replica was healthy at %v", d.Item(primary).HookAt, d.Item(replica).HealthySince)
	}
	w.checkOwner(n, never, "h1", true)
}

func TestTheFirstFailureOfAClassStopsTheClass(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ids := w.machines(n, "h1", 2, nil)
	w.hosts["h2"].failing(drover.Internal, false, drover.OrderMoveClone)
	d := w.drain(n, "h1", brisk())
	w.drainIs(n, d.ID, "is halted", func(d drover.Drain) bool { return d.Sum().NotMoved == 1 && d.Waits != "" })
	info, err := n.Host(t.Context(), "h1")
	if err != nil || len(info.Conditions) != 1 || info.Conditions[0].Code != drover.ClassHalted || info.Conditions[0].Subject != "shop" {
		t.Fatalf("%+v, %v", info.Conditions, err)
	}
	for _, id := range ids {
		w.checkOwner(n, id, "h1", true)
	}
	w.hosts["h2"].failing("", false)
	if _, err := n.ResumeDrain(t.Context(), d.ID, "web"); drover.CodeOf(err) != drover.NotFound {
		t.Fatal(err)
	}
	if _, err := n.ResumeDrain(t.Context(), d.ID, "shop"); err != nil {
		t.Fatal(err)
	}
	if d = w.drained(n, d.ID); d.State != drover.DrainDone {
		t.Fatalf("%+v", d)
	}
	if info, err = n.Host(t.Context(), "h1"); err != nil || len(info.Conditions) != 0 {
		t.Fatalf("%+v, %v", info.Conditions, err)
	}
}

func TestPauseResumeAndAbort(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	ids := w.machines(n, "h1", 2, nil)
	w.hosts["h2"].failing(drover.Unavailable, false, drover.OrderMoveReserve) // the first move stays in its first phase
	d := w.drain(n, "h1", brisk())
	w.drainIs(n, d.ID, "moves one", func(d drover.Drain) bool {
		return slices.ContainsFunc(d.Items, func(i drover.DrainItem) bool { return i.State == drover.ItemMoving })
	})
	if got, err := n.PauseDrain(ctx, d.ID); err != nil || got.State != drover.DrainPaused {
		t.Fatalf("%+v, %v", got, err)
	}
	w.hosts["h2"].failing("", false)
	d = w.drainIs(n, d.ID, "has moved one", func(d drover.Drain) bool { return d.Sum().Moved == 1 })
	if d.State != drover.DrainPaused || d.Totals.Waiting != 1 {
		t.Fatalf("%+v", d)
	}
	if _, err := n.UncordonHost(ctx, "h1", "ann"); drover.CodeOf(err) != drover.Precondition {
		t.Fatal(err)
	}
	w.hosts["h2"].failing(drover.Unavailable, false, drover.OrderMoveReserve)
	if _, err := n.ResumeDrain(ctx, d.ID, ""); err != nil {
		t.Fatal(err)
	}
	w.drainIs(n, d.ID, "moves the other", func(d drover.Drain) bool { return d.Sum().InFlight == 1 && d.Sum().Moved == 1 })
	w.drainIs(n, d.ID, "has a migration", func(d drover.Drain) bool {
		return slices.ContainsFunc(d.Items, func(i drover.DrainItem) bool { return i.State == drover.ItemMoving })
	})
	if got, err := n.AbortDrain(ctx, d.ID, true, "bob"); err != nil || got.State != drover.DrainAborting {
		t.Fatalf("%+v, %v", got, err)
	}
	d = w.drained(n, d.ID)
	if d.State != drover.DrainAborted || d.Totals.Moved != 1 || d.Totals.NotMoved != 1 || d.Problem == nil {
		t.Fatalf("%+v", d)
	}
	for _, id := range ids {
		if i := d.Item(id); i.State == drover.ItemLeft {
			w.checkOwner(n, id, "h1", true)
		}
	}
	if _, err := n.ResumeDrain(ctx, d.ID, ""); drover.CodeOf(err) != drover.Precondition {
		t.Fatal(err)
	}
	if _, err := n.UncordonHost(ctx, "h1", "ann"); err != nil {
		t.Fatal(err)
	}
}

func TestADeadlineLeavesOrStops(t *testing.T) {
	t.Parallel()
	for _, end := range []drover.AtDeadline{drover.DeadlineLeave, drover.DeadlineStop} {
		t.Run(string(end), func(t *testing.T) {
			w, n := newWorld(t)
			id := w.machines(n, "h1", 1, map[string]string{drover.LabelMove: "ask"})[0]
			o := brisk()
			o.Deadline, o.AtDeadline = drover.Duration(time.Second), end
			d := w.drained(n, w.drain(n, "h1", o).ID)
			want := map[drover.AtDeadline]drover.ItemState{drover.DeadlineLeave: drover.ItemLeft, drover.DeadlineStop: drover.ItemStopped}[end]
			if d.State != drover.DrainFailed || d.Item(id).State != want || d.Item(id).Reason == "" || d.Problem == nil {
				t.Fatalf("%+v", d)
			}
			w.checkOwner(n, id, "h1", end == drover.DeadlineLeave)
		})
	}
}

// Two hosts of a region are emptied at the same time, and one host is left. What the first drain was promised there, the second is not.
func TestTwoDrainsDoNotPromiseTheSameRoom(t *testing.T) {
	t.Parallel()
	for room, refused := range map[drover.Bytes]bool{2: true, 4: false} {
		w, n := newWorld(t)
		w.addHost(n, "h4")
		all := append(w.machines(n, "h1", 2, nil), w.machines(n, "h2", 2, nil)...)
		machine, _, _ := n.state.machines.seen(string(all[0]))
		w.hosts["h4"].set(func() { w.hosts["h4"].memory = drover.Bytes(machine.Config.Guest.MemoryMB) * drover.MiB * room })
		a := w.drain(n, "h1", brisk())
		b, err := n.CreateDrain(t.Context(), StartDrain{Host: "h2", Actor: "bob", Reason: "disk", Options: brisk()})
		if a = w.drained(n, a.ID); a.State != drover.DrainDone {
			t.Fatalf("%+v", a)
		}
		if refused {
			if !drover.Is(err, drover.Exhausted) || !strings.Contains(err.Error(), "room for 2 more") {
				t.Errorf("the second drain was not refused for want of room: %+v, %v", b, err)
			}
		} else if err != nil {
			t.Fatal(err)
		} else if b = w.drained(n, b.ID); b.State != drover.DrainDone {
			t.Fatalf("%+v", b)
		}
		on := map[drover.HostID]int{}
		for _, id := range all {
			p, err := n.state.placementOf(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			on[p.Host]++
		}
		if on["h4"] != int(room) || on["h1"] != 0 || refused != (on["h2"] == 2) {
			t.Errorf("the machines are on %v", on)
		}
	}
}

func TestMachinesThatAppearOnADrainingHostAreTakenIn(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	old := w.machines(n, "h1", 1, nil)[0]
	late := w.machines(n, "h3", 1, nil)[0]
	gone := w.machines(n, "h1", 1, map[string]string{drover.LabelMove: "ask"})[0]
	m, err := n.MoveMachine(t.Context(), Move{Machine: late, Target: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	d := w.drain(n, "h1", brisk())
	w.ended(n, m.ID)
	if err := n.DestroyMachine(t.Context(), "shop", gone, true); err != nil {
		t.Fatal(err)
	}
	d = w.drained(n, d.ID)
	if d.State != drover.DrainDone || d.Item(gone).State != drover.ItemGone || d.Item(old).State != drover.ItemMoved {
		t.Fatalf("%+v", d)
	}
	// It may have arrived before the drain was planned, while it was under way, or after its end.
	if i := d.Item(late); i != nil && i.State != drover.ItemMoved {
		t.Fatalf("%+v", i)
	}
}

func TestCordonAndItsExpiry(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	if _, err := n.CordonHost(ctx, Cordon{Host: "h1", Owner: "ann"}); drover.CodeOf(err) != drover.Invalid {
		t.Fatal(err)
	}
	if _, err := n.CordonHost(ctx, Cordon{Host: "h9", Owner: "ann", Reason: "x"}); drover.CodeOf(err) != drover.NotFound {
		t.Fatal(err)
	}
	info, err := n.CordonHost(ctx, Cordon{Host: "h1", Owner: "ann", Reason: "a fan is loud", For: drover.Duration(time.Nanosecond)})
	if err != nil || info.Mark == nil || info.Mark.Reason != "a fan is loud" {
		t.Fatalf("%+v, %v", info.Mark, err)
	}
	info, err = n.Host(ctx, "h1")
	if err != nil || len(info.Conditions) != 1 || info.Conditions[0].Code != drover.MarkExpired || !strings.Contains(info.Conditions[0].Text, "by ann: a fan is loud") {
		t.Fatalf("%+v, %v", info.Conditions, err)
	}
	if v := w.machine(n, CreateMachine{Region: "ams"}); v.Placement.Host != "h2" {
		t.Errorf("a new machine went to %s", v.Placement.Host)
	}
	_, err = n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "data", Host: "h1", Size: drover.GiB})
	if e := drover.AsError(err); e == nil || !strings.Contains(e.Text, "h1: is cordoned by ann: a fan is loud") {
		t.Errorf("a volume on it: %v", err)
	}
	_, err = n.MoveMachine(ctx, Move{Machine: w.machines(n, "h2", 1, nil)[0], Target: "h1"})
	wantError(t, err, drover.Precondition, "target", "")
	if info, err = n.UncordonHost(ctx, "h1", "bob"); err != nil || info.Mark != nil || len(info.Conditions) != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
}

func TestRegionCheck(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.machines(n, "h1", 1, nil)
	c, err := n.CheckRegion(t.Context(), "ams")
	if err != nil || !c.OK || len(c.Hosts) != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	w.machines(n, "h3", 1, nil)
	c, err = n.CheckRegion(t.Context(), "fra")
	if err != nil || c.OK || c.Hosts[0].Missing != "1 more 512 MiB machine in region fra" {
		t.Fatalf("%+v, %v", c, err)
	}
	n.regionsSeen.note(c)
	if info, _ := n.Host(t.Context(), "h3"); len(info.Conditions) != 0 {
		t.Fatalf("after one failure: %+v", info.Conditions)
	}
	n.regionsSeen.note(c)
	if info, _ := n.Host(t.Context(), "h3"); len(info.Conditions) != 1 || info.Conditions[0].Code != drover.RegionNotDrainable {
		t.Fatalf("after two failures: %+v", info.Conditions)
	}
	if _, err = n.CheckRegion(t.Context(), "mars"); drover.CodeOf(err) != drover.Invalid {
		t.Fatal(err)
	}
}
