package test

import (
	"testing"

	"drover"
	"drover/apiv1"
)

// TestDrainOfAHostUnderLoad empties a host whose machines write all the time, kills the control process in the middle, looks whether everything is
// there, and brings everything home.
func TestDrainOfAHostUnderLoad(t *testing.T) {
	app := newApp(t)
	var writers []*writer
	for range 2 {
		writers = append(writers, newWriter(t, app, "h1"))
	}
	stopped := shell(t, app, "exec sleep 100000", "--host", "h1")
	run(t, "machine", "stop", string(stopped.ID))

	plan := ask[apiv1.Drain](t, "host", "drain", "h1", "--reason", "new kernel", "--dry-run")
	if plan.State != drover.DrainPlanned || len(plan.Items) != 3 || plan.Problem != nil || plan.Totals.Bytes == 0 || plan.ExpectedSeconds <= 0 {
		t.Fatalf("the plan is %+v", plan)
	}
	if there := ask[[]apiv1.Machine](t, "host", "machines", "h1"); len(there) != 3 {
		t.Fatalf("after the dry run h1 has %+v", there)
	}
	id := ask[apiv1.Drain](t, "host", "drain", "h1", "--reason", "new kernel", "--min-healthy", "2s", "--detach").ID
	drainIs(t, id, "moves one", func(d apiv1.Drain) bool { return d.Totals.InFlight > 0 })
	killService(t, "c1", "control")
	d := drainIs(t, id, "ends", func(d apiv1.Drain) bool { return d.Ended() })
	if d.State != drover.DrainDone || d.Totals.Moved != 3 || d.Totals.Copied == 0 || d.Reason != "new kernel" || d.Actor == "" {
		t.Fatalf("the drain is %+v", d)
	}
	t.Logf("planned %.0f s, took %v", plan.ExpectedSeconds, d.EndedAt.Sub(d.StartedAt))
	if there := ask[[]apiv1.Machine](t, "host", "machines", "h1"); len(there) != 0 {
		t.Errorf("h1 has %+v", there)
	}
	for _, w := range writers {
		w.goesOn(t)
		w.intact(t)
	}
	if m := machine(t, stopped.ID); m.Host == "h1" || m.State != drover.StateStopped {
		t.Errorf("the stopped machine is %s on %s", m.State, m.Host)
	}
	for _, h := range ask[[]drover.HostInfo](t, "host", "list") {
		if h.ID == "h1" && (h.Mark == nil || h.Mark.Drain != id) {
			t.Errorf("the mark of h1 is %+v", h.Mark)
		}
	}

	back := ask[apiv1.Drain](t, "drain", "return", string(id), "--reason", "kernel is in", "--min-healthy", "2s")
	if back.State != drover.DrainDone || back.Totals.Moved != 3 {
		t.Fatalf("the return is %+v", back)
	}
	for _, w := range writers {
		if m := machine(t, w.id); m.Host != "h1" {
			t.Errorf("machine %s is on %s", m.ID, m.Host)
		}
		w.goesOn(t)
		w.intact(t)
	}
}

// drainIs waits until a drain is as it should be. The control host may just be starting again.
func drainIs(t *testing.T, id drover.DrainID, what string, ok func(apiv1.Drain) bool) (d apiv1.Drain) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the drain is %+v", d)
		}
	}()
	eventually(t, boundMove, "drain "+string(id)+" "+what, func() bool {
		return fleet.cli.Ask(t.Context(), &d, "drain", "show", string(id)) == nil && ok(d)
	})
	return d
}
