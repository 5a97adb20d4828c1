package host

import (
	"fmt"
	"testing"
	"time"

	"drover"
)

const testStandby = drover.StandbyID("sby_1")

// follow makes host b's standby of the volume on host a whole up to a step, as the control side does, and gives the step before up.
func follow(w *world, step, over int) error {
	a, b := w.host["a"], w.host["b"]
	f, err := press[drover.StandbyFrozen](a, drover.OrderStandbyFreeze, drover.StandbyFreezeRequest{Standby: testStandby, Volume: testVolume,
		Step: step, Over: over, Target: "b"})
	if err != nil {
		return err
	}
	if f.TakenAt.IsZero() || f.Export.Host != "a" || f.Export.Cipher == nil != (testVolume.Cipher == nil) {
		w.t.Errorf("the frozen step is %+v", f)
	}
	req := drover.StandbyCopyRequest{Standby: testStandby, Volume: testVolume.ID, Step: step, Over: over, Export: f.Export, TakenAt: f.TakenAt}
	for range 60 {
		c, err := press[drover.StandbyCopied](b, drover.OrderStandbyCopy, req)
		if err != nil {
			return err
		}
		if c.Done {
			if over == 0 {
				return nil
			}
			_, err = press[drover.Empty](a, drover.OrderStandbyRelease, drover.StandbyReleaseRequest{Standby: testStandby, Volume: testVolume.ID, Step: over, Target: "b"})
			return err
		}
		pass(time.Second)
	}
	return fmt.Errorf("step %d has no end", step)
}

// TestACrashAtEveryStepOfAStandby cuts the volume's host, or the standby's, at every step of three steps and of the removal.
func TestACrashAtEveryStepOfAStandby(t *testing.T) { eachCut(t, cutStandby) }

func cutStandby(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
	a, b := w.host["a"], w.host["b"]
	a.up(0)
	b.up(0)
	a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	v := w.host[victim]
	v.power = power
	v.cut(k)
	s := v.sess
	for step := 1; step <= 2; step++ {
		if err := follow(w, step, step-1); err != nil {
			t.Fatalf("k=%d: step %d: %v", k, step, err)
		}
	}
	w.revive()
	w.awaitState("m1", drover.StateStarted)
	pass(2 * sweepEvery)
	w.revive()
	b.onlyLayers("vol_1.sby_1.s2")
	for _, h := range []struct {
		h    *fakeHost
		err  error
		want []drover.LayerID
	}{{b, pressed(b, drover.OrderStandbyDrop, drover.StandbyDropRequest{Standby: testStandby, Volume: testVolume.ID}), nil},
		{a, pressed(a, drover.OrderStandbyRelease, drover.StandbyReleaseRequest{Standby: testStandby, Volume: testVolume.ID, Step: 2, Target: "b"}),
			[]drover.LayerID{"root_m1", "vol_1"}}} {
		if h.err != nil {
			t.Errorf("k=%d: %v", k, h.err)
		}
		h.h.onlyLayers(h.want...)
	}
	w.revive()
	w.awaitState("m1", drover.StateStarted)
	pass(2 * sweepEvery)
	w.check()
	if err := follow(w, 3, 0); !drover.Is(err, drover.Canceled) {
		t.Errorf("k=%d: a standby that was removed comes back: %v", k, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where)
	return s.dead && s.where != ""
}

func pressed(h *fakeHost, o drover.Order, req any) error {
	_, err := press[drover.Empty](h, o, req)
	return err
}

// TestThePromotionOfAStandby: the last whole step becomes the volume; one that is on its way does not, and follows nothing any more.
func TestThePromotionOfAStandby(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.host["a"], w.host["b"]
		a.up(0)
		b.up(0)
		a.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
		promote := fromSnapshot()
		promote.Source.Kind, promote.Source.Snapshot, promote.Source.Standby, promote.Source.Host = drover.FromStandby, nil, testStandby, "b"
		if _, err := order[drover.LayerStatus](b, drover.OrderRecoveryMake, promote); !drover.Is(err, drover.NotFound) {
			t.Errorf("promoted from nothing: %v", err)
		}
		if err := follow(w, 1, 0); err != nil {
			t.Fatal(err)
		}
		if err := follow(w, 3, 2); !drover.Is(err, drover.NotFound) {
			t.Errorf("a change to a step that is not there: %v", err)
		}
		a.powerCut()
		for range 2 {
			insist[drover.LayerStatus](b, drover.OrderRecoveryMake, promote)
			insist[drover.Empty](b, drover.OrderRecoveryDrop, promote)
		}
		if err := takeOver(w, promote); err != nil {
			t.Fatal(err)
		}
		w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
		late := drover.StandbyCopyRequest{Standby: testStandby, Volume: testVolume.ID, Step: 2, Over: 1, Export: drover.Export{Size: testVolume.Size}}
		if _, err := order[drover.StandbyCopied](b, drover.OrderStandbyCopy, late); !drover.Is(err, drover.Conflict) {
			t.Errorf("a standby that was promoted follows: %v", err)
		}
		insist[drover.Empty](b, drover.OrderStandbyDrop, drover.StandbyDropRequest{Standby: testStandby, Volume: testVolume.ID})
		b.onlyLayers("root_m1", "vol_1.r1")
		a.up(0)
		pass(time.Minute)
		w.check()
		kept := insist[[]drover.KeptLayer](a, drover.OrderRecoveryKept, drover.Empty{})
		if len(kept) != 2 || !kept[1].LaterKnown || kept[1].Later >= kept[1].Allocated {
			t.Errorf("what the old host has that the standby has not: %+v", kept)
		}
	}, "a", "b")
}

// everyStandbyOrder gives each order of a standby once, for the test of the fault points.
func everyStandbyOrder(w *world) {
	w.t.Helper()
	a, b := w.host["a"], w.host["b"]
	a.up(0)
	b.up(0)
	a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	for step := 1; step <= 2; step++ {
		if err := follow(w, step, step-1); err != nil {
			w.t.Fatal(err)
		}
	}
	export := drover.Export{Disk: testVolume.ID.Disk(), Layer: "vol_1.sby_1.4", Host: "a", Size: testVolume.Size}
	for step := 3; step <= 4; step++ { // the first of them is given up for the second
		insist[drover.StandbyCopied](b, drover.OrderStandbyCopy, drover.StandbyCopyRequest{Standby: testStandby, Volume: testVolume.ID, Step: step, Over: 2, Export: export})
	}
	insist[drover.Empty](b, drover.OrderStandbyDrop, drover.StandbyDropRequest{Standby: testStandby, Volume: testVolume.ID})
}
