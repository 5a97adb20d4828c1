package host

import (
	"context"

	"drover"
)

// parentOf returns the layer that a layer is filled from, if it can be read.
func (f fakeStorage) parentOf(l *fakeLayer) *fakeLayer {
	p := l.spec.Parent
	if p == nil {
		return nil
	}
	from, to := f.s.h.w.host[p.Host], f.s.h
	src := from.layers[p.Layer]
	if from != to && (from.away || to.away || from.noPeers || to.noPeers) {
		return nil
	}
	if src == nil || p.Host != f.s.h.id && !src.exports[f.s.h.id] {
		return nil
	}
	return src
}

// removeLayer removes a layer. What is the base of one other is taken in by that.
func (h *fakeHost) removeLayer(l *fakeLayer) error {
	id := l.spec.ID
	if l.status.Writer != 0 || len(l.exports) > 0 {
		return drover.Errorf(drover.Precondition, "layer %q is in use", id)
	}
	for _, other := range h.layers {
		if p := other.spec.Parent; p != nil && p.Host == h.id && p.Layer == id && other.status.Hydration != nil && !other.status.Hydration.Done {
			return drover.Errorf(drover.Precondition, "layer %q is the parent of %q", id, other.spec.ID)
		}
	}
	for _, other := range h.layers {
		if other.status.Base == id {
			other.status.Base = l.status.Base
		}
	}
	delete(h.layers, id)
	return nil
}

func (f fakeStorage) Wipe(_ context.Context, id drover.LayerID) error {
	_, err := f.with("wipe", id, func(l *fakeLayer) error {
		err := f.s.h.removeLayer(l)
		f.s.h.wiped[id] = err == nil
		return err
	})
	return err
}

func (f fakeStorage) Split(_ context.Context, id, into drover.LayerID) (st drover.LayerStatus, err error) {
	_, err = f.with("split", id, func(l *fakeLayer) error {
		h := f.s.h
		if s := h.layers[into]; s != nil {
			st = s.status
			return nil
		}
		if l.status.State != drover.LayerReady {
			return drover.Errorf(drover.Precondition, "layer %q is %s", id, l.status.State)
		}
		s := &fakeLayer{spec: LayerSpec{ID: into, Disk: l.spec.Disk, Size: l.status.Size}, content: l.content, exports: map[drover.HostID]bool{},
			status: drover.LayerStatus{ID: into, Disk: l.spec.Disk, State: drover.LayerFrozen, Size: l.status.Size, Allocated: l.status.Allocated,
				Base: l.status.Base, Hydration: l.status.Hydration, Cipher: l.status.Cipher}}
		if l.status.Hydration != nil && !l.status.Hydration.Done {
			h.w.t.Errorf("layer %q is split while it is filled", id)
		}
		l.status.Base, l.status.Hydration = into, nil
		h.layers[into] = s
		st = s.status
		return nil
	})
	return st, err
}

func (f fakeStorage) Resize(_ context.Context, id drover.LayerID, size drover.Bytes) error {
	_, err := f.with("resize", id, func(l *fakeLayer) error {
		switch {
		case l.status.State != drover.LayerReady:
			return drover.Errorf(drover.Precondition, "layer %q is %s", id, l.status.State)
		case size < l.status.Size:
			return drover.Errorf(drover.Invalid, "layer %q has %d bytes", id, l.status.Size)
		}
		l.status.Size = size
		return nil
	})
	return err
}

func (f fakeStorage) Limit(_ context.Context, id drover.LayerID, limits drover.Limits) error {
	_, err := f.with("limit", id, func(l *fakeLayer) error { l.status.Limits = limits; return nil })
	return err
}

func (f fakeStorage) PauseHydration(_ context.Context, id drover.LayerID, paused bool) error {
	_, err := f.with("pause-hydration", id, func(l *fakeLayer) error {
		if l.status.Hydration != nil {
			h := *l.status.Hydration
			h.Paused = paused
			l.status.Hydration = &h
		}
		return nil
	})
	return err
}

func (f fakeStorage) Settings(_ context.Context, settings drover.StorageSettings) error {
	return f.s.effect("settings", func() error { f.s.h.settings = settings; return nil })
}

// Upload goes on by itself: it is done when it is looked at again.
func (f fakeStorage) Upload(_ context.Context, id drover.LayerID, source drover.SnapshotSource) (drover.LayerStatus, error) {
	return f.with("upload", id, func(l *fakeLayer) error {
		if l.status.State != drover.LayerFrozen {
			return drover.Errorf(drover.Precondition, "layer %q is %s", id, l.status.State)
		}
		u := drover.Upload{Snapshot: source.Snapshot, Total: l.status.Allocated}
		if l.status.Upload != nil {
			u.Read, u.Stored, u.Done, u.Manifest = u.Total, u.Total, true, "manifest of "+string(id)
		}
		l.status.Upload, f.s.h.uploadedFrom = &u, source
		return nil
	})
}

func (f fakeStorage) Verify(_ context.Context, id drover.LayerID, against *drover.SnapshotSource) (drover.LayerStatus, error) {
	return f.with("verify", id, func(l *fakeLayer) error {
		v := drover.Verification{Against: "checksums", Total: l.status.Allocated, Checked: l.status.Allocated, Done: true}
		if against != nil {
			v.Against = string(against.Snapshot)
		}
		l.status.Verification = &v
		return nil
	})
}
