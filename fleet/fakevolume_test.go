package fleet

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"drover"
)

// fakeStore is an object store with the chunks of snapshots: each snapshot has one of its own, and shares one with all of its volume.
type fakeStore struct {
	t *testing.T

	mu        sync.Mutex
	manifests map[drover.SnapshotID]drover.VolumeID
	chunks    map[string]bool
	// removing is the volume that something is removed of now, at work in the middle; fail is what Remove answers.
	removing map[drover.VolumeID]bool
	fail     error
}

func newFakeStore(t *testing.T) *fakeStore {
	return &fakeStore{t: t, manifests: map[drover.SnapshotID]drover.VolumeID{}, chunks: map[string]bool{}, removing: map[drover.VolumeID]bool{}}
}

func chunksOf(v drover.VolumeID, s drover.SnapshotID) []string {
	return []string{string(v) + "/shared", string(v) + "/" + string(s)}
}

// begin is an upload that looks for what is there already; finish writes the manifest, without having sent that again.
func (s *fakeStore) begin(v drover.VolumeID, id drover.SnapshotID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chunksOf(v, id) {
		s.chunks[c] = true
	}
}

func (s *fakeStore) finish(v drover.VolumeID, id drover.SnapshotID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifests[id] = v
	s.checkLocked()
}

func (s *fakeStore) Remove(_ context.Context, v drover.VolumeID, id drover.SnapshotID, keep []drover.SnapshotID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	delete(s.manifests, id)
	for c := range s.chunks {
		if len(c) < len(v) || c[:len(v)] != string(v) {
			continue
		}
		needed := false
		for _, k := range keep {
			needed = needed || slices.Contains(chunksOf(v, k), c)
		}
		if !needed {
			delete(s.chunks, c)
		}
	}
	s.checkLocked()
	return nil
}

// checkLocked makes sure that every snapshot in the store is whole.
func (s *fakeStore) checkLocked() {
	for id, v := range s.manifests {
		for _, c := range chunksOf(v, id) {
			if !s.chunks[c] {
				s.t.Errorf("snapshot %s lacks its chunk %s", id, c)
			}
		}
	}
}

// checkOnly makes sure that the store has these snapshots and nothing else.
func (s *fakeStore) checkOnly(want ...drover.SnapshotID) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkLocked()
	n := 0
	for _, id := range want {
		if s.manifests[id] == "" {
			s.t.Errorf("the store has no snapshot %s", id)
		}
		n++
	}
	if len(s.manifests) != n || n == 0 && len(s.chunks) > 0 {
		s.t.Errorf("the store has %v and %v, want %v", s.manifests, s.chunks, want)
	}
}

// time is what the whole world sees as the time.
func (w *world) time() time.Time {
	if w.clock != nil {
		return w.clock()
	}
	return time.Now()
}

// hasVolume returns the layer of a volume that is in use on the host.
func (h *fakeHost) hasVolume(id drover.VolumeID) (drover.LayerStatus, error) {
	for _, l := range h.layers {
		if _, frozen := h.frozen[l.ID]; l.Disk == id.Disk() && !frozen {
			return l, nil
		}
	}
	return drover.LayerStatus{}, drover.Errorf(drover.Precondition, "volume %q is not on host %q", id, h.id)
}

// freeze makes a frozen layer, or finds it.
func (h *fakeHost) freezeLayer(volume drover.VolumeID, layer drover.LayerID) (drover.LayerStatus, error) {
	if h.frozen[layer] {
		return drover.LayerStatus{}, drover.Errorf(drover.Canceled, "the layer %q was given up", layer)
	}
	if l, ok := h.layers[layer]; ok {
		return l, nil
	}
	if _, known := h.frozen[layer]; known {
		return drover.LayerStatus{}, drover.Errorf(drover.NotFound, "the layer %q is lost", layer)
	}
	l, err := h.hasVolume(volume)
	if err != nil {
		return l, err
	}
	if l.Hydration != nil && !l.Hydration.Done {
		return l, drover.Errorf(drover.Conflict, "volume %q is still being filled", volume)
	}
	h.frozen[layer] = false
	s := drover.LayerStatus{ID: layer, Disk: volume.Disk(), State: drover.LayerFrozen, Size: l.Size, Allocated: l.Allocated, Cipher: l.Cipher}
	h.layers[layer] = s
	return s, nil
}

func (h *fakeHost) giveUpLayer(layer drover.LayerID) {
	h.frozen[layer] = true
	delete(h.layers, layer)
}

func (h *fakeHost) snapshot(b []byte) (any, error) {
	req := decode[drover.SnapshotRequest](b)
	layer := drover.SnapshotLayer(req.Volume.ID, req.Snapshot.ID)
	l, err := h.freezeLayer(req.Volume.ID, layer)
	if err != nil {
		return nil, err
	}
	p := drover.SnapshotProgress{TakenAt: h.world.time(), Quiesced: req.Quiesce, Size: l.Size}
	if !req.Upload {
		return p, nil
	}
	if l.Upload == nil {
		h.world.store.begin(req.Volume.ID, req.Snapshot.ID)
		l.Upload = &drover.Upload{Snapshot: req.Snapshot.ID, Total: l.Allocated}
	} else if !l.Upload.Done {
		h.world.store.finish(req.Volume.ID, req.Snapshot.ID)
		l.Upload = &drover.Upload{Snapshot: req.Snapshot.ID, Total: l.Allocated, Read: l.Allocated, Stored: 1, Done: true, Manifest: "m"}
	}
	h.layers[layer] = l
	p.Upload = l.Upload
	return p, nil
}

func (h *fakeHost) snapshotEnd(b []byte) (any, error) {
	req := decode[drover.SnapshotEndRequest](b)
	h.giveUpLayer(drover.SnapshotLayer(req.Volume, req.Snapshot))
	return drover.Empty{}, nil
}

func (h *fakeHost) fork(b []byte) (any, error) {
	req := decode[drover.ForkRequest](b)
	l, err := h.freezeLayer(req.Source, drover.ForkLayer(req.Source, req.Volume))
	return drover.Export{Disk: l.Disk, Volume: req.Source, Layer: l.ID, Size: l.Size, Host: h.id, Name: string(l.ID), Allocated: l.Allocated}, err
}

func (h *fakeHost) forkEnd(b []byte) (any, error) {
	req := decode[drover.ForkRequest](b)
	for _, other := range h.world.hosts {
		if other == h {
			h.noReader(req.Volume)
		}
	}
	h.giveUpLayer(drover.ForkLayer(req.Source, req.Volume))
	return drover.Empty{}, nil
}

// noReader makes sure that a fork on this host does not read its source any more.
func (h *fakeHost) noReader(id drover.VolumeID) {
	if l, err := h.hasVolume(id); err == nil && l.Hydration != nil && !l.Hydration.Done {
		h.t.Errorf("the source of volume %s is let go while the volume reads from it", id)
	}
}

func (h *fakeHost) volumeCreate(b []byte) (any, error) {
	req := decode[drover.VolumeRequest](b)
	v := req.Volume
	id := drover.LayerFor(v.ID.Disk(), "")
	if l, ok := h.layers[id]; ok {
		return l, nil
	}
	h.layer(v.ID.Disk(), "")
	l := h.layers[id]
	l.Size, l.Cipher, l.Limits = v.Size, v.Cipher, v.Limits
	if req.Parent != nil || v.From != nil && v.From.Snapshot != nil {
		l.Hydration = &drover.Hydration{Total: 10}
		h.fills[id] = h.polls
	}
	h.layers[id] = l
	return l, nil
}

func (h *fakeHost) volumeDestroy(b []byte) (any, error) {
	req := decode[drover.VolumeRequest](b)
	if !req.Wipe {
		h.t.Errorf("volume %s is removed and not wiped", req.Volume.ID)
	}
	h.dropLayers(req.Volume.ID.Disk())
	return drover.Empty{}, nil
}

func (h *fakeHost) volumeStatus(b []byte) (any, error) {
	l, err := h.hasVolume(decode[drover.VolumeRequest](b).Volume.ID)
	if err != nil {
		return nil, drover.Errorf(drover.NotFound, "%w", err)
	}
	if hy := l.Hydration; hy != nil && !hy.Done && !hy.Paused {
		h.fills[l.ID]--
		next := *hy
		next.Copied, next.Done = 10, h.fills[l.ID] <= 0
		l.Hydration = &next
		h.layers[l.ID] = l
	}
	return l, nil
}

func (h *fakeHost) change(id drover.VolumeID, change func(l *drover.LayerStatus)) (any, error) {
	l, err := h.hasVolume(id)
	if err != nil {
		return nil, err
	}
	change(&l)
	h.layers[l.ID] = l
	return l, nil
}

func (h *fakeHost) resize(b []byte) (any, error) {
	req := decode[drover.ResizeRequest](b)
	_, err := h.change(req.Volume.ID, func(l *drover.LayerStatus) { l.Size = req.Size })
	return drover.Resized{NeedsRestart: req.Size == 7*drover.GiB}, err
}

func (h *fakeHost) limits(b []byte) (any, error) {
	v := decode[drover.VolumeRequest](b).Volume
	return h.change(v.ID, func(l *drover.LayerStatus) { l.Limits = v.Limits })
}

func (h *fakeHost) hydration(b []byte) (any, error) {
	req := decode[drover.HydrationRequest](b)
	l, err := h.hasVolume(req.Volume)
	if err != nil {
		return nil, err
	}
	if l.Hydration == nil || l.Hydration.Done {
		return nil, drover.Errorf(drover.Precondition, "volume %q is complete", req.Volume)
	}
	return h.change(req.Volume, func(l *drover.LayerStatus) {
		next := *l.Hydration
		if req.Paused != nil {
			next.Paused = *req.Paused
		}
		if req.Limit != nil {
			next.Limit = *req.Limit
		}
		l.Hydration = &next
	})
}

func (h *fakeHost) verify(b []byte) (any, error) {
	req := decode[drover.VerifyRequest](b)
	v := drover.Verification{Against: "checksums", Done: true}
	if req.Against != nil {
		v.Against = string(req.Against.Snapshot)
	}
	_, err := h.hasVolume(req.Volume)
	return v, err
}

func (h *fakeHost) settings(b []byte) (any, error) {
	h.storage = decode[drover.StorageSettings](b)
	return h.storage, nil
}
