package apitest

import (
	"context"
	"strings"

	"drover"
	"drover/fleet"
)

// CreateSnapshot takes a snapshot that is in the store at once; with Slow it stays on its way.
func (b *Backend) CreateSnapshot(_ context.Context, req fleet.CreateSnapshot) (drover.Snapshot, error) {
	var s drover.Snapshot
	_, err := b.change("CreateSnapshot", req.App, req.Volume, func(v *fleet.VolumeView) error {
		vol, now := v.Volume, b.Now()
		s = drover.Snapshot{ID: snapshotID(b.nextLocked()), Volume: vol.ID, App: vol.App, Name: vol.Name, State: drover.SnapshotCreating, Host: vol.Host, Size: vol.Size,
			Data: vol.Size / 4, Cipher: vol.Cipher, Quiesced: req.Quiesce, Full: req.Full, RetentionDays: req.RetentionDays, TakenAt: now, CreatedAt: now}
		if s.RetentionDays == 0 {
			s.RetentionDays = vol.RetentionDays
		}
		if !b.Slow {
			s.State, s.Stored, s.Manifest, s.DoneAt = drover.SnapshotCreated, s.Data, strings.Repeat("5e", 32), now
		}
		b.snapshots[s.ID] = s
		return nil
	})
	return s, err
}

// Snapshots lists the snapshots of a volume, or of all volumes of the app.
func (b *Backend) Snapshots(_ context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Snapshot, error) {
	if err := b.begin("Snapshots"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var all []drover.Snapshot
	for _, s := range b.snapshots {
		if s.App == app && (volume == "" || s.Volume == volume) {
			all = append(all, s)
		}
	}
	if _, err := b.volumeLocked(app, volume); err != nil && volume != "" && len(all) == 0 {
		return nil, err
	}
	return all, nil
}

// Snapshot returns a snapshot.
func (b *Backend) Snapshot(_ context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error) {
	if err := b.begin("Snapshot"); err != nil {
		return drover.Snapshot{}, err
	}
	defer b.mu.Unlock()
	s, ok := b.snapshots[id]
	if !ok || s.App != app {
		return drover.Snapshot{}, drover.Errorf(drover.NotFound, "app %q has no snapshot %q", app, id)
	}
	return s, nil
}

// DeleteSnapshot removes a snapshot.
func (b *Backend) DeleteSnapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error) {
	s, err := b.Snapshot(ctx, app, id)
	if err != nil {
		return s, err
	}
	if err := b.begin("DeleteSnapshot"); err != nil {
		return s, err
	}
	defer b.mu.Unlock()
	s.State = drover.SnapshotDestroying
	delete(b.snapshots, id)
	return s, nil
}
