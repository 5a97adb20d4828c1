package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/api/apitest"
	"drover/apiv1"
)

// fleetWithMoves has a migration that has ended well and one that goes on.
func fleetWithMoves(t *testing.T) runner {
	t.Helper()
	b := apitest.New()
	begun := moved().Steps[0].StartedAt
	b.ChangeMigration("mig_6f1c0a53e9b2d784", func(m *drover.Migration) {
		*m = moved().Migration
		m.CreatedAt, m.UpdatedAt = begun, begun.Add(13*time.Second)
	})
	b.ChangeMigration("mig_6f1c0a53e9b2d785", func(m *drover.Migration) {
		id := m.ID
		*m = moved().Migration
		m.ID, m.Machine, m.App, m.Source, m.Target, m.Outcome, m.Phase = id, "3d8d9c2b7e0a16", "shop", "h2", "h3", drover.Running, drover.PhaseQuiesce
		m.CreatedAt, m.Steps, m.RunningAt, m.Hydration = begun.Add(time.Second), append([]drover.Step(nil), m.Steps[:3]...), time.Time{}, nil
		m.Steps[2].EndedAt = time.Time{}
	})
	return runner{vars: fleetOf(t, b)}
}

func TestPhasesCommand(t *testing.T) {
	r := fleetWithMoves(t)
	var out strings.Builder
	for _, args := range [][]string{{"phases"}, {"phases", "--app", "ledger", "--since", "1h"}, {"phases", "--host", "h9"}, {"phases", "--app", "No App"}, {"list"}, {"waterfall"},
		{"waterfall", "--host", "h3", "--since", "0s"}} {
		got := r.run(t.Context(), append([]string{"migration"}, args...)...)
		out.WriteString("$ drover migration " + strings.Join(args, " ") + "\n" + got.stdout + got.stderr)
	}
	golden(t, filepath.Join("testdata", "waterfall", "phases.txt"), out.String())

	var report apiv1.PhaseReport
	got := r.run(t.Context(), "migration", "phases", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || report.Slowest != drover.PhaseQuiesce || report.Migrations != 2 {
		t.Errorf("%v %s", err, got.stdout)
	}
	var list []drover.Migration
	got = r.run(t.Context(), "migration", "waterfall", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || len(list) != 2 || list[0].ID != "mig_6f1c0a53e9b2d784" {
		t.Errorf("%v %s", err, got.stdout)
	}
}

func TestDrawingsAreWritten(t *testing.T) {
	r := fleetWithMoves(t)
	file := filepath.Join(t.TempDir(), "move.svg")
	if got := r.run(t.Context(), "migration", "show", "mig_6f1c0a53e9b2d784", "--svg", file); got.code != 0 || !strings.Contains(got.stdout, file) {
		t.Fatalf("%+v", got)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	one := r.run(t.Context(), "migration", "show", "mig_6f1c0a53e9b2d784", "--svg", "-")
	if one.stdout != string(data) {
		t.Error("the file and stdout differ")
	}
	many := r.run(t.Context(), "migration", "waterfall", "--svg", "-")
	for _, drawn := range []string{one.stdout, many.stdout} {
		var svg struct {
			XMLName xml.Name
			Title   string `xml:"title"`
		}
		if err := xml.Unmarshal([]byte(drawn), &svg); err != nil || svg.XMLName.Local != "svg" || svg.Title == "" {
			t.Errorf("%v: %s", err, drawn)
		}
	}
	if got := r.run(t.Context(), "migration", "show", "mig_6f1c0a53e9b2d784", "--svg", filepath.Join(file, "x.svg")); got.code != 2 || !strings.Contains(got.stderr, "Hint:") {
		t.Errorf("%+v", got)
	}
}
