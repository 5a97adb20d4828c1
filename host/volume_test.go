package host

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drover"
)

const (
	testSnapshot = drover.SnapshotID("vs_1")
	testFork     = drover.VolumeID("vol_2")
)

func snapshotRequest(upload, quiesce bool) drover.SnapshotRequest {
	return drover.SnapshotRequest{Snapshot: drover.Snapshot{ID: testSnapshot, Volume: testVolume.ID}, Volume: testVolume, Upload: upload, Quiesce: quiesce}
}

// uploaded asks for the snapshot until it is in the object store.
func (h *fakeHost) uploaded() (drover.SnapshotProgress, error) {
	for range 60 {
		p, err := press[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(true, true))
		if err != nil || p.Upload != nil && p.Upload.Done {
			return p, err
		}
		pass(time.Second)
	}
	return drover.SnapshotProgress{}, fmt.Errorf("the upload has no end")
}

// onlyLayers makes sure that a host has these layers, images aside, with nothing exported and nothing frozen in a guest.
func (h *fakeHost) onlyLayers(want ...drover.LayerID) {
	h.w.t.Helper()
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	n := 0
	for id, l := range h.layers {
		if len(l.exports) > 0 {
			h.w.t.Errorf("host %s: layer %s is still exported", h.id, id)
		}
		if l.status.State != drover.LayerImage {
			n++
		}
	}
	for _, id := range want {
		if h.layers[id] == nil {
			h.w.t.Errorf("host %s has no layer %s", h.id, id)
		}
	}
	if n != len(want) || h.guestFrozen != 0 {
		h.w.t.Errorf("host %s has %d layers, want %v; frozen guests: %d", h.id, n, want, h.guestFrozen)
	}
}

// TestACrashAtEveryStepOfASnapshot cuts the host at every step of a snapshot of a running machine's volume. The one who asks goes on asking, or
// has given it up when the host is back.
func TestACrashAtEveryStepOfASnapshot(t *testing.T) {
	for _, giveUp := range []bool{false, true} {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("giveup=%v power=%v", giveUp, power), func(t *testing.T) {
				for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
					started(t, nil, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
						h.power = power
						h.cut(k)
						s := h.sess
						var p drover.SnapshotProgress
						var err error
						if giveUp {
							_, err = order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(true, true))
							reached = err != nil
						} else if p, err = h.uploaded(); err != nil || p.TakenAt.IsZero() || p.Size != testVolume.Size || p.Upload.Manifest == "" {
							t.Errorf("k=%d: %+v, %v", k, p, err)
						}
						insist[drover.Empty](h, drover.OrderVolumeSnapshotEnd, drover.SnapshotEndRequest{Snapshot: testSnapshot, Volume: testVolume.ID})
						if _, err := press[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(true, false)); !drover.Is(err, drover.Canceled) {
							t.Errorf("k=%d: an order that came late: %v", k, err)
						}
						w.revive()
						pass(time.Minute)
						w.revive()
						w.awaitState("m1", drover.StateStarted)
						w.check()
						h.onlyLayers("root_m1", "vol_1")
						s.mu.Lock()
						defer s.mu.Unlock()
						walked(t, k, s.where, giveUp)
						if !giveUp {
							reached = s.dead && s.where != ""
						}
					})
				}
			})
		}
	}
}

func TestAFullSnapshotIsStoredInFull(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		want := snapshotRequest(true, false)
		want.Snapshot.Full = true
		if _, err := order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, want); err != nil || !h.uploadedFrom.Full || h.uploadedFrom.Snapshot != testSnapshot {
			t.Errorf("%+v, %v", h.uploadedFrom, err)
		}
	})
}

func TestWhatAQuiescedSnapshotPromises(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		p, err := order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(false, true))
		if err != nil || !p.Quiesced || p.Upload != nil || h.guestFrozen != 0 {
			t.Errorf("%+v, %v", p, err)
		}
		again, err := order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(false, false))
		if err != nil || !again.TakenAt.Equal(p.TakenAt) || !again.Quiesced || again.Size != p.Size {
			t.Errorf("asked again: %+v, %v", again, err)
		}
		// A split that takes longer than the guest waits: the guest went on by itself, and that is told.
		next := snapshotRequest(false, true)
		next.Snapshot.ID = "vs_2"
		h.sess.mu.Lock()
		h.sess.fail["guest-thaw"] = drover.Errorf(drover.Precondition, "it is not frozen any more")
		h.sess.mu.Unlock()
		if p, err = order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, next); err != nil || p.Quiesced {
			t.Errorf("%+v, %v", p, err)
		}
		pass(2 * quiesceMost)
		if h.guestFrozen != 0 {
			t.Error("the guest is frozen for ever")
		}
	})
	started(t, func(h *fakeHost, _ *drover.Machine) {
		h.boot = func(int) bootPlan { return bootPlan{start: time.Second, old: true} }
	}, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		_, err := order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(false, true))
		if !drover.Is(err, drover.Precondition) {
			t.Errorf("an old guest: %v", err)
		}
		if p, err := order[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshotRequest(false, false)); err != nil || p.Quiesced {
			t.Errorf("without quiesce: %+v, %v", p, err)
		}
	})
}

// TestAFrozenLayerStaysWhenItsVolumeMovesOn moves a machine while a snapshot of its volume is not in the object store yet.
func TestAFrozenLayerStaysWhenItsVolumeMovesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		insist[drover.SnapshotProgress](a, drover.OrderVolumeSnapshot, snapshotRequest(true, false))
		mv := newMover(w, a, b, req)
		if moved, err := mv.run(); err != nil || !moved {
			t.Fatalf("moved %v, %v", moved, err)
		}
		pass(2*testGrace + 2*sweepEvery)
		a.onlyLayers(drover.SnapshotLayer("vol_1", testSnapshot))
		if p, err := a.uploaded(); err != nil || !p.Upload.Done {
			t.Fatalf("%+v, %v", p, err)
		}
		insist[drover.Empty](a, drover.OrderVolumeSnapshotEnd, drover.SnapshotEndRequest{Snapshot: testSnapshot, Volume: testVolume.ID, Wipe: true})
		a.onlyLayers()
		if !a.wiped[drover.SnapshotLayer("vol_1", testSnapshot)] {
			t.Error("what was left was not wiped")
		}
		next := snapshotRequest(true, false)
		next.Snapshot.ID = "vs_2"
		if _, err := order[drover.SnapshotProgress](a, drover.OrderVolumeSnapshot, next); !drover.Is(err, drover.Precondition) {
			t.Errorf("a host that does not have the volume any more: %v", err)
		}
	}, "a", "b")
}

// forker plays the control side of one fork.
type forker struct {
	src, dst *fakeHost
	req      drover.ForkRequest
	volume   drover.Volume
}

func newForker(src, dst *fakeHost) *forker {
	return &forker{src: src, dst: dst, req: drover.ForkRequest{Volume: testFork, Source: testVolume.ID, Target: dst.id},
		volume: drover.Volume{ID: testFork, Size: 2 * testVolume.Size, From: &drover.VolumeOrigin{Volume: testVolume.ID, Host: src.id}}}
}

func (f *forker) run() error {
	export, err := press[drover.Export](f.src, drover.OrderVolumeFork, f.req)
	if err != nil {
		return err
	}
	if _, err := press[drover.LayerStatus](f.dst, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: f.volume, Parent: &export}); err != nil {
		return err
	}
	for range 60 {
		st, err := press[drover.LayerStatus](f.dst, drover.OrderVolumeStatus, drover.VolumeRequest{Volume: f.volume})
		if err != nil {
			return err
		}
		if st.Hydration == nil || st.Hydration.Done {
			return f.end()
		}
		pass(time.Second)
	}
	return fmt.Errorf("the fork is never complete")
}

func (f *forker) end() error {
	_, err := press[drover.Empty](f.src, drover.OrderVolumeForkEnd, f.req)
	return err
}

func TestACrashAtEveryStepOfAFork(t *testing.T) {
	for _, c := range []struct {
		victim, target drover.HostID
		giveUp         bool
	}{{"a", "b", false}, {"b", "b", false}, {"a", "a", false}, {"a", "b", true}, {"b", "b", true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
				bubble(t, func(t *testing.T, w *world) { reached = cutFork(t, w, c.victim, c.target, c.giveUp, k) }, "a", "b")
			}
		})
	}
}

// cutFork makes a fork while the victim is cut at its k-th step. It tells whether that was reached.
func cutFork(t *testing.T, w *world, victim, target drover.HostID, giveUp bool, k int) bool {
	a, dst := w.host["a"], w.host[target]
	a.up(0)
	w.host["b"].up(0)
	a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	h := w.host[victim]
	h.power = k%2 == 0
	h.cut(k)
	s := h.sess
	f := newForker(a, dst)
	aLayers, bLayers := []drover.LayerID{"root_m1", "vol_1"}, []drover.LayerID{}
	if giveUp {
		if export, err := order[drover.Export](a, drover.OrderVolumeFork, f.req); err == nil {
			// The crash may come in it, or not: what is looked at is what is left.
			_, _ = order[drover.LayerStatus](dst, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: f.volume, Parent: &export})
		}
		insist[drover.Empty](dst, drover.OrderVolumeDestroy, drover.VolumeRequest{Volume: f.volume})
		if ferr := f.end(); ferr != nil {
			t.Errorf("k=%d: %v", k, ferr)
		}
		if _, ferr := press[drover.Export](a, drover.OrderVolumeFork, f.req); !drover.Is(ferr, drover.Canceled) {
			t.Errorf("k=%d: an order that came late: %v", k, ferr)
		}
	} else {
		if err := f.run(); err != nil {
			t.Errorf("k=%d: %v", k, err)
		}
		pass(3 * fillEvery)
		if target == "a" {
			aLayers = append(aLayers, "vol_2")
		} else {
			bLayers = append(bLayers, "vol_2")
		}
	}
	w.revive()
	pass(2 * sweepEvery)
	w.revive()
	pass(sweepEvery)
	w.awaitState("m1", drover.StateStarted)
	w.check()
	a.onlyLayers(aLayers...)
	w.host["b"].onlyLayers(bLayers...)
	if d, err := dst.agent.disk("vol_2"); !giveUp && (err != nil || d.filling() || !d.Made || !d.Used || d.Size != 2*testVolume.Size) {
		t.Errorf("k=%d: the fork's record is %+v, %v", k, d, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	walked(t, k, s.where, giveUp)
	return s.dead && s.where != ""
}

func TestACrashAtEveryStepOfAnExtension(t *testing.T) {
	for _, power := range []bool{false, true} {
		for k, reached := 1, true; reached && !t.Failed(); k += walkStride {
			started(t, nil, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
				h.power = power
				h.cut(k)
				s := h.sess
				req := drover.ResizeRequest{Volume: testVolume, Size: 3 * testVolume.Size}
				r, err := press[drover.Resized](h, drover.OrderVolumeResize, req)
				for err == nil && r.NeedsRestart { // the guest was booting when it was to be told
					pass(time.Second)
					r, err = press[drover.Resized](h, drover.OrderVolumeResize, req)
				}
				if err != nil {
					t.Errorf("k=%d: %+v, %v", k, r, err)
				}
				w.revive()
				w.awaitState("m1", drover.StateStarted)
				if l := h.layers["vol_1"]; l.status.Size != req.Size {
					t.Errorf("k=%d: the layer has %d bytes", k, l.status.Size)
				}
				if !power && (h.vmSizes[1] != req.Size || h.guestGrown == 0) {
					t.Errorf("k=%d: the VM was told %v, the guest %d times", k, h.vmSizes, h.guestGrown)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				walked(t, k, s.where)
				reached = s.dead && s.where != ""
			})
		}
	}
}

func TestVolumeOrdersThatAreRefused(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		none := drover.Volume{ID: "vol_9", Size: drover.GiB}
		parent := &drover.Export{Disk: "vol_1", Layer: "x", Size: 4 * drover.GiB, Host: "h1"}
		negative := drover.Bytes(-1)
		for _, c := range []struct {
			name  string
			order drover.Order
			req   any
			code  drover.Code
			text  string
		}{
			{"no snapshot", drover.OrderVolumeSnapshot, drover.SnapshotRequest{Volume: testVolume}, drover.Invalid, "names no snapshot"},
			{"snapshot of nothing", drover.OrderVolumeSnapshot, drover.SnapshotRequest{Snapshot: drover.Snapshot{ID: "vs_3"}, Volume: none}, drover.Precondition, "is not on host"},
			{"end of nothing", drover.OrderVolumeSnapshotEnd, drover.SnapshotEndRequest{}, drover.Invalid, "names no snapshot"},
			{"fork of itself", drover.OrderVolumeFork, drover.ForkRequest{Volume: "vol_1", Source: "vol_1", Target: "h1"}, drover.Invalid, "names not all"},
			{"fork of nothing", drover.OrderVolumeFork, drover.ForkRequest{Volume: "vol_3", Source: "vol_9", Target: "h1"}, drover.Precondition, "is not on host"},
			{"smaller than its source", drover.OrderVolumeCreate, drover.VolumeRequest{Volume: none, Parent: parent}, drover.Invalid, "what it is made of has"},
			{"odd size", drover.OrderVolumeResize, drover.ResizeRequest{Volume: testVolume, Size: drover.GiB + 1}, drover.Invalid, "multiple"},
			{"shrink", drover.OrderVolumeResize, drover.ResizeRequest{Volume: testVolume, Size: drover.BlockSize}, drover.Invalid, "cannot be made smaller"},
			{"resize of nothing", drover.OrderVolumeResize, drover.ResizeRequest{Volume: none, Size: drover.GiB}, drover.NotFound, "has no layer"},
			{"hydration of a whole volume", drover.OrderVolumeHydration, drover.HydrationRequest{Volume: "vol_1"}, drover.Precondition, "is complete"},
			{"negative limit", drover.OrderVolumeHydration, drover.HydrationRequest{Volume: "vol_1", Limit: &negative}, drover.Invalid, "negative"},
			{"status of nothing", drover.OrderVolumeStatus, drover.VolumeRequest{Volume: none}, drover.NotFound, "has no layer"},
			{"negative settings", drover.OrderStorageSettings, drover.StorageSettings{HydrationLimit: -1}, drover.Invalid, "negative"},
		} {
			_, err := order[any](h, c.order, c.req)
			if e := drover.AsError(err); e == nil || e.Code != c.code || !strings.Contains(e.Text, c.text) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		for _, c := range []struct {
			name string
			hold func()
			code drover.Code
		}{
			{"while it is filled", func() { h.layers["vol_1"].status.Hydration = &drover.Hydration{} }, drover.Conflict},
			{"while it is frozen", func() { h.layers["vol_1"].status.State = drover.LayerFrozen }, drover.Conflict},
			{"when it is damaged", func() { h.layers["vol_1"].status.Trouble = "its map is torn" }, drover.Precondition},
		} {
			w.mu.Lock()
			before := h.layers["vol_1"].status
			c.hold()
			w.mu.Unlock()
			if _, err := order[any](h, drover.OrderVolumeSnapshot, snapshotRequest(false, false)); !drover.Is(err, c.code) {
				t.Errorf("%s: %v", c.name, err)
			}
			w.mu.Lock()
			h.layers["vol_1"].status = before
			w.mu.Unlock()
		}
		h.onlyLayers("root_m1", "vol_1")
	})
}

func TestAVolumeThatIsFilledIsNeitherMovedNorSplitAndCanBeSlowed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		f := newForker(a, b)
		f.volume.Limits = drover.Limits{IOPS: 100}
		export := insist[drover.Export](a, drover.OrderVolumeFork, f.req)
		w.mu.Lock()
		a.layers[export.Layer].exports = map[drover.HostID]bool{} // the way between the hosts is cut
		w.mu.Unlock()
		if _, err := order[drover.LayerStatus](b, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: f.volume, Parent: &export}); !drover.Is(err, drover.Unavailable) {
			t.Fatalf("a source that cannot be read: %v", err)
		}
		insist[drover.Export](a, drover.OrderVolumeFork, f.req)
		w.mu.Lock()
		a.layers[export.Layer].status.State = drover.LayerReady // so that it takes long
		w.mu.Unlock()
		st := insist[drover.LayerStatus](b, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: f.volume, Parent: &export})
		if st.Hydration == nil || st.Hydration.Done || st.Limits.IOPS != 100 {
			t.Errorf("%+v", st)
		}
		m := machineSpec("m2")
		m.Config.Mounts[0].Volume = testFork
		mounts := drover.ApplyRequest{Machine: m, Volumes: []drover.Volume{f.volume}, Epoch: w.place("m2", "b", "")}
		insist[drover.MachineStatus](b, drover.OrderApply, mounts)
		w.awaitState("m2", drover.StateStarted)
		paused, limit := true, 5*drover.MiB
		if st, err := order[drover.LayerStatus](b, drover.OrderVolumeHydration, drover.HydrationRequest{Volume: testFork, Paused: &paused, Limit: &limit}); err != nil || !st.Hydration.Paused {
			t.Errorf("%+v, %v", st, err)
		}
		_, err := order[drover.MoveExports](b, drover.OrderMoveExport, drover.MoveExportRequest{MoveRequest: drover.MoveRequest{Migration: "mig_1", Machine: "m2"}, Target: "a"})
		if !drover.Is(err, drover.Conflict) {
			t.Errorf("a move of what is filled: %v", err)
		}
		next := snapshotRequest(false, false)
		next.Volume, next.Snapshot.Volume = f.volume, testFork
		if _, err := order[drover.SnapshotProgress](b, drover.OrderVolumeSnapshot, next); !drover.Is(err, drover.Conflict) {
			t.Errorf("a snapshot of what is filled: %v", err)
		}
		w.mu.Lock()
		a.layers[export.Layer].status.State = drover.LayerFrozen
		w.mu.Unlock()
		b.down()
		b.up(0)
		pass(time.Minute)
		if d, err := b.agent.disk("vol_2"); err != nil || !d.filling() || d.HydrateLimit == nil || *d.HydrateLimit != limit {
			t.Errorf("it was filled although it is paused: %+v, %v", d, err)
		}
		paused = false
		insist[drover.LayerStatus](b, drover.OrderVolumeHydration, drover.HydrationRequest{Volume: testFork, Paused: &paused})
		pass(3 * fillEvery)
		if d, err := b.agent.disk("vol_2"); err != nil || d.filling() {
			t.Errorf("%+v, %v", d, err)
		}
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		if _, err := order[drover.Resized](a, drover.OrderVolumeResize, drover.ResizeRequest{Volume: testVolume, Size: 2 * testVolume.Size}); err != nil {
			t.Errorf("resize: %v", err)
		}
		mv := newMover(w, a, b, req)
		for _, step := range mv.before()[:2] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := order[drover.Resized](a, drover.OrderVolumeResize, drover.ResizeRequest{Volume: testVolume, Size: 3 * testVolume.Size}); !drover.Is(err, drover.Conflict) {
			t.Errorf("resize of what is being moved: %v", err)
		}
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
	}, "a", "b")
}

// everyVolumeOrder gives each order once, for the test of the fault points.
func everyVolumeOrder(h *fakeHost, id drover.VolumeID) {
	v := testVolume
	v.ID = id
	snapshot := drover.SnapshotRequest{Snapshot: drover.Snapshot{ID: testSnapshot, Volume: id}, Volume: v, Upload: true, Quiesce: true}
	insist[drover.SnapshotProgress](h, drover.OrderVolumeSnapshot, snapshot)
	insist[drover.Empty](h, drover.OrderVolumeSnapshotEnd, drover.SnapshotEndRequest{Snapshot: testSnapshot, Volume: id})
	insist[drover.Resized](h, drover.OrderVolumeResize, drover.ResizeRequest{Volume: v, Size: 2 * v.Size})
	insist[drover.LayerStatus](h, drover.OrderVolumeLimits, drover.VolumeRequest{Volume: v})
	insist[drover.Verification](h, drover.OrderVolumeVerify, drover.VerifyRequest{Volume: id})
	insist[drover.StorageSettings](h, drover.OrderStorageSettings, drover.StorageSettings{})
}
