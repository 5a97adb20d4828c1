package test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"drover"
)

// A machine that counts in its memory, and writes what it counts, is suspended and goes on where it was: after a power cut of its host, after
// deaths of the agent in the middle of either, and on another host.
func TestASuspendedMachineGoesOnWhereItWas(t *testing.T) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	boot := w.Now().Boot
	suspend := func() {
		t.Helper()
		run(t, "machine", "suspend", string(w.id))
		if m := machine(t, w.id); m.State != drover.StateSuspended {
			t.Fatalf("after its suspension it is %s: %s", m.State, m.Reason)
		}
	}
	resume := func() {
		t.Helper()
		run(t, "machine", "start", string(w.id))
		w.goesOn(t)
		if now := w.Now().Boot; now != boot {
			t.Fatalf("the machine was started anew: %s, before %s\n%s", now, boot, run(t, "machine", "events", string(w.id)))
		}
	}
	dies := func(point string, act func()) {
		t.Helper()
		run(t, "dev", "fault", "h1", point)
		act()
		if _, err := os.Stat(filepath.Join(faultDir("h1"), point)); err == nil {
			t.Fatalf("the agent did not die at %s", point)
		}
	}

	suspend()
	if pids, err := filepath.Glob(filepath.Join(fleet.cli.Dir, "hosts", "h1", "*", "vm", string(w.id), "pid")); err != nil || len(pids) != 0 {
		t.Errorf("a suspended machine has a VM: %v %v", pids, err)
	}
	at := w.Now().Acked
	run(t, "dev", "kill", "h1")
	run(t, "dev", "start", "h1")
	eventually(t, boundBoot, "an answer of h1", func() bool { return fleet.cli.Ask(t.Context(), nil, "host", "layers", "h1") == nil })
	if m := machine(t, w.id); m.State != drover.StateSuspended || w.Now().Acked != at {
		t.Fatalf("after a power cut of its host it is %s: %s", m.State, m.Reason)
	}
	resume()

	dies("host.suspend.saved", suspend)
	dies("host.resume.after-launch", resume)
	dies("host.suspend.before-mark", suspend)
	dies("host.resume.after-mark", resume)
	w.intact(t)

	suspend()
	if m := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h2"); m.Outcome != drover.Succeeded {
		t.Fatalf("migration %+v", m)
	}
	if m := machine(t, w.id); m.Host != "h2" || m.State != drover.StateSuspended {
		t.Fatalf("after its move it is %s on %s", m.State, m.Host)
	}
	resume()
	w.intact(t)
	var off time.Duration
	eventually(t, boundBoot, "the guest's clock", func() bool {
		now, err := strconv.ParseInt(inside(t, w.id, "date", "+%s"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		off = time.Until(time.Unix(now, 0)).Abs()
		return off < 3*time.Second
	})

	// What ends a suspension otherwise gives the memory up.
	suspend()
	run(t, "machine", "stop", string(w.id))
	if m := machine(t, w.id); m.State != drover.StateStopped {
		t.Fatalf("after the stop it is %s", m.State)
	}
	run(t, "machine", "start", string(w.id))
	w.comesBack(t, boot)
	w.intact(t)
	for _, h := range []string{"h1", "h2"} {
		for _, l := range ask[[]drover.LayerStatus](t, "host", "layers", h) {
			if l.Disk.HoldsMemory() && l.State != drover.LayerFrozen { // what the move left is kept for a while
				t.Errorf("host %s still has %+v", h, l)
			}
		}
	}
}
