package host

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drover"
)

// A host takes volumes up to three times its disk, and none when the disk is nearly full; what comes by a move goes by what it holds.
func TestVolumesAreProvisionedUpToAFactor(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"] // a disk of 200 GiB
		h.up(0)
		pass(time.Second)
		create := func(id drover.VolumeID, size drover.Bytes) error {
			_, err := order[drover.LayerStatus](h, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: drover.Volume{ID: id, Size: size}})
			return err
		}
		offer := func(req drover.OfferRequest) string {
			o := insist[drover.Offer](h, drover.OrderOffer, req)
			if o.Disk != 200*drover.GiB {
				t.Errorf("the offer says that the disk has %d bytes", o.Disk)
			}
			return strings.Join(o.Reasons, "; ")
		}
		for _, id := range []drover.VolumeID{"vol_1", "vol_2"} {
			if err := create(id, 250*drover.GiB); err != nil {
				t.Fatal(err)
			}
		}
		if got := insist[drover.HostInfo](h, drover.OrderInfo, drover.Empty{}).DiskProvisioned; got != 500*drover.GiB {
			t.Errorf("the host says that %d bytes are provisioned", got)
		}
		if got := offer(drover.OfferRequest{Provision: 100 * drover.GiB}); got != "" {
			t.Errorf("refused what fits: %s", got)
		}
		if got := offer(drover.OfferRequest{Provision: 101 * drover.GiB}); !strings.Contains(got, "more than 3 times its disk") {
			t.Errorf("offered what does not fit: %s", got)
		}
		if err := create("vol_3", 101*drover.GiB); !drover.Is(err, drover.Exhausted) {
			t.Errorf("made what does not fit: %v", err)
		}
		if err := create("vol_1", 250*drover.GiB); err != nil {
			t.Errorf("what is there is refused when asked again: %v", err)
		}
		if err := create("vol_3", 100*drover.GiB); err != nil {
			t.Error(err)
		}
		if got := offer(drover.OfferRequest{Disk: 50 * drover.GiB}); got != "" {
			t.Errorf("a move is refused: %s", got)
		}
		insist[drover.Empty](h, drover.OrderVolumeDestroy, drover.VolumeRequest{Volume: drover.Volume{ID: "vol_2"}})
		w.mu.Lock()
		h.free = 19 * drover.GiB
		w.mu.Unlock()
		if got := offer(drover.OfferRequest{Provision: drover.GiB}); !strings.Contains(got, "is 90 % full") {
			t.Errorf("a host that is nearly full takes a volume: %s", got)
		}
		if err := create("vol_4", drover.GiB); !drover.Is(err, drover.Exhausted) {
			t.Errorf("a host that is nearly full made a volume: %v", err)
		}
	})
}

// A volume that is on its way here counts once, before its record is there and after.
func TestVolumesOnTheirWayAreProvisioned(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.host["a"], w.host["b"]
		a.up(0)
		b.up(0)
		req := a.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
		size := req.Volumes[0].Size
		want := func(h *fakeHost, what string, n drover.Bytes) {
			t.Helper()
			if got := insist[drover.HostInfo](h, drover.OrderInfo, drover.Empty{}).DiskProvisioned; got != n {
				t.Errorf("%s: host %s says %d, want %d", what, h.id, got, n)
			}
		}
		want(a, "before", size)
		want(b, "before", 0)
		insist[drover.Empty](b, drover.OrderMoveReserve, drover.MoveReserveRequest{MoveRequest: drover.MoveRequest{Migration: "mig_1", Machine: "m1"},
			Spec: req.Machine, Volumes: req.Volumes})
		want(b, "reserved", size)
	}, "a", "b")
}

// Requests at the same moment do not get the same room.
func TestVolumesAtOnceAreNotProvisionedTwice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"] // a disk of 200 GiB, for volumes of 600
		h.up(0)
		pass(time.Second)
		const asked, fit = 10, 6
		answers := make(chan error, asked)
		for i := range asked {
			go func() {
				_, err := order[drover.LayerStatus](h, drover.OrderVolumeCreate,
					drover.VolumeRequest{Volume: drover.Volume{ID: drover.VolumeID(fmt.Sprintf("vol_%d", i)), Size: 100 * drover.GiB}})
				answers <- err
			}()
		}
		made := 0
		for range asked {
			switch err := <-answers; {
			case err == nil:
				made++
			case !drover.Is(err, drover.Exhausted):
				t.Error(err)
			}
		}
		if made != fit {
			t.Errorf("%d volumes were made where %d fit", made, fit)
		}
		if len(h.agent.promised) != 0 {
			t.Errorf("promises are left: %v", h.agent.promised)
		}
	})
}
