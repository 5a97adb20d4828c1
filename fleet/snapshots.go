package fleet

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"

	"drover"
	"drover/migrate"
)

// SnapshotStore removes snapshots from the object store. What hosts put there is theirs; the fleet only takes away.
type SnapshotStore interface {
	// Remove removes what the store has of a snapshot: its manifest, if there is one, and every chunk of the volume that none of the snapshots
	// in keep needs. It may be repeated, and goes on where it was cut. Unavailable when the store does not answer. While it runs, no
	// snapshot of the volume is being added.
	Remove(ctx context.Context, volume drover.VolumeID, snapshot drover.SnapshotID, keep []drover.SnapshotID) error
}

func noSnapshot(id drover.SnapshotID) *drover.Error {
	return drover.Errorf(drover.NotFound, "snapshot %q does not exist", id).WithHint("see `drover volume snapshot list`")
}

// CreateSnapshot takes a snapshot. It answers when the moment is past; the way into the object store goes on.
func (f *Fleet) CreateSnapshot(ctx context.Context, req CreateSnapshot) (drover.Snapshot, error) {
	if err := f.await(ctx); err != nil {
		return drover.Snapshot{}, err
	}
	if err := checkRetention(req.RetentionDays); err != nil {
		return drover.Snapshot{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timing.Make)
	defer cancel()
	v, err := f.readVolume(ctx, req.App, req.Volume)
	if err != nil {
		return drover.Snapshot{}, err
	}
	host, err := f.splittable(ctx, v)
	if err != nil {
		return drover.Snapshot{}, err
	}
	s := newSnapshot(v, host)
	s.CreatedAt, s.Full = f.now().UTC(), req.Full
	if req.RetentionDays != 0 {
		s.RetentionDays = req.RetentionDays
	}
	if _, err := f.state.snapshots.create(ctx, string(s.ID), s); err != nil {
		return drover.Snapshot{}, err
	}
	f.hit("fleet.snapshot.record.after")
	s, err = f.takeSnapshot(ctx, s, v, req.Quiesce)
	if err == nil && req.Quiesce && !s.Quiesced {
		err = drover.Errorf(drover.Conflict, "the guest of volume %q went on before the snapshot was taken", v.ID).
			WithHint("ask again, or without quiesce: the snapshot is then what a power cut would leave")
	}
	if err != nil {
		f.dropSnapshot(ctx, s.ID, err)
		return drover.Snapshot{}, drover.AsError(fmt.Errorf("no snapshot of volume %q was taken: %w", v.ID, err))
	}
	f.log.Info("snapshot taken", "snapshot", s.ID, "volume", s.Volume, "host", s.Host, "quiesced", s.Quiesced)
	return s, nil
}

// newSnapshot makes up the record of a snapshot of a volume.
func newSnapshot(v drover.Volume, host drover.HostID) drover.Snapshot {
	s := drover.Snapshot{ID: drover.NewSnapshotID(), Volume: v.ID, App: v.App, Name: v.Name, State: drover.SnapshotCreating, Host: host,
		Size: v.Size, Cipher: v.Cipher, RetentionDays: v.RetentionDays}
	if s.RetentionDays == 0 {
		s.RetentionDays = drover.DefaultRetentionDays
	}
	return s
}

// splittable tells why nothing can be frozen of a volume now; otherwise it returns the host that has the volume.
func (f *Fleet) splittable(ctx context.Context, v drover.Volume) (drover.HostID, error) {
	if f.cfg.Snapshots == nil {
		return "", drover.Errorf(drover.Precondition, "this fleet has no object store for snapshots").WithHint("see object_store in the host configuration")
	}
	host, err := f.steady(ctx, v)
	if err != nil {
		return "", err
	}
	for _, s := range f.snapshotsOf(v.ID) {
		if s.State == drover.SnapshotCreating {
			return "", drover.Errorf(drover.Conflict, "snapshot %q of volume %q is not in the object store yet", s.ID, v.ID).
				WithHint("ask again when it is created: drover volume snapshot list %s", v.ID)
		}
	}
	return host, nil
}

// steady tells why a volume is not in a state in which what it holds can be frozen; otherwise it returns the host that has it.
func (f *Fleet) steady(ctx context.Context, v drover.Volume) (drover.HostID, error) {
	switch v.State {
	case drover.VolumeCreated:
	case drover.VolumeHydrating:
		return "", drover.Errorf(drover.Conflict, "volume %q is still being filled", v.ID).
			WithHint("ask again when its hydration is done: drover volume show %s", v.ID)
	default:
		return "", inState(v)
	}
	if v.Machine != "" {
		if m, err := f.holder(ctx, v.Machine); err != nil {
			return "", err
		} else if m != nil && migrate.Blocks(*m) {
			return "", moving(m)
		}
	}
	host, err := f.hostOfVolume(ctx, v)
	if err != nil {
		return "", err
	}
	return host, f.answers(v, host)
}

// answers refuses what needs a host that does not answer.
func (f *Fleet) answers(v drover.Volume, host drover.HostID) error {
	if f.reachable(host) {
		return nil
	}
	return drover.Errorf(drover.Unavailable, "host %q, which has volume %q, does not answer", host, v.ID).WithHint("ask again when it is back")
}

// takeSnapshot makes the host freeze what the volume holds, and notes the moment.
func (f *Fleet) takeSnapshot(ctx context.Context, s drover.Snapshot, v drover.Volume, quiesce bool) (drover.Snapshot, error) {
	var p drover.SnapshotProgress
	if err := f.order(ctx, f.timing.Apply, s.Host, drover.OrderVolumeSnapshot, drover.SnapshotRequest{Snapshot: s, Volume: v, Quiesce: quiesce}, &p); err != nil {
		return s, err
	}
	f.hit("fleet.snapshot.taken.after")
	return f.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error {
		if now.State != drover.SnapshotCreating {
			return drover.Errorf(drover.Canceled, "snapshot %q was given up", s.ID)
		}
		now.TakenAt, now.Quiesced, now.Size, now.Problem = p.TakenAt, p.Quiesced, p.Size, nil
		return nil
	})
}

// dropSnapshot gives up a snapshot that its maker was told did not work.
func (f *Fleet) dropSnapshot(ctx context.Context, id drover.SnapshotID, why error) {
	ctx, cancel := lastWord(ctx)
	defer cancel()
	if _, err := f.changeSnapshot(ctx, id, func(s *drover.Snapshot) error {
		s.State, s.Problem = drover.SnapshotDestroying, drover.AsError(why)
		return nil
	}); err != nil && !drover.Is(err, drover.NotFound) {
		f.log.Warn("snapshot that was not taken is cleared away later", "snapshot", id, "err", err)
	}
}

// changeSnapshot changes a snapshot's record by compare-and-set, until it worked or change refuses.
func (f *Fleet) changeSnapshot(ctx context.Context, id drover.SnapshotID, change func(*drover.Snapshot) error) (drover.Snapshot, error) {
	for range casTries {
		s, rev, err := f.state.snapshots.get(ctx, string(id))
		if err != nil {
			return s, err
		}
		old := s
		if err := change(&s); err != nil {
			return s, err
		}
		if reflect.DeepEqual(s, old) {
			return s, nil
		}
		if _, err = f.state.snapshots.update(ctx, string(id), s, rev); !drover.Is(err, drover.Conflict) {
			return s, err
		}
	}
	return drover.Snapshot{}, tooBusy("snapshot", string(id))
}

// snapshotsOf returns the snapshots of a volume from memory, oldest first.
func (f *Fleet) snapshotsOf(id drover.VolumeID) []drover.Snapshot {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.snapshotsLocked(f.state.snapsOf[id])
}

func (f *Fleet) snapshotsLocked(ids map[string]struct{}) []drover.Snapshot {
	list := make([]drover.Snapshot, 0, len(ids))
	for id := range ids {
		list = append(list, f.state.snapshots.items[id].value)
	}
	slices.SortFunc(list, func(a, b drover.Snapshot) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Snapshots lists the snapshots of an app's volume, newest first; of all volumes, those that are gone too, when it is empty.
func (f *Fleet) Snapshots(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Snapshot, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	f.state.mu.RLock()
	list := f.snapshotsLocked(f.state.snapsIn[app])
	v, exists := f.state.volumes.items[string(volume)]
	f.state.mu.RUnlock()
	if volume != "" {
		list = slices.DeleteFunc(list, func(s drover.Snapshot) bool { return s.Volume != volume })
		if len(list) == 0 && (!exists || v.value.App != app) {
			return nil, noVolume(app, volume)
		}
	}
	slices.Reverse(list)
	return list, nil
}

// Snapshot returns one snapshot.
func (f *Fleet) Snapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error) {
	if err := f.await(ctx); err != nil {
		return drover.Snapshot{}, err
	}
	s, _, ok := f.state.snapshots.seen(string(id))
	if !ok || app != "" && s.App != app {
		return drover.Snapshot{}, noSnapshot(id)
	}
	return s, nil
}

// DeleteSnapshot begins to remove a snapshot, in whatever state it is, and answers when that is durable. Precondition while a volume
// is being filled from it.
func (f *Fleet) DeleteSnapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error) {
	if err := f.await(ctx); err != nil {
		return drover.Snapshot{}, err
	}
	if v := f.restoring(id); v != "" {
		return drover.Snapshot{}, drover.Errorf(drover.Precondition, "volume %q is being filled from snapshot %q", v, id).
			WithHint("ask again when its hydration is done: drover volume show %s", v)
	}
	s, err := f.changeSnapshot(ctx, id, func(s *drover.Snapshot) error {
		if app != "" && s.App != app {
			return noSnapshot(id)
		}
		s.State = drover.SnapshotDestroying
		return nil
	})
	if drover.Is(err, drover.NotFound) {
		return s, noSnapshot(id)
	}
	f.hit("fleet.snapshot.destroying.after")
	return s, err
}

// restoring returns a volume that is being filled from the snapshot; empty for none.
func (f *Fleet) restoring(id drover.SnapshotID) drover.VolumeID {
	for _, i := range f.state.volumes.all() {
		if from := i.value.From; needsSnapshot(i.value) && from.Snapshot.Snapshot == id {
			return i.value.ID
		}
	}
	return ""
}

// needsSnapshot reports whether a volume still reads from a snapshot.
func needsSnapshot(v drover.Volume) bool {
	return v.From != nil && v.From.Snapshot != nil && !v.From.Released && v.State != drover.VolumeDestroying
}

// checkRetention checks a number of days; 0 stands for the default.
func checkRetention(days int) error {
	if days < 0 || days > drover.MaxRetentionDays {
		return drover.Errorf(drover.Invalid, "retention_days: %d is out of range: 1 to %d", days, drover.MaxRetentionDays).WithField("retention_days")
	}
	return nil
}
