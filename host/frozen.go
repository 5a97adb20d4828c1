package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	"drover"
	"drover/boltstore"
)

// turns gives out one turn at a time for each volume.
type turns struct {
	mu   sync.Mutex
	held map[drover.VolumeID]chan struct{}
}

// take waits for the turn of a volume. The returned function ends it.
func (t *turns) take(ctx context.Context, id drover.VolumeID) (end func(), err error) {
	for {
		t.mu.Lock()
		if t.held == nil {
			t.held = map[drover.VolumeID]chan struct{}{}
		}
		busy, taken := t.held[id]
		if !taken {
			mine := make(chan struct{})
			t.held[id] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.held, id)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, drover.Errorf(drover.Conflict, "volume %q is busy with another order: %w", id, context.Cause(ctx)).
				WithHint("ask again in a moment")
		}
	}
}

// mountedBy returns the machine of this host that has the volume; nil when none has.
func (a *Agent) mountedBy(id drover.VolumeID) (m *machine, index int) {
	for _, m := range a.list() {
		r := m.rec.Load()
		if r.Desired == nil || r.Obs.Status.State == drover.StateDestroyed {
			continue
		}
		for i, mount := range r.Desired.Machine.Config.Mounts {
			if mount.Volume == id {
				return m, i
			}
		}
	}
	return nil, 0
}

// frozen reads the record of a frozen layer.
func (a *Agent) frozen(id drover.LayerID) (f frozenRecord, known bool, err error) {
	err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
		f, known, err = frozenBucket.Get(tx, string(id))
		return err
	})
	return f, known, err
}

func (a *Agent) putFrozen(f frozenRecord) error {
	return a.update(func(tx *boltstore.Tx) error { return frozenBucket.Put(tx, string(f.Layer), f) })
}

// freezeVolume splits the layer of a volume so that what it holds now is kept in the layer want.Layer, or finds that it was done before.
// The caller has the volume's turn. The record comes first: from then on the frozen layer may be there.
func (a *Agent) freezeVolume(ctx context.Context, want frozenRecord, quiesce bool) (frozenRecord, error) {
	f, known, err := a.frozen(want.Layer)
	switch {
	case err != nil:
		return f, err
	case known && !f.EndedAt.IsZero():
		return f, drover.Errorf(drover.Canceled, "the layer %q was given up on host %q", f.Layer, a.cfg.ID)
	case known && !f.TakenAt.IsZero():
		return f, nil
	case known:
		// It was cut on the way. What is there says whether the split was made.
		if taken, err := a.wasSplit(ctx, f); err != nil || !taken.TakenAt.IsZero() {
			return taken, err
		}
	default:
		f = want
	}
	disk, err := a.splittable(ctx, f.Volume)
	if err != nil {
		return f, err
	}
	hold, err := a.quiesce(ctx, f.Volume, quiesce)
	if err != nil {
		return f, err
	}
	f.BegunAt = a.now()
	if err := a.putFrozen(f); err != nil {
		hold.letGo(ctx)
		return f, err
	}
	a.hit("host.split.before")
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		return a.cfg.Storage.Split(ctx, disk.Layer, f.Layer)
	})
	f.Quiesced = hold.letGo(ctx)
	if err != nil {
		return f, fmt.Errorf("cannot freeze what volume %q holds: %w", f.Volume, err)
	}
	a.hit("host.split.after")
	f.TakenAt, f.Size = f.BegunAt, status.Size
	return f, a.putFrozen(f)
}

// wasSplit looks whether the frozen layer of a record that says nothing is there. The moment is then that before the split.
func (a *Agent) wasSplit(ctx context.Context, f frozenRecord) (frozenRecord, error) {
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, f.Layer) })
	if drover.Is(err, drover.NotFound) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.TakenAt, f.Size = f.BegunAt, status.Size
	return f, a.putFrozen(f)
}

// splittable returns the disk of a volume that can be frozen now, and says why not otherwise.
func (a *Agent) splittable(ctx context.Context, id drover.VolumeID) (diskRecord, error) {
	disk, err := a.disk(id.Disk())
	if drover.Is(err, drover.NotFound) || (err == nil && !disk.Made) {
		return disk, drover.Errorf(drover.Precondition, "volume %q is not on host %q", id, a.cfg.ID).WithHint("ask again: it may be on its way to another host")
	}
	if err != nil {
		return disk, err
	}
	if m, _ := a.mountedBy(id); m != nil {
		r := m.rec.Load()
		if r.Obs.Lost != nil {
			return disk, drover.Errorf(drover.Precondition, "machine %q, which has volume %q, is not on host %q any more", m.id, id, a.cfg.ID)
		}
		if src := r.source(); src != nil && (src.Frozen || src.Moved != 0) {
			return disk, drover.Errorf(drover.Conflict, "volume %q is leaving host %q with migration %s", id, a.cfg.ID, src.Migration).
				WithHint("ask again when the machine runs on its new host")
		}
	}
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, disk.Layer) })
	switch {
	case err != nil:
		return disk, err
	case status.Trouble != "":
		return disk, drover.Errorf(drover.Precondition, "volume %q cannot be used on host %q: %s", id, a.cfg.ID, status.Trouble)
	case status.State != drover.LayerReady:
		return disk, drover.Errorf(drover.Conflict, "volume %q is frozen on host %q", id, a.cfg.ID).WithHint("ask again when its machine has moved")
	case disk.filling(), status.Hydration != nil && !status.Hydration.Done:
		return disk, drover.Errorf(drover.Conflict, "volume %q is still being filled on host %q", id, a.cfg.ID).
			WithHint("ask again when its hydration is done: drover volume show %s", id)
	}
	return disk, nil
}

// giveUpFrozen removes a frozen layer and remembers that it was given up. The caller has the volume's turn.
func (a *Agent) giveUpFrozen(ctx context.Context, f frozenRecord, wipe bool) error {
	known, ok, err := a.frozen(f.Layer)
	if err != nil || ok && !known.EndedAt.IsZero() {
		return err
	}
	if ok {
		f = known
		a.hit("host.frozen-end.before")
		if f.Target != "" && f.Target != a.cfg.ID {
			_, err := call(ctx, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, a.cfg.Storage.Unexport(ctx, f.Layer, f.Target)
			})
			if err != nil && !drover.Is(err, drover.NotFound) {
				return fmt.Errorf("cannot end the export of the layer %q: %w", f.Layer, err)
			}
		}
		a.hit("host.frozen-end.before-delete")
		if err := a.discardLayer(ctx, f.Layer, wipe); err != nil {
			return err
		}
		a.hit("host.frozen-end.after")
	}
	f.EndedAt = a.now()
	return a.putFrozen(f)
}

// discardLayer removes a layer, and makes its data unreadable if wipe says so. One that is not there is no error.
func (a *Agent) discardLayer(ctx context.Context, id drover.LayerID, wipe bool) error {
	if !wipe {
		return a.deleteLayer(ctx, id)
	}
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.cfg.Storage.Wipe(ctx, id) })
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	return err
}

// sweepFrozen forgets what was given up long ago.
func (a *Agent) sweepFrozen() error {
	var old []string
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return frozenBucket.ForEach(tx, func(id string, f frozenRecord, err error) error {
			if err == nil && !f.EndedAt.IsZero() && a.now().Sub(f.EndedAt) > frozenKeep {
				old = append(old, id)
			}
			return err
		})
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return a.update(func(tx *boltstore.Tx) error {
		for _, id := range old {
			if err := frozenBucket.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// frozenKeep is how long it is remembered that a frozen layer was given up. No order is as late as that.
const frozenKeep = 24 * time.Hour
