package host

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drover"
)

const testRecovery = drover.RecoveryID("rec_1")

func fromSnapshot() drover.RecoveryMakeRequest {
	src := drover.SnapshotSource{Snapshot: testSnapshot, Volume: testVolume.ID, Manifest: "m", Size: testVolume.Size, Data: drover.MiB}
	return drover.RecoveryMakeRequest{Recovery: testRecovery, Volume: testVolume, Source: drover.RecoverySource{Volume: testVolume.ID,
		Kind: drover.FromSnapshot, Snapshot: &src, At: time.Now().Add(-time.Hour), Size: testVolume.Size}}
}

// takeOver gives machine m1 to host b by a recovery, as the control side does when it believes that host a is off.
func takeOver(w *world, req drover.RecoveryMakeRequest) error {
	b := w.host["b"]
	if _, err := press[drover.LayerStatus](b, drover.OrderRecoveryMake, req); err != nil {
		return err
	}
	w.mu.Lock()
	spec, status, moved := w.machines["m1"], w.status["m1"], w.placements["m1"].Host == "b"
	epoch := w.placements["m1"].Epoch
	w.mu.Unlock()
	if !moved {
		epoch = w.place("m1", "b", "")
	}
	v := testVolume
	v.Host, v.Epoch = "b", epoch
	_, err := press[drover.MachineStatus](b, drover.OrderApply, drover.ApplyRequest{Machine: spec, Volumes: []drover.Volume{v}, Epoch: epoch,
		Recovery: &drover.RecoveryNote{Recovery: req.Recovery, From: "a", Sources: []drover.RecoverySource{req.Source}, At: req.Source.At.Add(time.Hour), Status: &status}})
	return err
}

// TestACrashAtEveryStepOfARecovery: the machine's host loses its power, another gets the machine and is cut at every step. Then the first one is
// back: it starts nothing, keeps what it has aside, and removes it when the time is over.
func TestACrashAtEveryStepOfARecovery(t *testing.T) {
	for _, victim := range []drover.HostID{"b", "a"} {
		t.Run(string(victim), func(t *testing.T) {
			for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
				bubble(t, func(t *testing.T, w *world) { reached = cutRecovery(t, w, victim, k) }, "a", "b")
			}
		})
	}
}

func cutRecovery(t *testing.T, w *world, victim drover.HostID, k int) bool {
	a, b := w.host["a"], w.host["b"]
	a.up(0)
	b.up(0)
	a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	a.powerCut()
	b.power = true
	if victim == "b" {
		b.cut(k)
	}
	s := b.sess
	if err := takeOver(w, fromSnapshot()); err != nil {
		t.Fatalf("k=%d: %v", k, err)
	}
	w.await("m1", "started on b", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Host == "b" })
	if victim == "a" {
		a.power = true
		a.up(k)
		s = a.sess
	} else {
		a.up(0)
	}
	pass(time.Minute)
	w.revive()
	pass(time.Minute)
	if got := w.running("m1"); len(got) != 1 || got[0] != "b" {
		t.Errorf("k=%d: the machine runs on %v", k, got)
	}
	w.check()
	kept := insist[[]drover.KeptLayer](a, drover.OrderRecoveryKept, drover.Empty{})
	if len(kept) != 2 || kept[1].Volume != testVolume.ID || kept[1].Owner != "b" || kept[1].Allocated == 0 || kept[0].Disk != "root_m1" {
		t.Errorf("k=%d: kept aside is %+v", k, kept)
	}
	if epoch := w.placements["m1"].Epoch; a.fences["vol_1"] != epoch || a.fences["root_m1"] != epoch {
		t.Errorf("k=%d: the old host's fences are %v, want %d", k, a.fences, epoch)
	}
	a.onlyLayers("root_m1", "vol_1")
	b.onlyLayers("root_m1", "vol_1.r1")
	var told []string
	for _, e := range w.status["m1"].Events {
		if e.Type == "recover" {
			told = append(told, e.Text)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], "1h0m0s before (from a snapshot)") {
		t.Errorf("k=%d: the events tell %q", k, told)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where)
	return s.dead && s.where != ""
}

func TestWhatIsKeptAsideGoesInTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.host["a"], w.host["b"]
		a.up(0)
		b.up(0)
		a.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
		a.powerCut()
		if err := takeOver(w, fromSnapshot()); err != nil {
			t.Fatal(err)
		}
		a.up(0)
		pass(testKeepAside / 2)
		a.onlyLayers("root_m1", "vol_1")
		pass(testKeepAside)
		a.onlyLayers()
		if kept := insist[[]drover.KeptLayer](a, drover.OrderRecoveryKept, drover.Empty{}); len(kept) != 0 {
			t.Errorf("kept aside for ever: %+v", kept)
		}
	}, "a", "b")
}

// A host that gets its power back before its bus waits a while for it, and starts its machines then: nobody has taken them, as far as it knows.
func TestAHostThatComesBackWaitsForTheBusAWhile(t *testing.T) {
	for _, taken := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a := w.host["a"]
			a.up(0)
			a.create(machineSpec("m1"))
			w.awaitState("m1", drover.StateStarted)
			a.powerCut()
			w.setBus(false)
			a.up(0)
			pass(ownerFirst / 2)
			if got := w.running("m1"); len(got) != 0 {
				t.Errorf("started at once on %v", got)
			}
			if taken {
				w.place("m1", "b", "")
				w.setBus(true)
			}
			pass(ownerFirst)
			if got := w.running("m1"); (len(got) != 0) == taken {
				t.Errorf("taken %v: runs on %v", taken, got)
			}
		}, "a", "b")
	}
}

func TestARecoveryIsDroppedAndRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.host["b"]
		b.up(0)
		req := fromSnapshot()
		for k := range 2 {
			insist[drover.LayerStatus](b, drover.OrderRecoveryMake, req)
			other := req
			other.Recovery = "rec_2"
			if _, err := order[drover.LayerStatus](b, drover.OrderRecoveryMake, other); !drover.Is(err, drover.Conflict) {
				t.Errorf("a second recovery: %v", err)
			}
			insist[drover.Empty](b, drover.OrderRecoveryDrop, other)
			b.onlyLayers("vol_1.r1")
			for range k + 1 {
				insist[drover.Empty](b, drover.OrderRecoveryDrop, req)
			}
			b.onlyLayers()
		}
		for what, bad := range map[string]func(r *drover.RecoveryMakeRequest){
			"no recovery":  func(r *drover.RecoveryMakeRequest) { r.Recovery = "" },
			"no copy":      func(r *drover.RecoveryMakeRequest) { r.Source.Kind = drover.FromNothing },
			"no snapshot":  func(r *drover.RecoveryMakeRequest) { r.Source.Snapshot = nil },
			"another's":    func(r *drover.RecoveryMakeRequest) { r.Source.Volume = "vol_9" },
			"no size":      func(r *drover.RecoveryMakeRequest) { r.Volume.Size = 0 },
			"too small":    func(r *drover.RecoveryMakeRequest) { r.Volume.Size = drover.MiB },
			"no such copy": func(r *drover.RecoveryMakeRequest) { r.Source.Kind, r.Source.Standby = drover.FromStandby, "sby_9" },
		} {
			r := fromSnapshot()
			bad(&r)
			if _, err := order[drover.LayerStatus](b, drover.OrderRecoveryMake, r); !drover.Is(err, drover.Invalid) && !drover.Is(err, drover.NotFound) {
				t.Errorf("%s: %v", what, fmt.Sprint(err))
			}
		}
		b.onlyLayers()
	}, "b")
}

// everyRecoveryOrder gives each order of a recovery once, for the test of the fault points.
func everyRecoveryOrder(w *world) {
	w.t.Helper()
	a, b := w.host["a"], w.host["b"]
	a.up(0)
	b.up(0)
	a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	a.powerCut()
	insist[drover.LayerStatus](b, drover.OrderRecoveryMake, fromSnapshot())
	insist[drover.Empty](b, drover.OrderRecoveryDrop, fromSnapshot())
	if err := takeOver(w, fromSnapshot()); err != nil {
		w.t.Fatal(err)
	}
	a.up(0)
	pass(time.Minute)
}
