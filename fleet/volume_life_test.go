package fleet

import (
	"strings"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

func TestAForkIsUsableAtOnceAndLetsItsSourceGo(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	src := w.volume(n, "h1").Volume
	for _, h := range w.hosts {
		h.set(func() { h.polls = 1 << 30 })
	}
	far, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "far", Source: src.ID, Host: "h3", Size: 2 * drover.GiB, Limits: drover.Limits{IOPS: 5}})
	if err != nil || far.Volume.State != drover.VolumeHydrating || far.Hydration == nil || far.Layer == nil || far.Layer.Limits.IOPS != 5 {
		t.Fatalf("%+v, %v", far, err)
	}
	near, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "near", Source: src.ID, Host: "h1"})
	if err != nil || near.Volume.Size != src.Size || near.Volume.Region != "ams" {
		t.Fatalf("%+v, %v", near, err)
	}
	m := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: near.Volume.ID, Path: "/data"}}}})
	_, err = n.MoveMachine(ctx, Move{Machine: m.Machine.ID})
	wantError(t, err, drover.Conflict, "", "")
	_, err = n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: far.Volume.ID})
	wantError(t, err, drover.Conflict, "", "")
	_, err = n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "third", Source: far.Volume.ID})
	wantError(t, err, drover.Conflict, "source_volume_id", "")
	list, err := n.Volumes(ctx, "shop")
	if err != nil || len(list) != 3 || list[0].Hydration != nil || list[1].Hydration == nil || list[2].Hydration == nil {
		t.Errorf("%+v, %v", list, err)
	}
	paused, limit := true, drover.MiB
	if v, err := n.SetHydration(ctx, SetHydration{App: "shop", Volume: far.Volume.ID, Paused: &paused, Limit: &limit}); err != nil || !v.Hydration.Paused || v.Hydration.Limit != limit {
		t.Errorf("%+v, %v", v, err)
	}
	paused = false
	if _, err := n.SetHydration(ctx, SetHydration{App: "shop", Volume: far.Volume.ID, Paused: &paused}); err != nil {
		t.Fatal(err)
	}
	// A volume that is being filled can be destroyed, with its machine or without.
	if err := n.DestroyMachine(ctx, "shop", m.Machine.ID, true); err != nil {
		t.Fatal(err)
	}
	w.eventually("the volume is free, and is still being filled", func() bool {
		v, err := n.Volume(ctx, "shop", near.Volume.ID)
		return err == nil && v.Volume.Machine == "" && v.Volume.State == drover.VolumeHydrating
	})
	if _, err := n.DestroyVolume(ctx, "shop", near.Volume.ID); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.hosts {
		h.set(func() { h.fills[drover.LayerFor(far.Volume.ID.Disk(), "")] = 1 })
	}
	w.settled(n)
	got, err := n.Volume(ctx, "shop", far.Volume.ID)
	if err != nil || got.Volume.State != drover.VolumeCreated || !got.Volume.From.Released || got.Hydration != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, id := range []drover.VolumeID{src.ID, far.Volume.ID} {
		if _, err := n.DestroyVolume(ctx, "shop", id); err != nil {
			t.Fatal(err)
		}
	}
	w.settled(n)
	if list := n.state.volumes.all(); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
	for id, h := range w.hosts {
		h.set(func() {
			for layer := range h.layers {
				if strings.HasPrefix(string(layer), "vol_") {
					t.Errorf("left on %s: %s", id, layer)
				}
			}
		})
	}
}

// TestAForkAndARestoreMayBeCutAnywhere kills the control host at every fault point of the making and filling of volumes.
func TestAForkAndARestoreMayBeCutAnywhere(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Stale = 100 * time.Millisecond } // what a dead maker left is taken up at once
	src := w.volume(n, "h1").Volume
	snap := w.snapshot(n, src.ID)
	made := map[string]CreateVolume{
		"fork elsewhere": {App: "shop", Name: "copy", Source: src.ID, Host: "h2"},
		"fork here":      {App: "shop", Name: "copy", Source: src.ID, Host: "h1"},
		"restore":        {App: "shop", Name: "copy", Snapshot: snap.ID},
	}
	for name, req := range made {
		for _, point := range []string{"fleet.volume.record.after", "fleet.volume.fork.after", "fleet.volume.made.after", "fleet.volume.fork-end.after",
			"fleet.volume.removed.after"} {
			if name == "restore" && strings.Contains(point, "fork") {
				continue
			}
			n.kill()
			n = w.control("c1", killOnce(point))
			w.eventually("hosts are heard of", func() bool { return n.reachable("h1") && n.reachable("h2") && n.reachable("h3") })
			cut := n
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				v, err := cut.CreateVolume(t.Context(), req)
				for err == nil && !cut.isDead() {
					if v, err = cut.Volume(t.Context(), "shop", v.Volume.ID); err == nil && v.Volume.State == drover.VolumeCreated {
						_, err = cut.DestroyVolume(t.Context(), "shop", v.Volume.ID)
					}
				}
			}()
			<-cut.dead
			<-ended
			n.kill()
			n = w.control("c1", nil)
			w.settled(n)
			list, err := n.Volumes(t.Context(), "shop")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				if v.Volume.ID == src.ID {
					continue
				}
				if v.Volume.State != drover.VolumeCreated || v.Volume.From == nil || !v.Volume.From.Released {
					t.Errorf("%s at %s: %+v", name, point, v.Volume)
				}
				if _, err := n.DestroyVolume(t.Context(), "shop", v.Volume.ID); err != nil {
					t.Fatal(err)
				}
			}
			w.settled(n)
			for id, h := range w.hosts {
				want := 0
				if id == "h1" {
					want = 1
				}
				h.set(func() {
					if len(h.layers) != want {
						t.Errorf("%s at %s: host %s has %v", name, point, id, h.layers)
					}
				})
			}
		}
	}
}

// TestAForkThatCannotBeMadeAnyMoreIsTakenBack lets its maker die before its source was frozen, and the source move away meanwhile.
func TestAForkThatCannotBeMadeAnyMoreIsTakenBack(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	src := w.volume(n, "h1").Volume
	n.kill()
	n = w.control("c1", killOnce("fleet.volume.record.after"))
	w.eventually("hosts are heard of", func() bool { return n.reachable("h1") && n.reachable("h2") })
	cut := n
	go func() {
		_, err := cut.CreateVolume(ctx, CreateVolume{App: "shop", Name: "copy", Source: src.ID, Host: "h2"})
		t.Errorf("the maker lived on: %v", err)
	}()
	<-cut.dead
	n.kill()
	w.hosts["h1"].set(func() { w.hosts["h1"].dropLayers(src.ID.Disk()) })
	n = w.control("c1", nil)
	w.eventually("nothing is left of it", func() bool {
		list, err := n.Volumes(ctx, "shop")
		return err == nil && len(list) == 1 && list[0].Volume.ID == src.ID
	})
	w.checkLayers("h2")
}

func TestASnapshotStaysWhileAVolumeIsFilledFromIt(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	src := w.volume(n, "h1").Volume
	snap := w.snapshot(n, src.ID)
	w.hosts["h2"].set(func() { w.hosts["h2"].polls = 1 << 30 })
	v, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "copy", Snapshot: snap.ID, Host: "h2"})
	if err != nil || v.Volume.From.Snapshot.Manifest != snap.Manifest {
		t.Fatalf("%+v, %v", v, err)
	}
	_, err = n.DeleteSnapshot(ctx, "shop", snap.ID)
	wantError(t, err, drover.Precondition, "", "")
	// A removal that is older than the volume's record waits all the same.
	if _, err := n.changeSnapshot(ctx, snap.ID, func(s *drover.Snapshot) error { s.State = drover.SnapshotDestroying; return nil }); err != nil {
		t.Fatal(err)
	}
	_, err = n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "copy", Snapshot: snap.ID})
	wantError(t, err, drover.Precondition, "snapshot_id", "")
	w.store.checkOnly(snap.ID)
	w.hosts["h2"].set(func() { w.hosts["h2"].fills[drover.LayerFor(v.Volume.ID.Disk(), "")] = 1 })
	w.settled(n)
	w.store.checkOnly()
}

func TestAVolumeIsExtendedWhoeverDies(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	size := func() drover.Bytes {
		var l drover.LayerStatus
		w.hosts["h1"].set(func() { l, _ = w.hosts["h1"].hasVolume(vol.ID) })
		return l.Size
	}
	for i, point := range []string{"fleet.volume.grow.record.after", "fleet.volume.grow.order.after"} {
		n.kill()
		n = w.control("c1", killOnce(point))
		w.eventually("h1 is heard of", func() bool { return n.reachable("h1") })
		cut, want := n, drover.Bytes(i+2)*drover.GiB
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			// Where the lease holder's work is faster, it is that which dies, and the maker sees its connection go.
			if _, err := cut.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: want}); err != nil && !drover.Is(err, drover.Unavailable) {
				t.Errorf("%s: %v", point, err)
			}
		}()
		<-cut.dead
		<-ended
		n.kill()
		n = w.control("c1", nil)
		w.settled(n)
		if v, err := n.Volume(ctx, "shop", vol.ID); err != nil || v.Volume.Size != want || v.Volume.Grow != 0 || size() != want {
			t.Errorf("%s: %+v, %v; the layer has %d", point, v.Volume, err, size())
		}
	}
	got, err := n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: 7 * drover.GiB})
	if err != nil || !got.NeedsRestart || got.Volume.Volume.Size != 7*drover.GiB {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: 7 * drover.GiB}); err != nil {
		t.Errorf("asked again: %v", err)
	}
	for _, c := range []struct {
		size drover.Bytes
		code drover.Code
	}{{drover.GiB, drover.Invalid}, {0, drover.Invalid}, {8*drover.GiB + 1, drover.Invalid}, {1 << 60, drover.Invalid}} {
		_, err := n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: c.size})
		wantError(t, err, c.code, "size_gb", "")
	}
	// Refused for good: nothing is left of the wish. Without an answer: it is carried out later.
	w.hosts["h1"].failing(drover.Exhausted, false, drover.OrderVolumeResize)
	_, err = n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: 8 * drover.GiB})
	wantError(t, err, drover.Exhausted, "", "")
	if v, err := n.Volume(ctx, "shop", vol.ID); err != nil || v.Volume.Grow != 0 || v.Volume.Size != 7*drover.GiB {
		t.Errorf("%+v, %v", v.Volume, err)
	}
	w.hosts["h1"].failing(drover.Unavailable, false, drover.OrderVolumeResize)
	_, err = n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: 9 * drover.GiB})
	wantError(t, err, drover.Unavailable, "", "")
	w.hosts["h1"].failing("", false)
	w.settled(n)
	if size() != 9*drover.GiB {
		t.Errorf("the layer has %d", size())
	}
}

func TestLimitsReachTheHostWhenItIsBack(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	limits := drover.Limits{IOPS: 100, BytesPerSecond: drover.MiB}
	w.hosts["h1"].failing(drover.Unavailable, true, drover.OrderVolumeLimits)
	v, err := n.UpdateVolume(ctx, UpdateVolume{App: "shop", Volume: vol.ID, Limits: &limits})
	if err != nil || v.Volume.Limits != limits || !v.Volume.LimitsPending {
		t.Fatalf("%+v, %v", v, err)
	}
	w.hosts["h1"].failing("", false)
	w.settled(n)
	if v, err = n.Volume(ctx, "shop", vol.ID); err != nil || v.Layer == nil || v.Layer.Limits != limits {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestADestroyedVolumeCanBeBroughtBackForADay(t *testing.T) {
	t.Parallel()
	w, n, ahead := keepingWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	v, err := n.DestroyVolume(ctx, "shop", vol.ID)
	if err != nil || v.Volume.State != drover.VolumeDestroyed || v.Volume.WipeAt.Sub(v.Volume.DestroyedAt) != 24*time.Hour {
		t.Fatalf("%+v, %v", v, err)
	}
	at := v.Volume.WipeAt
	if v, err = n.DestroyVolume(ctx, "shop", vol.ID); err != nil || !v.Volume.WipeAt.Equal(at) {
		t.Errorf("destroyed again: %+v, %v", v, err)
	}
	if list, err := n.Volumes(ctx, "shop"); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := n.DestroyedVolumes(ctx, "shop"); err != nil || len(list) != 1 || list[0].Volume.ID != vol.ID {
		t.Errorf("%+v, %v", list, err)
	}
	mounts := drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.ID, Path: "/data"}}}
	_, err = n.CreateMachine(ctx, CreateMachine{App: "shop", Config: mounts})
	wantError(t, err, drover.Conflict, "config.mounts[0].volume", "")
	for name, refused := range map[string]func() error{
		"snapshot": func() error { _, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID}); return err },
		"fork": func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "x", Source: vol.ID})
			return err
		},
		"extend": func() error {
			_, err := n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: vol.ID, Size: 2 * drover.GiB})
			return err
		},
		"update": func() error { _, err := n.UpdateVolume(ctx, UpdateVolume{App: "shop", Volume: vol.ID}); return err },
	} {
		if err := refused(); !drover.Is(err, drover.Precondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ahead.Add(int64(23 * time.Hour))
	if v, err = n.UndeleteVolume(ctx, "shop", vol.ID); err != nil || v.Volume.State != drover.VolumeCreated || !v.Volume.WipeAt.IsZero() {
		t.Fatalf("%+v, %v", v, err)
	}
	_, err = n.UndeleteVolume(ctx, "shop", vol.ID)
	wantError(t, err, drover.Precondition, "", "")
	w.eventually("h1 is heard of", func() bool { return n.reachable("h1") })
	w.machine(n, CreateMachine{Name: "web", Config: mounts})

	// The second time it is too late, and the one who wipes it dies in the middle.
	other := w.volume(n, "h2").Volume
	if _, err := n.DestroyVolume(ctx, "shop", other.ID); err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{"fleet.volume.wipe.after", "fleet.volume.removed.after"} {
		n.kill()
		n = w.control("c1", killOnce(point))
		ahead.Add(int64(25 * time.Hour))
		<-n.dead
	}
	n.kill()
	n = w.control("c1", nil)
	w.eventually("it is gone", func() bool {
		_, err := n.UndeleteVolume(ctx, "shop", other.ID)
		return drover.Is(err, drover.NotFound)
	})
	w.checkLayers("h2")
}

func TestWhatIsAskedOfVolumesInVain(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	gone := w.volume(n, "h2").Volume
	w.hosts["h2"].halt()
	w.eventually("h2 is unreachable", func() bool { return !n.reachable("h2") })
	negative, huge, short, many := drover.Bytes(-1), drover.Limits{IOPS: -1}, drover.Duration(time.Second), 61
	for _, c := range []struct {
		name  string
		ask   func() error
		code  drover.Code
		field string
	}{
		{"snapshot of nothing", func() error {
			_, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: "vol_0"})
			return err
		}, drover.NotFound, ""},
		{"snapshot of another app's", func() error {
			_, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "other", Volume: vol.ID})
			return err
		}, drover.NotFound, ""},
		{"snapshot for too long", func() error {
			_, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID, RetentionDays: 61})
			return err
		}, drover.Invalid, "retention_days"},
		{"snapshot on a silent host", func() error {
			_, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: gone.ID})
			return err
		}, drover.Unavailable, ""},
		{"delete of nothing", func() error { _, err := n.DeleteSnapshot(ctx, "shop", "vs_0"); return err }, drover.NotFound, ""},
		{"snapshots of nothing", func() error { _, err := n.Snapshots(ctx, "shop", "vol_0"); return err }, drover.NotFound, ""},
		{"show of nothing", func() error { _, err := n.Snapshot(ctx, "shop", "vs_0"); return err }, drover.NotFound, ""},
		{"restore of nothing", func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "a", Snapshot: "vs_0"})
			return err
		}, drover.NotFound, "snapshot_id"},
		{"fork of nothing", func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "a", Source: "vol_0"})
			return err
		}, drover.NotFound, "source_volume_id"},
		{"fork and restore", func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "a", Source: vol.ID, Snapshot: "vs_0"})
			return err
		}, drover.Invalid, "source_volume_id"},
		{"small fork", func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "a", Source: vol.ID, Size: drover.MiB})
			return err
		}, drover.Invalid, "size_gb"},
		{"fork of a silent host's", func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "a", Source: gone.ID})
			return err
		}, drover.Unavailable, "source_volume_id"},
		{"bad limits", func() error {
			_, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "a", Size: drover.GiB, Limits: huge})
			return err
		}, drover.Invalid, "limits.iops"},
		{"bad interval", func() error {
			_, err := n.UpdateVolume(ctx, UpdateVolume{App: "shop", Volume: vol.ID, SnapshotInterval: &short})
			return err
		}, drover.Invalid, "snapshot_interval"},
		{"bad retention", func() error {
			_, err := n.UpdateVolume(ctx, UpdateVolume{App: "shop", Volume: vol.ID, RetentionDays: &many})
			return err
		}, drover.Invalid, "retention_days"},
		{"bad new limits", func() error {
			_, err := n.UpdateVolume(ctx, UpdateVolume{App: "shop", Volume: vol.ID, Limits: &huge})
			return err
		}, drover.Invalid, "limits.iops"},
		{"update of nothing", func() error { _, err := n.UpdateVolume(ctx, UpdateVolume{App: "shop", Volume: "vol_0"}); return err }, drover.NotFound, ""},
		{"extend on a silent host", func() error {
			_, err := n.ExtendVolume(ctx, ExtendVolume{App: "shop", Volume: gone.ID, Size: 2 * drover.GiB})
			return err
		}, drover.Unavailable, ""},
		{"undelete of nothing", func() error { _, err := n.UndeleteVolume(ctx, "shop", "vol_0"); return err }, drover.NotFound, ""},
		{"undelete of what is there", func() error { _, err := n.UndeleteVolume(ctx, "shop", vol.ID); return err }, drover.Precondition, ""},
		{"verify on a silent host", func() error { _, err := n.VerifyVolume(ctx, VerifyVolume{App: "shop", Volume: gone.ID}); return err }, drover.Unavailable, ""},
		{"verify against nothing", func() error {
			_, err := n.VerifyVolume(ctx, VerifyVolume{App: "shop", Volume: vol.ID, Snapshot: "vs_0"})
			return err
		}, drover.NotFound, ""},
		{"no change of a hydration", func() error { _, err := n.SetHydration(ctx, SetHydration{App: "shop", Volume: vol.ID}); return err }, drover.Invalid, "limit"},
		{"bad limit of a hydration", func() error {
			_, err := n.SetHydration(ctx, SetHydration{App: "shop", Volume: vol.ID, Limit: &negative})
			return err
		}, drover.Invalid, "limit"},
		{"hydration of what is whole", func() error {
			paused := true
			_, err := n.SetHydration(ctx, SetHydration{App: "shop", Volume: vol.ID, Paused: &paused})
			return err
		}, drover.Precondition, ""},
		{"settings of nothing", func() error { _, err := n.SetStorage(ctx, "h9", drover.StorageSettings{}); return err }, drover.NotFound, ""},
		{"bad settings", func() error {
			_, err := n.SetStorage(ctx, "h1", drover.StorageSettings{HydrationLimit: -1})
			return err
		}, drover.Invalid, "hydration_limit"},
		{"settings of a silent host", func() error { _, err := n.SetStorage(ctx, "h2", drover.StorageSettings{}); return err }, drover.Unavailable, ""},
	} {
		t.Run(c.name, func(t *testing.T) { wantError(t, c.ask(), c.code, c.field, "") })
	}
	if s, err := n.SetStorage(ctx, "h1", drover.StorageSettings{HydrationLimit: drover.MiB}); err != nil || s.HydrationLimit != drover.MiB {
		t.Errorf("%+v, %v", s, err)
	}
	if v, err := n.VerifyVolume(ctx, VerifyVolume{App: "shop", Volume: vol.ID}); err != nil || !v.Done {
		t.Errorf("%+v, %v", v, err)
	}
	// A snapshot that its host refuses leaves nothing.
	w.hosts["h1"].failing(drover.Conflict, false, drover.OrderVolumeSnapshot)
	_, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID})
	wantError(t, err, drover.Conflict, "", "")
	w.hosts["h1"].failing("", false)
	w.eventually("nothing is left of it", func() bool {
		list, err := n.Snapshots(ctx, "shop", vol.ID)
		return err == nil && len(list) == 0
	})
	w.store.checkOnly()
}
