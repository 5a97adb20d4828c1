package host

import (
	"testing"
	"time"

	"drover"
)

// TestAStopOfItsOwnIsForWhatWasAskedFor: the signal and the timeout of a stop or a restart count for that one, not for one that a move makes later.
func TestAStopOfItsOwnIsForWhatWasAskedFor(t *testing.T) {
	kill := drover.StopConfig{Signal: "SIGKILL", Timeout: drover.Duration(time.Second)}
	for name, c := range map[string]struct {
		goal   drover.Goal
		run    uint64
		signal string
	}{
		"a stop":                              {drover.GoalStopped, 3, "SIGKILL"},
		"a restart that is to be carried out": {drover.GoalStarted, 4, "SIGKILL"},
		"a move after the restart":            {drover.GoalStarted, 3, "SIGTERM"},
	} {
		r := &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Goal: c.goal, Run: c.run, Stop: kill,
			Config: drover.MachineConfig{StopConfig: drover.StopConfig{Signal: "SIGTERM"}}}}}
		r.Obs.VM.Run = 3
		if signal, _ := stopOf(r); signal != c.signal {
			t.Errorf("%s is made with %s, want %s", name, signal, c.signal)
		}
	}
}
