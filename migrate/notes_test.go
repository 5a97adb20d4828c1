package migrate

import (
	"testing"
	"time"

	"drover"
)

func TestWaitsAreNotedAndBounded(t *testing.T) {
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	m := Begin(drover.Migration{ID: "mig_1"}, start)
	silent, full := drover.Errorf(drover.Unavailable, "h2 does not answer"), drover.Errorf(drover.Unavailable, "the store does not answer")
	m = Waiting(m, silent, at(1), at(1))
	before := m
	m = Waiting(m, silent, at(1), at(6))
	m = GoesOn(m, full, at(1), 3, at(9))
	m = Waiting(m, silent, at(20), at(21))
	want := []drover.Wait{{From: at(1), Until: at(9), For: full.Text}, {From: at(20), Until: at(21), For: silent.Text}}
	got := m.Steps[0].Waits
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v", got)
	}
	if w := before.Steps[0].Waits; len(w) != 1 || !w[0].Until.Equal(at(1)) {
		t.Errorf("an earlier record was changed: %+v", w)
	}
	for i := range 3 * drover.MaxStepWaits {
		m = Waiting(m, silent, at(30+2*i), at(31+2*i))
	}
	got = m.Steps[0].Waits
	if last := got[len(got)-1]; len(got) != drover.MaxStepWaits || !last.Until.Equal(at(31+2*(3*drover.MaxStepWaits-1))) {
		t.Errorf("%d waits, the last %+v", len(got), last)
	}
}

func TestOrdersAreNotedAndBounded(t *testing.T) {
	m := Begin(drover.Migration{ID: "mig_1"}, start)
	m = Answered(m, drover.OrderMoveProgress, "h2", start, start)
	if m.Steps[0].Orders != nil {
		t.Errorf("%+v", m.Steps[0].Orders)
	}
	for range 2 * drover.MaxStepOrders {
		m = Answered(m, drover.OrderMoveReserve, "h2", start, start.Add(time.Second))
	}
	if got := m.Steps[0].Orders; len(got) != drover.MaxStepOrders || got[0].Host != "h2" || got[0].Order != drover.OrderMoveReserve {
		t.Errorf("%+v", got)
	}
}

// A copy that stands still says why while it does, not only when it is given up.
func TestARoundThatWaitsSaysForWhat(t *testing.T) {
	m := EnterPhase(Begin(drover.Migration{ID: "mig_1"}, start), drover.PhaseConverge, start)
	m.Convergence = &drover.Convergence{Round: 2, At: start}
	copied := func(waiting string, done bool) drover.MoveCopied {
		return drover.MoveCopied{Done: done, Hydration: map[drover.DiskID]drover.Hydration{"vol_1": {Total: drover.MiB, Waiting: waiting}}}
	}
	m = RoundCopied(m, copied("h1 does not answer", false), start)
	if m.Problem == nil || m.Problem.Text != "the copy of round 2 waits: h1 does not answer" {
		t.Errorf("%v", m.Problem)
	}
	if m = RoundCopied(m, copied("", false), start); m.Problem != nil {
		t.Errorf("it goes on, but says %v", m.Problem)
	}
}
