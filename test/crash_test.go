package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover"
	fleetpkg "drover/fleet"
	"drover/host"
)

// TestMoveSurvivesTheDeathOfAnyProcessAtAnyStep kills, in one move after another, whichever process gets to a fault point, and
// asks after each: did the migration end, does the machine run on exactly the host that it names, is every record there?
func TestMoveSurvivesTheDeathOfAnyProcessAtAnyStep(t *testing.T) {
	crashWalk(t, "process", movePoints())
}

// TestMoveSurvivesPowerCuts cuts the power of the whole host at the steps around the switch, where it matters most. The soak does
// it at every step.
func TestMoveSurvivesPowerCuts(t *testing.T) {
	var points []string
	for _, p := range movePoints() {
		for _, near := range []string{"quiesce.after", "freeze.", "activate."} {
			if strings.Contains(p, near) {
				points = append(points, p)
			}
		}
	}
	crashWalk(t, "host", points)
}

// movePoints lists the fault points that a move can come by.
func movePoints() (points []string) {
	for _, p := range slices.Concat(host.FaultPoints(), fleetpkg.FaultPoints()) {
		if strings.Contains(p, "move") && !strings.Contains(p, "abort") {
			points = append(points, p)
		}
	}
	return points
}

func crashWalk(t *testing.T, kind string, points []string) {
	if len(points) < 4 {
		t.Fatalf("only %d fault points: %v", len(points), points)
	}
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
		// The command itself may lose its connection; the migration is what counts.
		var out strings.Builder
		err := fleet.cli.Run(t.Context(), &out, "machine", "move", string(w.id), "--to", string(to))
		hit := false
		for _, h := range []string{"h1", "h2", "c1"} {
			armed := filepath.Join(fleet.cli.Dir, "hosts", h, "faults", point)
			if os.Remove(armed) != nil {
				hit = true
				if kind == "host" {
					run(t, "dev", "start", h)
				}
			}
		}
		m := lastMigration(t, w.id)
		t.Logf("%s (struck %v): the command said %v, migration %s ended as %s", point, hit, err, m.ID, m.Outcome)
		if hit {
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
