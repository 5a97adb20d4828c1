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

// What is copied before a late switch is no part of what a move takes besides, and two that copy off a host at a time share what it can copy.
func TestWhatIsCopiedBeforeTheSwitchCountsOnce(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return begun.Add(time.Duration(s * float64(time.Second))) }
	move := func(source drover.HostID, from float64) drover.Migration {
		return drover.Migration{Source: source, CreatedAt: at(from), WasRunning: true, Hydration: &drover.Hydration{Copied: drover.MiB}, Steps: []drover.Step{
			{Phase: drover.PhaseConverge, StartedAt: at(from + 1), EndedAt: at(from + 9), Bytes: 256 * drover.MiB},
			{Phase: drover.PhaseHydrate, StartedAt: at(from + 12), EndedAt: at(from + 12.5)}}}
	}
	r := ratesFrom([]drover.Migration{move("h1", 0), move("h1", 0), move("h2", 0)})
	if r.Before != 4*time.Second || r.After != 500*time.Millisecond || r.Copy != 64*float64(drover.MiB) {
		t.Errorf("%+v", r)
	}
	if r := ratesFrom([]drover.Migration{move("h1", 0), move("h1", 4)}); r.Copy != 48*float64(drover.MiB) {
		t.Errorf("two that overlap by half: %+v", r)
	}
}
