package fleet

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

// snapshot takes a snapshot and waits until it is in the object store and nothing of it is left on a host.
func (w *world) snapshot(n *node, id drover.VolumeID) drover.Snapshot {
	w.t.Helper()
	s, err := n.CreateSnapshot(w.t.Context(), CreateSnapshot{App: "shop", Volume: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.stored(n, s.ID)
}

func (w *world) stored(n *node, id drover.SnapshotID) (s drover.Snapshot) {
	w.t.Helper()
	w.eventually("snapshot "+string(id)+" is in the object store", func() bool {
		var err error
		s, err = n.Snapshot(w.t.Context(), "shop", id)
		return err == nil && s.State == drover.SnapshotCreated && s.Host == ""
	})
	return s
}

// settled waits until nothing is under way with volumes and snapshots, and nothing is frozen on any host.
func (w *world) settled(n *node) {
	w.t.Helper()
	if err := n.await(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%+v\n%+v\n%+v", n.state.snapshots.all(), n.state.volumes.all(), n.state.claims.all())
		}
	}()
	w.eventually("volumes and snapshots come to rest", func() bool {
		n.state.mu.RLock()
		for _, i := range n.state.snapshots.items {
			if s := i.value; s.State != drover.SnapshotCreated || s.Host != "" {
				n.state.mu.RUnlock()
				return false
			}
		}
		for _, i := range n.state.volumes.items {
			if v := i.value; v.State != drover.VolumeCreated || unsettled(v) {
				n.state.mu.RUnlock()
				return false
			}
		}
		claims := 0
		for key := range n.state.claims.items {
			if strings.HasPrefix(key, "store.") {
				claims++
			}
		}
		n.state.mu.RUnlock()
		frozen := 0
		for _, h := range w.hosts {
			h.set(func() {
				for id := range h.frozen {
					if _, there := h.layers[id]; there {
						frozen++
					}
				}
			})
		}
		return frozen == 0 && claims == 0
	})
}

func TestASnapshotFromItsMomentToItsEnd(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	if !vol.AutoBackup || vol.RetentionDays != drover.DefaultRetentionDays || vol.SnapshotInterval != drover.DefaultSnapshotInterval {
		t.Errorf("a new volume has no schedule: %+v", vol)
	}
	first, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID, Quiesce: true, Full: true, RetentionDays: 9})
	if err != nil || first.TakenAt.IsZero() || !first.Quiesced || !first.Full || first.State != drover.SnapshotCreating || first.RetentionDays != 9 || first.Size != drover.GiB {
		t.Fatalf("%+v, %v", first, err)
	}
	first = w.stored(n, first.ID)
	if first.Manifest == "" || first.DoneAt.IsZero() || first.Data != 100*drover.MiB || first.Problem != nil {
		t.Errorf("%+v", first)
	}
	second := w.snapshot(n, vol.ID)
	w.settled(n)
	w.store.checkOnly(first.ID, second.ID)
	if list, err := n.Snapshots(ctx, "shop", vol.ID); err != nil || len(list) != 2 || list[0].ID != second.ID {
		t.Errorf("%+v, %v", list, err)
	}
	for range 2 {
		if _, err := n.DeleteSnapshot(ctx, "shop", first.ID); err != nil && !drover.Is(err, drover.NotFound) {
			t.Fatal(err)
		}
	}
	w.settled(n)
	w.store.checkOnly(second.ID)
	if v, err := n.VerifyVolume(ctx, VerifyVolume{App: "shop", Volume: vol.ID, Snapshot: second.ID}); err != nil || v.Against != string(second.ID) {
		t.Errorf("%+v, %v", v, err)
	}

	// It outlives its volume, and everything goes with the app.
	if _, err := n.DestroyVolume(ctx, "shop", vol.ID); err != nil {
		t.Fatal(err)
	}
	w.settled(n)
	if list, err := n.Snapshots(ctx, "shop", vol.ID); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	again, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "again", Snapshot: second.ID, Region: "fra"})
	if err != nil || again.Volume.Host != "h3" || again.Volume.Size != drover.GiB {
		t.Fatalf("%+v, %v", again, err)
	}
	w.settled(n)
	if v, err := n.VerifyVolume(ctx, VerifyVolume{App: "shop", Volume: again.Volume.ID, Snapshot: second.ID}); err != nil || v.Against != string(second.ID) {
		t.Errorf("a restored volume against its snapshot: %+v, %v", v, err)
	}
	blank, err := n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "blank", Size: drover.GiB})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.VerifyVolume(ctx, VerifyVolume{App: "shop", Volume: blank.Volume.ID, Snapshot: second.ID})
	wantError(t, err, drover.Invalid, "snapshot_id", "")
	if _, err := n.DestroyVolume(ctx, "shop", blank.Volume.ID); err != nil {
		t.Fatal(err)
	}
	w.destroyApp(n, "shop")
	w.store.checkOnly()
	w.checkEmpty(n)
}

// TestASnapshotMayBeCutAnywhere kills the control host at every fault point of the life of a snapshot. Another finishes what was begun.
func TestASnapshotMayBeCutAnywhere(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Stale = 100 * time.Millisecond } // what a dead maker left is taken up at once
	vol := w.volume(n, "h1").Volume
	keep := w.snapshot(n, vol.ID)
	for _, point := range VolumeFaultPoints() {
		if !strings.HasPrefix(point, "fleet.snapshot.") || strings.Contains(point, "scheduled") {
			continue
		}
		n.kill()
		n = w.control("c1", killOnce(point))
		w.eventually("h1 is heard of", func() bool { return n.reachable("h1") })
		cut := n
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s, err := cut.CreateSnapshot(t.Context(), CreateSnapshot{App: "shop", Volume: vol.ID})
			for err == nil && !cut.isDead() {
				if s, err = cut.Snapshot(t.Context(), "shop", s.ID); err == nil && s.State == drover.SnapshotCreated && s.Host == "" {
					_, err = cut.DeleteSnapshot(t.Context(), "shop", s.ID)
				}
			}
		}()
		<-cut.dead
		<-ended
		n.kill()
		n = w.control("c1", nil)
		w.settled(n)
		list, err := n.Snapshots(t.Context(), "shop", vol.ID)
		if err != nil {
			t.Fatal(err)
		}
		ids := []drover.SnapshotID{}
		for _, s := range list {
			ids = append(ids, s.ID)
			if s.TakenAt.IsZero() || s.Manifest == "" {
				t.Errorf("%s: %+v", point, s)
			}
		}
		w.store.checkOnly(ids...)
		for _, id := range ids {
			if id != keep.ID {
				if _, err := n.DeleteSnapshot(t.Context(), "shop", id); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.settled(n)
		w.store.checkOnly(keep.ID)
	}
}

func TestASnapshotWaitsForWhatItNeedsAndSaysSo(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	// The host goes away between the moment and the upload.
	var taken atomic.Bool
	w.hosts["h1"].set(func() {
		w.hosts["h1"].fail = func(o drover.Order) (error, bool) {
			if o == drover.OrderVolumeSnapshot && taken.Swap(true) {
				return drover.Errorf(drover.Unavailable, "the store does not answer"), false
			}
			return nil, false
		}
	})
	s, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the record and the volume say what it waits for", func() bool {
		got, err := n.Snapshot(ctx, "shop", s.ID)
		v, verr := n.Volume(ctx, "shop", vol.ID)
		return err == nil && verr == nil && got.Problem != nil && strings.Contains(got.Problem.Text, "the store does not answer") &&
			len(v.Conditions) == 1 && v.Conditions[0].Code == drover.SnapshotFailing
	})
	_, err = n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID})
	wantError(t, err, drover.Conflict, "", "")
	w.hosts["h1"].failing("", false)
	if s = w.stored(n, s.ID); s.Problem != nil {
		t.Errorf("%+v", s)
	}
	// The frozen layer is lost.
	taken.Store(false)
	w.hosts["h1"].set(func() {
		w.hosts["h1"].fail = func(o drover.Order) (error, bool) {
			if o == drover.OrderVolumeSnapshot && taken.Swap(true) {
				return drover.Errorf(drover.NotFound, "there is no such layer"), false
			}
			return nil, false
		}
	})
	lost, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("it failed", func() bool {
		got, err := n.Snapshot(ctx, "shop", lost.ID)
		return err == nil && got.State == drover.SnapshotFailed && got.Problem != nil && got.Host == ""
	})
	w.hosts["h1"].failing("", false)
	_, err = n.CreateVolume(ctx, CreateVolume{App: "shop", Name: "data", Snapshot: lost.ID})
	wantError(t, err, drover.Precondition, "snapshot_id", "")
	if _, err := n.DeleteSnapshot(ctx, "shop", lost.ID); err != nil {
		t.Fatal(err)
	}
	w.settled(n)
	// The store does not answer to a removal.
	w.store.mu.Lock()
	w.store.fail = drover.Errorf(drover.Unavailable, "no way to the store")
	w.store.mu.Unlock()
	if _, err := n.DeleteSnapshot(ctx, "shop", s.ID); err != nil {
		t.Fatal(err)
	}
	w.eventually("the record says why it is still there", func() bool {
		got, err := n.Snapshot(ctx, "shop", s.ID)
		return err == nil && got.State == drover.SnapshotDestroying && got.Problem != nil
	})
	w.store.mu.Lock()
	w.store.fail = nil
	w.store.mu.Unlock()
	w.settled(n)
	w.store.checkOnly()
}

func TestASnapshotIsFinishedWhereItWasTakenWhileItsMachineMoves(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1").Volume
	m := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.ID, Path: "/data"}}}})
	var hold atomic.Bool
	hold.Store(true)
	var orders atomic.Int32
	w.hosts["h1"].set(func() {
		w.hosts["h1"].fail = func(o drover.Order) (error, bool) {
			if o == drover.OrderVolumeSnapshot && orders.Add(1) > 1 && hold.Load() {
				return drover.Errorf(drover.Unavailable, "the store does not answer"), false
			}
			return nil, false
		}
	})
	s, err := n.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID})
	if err != nil || s.Host != "h1" {
		t.Fatalf("%+v, %v", s, err)
	}
	mig, err := n.MoveMachine(ctx, Move{Machine: m.Machine.ID, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	if mig = w.ended(n, mig.ID); mig.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", mig.Outcome, mig.Problem)
	}
	hold.Store(false)
	w.stored(n, s.ID)
	w.settled(n)
	// A moment that was never taken, because its maker died before: it is taken where the volume is.
	n.kill()
	n = w.control("c1", killOnce("fleet.snapshot.record.after"))
	w.eventually("h2 is heard of", func() bool { return n.reachable("h2") })
	cut := n
	go func() {
		_, err := cut.CreateSnapshot(ctx, CreateSnapshot{App: "shop", Volume: vol.ID})
		t.Errorf("the maker lived on: %v", err)
	}()
	<-cut.dead
	n.kill()
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Stale = time.Hour }
	n = w.control("c1", nil)
	w.eventually("h2 is heard of", func() bool { return n.reachable("h2") && n.reachable("h1") })
	if mig, err = n.MoveMachine(ctx, Move{Machine: m.Machine.ID, Target: "h1"}); err != nil {
		t.Fatal(err)
	}
	w.ended(n, mig.ID)
	n.kill()
	w.tune = func(*Timing, *migrate.Rules) {}
	n = w.control("c1", nil)
	w.settled(n)
	list, err := n.Snapshots(ctx, "shop", vol.ID)
	if err != nil || len(list) != 2 || list[0].State != drover.SnapshotCreated {
		t.Fatalf("%+v, %v", list, err)
	}
}

func TestSlotsAreSpreadAndStay(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	hours := map[int]int{}
	for range 500 {
		v := drover.Volume{ID: drover.NewVolumeID(), SnapshotInterval: drover.Duration(24 * time.Hour)}
		at := slot(v, now)
		if at.After(now) || now.Sub(at) >= 24*time.Hour {
			t.Fatalf("the slot before %s is %s", now, at)
		}
		if later := slot(v, at.Add(24*time.Hour-1)); !later.Equal(at) {
			t.Fatalf("the slot moved from %s to %s", at, later)
		}
		if next := slot(v, at.Add(24*time.Hour)); !next.Equal(at.Add(24 * time.Hour)) {
			t.Fatalf("the slot after %s is %s", at, next)
		}
		hours[at.Hour()]++
	}
	if len(hours) < 20 {
		t.Errorf("500 volumes are taken in %d hours of the day", len(hours))
	}
}

func TestWhatTheScheduleAsksFor(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	v := drover.Volume{ID: "vol_1", State: drover.VolumeCreated, AutoBackup: true, SnapshotInterval: drover.Duration(time.Hour), CreatedAt: now.Add(-48 * time.Hour)}
	at := slot(v, now)
	with := func(change func(*drover.Volume)) drover.Volume { c := v; change(&c); return c }
	for _, c := range []struct {
		name string
		v    drover.Volume
		list []drover.Snapshot
		want bool
	}{
		{"no snapshot yet", v, nil, true},
		{"one of the last slot", v, []drover.Snapshot{{Scheduled: true, CreatedAt: at.Add(-time.Minute)}}, true},
		{"one of this slot", v, []drover.Snapshot{{Scheduled: true, CreatedAt: at}}, false},
		{"one by hand", v, []drover.Snapshot{{CreatedAt: now}}, true},
		{"one that failed", v, []drover.Snapshot{{Scheduled: true, State: drover.SnapshotFailed, CreatedAt: at.Add(time.Minute)}}, false},
		{"switched off", with(func(v *drover.Volume) { v.AutoBackup = false }), nil, false},
		{"destroyed", with(func(v *drover.Volume) { v.State = drover.VolumeDestroyed }), nil, false},
		{"new", with(func(v *drover.Volume) { v.CreatedAt = at }), nil, false},
	} {
		if got := asksFor(c.v, c.list, now); got.IsZero() == c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestWhatExpires(t *testing.T) {
	now := time.Date(2030, 1, 20, 0, 0, 0, 0, time.UTC)
	old := func(id drover.SnapshotID, days int, state drover.SnapshotState) drover.Snapshot {
		at := now.Add(-time.Duration(days) * 24 * time.Hour)
		return drover.Snapshot{ID: id, State: state, CreatedAt: at, TakenAt: at, RetentionDays: 5}
	}
	created, failed, creating, destroying := drover.SnapshotCreated, drover.SnapshotFailed, drover.SnapshotCreating, drover.SnapshotDestroying
	for _, c := range []struct {
		name   string
		list   []drover.Snapshot
		exists bool
		want   []drover.SnapshotID
	}{
		{"none", nil, true, nil},
		{"the newest stays", []drover.Snapshot{old("a", 9, created), old("b", 6, created)}, true, []drover.SnapshotID{"a"}},
		{"not without its volume", []drover.Snapshot{old("a", 9, created), old("b", 6, created)}, false, []drover.SnapshotID{"a", "b"}},
		{"a failed one does not count", []drover.Snapshot{old("a", 9, created), old("b", 6, failed)}, true, []drover.SnapshotID{"b"}},
		{"nothing that is under way", []drover.Snapshot{old("a", 9, creating), old("b", 9, destroying)}, false, nil},
		{"nothing young", []drover.Snapshot{old("a", 4, created), old("b", 1, created)}, false, nil},
	} {
		if got := expired(c.list, c.exists, now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestAMonthOfAVolume lets the schedule work for a month, with a control host that is killed now and then and a host that is away for two days.
func TestAMonthOfAVolume(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	var ahead atomic.Int64
	w.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	n = w.control("c1", nil)
	vol := w.volume(n, "h1").Volume
	other, err := n.CreateVolume(t.Context(), CreateVolume{App: "shop", Name: "plain", Host: "h1", Size: drover.GiB, NoAutoBackup: true})
	if err != nil {
		t.Fatal(err)
	}
	count := func() int {
		n.state.mu.RLock()
		defer n.state.mu.RUnlock()
		return len(n.state.snapsOf[vol.ID])
	}
	for day := range 30 {
		away := day == 10 || day == 11
		if day == 10 {
			w.hosts["h1"].halt()
		}
		if day == 12 {
			w.hosts["h1"].start()
		}
		if day%7 == 2 { // not while the host is away
			n.kill()
			n = w.control("c1", killOnce("fleet.snapshot.scheduled.after"))
			ahead.Add(int64(24 * time.Hour))
			<-n.dead
			n.kill()
			n = w.control("c1", nil)
		} else {
			ahead.Add(int64(24 * time.Hour))
		}
		if away {
			w.eventually("the volume tells that its snapshot is missing", func() bool {
				v, err := n.Volume(t.Context(), "shop", vol.ID)
				return err == nil && slices.ContainsFunc(v.Conditions, func(c drover.Condition) bool { return strings.Contains(c.Text, "host h1 does not answer") })
			})
			continue
		}
		w.eventually("the day's snapshot is there", func() bool {
			list := n.snapshotsOf(vol.ID)
			last := len(list) - 1
			return last >= 0 && list[last].State == drover.SnapshotCreated && w.clock().Sub(list[last].CreatedAt) < 23*time.Hour
		})
		w.eventually("old ones are gone", func() bool { return count() <= 6 })
	}
	w.settled(n)
	if c := count(); c < 5 || c > 6 {
		t.Errorf("%d snapshots are kept of a daily schedule with 5 days", c)
	}
	var ids []drover.SnapshotID
	for _, s := range n.snapshotsOf(vol.ID) {
		ids = append(ids, s.ID)
		if !s.Scheduled || s.State != drover.SnapshotCreated {
			t.Errorf("%+v", s)
		}
	}
	w.store.checkOnly(ids...)
	if list := n.snapshotsOf(other.Volume.ID); len(list) != 0 {
		t.Errorf("a volume without a schedule has %+v", list)
	}
	off := false
	if v, err := n.UpdateVolume(t.Context(), UpdateVolume{App: "shop", Volume: vol.ID, AutoBackup: &off}); err != nil || v.Volume.AutoBackup {
		t.Fatalf("%+v, %v", v, err)
	}
	ahead.Add(int64(40 * 24 * time.Hour))
	w.eventually("the newest stays, alone", func() bool { return count() == 1 })
}
