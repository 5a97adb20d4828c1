package fleet

import (
	"context"
	"slices"
	"strings"
	"testing"

	"drover"
)

func guestConfigOf(memory int) drover.MachineConfig {
	return drover.MachineConfig{Image: "busybox", Guest: drover.Guest{MemoryMB: memory}}
}

// A dry run says where machines would go and why not elsewhere, and keeps nothing; what it says is what then happens.
func TestPlaceSaysWhatWouldHappen(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t) // h1 and h2 in ams, h3 in fra, 8 GiB each
	ctx := t.Context()
	if _, err := n.CordonHost(ctx, Cordon{Host: "h2", Owner: "eve", Reason: "a fan is loud"}); err != nil {
		t.Fatal(err)
	}
	w.machine(n, CreateMachine{Host: "h1"})
	place := func(req PlaceMachines) map[drover.HostID]drover.PlaceHost {
		t.Helper()
		req.App = "shop"
		p, err := n.Place(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		hosts := map[drover.HostID]drover.PlaceHost{}
		for _, h := range p.Hosts {
			hosts[h.Host] = h
		}
		return hosts
	}
	got := place(PlaceMachines{CreateMachine: CreateMachine{Config: guestConfigOf(4096)}})
	if got["h3"].Placed != 1 || got["h1"].Fits != 1 || got["h1"].SameApp != 1 || got["h1"].MemoryFree != 8*drover.GiB-256*drover.MiB ||
		got["h2"].Fits != 0 || !strings.Contains(strings.Join(got["h2"].Reasons, " "), "cordoned by eve") {
		t.Errorf("%+v", got)
	}
	got = place(PlaceMachines{CreateMachine: CreateMachine{Config: guestConfigOf(4096), Region: "ams", Fallback: []drover.Region{"fra"}}, Count: 3})
	if got["h1"].Placed != 1 || got["h3"].Placed != 2 {
		t.Errorf("%+v", got)
	}
	vol := w.volume(n, "h3")
	mounts := guestConfigOf(256)
	mounts.Mounts = []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}
	got = place(PlaceMachines{CreateMachine: CreateMachine{Config: mounts}})
	if got["h3"].Placed != 1 || !slices.Contains(got["h1"].Reasons, `the machine has to be on host "h3"`) {
		t.Errorf("%+v", got)
	}
	w.hosts["h3"].halt()
	w.eventually("h3 is silent", func() bool { return !n.reachable("h3") })
	if got = place(PlaceMachines{CreateMachine: CreateMachine{Config: guestConfigOf(256)}}); !slices.Contains(got["h3"].Reasons, "is unreachable") || got["h1"].Placed != 1 {
		t.Errorf("%+v", got)
	}
	_, err := n.Placements(ctx, PlaceMachines{CreateMachine: CreateMachine{Config: guestConfigOf(2048)}, Count: 5})
	if !drover.Is(err, drover.Exhausted) || !strings.Contains(err.Error(), "room for 3 of 5 machines; 2 more 2048 MiB machines") || !strings.Contains(err.Error(), "h2: is cordoned by eve") {
		t.Error(err)
	}
	for _, req := range []PlaceMachines{{Count: -1}, {Count: 2, CreateMachine: CreateMachine{App: "shop", Config: mounts}}, {CreateMachine: CreateMachine{Region: "mars"}}} {
		if _, err := n.Place(ctx, req); !drover.Is(err, drover.Invalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

func TestTheNextRegionIsTakenWhenTheFirstIsFull(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	where := func() drover.Region {
		return w.machine(n, CreateMachine{Region: "fra", Fallback: []drover.Region{"ams"}, Config: guestConfigOf(5000)}).Machine.Region
	}
	if first, second := where(), where(); first != "fra" || second != "ams" {
		t.Errorf("%s, then %s", first, second)
	}
}

// What is asked of hosts for a volume with a machine says both, and the volume's record says how long the room is held.
func TestAVolumeIsMadeWithRoomForItsMachine(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	make := func(memory int) (VolumeView, error) {
		return n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "data", Size: drover.GiB, Compute: &drover.Guest{MemoryMB: memory}})
	}
	v, err := make(512)
	if err != nil || v.Volume.Compute.MemoryMB != 512 || v.Volume.Compute.CPUs != 1 || v.Volume.ReservedUntil.Sub(v.Volume.CreatedAt) != n.timing.Reserve {
		t.Errorf("%+v, %v", v.Volume, err)
	}
	if _, err := make(9000); !drover.Is(err, drover.Exhausted) || !strings.Contains(err.Error(), "9000 MiB needed") {
		t.Error(err)
	}
	if _, err := make(1); !drover.Is(err, drover.Invalid) || drover.AsError(err).Field != "compute" {
		t.Error(err)
	}
	if o := offerForVolume(CreateVolume{Size: 5, Compute: &drover.Guest{CPUs: 2, MemoryMB: 512, CPUKind: drover.CPUPerformance, HostDedicationID: "acme"}}, 3); o.MemoryMB != 512 ||
		o.CPUs != 2 || o.CPUKind != drover.CPUPerformance || o.Dedication != "acme" || o.Provision != 5 || o.Disk != 3 {
		t.Errorf("%+v", o)
	}
	w.checkOwnerless(n)
}

// checkOwnerless makes sure that what could not be made left nothing.
func (w *world) checkOwnerless(n *node) {
	w.t.Helper()
	volumes, err := n.Volumes(context.Background(), "shop")
	if err != nil || len(volumes) != 1 {
		w.t.Errorf("%d volumes, %v", len(volumes), err)
	}
}

func TestDocumentedSizes(t *testing.T) {
	size := func(kind string, cpus, memory int) drover.Guest {
		return drover.Guest{CPUKind: kind, CPUs: cpus, MemoryMB: memory}
	}
	for _, g := range []drover.Guest{size("shared", 1, 256), size("shared", 1, 2048), size("shared", 8, 2048), size("shared", 8, 16384), size("shared", 2, 768),
		size("performance", 1, 2048), size("performance", 16, 131072), size("performance", 14, 28672)} {
		if err := checkDocumented("config.guest", g); err != nil {
			t.Errorf("%+v: %v", g, err)
		}
	}
	for field, list := range map[string][]drover.Guest{
		"config.guest.cpus": {size("shared", 3, 1024), size("shared", 10, 4096), size("performance", 3, 8192), size("performance", 18, 65536)},
		"config.guest.memory_mb": {size("shared", 1, 128), size("shared", 1, 300), size("shared", 1, 2304), size("shared", 4, 512),
			size("performance", 1, 1024), size("performance", 2, 4500)},
	} {
		for _, g := range list {
			if err := checkDocumented("config.guest", g); !drover.Is(err, drover.Invalid) || drover.AsError(err).Field != field {
				t.Errorf("%+v: %v", g, err)
			}
		}
	}
	odd := size("shared", 1, 128)
	f := &Fleet{cfg: Config{GuestSizes: GuestSizesDocumented}}
	if f.checkSize("config.guest", odd, &odd) != nil || f.checkSize("config.guest", odd, nil) == nil {
		t.Error("a machine does not keep the size that it has, or gets one that is not documented")
	}
	f.cfg.GuestSizes = GuestSizesAny
	if f.checkSize("config.guest", odd, nil) != nil {
		t.Error("not every size is allowed")
	}
}
