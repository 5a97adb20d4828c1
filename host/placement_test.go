package host

import (
	"fmt"
	"testing"
	"time"

	"drover"
)

// Machines that nothing is going on with are asked about together; what a control host doubts is read from the store, and what it cannot say as well.
func TestQuietMachinesAreAskedAboutTogether(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		const machines = 4
		for n := range machines {
			m := machineSpec(drover.MachineID(fmt.Sprintf("m%d", n)))
			m.Config.Mounts = nil
			w.mu.Lock()
			w.machines[m.ID] = m
			w.mu.Unlock()
			insist[drover.MachineStatus](h, drover.OrderApply, drover.ApplyRequest{Machine: m, Epoch: w.place(m.ID, h.id, "")})
			w.awaitState(m.ID, drover.StateStarted)
		}
		reads := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.placementReads
		}
		before := reads()
		pass(time.Minute)
		if more := reads() - before; more != 0 {
			t.Errorf("placements were read %d times while nothing happened", more)
		}
		w.place("m1", "elsewhere", "")
		pass(2 * placementEvery)
		if more := reads() - before; more != 1 || len(w.running("m1")) != 0 || len(w.running("m2")) != 1 {
			t.Errorf("after the loss of one, with %d reads: %v, %v", more, w.running("m1"), w.running("m2"))
		}
		w.mu.Lock()
		w.controlDown = true
		w.mu.Unlock()
		w.place("m2", "elsewhere", "")
		pass(2 * placementEvery)
		if len(w.running("m2")) != 0 || len(w.running("m3")) != 1 {
			t.Errorf("without a control host: %v, %v", w.running("m2"), w.running("m3"))
		}
		w.setBus(false)
		pass(time.Minute)
		w.place("m3", "elsewhere", "")
		w.setBus(true)
		pass(placementTick)
		if len(w.running("m3")) != 0 {
			t.Error("a machine that was lost while the bus was away runs on when it is back")
		}
	})
}
