package fleet

import (
	"fmt"
	"testing"
	"time"

	"drover"
)

// A host that was just emptied live tells nothing of how long it takes to empty it cold.
func TestExpectationsComeFromMovesOfTheSameKind(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	move := func(n int, live, ran bool, before, gap time.Duration) drover.Migration {
		at := begun.Add(time.Duration(n) * time.Minute)
		return drover.Migration{ID: drover.MigrationID(fmt.Sprint(n)), Machine: "m1", Live: live, WasRunning: ran, CreatedAt: at, StoppedAt: at, RunningAt: at.Add(gap),
			Hydration: &drover.Hydration{}, Steps: []drover.Step{{Phase: drover.PhaseHydrate, StartedAt: at.Add(before), EndedAt: at.Add(before + time.Second)}}}
	}
	all := []drover.Migration{move(0, false, true, 20*time.Second, 15*time.Second), move(1, false, true, 22*time.Second, 17*time.Second), move(2, false, false, time.Second, 0)}
	for n := range ratesOf {
		all = append(all, move(3+n, true, true, 2*time.Second, time.Second))
	}
	for live, want := range map[bool][2]time.Duration{true: {2 * time.Second, time.Second}, false: {21 * time.Second, 16 * time.Second}} {
		r := ratesFrom(alike(all, live))
		if r.Before != want[0] || r.Interruption != want[1] || r.Of["m1"] != want[1] {
			t.Errorf("live %v: %+v, want %v", live, r, want)
		}
	}
	if r := ratesFrom(alike(all[:2], true)); r.Before != 21*time.Second {
		t.Errorf("where there is nothing alike, what there is tells: %+v", r)
	}
}
