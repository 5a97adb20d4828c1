package test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
	"drover/apiv1"
)

func TestMoveChangesNothingThatAUserCanName(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	inside(t, w.id, "/bin/sh", "-c", "echo kept > /root/note && sync")
	before, boot := machine(t, w.id), w.Now().Boot

	m := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h3")
	if m.Outcome != drover.Succeeded || m.Source != "h1" || m.Target != "h3" {
		t.Fatalf("migration %+v", m)
	}
	w.comesBack(t, boot)
	w.intact(t)
	after := machine(t, w.id)
	if after.Host != "h3" || after.Epoch <= before.Epoch {
		t.Errorf("runs on %s at epoch %d, before %s at %d", after.Host, after.Epoch, before.Host, before.Epoch)
	}
	type named struct {
		ID       drover.MachineID
		Name     string
		Instance drover.InstanceID
		Address  string
		Image    drover.ImageRef
		Config   string
		Created  time.Time
	}
	names := func(m apiv1.Machine) named {
		config, err := json.Marshal(m.Config)
		if err != nil {
			t.Fatal(err)
		}
		return named{m.ID, m.Name, m.InstanceID, m.PrivateIP, m.ImageRef, string(config), m.CreatedAt}
	}
	if diff := cmp.Diff(names(before), names(after)); diff != "" {
		t.Errorf("the move changed the machine (-before +after):\n%s", diff)
	}
	if note := inside(t, w.id, "cat", "/root/note"); note != "kept" {
		t.Errorf("the root disk lost a file: %q", note)
	}
	if v := ask[apiv1.Volume](t, "volume", "show", string(w.volume)); v.ID != w.volume || v.AttachedMachineID != w.id {
		t.Errorf("the volume is %+v", v)
	}
	var migrated bool
	for _, e := range after.Events {
		migrated = migrated || e.Type == "migrate"
	}
	if !migrated {
		t.Errorf("no event tells of the move: %+v", after.Events)
	}
}

func TestMoveTheDataFollowsAndTheSourceIsLeftAlone(t *testing.T) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	m := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h2")
	var allocated drover.Bytes
	for _, d := range m.Disks {
		allocated += d.Allocated
	}
	if m.Hydration == nil || !m.Hydration.Done || float64(m.Hydration.Copied) > 1.02*float64(allocated) || m.Hydration.Copied == 0 {
		t.Errorf("copied %+v of %d allocated bytes", m.Hydration, allocated)
	}
	if m.Hydration.Verified < m.Hydration.Copied/2 { // the machine has written the rest since
		t.Errorf("%d of %d copied bytes were compared with the source's checksums", m.Hydration.Verified, m.Hydration.Copied)
	}
	// The machine needs its old host no more: not even when that loses its power.
	run(t, "dev", "kill", "h1")
	w.goesOn(t)
	// And the old host, when it is back, finds out by itself that it must not run it.
	run(t, "dev", "start", "h1")
	eventually(t, boundBoot, "the agent of h1", func() bool { return fleet.cli.Ask(t.Context(), nil, "host", "layers", "h1") == nil })
	if there := ask[[]apiv1.Machine](t, "host", "machines", "h1"); len(there) != 0 {
		t.Errorf("h1 has %+v", there)
	}
	w.goesOn(t)
	w.intact(t)
}

func TestMoveOfAStoppedMachineKeepsItStopped(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	run(t, "machine", "stop", string(w.id))
	if m := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h2"); m.Outcome != drover.Succeeded {
		t.Fatalf("migration %+v", m)
	}
	if m := machine(t, w.id); m.Host != "h2" || m.State != drover.StateStopped {
		t.Fatalf("the machine is %s on %s", m.State, m.Host)
	}
	boot := w.Now().Boot
	run(t, "machine", "start", string(w.id))
	w.comesBack(t, boot)
	w.intact(t)
}

func TestMoveThereAndBack(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	address := machine(t, w.id).PrivateIP
	reachedFromEverywhere(t, address)
	for _, to := range []string{"h2", "h1", "h3", "h1"} {
		boot := w.Now().Boot
		run(t, "machine", "move", string(w.id), "--to", to)
		w.comesBack(t, boot)
		reachedFromEverywhere(t, address)
	}
	w.intact(t)
}

// reachedFromEverywhere makes sure that packets from each host find the machine, wherever it is, and its answers them.
func reachedFromEverywhere(t *testing.T, address string) {
	t.Helper()
	for _, host := range []string{"h1", "h2", "h3"} {
		eventually(t, boundBoot, address+" from "+host, func() bool {
			_, ok := onHost(t, host, "busybox", "ping6", "-c", "1", "-W", "2", address)
			return ok
		})
	}
}

func TestMoveIsAbortedBeforeTheSwitch(t *testing.T) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	// The target loses its power before the switch: the move cannot get there.
	run(t, "dev", "fault", "h2", "host.clone.after", "--kind", "host")
	m := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h2", "--detach")
	eventually(t, boundBoot, "the power cut of h2", func() bool { return !hasPower(t, "h2") })
	run(t, "migration", "abort", string(m.ID))
	run(t, "dev", "start", "h2")
	eventually(t, boundMove, "the abort", func() bool {
		return ask[drover.Migration](t, "migration", "show", string(m.ID)).Outcome == drover.Aborted
	})
	if now := machine(t, w.id); now.Host != "h1" {
		t.Errorf("the machine is on %s", now.Host)
	}
	w.goesOn(t)
	w.intact(t)
	eventually(t, boundBoot, "h2", func() bool {
		for _, h := range ask[[]drover.HostInfo](t, "host", "list") {
			if h.ID == "h2" {
				return h.Status == drover.HostOK
			}
		}
		return false
	})
	boot := w.Now().Boot
	run(t, "machine", "move", string(w.id), "--to", "h2") // and the next one works
	w.comesBack(t, boot)
	w.intact(t)
}
