package host

import (
	"strings"
	"testing"
	"time"

	"drover"
)

// offered asks what the host says to a machine: its reasons, and how many fit.
func (h *fakeHost) offered(req drover.OfferRequest) (string, int) {
	h.w.t.Helper()
	o := insist[drover.Offer](h, drover.OrderOffer, req)
	return strings.Join(o.Reasons, "; "), o.Fits
}

func guestOf(kind string, cpus, memory int) drover.OfferRequest {
	return drover.OfferRequest{Machine: "other", CPUKind: kind, CPUs: cpus, MemoryMB: memory}
}

// Performance CPUs are counted whole, shared ones in part; what is over is refused, at an offer as well as at an order.
func TestCPUsAreAccounted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) { // a host with 4 CPUs and 4 GiB
		h := w.host["h1"]
		h.up(0)
		if why, n := h.offered(guestOf(drover.CPUPerformance, 2, 256)); why != "" || n != 2 {
			t.Errorf("%q, %d fit", why, n)
		}
		if why, n := h.offered(guestOf(drover.CPUShared, 1, 64)); why != "" || n != 64 {
			t.Errorf("%q, %d fit", why, n)
		}
		m := machineSpec("m1")
		m.Config.Guest = drover.Guest{CPUKind: drover.CPUPerformance, CPUs: 3, MemoryMB: 256}
		req := h.create(m)
		w.awaitState("m1", drover.StateStarted)
		if why, n := h.offered(guestOf(drover.CPUPerformance, 2, 256)); !strings.Contains(why, `has 1.00 of its 4.00 CPUs left, the machine needs 2.00`) || n != 0 {
			t.Errorf("%q, %d fit", why, n)
		}
		if why, n := h.offered(guestOf(drover.CPUShared, 4, 256)); why != "" || n != 4 {
			t.Errorf("%q, %d fit", why, n)
		}
		req.Machine.Config.Guest.CPUs, req.Machine.Run, req.Machine.UpdatedAt = 4, 2, time.Now()
		insist[drover.MachineStatus](h, drover.OrderApply, req)
		other := machineSpec("m2")
		other.Config.Mounts, other.Config.Guest = nil, drover.Guest{CPUKind: drover.CPUPerformance, CPUs: 1}
		if _, err := order[drover.MachineStatus](h, drover.OrderApply, drover.ApplyRequest{Machine: other, Epoch: w.place("m2", "h1", "")}); !drover.Is(err, drover.Exhausted) {
			t.Errorf("a machine more: %v", err)
		}
		if info := insist[drover.HostInfo](h, drover.OrderInfo, drover.Empty{}); info.CPUsTotal != 4 || info.CPUsUsed != 4 {
			t.Errorf("%v of %v CPUs", info.CPUsUsed, info.CPUsTotal)
		}
	})
}

// Room that is held with a volume is for the machine that gets the volume, also after a restart of the agent, and is free again after its time.
func TestRoomIsHeldWithAVolume(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		pass(time.Second)
		v := testVolume
		v.Compute, v.ReservedUntil = &drover.Guest{CPUKind: drover.CPUShared, CPUs: 1, MemoryMB: 3000}, time.Now().Add(time.Hour)
		make := func(v drover.Volume) error {
			_, err := order[drover.LayerStatus](h, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: v})
			return err
		}
		if err := make(v); err != nil {
			t.Fatal(err)
		}
		more := v
		more.ID = "vol_2"
		if err := make(more); !drover.Is(err, drover.Exhausted) || !strings.Contains(err.Error(), "1096 MiB of memory left") {
			t.Errorf("twice: %v", err)
		}
		h.down()
		h.up(0)
		pass(time.Second)
		big := guestOf(drover.CPUShared, 1, 3000)
		if why, _ := h.offered(big); !strings.Contains(why, "1096 MiB of memory left") {
			t.Errorf("another machine: %q", why)
		}
		big.Volumes = []drover.VolumeID{v.ID}
		if why, n := h.offered(big); why != "" || n != 1 {
			t.Errorf("the machine that gets the volume: %q, %d fit", why, n)
		}
		m := machineSpec("m1")
		m.Config.Guest.MemoryMB = 1500
		req := drover.ApplyRequest{Machine: m, Volumes: []drover.Volume{v}, Epoch: w.place("m1", "h1", "")}
		w.machines["m1"] = m
		insist[drover.MachineStatus](h, drover.OrderApply, req)
		w.awaitState("m1", drover.StateStarted)
		h.down()
		h.up(0)
		pass(time.Second)
		if why, _ := h.offered(guestOf(drover.CPUShared, 1, 2500)); why != "" {
			t.Errorf("once a machine has the volume: %q", why)
		}
		other := v
		other.ID, other.Compute = "vol_3", &drover.Guest{CPUs: 1, MemoryMB: 2500}
		if err := make(other); err != nil {
			t.Fatal(err)
		}
		if why, _ := h.offered(guestOf(drover.CPUShared, 1, 2500)); why == "" {
			t.Error("what is held is given away")
		}
		pass(time.Hour)
		if why, _ := h.offered(guestOf(drover.CPUShared, 1, 2500)); why != "" {
			t.Errorf("after its time: %q", why)
		}
	})
}

func TestADedicatedHostTakesItsOwnOnly(t *testing.T) {
	c, err := Config{ID: "h1"}.withDefaults()
	if err == nil {
		t.Fatal("an empty config is taken")
	}
	c.Dedication = "acme"
	room := capacity{memoryTotal: drover.GiB, diskFree: drover.GiB, cpuTotal: 4000}
	c.CPUs, c.SharedPerCPU = 4, 16
	for to, want := range map[string]string{"acme": "", "": `host "h1" is dedicated to "acme"`, "other": `host "h1" is not dedicated to "other"`} {
		got := ""
		if no := room.refusals(c, drover.Guest{CPUs: 1, MemoryMB: 64, HostDedicationID: to}, 0); len(no) > 0 {
			got = no[0].Text
		}
		if got != want {
			t.Errorf("%q: %q, want %q", to, got, want)
		}
	}
}
