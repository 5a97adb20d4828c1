package test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"drover"
	fleetpkg "drover/fleet"
	"drover/host"
	"drover/volume"
)

// soak is how long TestWalk and TestChaos go on; 0 leaves them out. walkSeed is what both are made from.
var (
	soak     = flag.Duration("soak", 0, "how long to go on with random faults")
	walkSeed = flag.Uint64("soak-seed", 0, "seed of the random faults; 0 is another one each time")
)

// commitPoints are the steps around the switch, where a crash is worst. The walks of the packages cut at every step, in simulated
// worlds; TestWalk does so with real processes and hosts.
var commitPoints = []string{
	"fleet.move.commit.after", "fleet.move.switch.before", "fleet.move.switch.after",
	"host.freeze.after-mark", "host.freeze.after", "host.activate.before", "host.activate.after", "host.start.after-launch",
	"volume.hydrate.complete",
}

// TestMoveSurvivesTheDeathOfAnyProcess kills, in one move after another, whichever process gets to a fault point, and asks after
// each: did the migration end, does the machine run on exactly the host that it names, is every record there?
func TestMoveSurvivesTheDeathOfAnyProcess(t *testing.T) {
	known := allPoints()
	for _, p := range commitPoints {
		if !slices.Contains(known, p) {
			t.Errorf("there is no fault point %s", p)
		}
	}
	crashWalk(t, "process", commitPoints)
}

// TestMoveSurvivesPowerCuts cuts the power of the whole host where the machine changes hands.
func TestMoveSurvivesPowerCuts(t *testing.T) {
	crashWalk(t, "host", []string{"host.freeze.after-mark", "host.activate.after", "fleet.move.switch.before"})
}

// faultDir is where faults of a host are armed.
func faultDir(host string) string { return filepath.Join(fleet.cli.Dir, "hosts", host, "faults") }

// allPoints lists every fault point.
func allPoints() []string {
	return slices.Concat(host.FaultPoints(), fleetpkg.FaultPoints(), volume.FaultPoints())
}

func crashWalk(t *testing.T, kind string, points []string) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	struck := 0
	for _, point := range points {
		before := machine(t, w.id)
		to := map[drover.HostID]drover.HostID{"h1": "h2", "h2": "h1"}[before.Host]
		for _, h := range []string{"h1", "h2", "c1"} {
			run(t, "dev", "fault", h, point, "--kind", kind)
		}
		boot := w.Now().Boot
		id := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", string(to), "--detach").ID
		hit := struckOne(t, id, point)
		if hit != "" && kind == "host" {
			eventually(t, boundBoot, "the power cut of "+hit, func() bool { return !hasPower(t, hit) })
			run(t, "dev", "start", hit)
		}
		m := lastMigration(t, w.id)
		t.Logf("%s (struck %q): migration %s ended as %s", point, hit, m.ID, m.Outcome)
		if hit != "" {
			struck++
		}
		after := machine(t, w.id)
		switch {
		case m.Outcome == drover.Succeeded && after.Host != to:
			t.Fatalf("%s: succeeded, but the machine is on %s", point, after.Host)
		case m.Outcome == drover.Aborted && after.Host != before.Host:
			t.Fatalf("%s: aborted, but the machine is on %s", point, after.Host)
		}
		if m.Outcome == drover.Succeeded {
			w.comesBack(t, boot)
		}
		w.goesOn(t)
	}
	if struck == 0 {
		t.Fatal("no fault struck: the walk tested nothing")
	}
	w.intact(t)
}

// hasPower reports whether a host's processes run.
func hasPower(t *testing.T, host string) bool {
	t.Helper()
	status := ask[struct {
		Hosts []struct {
			ID    string `json:"id"`
			State string `json:"state"`
		} `json:"hosts"`
	}](t, "dev", "status")
	for _, h := range status.Hosts {
		if h.ID == host {
			return h.State == "up"
		}
	}
	t.Fatalf("no host %s in %+v", host, status)
	return false
}

// struckOne waits until the fault has struck somewhere, or the migration has ended without it, disarms it elsewhere, and returns the
// host that it struck.
func struckOne(t *testing.T, id drover.MigrationID, point string) (hit string) {
	t.Helper()
	hosts := []string{"h1", "h2", "c1"}
	armed := func(host string) string { return filepath.Join(faultDir(host), point) }
	eventually(t, boundMove, point, func() bool {
		for _, h := range hosts {
			if _, err := os.Stat(armed(h)); err != nil {
				hit = h
				return true
			}
		}
		var m drover.Migration
		return fleet.cli.Ask(t.Context(), &m, "migration", "show", string(id)) == nil && m.Ended()
	})
	for _, h := range hosts {
		os.Remove(armed(h)) // not there where it struck
	}
	return hit
}

// lastMigration waits until the machine's newest migration has ended, and returns it.
func lastMigration(t *testing.T, id drover.MachineID) (last drover.Migration) {
	t.Helper()
	eventually(t, boundMove, "the end of the migration", func() bool {
		var all []drover.Migration
		if err := fleet.cli.Ask(t.Context(), &all, "migration", "list", "--machine", string(id)); err != nil {
			return false // the control host may just be starting again
		}
		last = drover.Migration{}
		for _, m := range all {
			if m.CreatedAt.After(last.CreatedAt) {
				last = m
			}
		}
		return last.Ended()
	})
	return last
}
