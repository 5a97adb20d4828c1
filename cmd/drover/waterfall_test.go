package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/apiv1"
	"drover/waterfall"
)

// moved is a migration that has come to an end; the tests take parts of it away.
func moved() apiv1.Migration {
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	ms := int64(4215)
	return apiv1.Migration{
		Migration: drover.Migration{
			ID: "mig_6f1c0a53e9b2d784", Machine: "3d8d9c2b7e0a15", App: "ledger", Source: "h1", Target: "h2", Actor: "operator",
			Outcome: drover.Succeeded, Phase: drover.PhaseDone, WasRunning: true,
			Disks: []drover.DiskMove{{Disk: "root_3d8d9c2b7e0a15", Size: drover.GiB, Allocated: 12 * drover.MiB},
				{Disk: "vol_1", Volume: "vol_6f1c0a53e9b2d784", Size: 2 * drover.GiB, Allocated: 600 * drover.MiB}},
			Steps: []drover.Step{
				{Phase: drover.PhaseReserve, StartedAt: at(0), EndedAt: at(310), Tries: 1},
				{Phase: drover.PhaseExport, StartedAt: at(310), EndedAt: at(455), Tries: 2, Waited: "h2 did not answer for 90 ms"},
				{Phase: drover.PhaseQuiesce, StartedAt: at(455), EndedAt: at(1655), Tries: 1},
				{Phase: drover.PhaseSwitch, StartedAt: at(1655), EndedAt: at(1702), Tries: 1},
				{Phase: drover.PhaseStart, StartedAt: at(1702), EndedAt: at(4670), Tries: 1, Bytes: 23 * drover.MiB},
				{Phase: drover.PhaseHydrate, StartedAt: at(4670), EndedAt: at(12950), Tries: 1, Bytes: 612 * drover.MiB},
			},
			StoppedAt: at(455), RunningAt: at(4670),
			Hydration: &drover.Hydration{Total: 612 * drover.MiB, TotalKnown: true, Copied: 612 * drover.MiB, Done: true},
		},
		InterruptionMS: &ms,
		AsOf:           at(60_000),
	}
}

func TestWaterfall(t *testing.T) {
	hydrating := moved()
	hydrating.Outcome, hydrating.Phase, hydrating.AsOf = drover.Running, drover.PhaseHydrate, hydrating.Steps[5].StartedAt.Add(3*time.Second)
	hydrating.Steps[5].EndedAt, hydrating.Steps[5].Bytes = time.Time{}, 380*drover.MiB
	hydrating.Hydration = &drover.Hydration{Total: 612 * drover.MiB, TotalKnown: true, Copied: 380 * drover.MiB, Skipped: 4 * drover.MiB, BytesPerSecond: 76 * drover.MiB}

	stuck := moved()
	stuck.Outcome, stuck.Phase, stuck.Steps, stuck.InterruptionMS, stuck.RunningAt = drover.Running, drover.PhaseStart, stuck.Steps[:5], nil, time.Time{}
	stuck.Steps[4].EndedAt, stuck.Steps[4].Tries, stuck.Steps[4].Waited = time.Time{}, 7, "h2 does not answer"
	stuck.Hydration = &drover.Hydration{Total: 612 * drover.MiB, Waiting: "parent h1 at 10.0.0.1:4290: connection refused"}
	stuck.Problem = drover.Errorf(drover.Unavailable, "host h2 does not answer")

	aborted := moved()
	aborted.Outcome, aborted.Phase, aborted.Steps = drover.Aborted, drover.PhaseExport, aborted.Steps[:2]
	aborted.InterruptionMS, aborted.StoppedAt, aborted.Hydration, aborted.Disks = nil, time.Time{}, nil, nil
	aborted.Problem = drover.Errorf(drover.Exhausted, "host h2 has 100 MiB of disk free, 612 MiB are needed")

	none := moved()
	none.Outcome, none.Phase, none.Steps, none.InterruptionMS, none.StoppedAt, none.Hydration = drover.Running, drover.PhaseReserve, nil, nil, time.Time{}, nil

	long := moved()
	long.Steps[5].EndedAt = long.Steps[5].StartedAt.Add(3 * time.Hour)

	for name, m := range map[string]apiv1.Migration{"done": moved(), "hydrating": hydrating, "stuck": stuck, "aborted": aborted, "none": none, "long": long} {
		golden(t, filepath.Join("testdata", "waterfall", name+".txt"), waterfall.Text(chartOf(m), 80))
	}
	golden(t, filepath.Join("testdata", "waterfall", "wide.txt"), waterfall.Text(chartOf(moved()), 140))
}

// TestWaterfallFits: rows are as wide as the terminal at most, down to the narrowest bars.
func TestWaterfallFits(t *testing.T) {
	for _, width := range []int{0, 1, 40, 60, 80, 81, 200} {
		for row := range strings.Lines(waterfall.Text(chartOf(moved()), width)) {
			if most := max(width, 41+10, 64); len(row)-1 > most {
				t.Errorf("at width %d this row is %d wide: %s", width, len(row)-1, row)
			}
		}
	}
}

// TestWaterfallWithSkewedClocks: steps that seem to end before they start, or to start before the first, do no harm.
func TestWaterfallWithSkewedClocks(t *testing.T) {
	m := moved()
	m.Steps[2].EndedAt = m.Steps[2].StartedAt.Add(-time.Hour)
	m.Steps[3].StartedAt = m.Steps[0].StartedAt.Add(-time.Minute)
	m.AsOf = m.Steps[0].StartedAt.Add(-time.Hour)
	m.Steps[5].EndedAt = time.Time{}
	if got := waterfall.Text(chartOf(m), 80); !strings.Contains(got, "+0 ms") || strings.Contains(got, "-1") {
		t.Error(got)
	}
}
