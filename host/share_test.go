package host

import (
	"testing"
	"time"

	"drover"
)

// A VM has more of the CPUs than its share while it boots, also when the agent that started it is not there any more when that is over.
func TestAVMIsInAHurryUntilItsMachineRuns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.boot = func(int) bootPlan { return bootPlan{start: time.Minute / 4} }
		m := machineSpec("m1")
		m.Config.Guest = drover.Guest{CPUKind: drover.CPUPerformance, CPUs: 2, MemoryMB: 256}
		share := func() drover.VMShare {
			w.mu.Lock()
			defer w.mu.Unlock()
			return h.vms["m1"].share
		}
		h.up(0)
		h.create(m)
		pass(5 * time.Second)
		if got, want := share(), (drover.VMShare{CPUs: 2, Kind: drover.CPUPerformance, Hurry: true}); got != want {
			t.Errorf("while it boots: %+v, want %+v", got, want)
		}
		h.down()
		pass(time.Minute)
		if !share().Hurry {
			t.Error("nobody is there who could have changed it")
		}
		h.up(0)
		w.awaitState("m1", drover.StateStarted)
		pass(time.Second)
		if got, want := share(), (drover.VMShare{CPUs: 2, Kind: drover.CPUPerformance}); got != want {
			t.Errorf("while it runs: %+v, want %+v", got, want)
		}
	})
}
