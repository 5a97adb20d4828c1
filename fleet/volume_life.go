package fleet

import (
	"context"

	"drover"
)

var errNotYet = drover.Errorf(drover.Unavailable, "not built yet")

// UpdateVolume changes a volume's schedule, retention or limits.
func (f *Fleet) UpdateVolume(ctx context.Context, req UpdateVolume) (VolumeView, error) {
	return VolumeView{}, errNotYet
}

// ExtendVolume makes a volume larger, while its machine runs.
func (f *Fleet) ExtendVolume(ctx context.Context, req ExtendVolume) (Extended, error) {
	return Extended{}, errNotYet
}

// UndeleteVolume brings a destroyed volume back.
func (f *Fleet) UndeleteVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (VolumeView, error) {
	return VolumeView{}, errNotYet
}

// DestroyedVolumes lists the volumes of an app that can be brought back.
func (f *Fleet) DestroyedVolumes(ctx context.Context, app drover.AppName) ([]VolumeView, error) {
	return nil, errNotYet
}

// CreateSnapshot takes a snapshot. It answers when the moment is past; the way into the object store goes on.
func (f *Fleet) CreateSnapshot(ctx context.Context, req CreateSnapshot) (drover.Snapshot, error) {
	return drover.Snapshot{}, errNotYet
}

// Snapshots lists the snapshots of an app's volume, newest first; of all volumes, those that are gone too, when it is empty.
func (f *Fleet) Snapshots(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Snapshot, error) {
	return nil, errNotYet
}

// Snapshot returns one snapshot.
func (f *Fleet) Snapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error) {
	return drover.Snapshot{}, errNotYet
}

// DeleteSnapshot removes a snapshot.
func (f *Fleet) DeleteSnapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error) {
	return drover.Snapshot{}, errNotYet
}

// VerifyVolume begins, or follows, a verification.
func (f *Fleet) VerifyVolume(ctx context.Context, req VerifyVolume) (drover.Verification, error) {
	return drover.Verification{}, errNotYet
}

// SetHydration changes the background copy of a volume.
func (f *Fleet) SetHydration(ctx context.Context, req SetHydration) (VolumeView, error) {
	return VolumeView{}, errNotYet
}

// SetStorage sets what holds for a host's storage as a whole.
func (f *Fleet) SetStorage(ctx context.Context, host drover.HostID, settings drover.StorageSettings) (drover.StorageSettings, error) {
	return drover.StorageSettings{}, errNotYet
}
