package host

import (
	"context"
	"strconv"

	"drover"
)

func noLayer(id drover.LayerID) error { return drover.Errorf(drover.NotFound, "no layer %q", id) }

func (f fakeStorage) with(name string, id drover.LayerID, fn func(l *fakeLayer) error) (st drover.LayerStatus, err error) {
	err = f.s.effect(name, func() error {
		l, ok := f.s.h.layers[id]
		if !ok {
			return noLayer(id)
		}
		err := fn(l)
		st = l.status
		return err
	})
	return st, err
}

func (f fakeStorage) CreateLayer(_ context.Context, spec LayerSpec) (st drover.LayerStatus, err error) {
	err = f.s.effect("create-layer", func() error {
		h := f.s.h
		if l, ok := h.layers[spec.ID]; ok {
			if l.spec.Base != spec.Base || l.spec.Size != spec.Size || (l.spec.Parent == nil) != (spec.Parent == nil) {
				return drover.Errorf(drover.Exists, "layer %q is there with another spec", spec.ID)
			}
			st = l.status
			return nil
		}
		l := &fakeLayer{spec: spec, exports: map[drover.HostID]bool{}, status: drover.LayerStatus{ID: spec.ID, Disk: spec.Disk, State: drover.LayerReady,
			Size: spec.Size, Allocated: 1 << 20, Own: 1 << 16, Base: spec.Base}}
		if b := h.layers[spec.Base]; spec.Base != "" && (b == nil || b.status.State == drover.LayerReady) {
			return drover.Errorf(drover.Precondition, "layer %q: its base %q is not there, or not frozen", spec.ID, spec.Base)
		}
		if p := spec.Parent; p != nil && (p.Since == "") != (spec.Base == "") && p.Volume != "" {
			h.w.t.Errorf("layer %q lies over %q, and is filled with what came since %q", spec.ID, spec.Base, p.Since)
		}
		if spec.Parent != nil || spec.Snapshot != nil {
			l.status.Hydration = &drover.Hydration{}
		}
		l.status.Cipher, l.status.Limits = spec.Cipher, spec.Limits
		h.layers[spec.ID] = l
		st = l.status
		return nil
	})
	return st, err
}

func (f fakeStorage) ImportImage(context.Context, drover.LayerID, string) (drover.LayerStatus, error) {
	return drover.LayerStatus{}, drover.Errorf(drover.Internal, "not asked by the agent")
}

func (f fakeStorage) Open(_ context.Context, id drover.LayerID, epoch drover.Epoch) (at Attachment, err error) {
	_, err = f.with("open", id, func(l *fakeLayer) error {
		h := f.s.h
		switch {
		case l.spec.Cipher != nil && h.keys[l.spec.Cipher.Key] == "":
			return drover.Errorf(drover.Precondition, "layer %q: key %s is not here", id, l.spec.Cipher.Key)
		case l.status.State != drover.LayerReady:
			return drover.Errorf(drover.Precondition, "layer %q is %s", id, l.status.State)
		case epoch < h.fences[l.spec.Disk]:
			return drover.Errorf(drover.Conflict, "layer %q: epoch %d is stale", id, epoch)
		}
		h.fences[l.spec.Disk] = epoch
		l.status.Writer = epoch
		at = Attachment{Socket: "s", Export: string(id) + "@" + strconv.FormatUint(uint64(epoch), 10)}
		return nil
	})
	return at, err
}

func (f fakeStorage) SetKey(_ context.Context, id drover.KeyID, secret []byte) error {
	return f.s.effect("set-key", func() error {
		f.s.h.keys[id] = string(secret)
		return nil
	})
}

// Key is the control side's: each host gets what it asks for while one answers.
func (f fakeKeys) Key(_ context.Context, id drover.KeyID) (secret []byte, err error) {
	err = f.s.look(func() error {
		f.s.h.asked++
		if f.s.h.w.keysDown {
			return drover.Errorf(drover.Unavailable, "no control host answers")
		}
		secret = []byte("secret of " + id)
		return nil
	})
	return secret, err
}

func (f fakeStorage) Close(_ context.Context, id drover.LayerID) error {
	_, err := f.with("close", id, func(l *fakeLayer) error { l.status.Writer = 0; l.flush(); return nil })
	return err
}

func (f fakeStorage) Fence(_ context.Context, disk drover.DiskID, epoch drover.Epoch) error {
	return f.s.effect("fence", func() error {
		f.s.h.fences[disk] = max(f.s.h.fences[disk], epoch)
		for _, l := range f.s.h.layers {
			if l.spec.Disk == disk && l.status.Writer < epoch {
				l.status.Writer = 0
			}
		}
		return nil
	})
}

func (f fakeStorage) Freeze(_ context.Context, id drover.LayerID) (drover.LayerStatus, error) {
	return f.with("freeze", id, func(l *fakeLayer) error {
		l.status.State, l.status.Writer = drover.LayerFrozen, 0
		l.flush()
		return nil
	})
}

func (f fakeStorage) Thaw(_ context.Context, id drover.LayerID) error {
	_, err := f.with("thaw", id, func(l *fakeLayer) error { l.status.State = drover.LayerReady; return nil })
	return err
}

func (f fakeStorage) Export(_ context.Context, id drover.LayerID, peer drover.HostID) error {
	_, err := f.with("export", id, func(l *fakeLayer) error { l.exports[peer] = true; return nil })
	return err
}

func (f fakeStorage) Unexport(_ context.Context, id drover.LayerID, peer drover.HostID) error {
	_, err := f.with("unexport", id, func(l *fakeLayer) error { delete(l.exports, peer); return nil })
	return err
}

func (f fakeStorage) CheckParent(_ context.Context, id drover.LayerID) error {
	_, err := f.with("check-parent", id, func(l *fakeLayer) error {
		if src := f.parentOf(l); src == nil {
			p := l.spec.Parent
			return drover.Errorf(drover.Unavailable, "parent %q is not exported", p.Layer)
		}
		return nil
	})
	return err
}

// WriteOff makes a layer done whose parent has not given everything.
func (f fakeStorage) WriteOff(_ context.Context, id drover.LayerID) (drover.LayerStatus, error) {
	return f.with("write-off", id, func(l *fakeLayer) error {
		if h := l.status.Hydration; h != nil && !h.Done {
			done := *h
			done.Done, done.Lost, done.Holes = true, drover.BlockSize, []drover.ByteRange{{Offset: 0, Length: drover.BlockSize}}
			l.status.Hydration = &done
		}
		return nil
	})
}

func (f fakeStorage) Hydrate(_ context.Context, id drover.LayerID, limit drover.Bytes) error {
	_, err := f.with("hydrate", id, func(l *fakeLayer) error {
		if l.status.Hydration == nil {
			return nil
		}
		hy := *l.status.Hydration
		hy.Limit = limit
		if l.spec.Parent != nil {
			src := f.parentOf(l)
			if src == nil || src.status.State != drover.LayerFrozen || hy.Paused {
				l.status.Hydration = &hy
				return nil // it waits
			}
			if l.data == nil {
				l.data = src.read(f.s.h.w)
			}
		}
		hy.Copied, hy.Done = 1<<20, true
		l.status.Hydration = &hy
		return nil
	})
	return err
}

func (f fakeStorage) Delete(_ context.Context, id drover.LayerID) error {
	_, err := f.with("delete", id, func(l *fakeLayer) error { return f.s.h.removeLayer(l) })
	return err
}

func (f fakeStorage) Layer(_ context.Context, id drover.LayerID) (st drover.LayerStatus, err error) {
	err = f.s.look(func() error {
		l, ok := f.s.h.layers[id]
		if !ok {
			return noLayer(id)
		}
		st = l.status
		return nil
	})
	return st, err
}

func (f fakeStorage) Layers(context.Context) (all []drover.LayerStatus, err error) {
	err = f.s.look(func() error {
		for _, l := range f.s.h.layers {
			all = append(all, l.status)
		}
		return nil
	})
	return all, err
}
