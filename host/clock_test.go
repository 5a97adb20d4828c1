package host

import (
	"testing"
	"time"

	"drover"
)

// A clock that was ahead for a moment has left its times in the records. What they hold up must not stand still until they have come.
func TestAClockThatWasPutBackHoldsNothingUp(t *testing.T) {
	for _, ahead := range []time.Duration{10 * time.Minute, 24 * time.Hour} {
		r := &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Instance: "i", Goal: drover.GoalStarted, Run: 2}},
			Obs: observed{Status: drover.MachineStatus{State: drover.StateStarting, Instance: "i", Run: 2}, RetryAt: t0.Add(ahead)}}
		if got := next(view{rec: r, vm: vmNone, now: t0, bootTimeout: 30 * time.Second}); got.kind != actStart {
			t.Errorf("a start that was put off until %s from now: %+v", ahead, got)
		}
		r = &records{Desired: r.Desired, Move: &moveRecord{Role: roleTarget, Migration: "m", AdoptedAt: t0.Add(ahead), WantClones: true, Cloned: true},
			Obs: observed{Status: r.Obs.Status, VM: vmRecord{Live: true, Launched: true, MainStarted: true, Run: 2, Instance: "i", At: t0}}}
		for _, hydrateAt := range []time.Time{{}, t0.Add(ahead)} {
			if got := hydration(view{rec: r, vm: vmLive, now: t0, hydrateAt: hydrateAt}); got.kind != actHydrate {
				t.Errorf("a hydration that was adopted %s from now: %+v", ahead, got)
			}
		}
	}
}
