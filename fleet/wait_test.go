package fleet

import (
	"testing"
	"time"

	"drover"
)

func TestWhatAWaitTakesForReached(t *testing.T) {
	const id = drover.MachineID("3d8d9c2b7e0a15")
	event := func(seq string, kind string, state drover.MachineState, run uint64, instance drover.InstanceID) drover.Event {
		return drover.Event{ID: string(id) + "-1-" + seq, Type: kind, Status: state, Run: run, Instance: instance}
	}
	// It ran twice; the second run, after an update, ended at once.
	history := []drover.Event{event("1", "launch", "created", 0, "A"), event("2", "start", "started", 1, "A"), event("3", "update", "started", 1, "A"),
		event("4", "restart", "stopping", 1, "A"), event("5", "start", "started", 2, "B"), event("6", "exit", "stopped", 2, "B")}
	view := func(goal drover.Goal, run uint64, instance drover.InstanceID, state drover.MachineState, events []drover.Event) MachineView {
		last := events[len(events)-1]
		return MachineView{Machine: drover.Machine{ID: id, Goal: goal, Run: run, Instance: instance},
			Status: drover.MachineStatus{Host: "h1", State: state, Run: last.Run, Instance: last.Instance, Events: events}}
	}
	over := view(drover.GoalStarted, 2, "B", "stopped", history)
	again := view(drover.GoalStarted, 3, "B", "stopped", history) // asked to start again, and the host does not know yet
	updating := view(drover.GoalStarted, 2, "B", "started", history[:3])
	running := view(drover.GoalStarted, 1, "A", "started", history[:2])
	halted := view(drover.GoalStopped, 2, "B", "stopped", history)
	halting := view(drover.GoalStopped, 2, "B", "started", history[:5])
	skipped := view(drover.GoalStopped, 0, "A", "stopped", history[:1])
	states := func(s ...drover.MachineState) Wait { return Wait{States: s} }
	settled := Wait{Settled: true}
	with := func(w Wait, instance drover.InstanceID, after string) Wait {
		w.Instance = instance
		if after != "" {
			w.After = string(id) + "-1-" + after
		}
		return w
	}
	for name, c := range map[string]struct {
		view MachineView
		wait Wait
		want bool
	}{
		"it was started, and is over":                 {over, states("started"), true},
		"of its version":                              {over, with(states("started"), "B", ""), true},
		"of the version before":                       {over, with(states("started"), "A", ""), true},
		"of a version that it never had":              {over, with(states("started"), "C", ""), false},
		"after the start":                             {over, with(states("started"), "", "5"), false},
		"after the restart was asked for":             {over, with(states("started"), "", "4"), true},
		"the last event is not after itself":          {over, with(states("stopped"), "", "6"), false},
		"the end is after the start":                  {over, with(states("stopped"), "", "5"), true},
		"any of several":                              {over, states("failed", "started"), true},
		"created, as every machine was":               {over, states("created"), true},
		"a state that it never was in":                {over, states("suspended", "failed"), false},
		"ended is settled":                            {over, settled, true},
		"a run before the one that is asked for":      {again, states("started"), false},
		"what is asked for is not settled":            {again, settled, false},
		"stopped it is all the same":                  {again, states("stopped"), true},
		"the run before the update":                   {updating, states("started"), false},
		"an update is not settled":                    {updating, settled, false},
		"it runs":                                     {running, states("started"), true},
		"it runs, and is settled":                     {running, settled, true},
		"nothing happened since":                      {running, with(settled, "", "2"), false},
		"who stopped it does not mean its start":      {halted, states("started"), false},
		"it is stopped":                               {halted, states("stopped"), true},
		"it was told to stop, and is not settled":     {halting, settled, false},
		"nor stopped":                                 {halting, states("stopped"), false},
		"made without a launch, it is stopped":        {skipped, states("stopped"), true},
		"made without a launch, it is settled":        {skipped, settled, true},
		"made without a launch, it was never started": {skipped, states("started"), false},
	} {
		if got := c.wait.Reached(c.view); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAWaitForAnEventOfAnotherMachineIsRefused(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Name: "web"}).Machine.ID
	_, err := n.WaitFor(t.Context(), Wait{App: "shop", Machine: id, After: "other-1-1"})
	wantError(t, err, drover.Invalid, "from_event_id", "")
}

// TestAMachineWhoseHostIsSilent: lists tell at once what is known and how old it is; what is asked of the machine is taken, and done when
// the host is back; one that is destroyed has no traffic meanwhile.
func TestAMachineWhoseHostIsSilent(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	stays := w.machine(n, CreateMachine{Name: "stays", Host: "h1"}).Machine.ID
	goes := w.machine(n, CreateMachine{Name: "goes", Host: "h1"}).Machine.ID
	w.hosts["h1"].halt()
	w.eventually("the host counts as unreachable", func() bool {
		v, err := n.Machine(t.Context(), "shop", goes)
		return err == nil && v.HostStatus == drover.HostUnreachable
	})
	list, err := n.Machines(t.Context(), "shop")
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, v := range list {
		if v.HostStatus != drover.HostUnreachable || v.HostSeenAt.IsZero() || time.Since(v.HostSeenAt) < time.Second || v.Status.State != drover.StateStarted || v.Serves() {
			t.Errorf("%+v", v)
		}
	}
	if v, err := n.StopMachine(t.Context(), "shop", stays, drover.StopConfig{}); err != nil || v.HostStatus != drover.HostUnreachable {
		t.Fatalf("%+v, %v", v, err)
	}
	if err := n.DestroyMachine(t.Context(), "shop", goes, true); err != nil {
		t.Fatal(err)
	}
	if v, err := n.Machine(t.Context(), "shop", goes); err != nil || v.Status.State != drover.StateDestroying || v.Serves() {
		t.Errorf("%+v, %v", v, err)
	}
	w.machine(n, CreateMachine{Name: "goes", Host: "h2"}) // the name is free
	// It is durable: another control host does it.
	n.kill()
	n = w.control("c2", nil)
	if v, err := n.Machine(t.Context(), "shop", goes); err != nil || v.Status.State != drover.StateDestroying {
		t.Fatalf("%+v, %v", v, err)
	}
	if !w.hosts["h1"].running(goes) {
		t.Fatal("the host obeyed while it was away")
	}
	w.hosts["h1"].start()
	if _, err := n.WaitMachine(t.Context(), "shop", goes, drover.StateDestroyed, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WaitMachine(t.Context(), "shop", stays, drover.StateStopped, ""); err != nil {
		t.Fatal(err)
	}
	if w.hosts["h1"].running(goes) || w.hosts["h1"].running(stays) {
		t.Error("it runs all the same")
	}
}
