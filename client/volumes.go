package client

import (
	"context"
	"net/url"

	"drover"
	"drover/apiv1"
)

const (
	volumePath   = "/apps/%s/volumes/%s"
	snapshotPath = volumePath + "/snapshots/%s"
)

// Volumes lists an app's volumes, oldest first.
func (c *Client) Volumes(ctx context.Context, app drover.AppName) ([]apiv1.Volume, error) {
	return get[[]apiv1.Volume](ctx, c, nil, "/apps/%s/volumes", app)
}

// DestroyedVolumes lists those of an app that were destroyed and can be brought back.
func (c *Client) DestroyedVolumes(ctx context.Context, app drover.AppName) ([]apiv1.Volume, error) {
	return get[[]apiv1.Volume](ctx, c, url.Values{"deleted": {"true"}}, "/apps/%s/volumes", app)
}

// Volume returns one volume.
func (c *Client) Volume(ctx context.Context, app drover.AppName, id drover.VolumeID) (apiv1.Volume, error) {
	return get[apiv1.Volume](ctx, c, nil, volumePath, app, id)
}

// CreateVolume makes a volume: a blank one, one restored from a snapshot, or a fork. It is usable when this returns.
func (c *Client) CreateVolume(ctx context.Context, app drover.AppName, req apiv1.CreateVolumeRequest) (apiv1.Volume, error) {
	return post[apiv1.Volume](ctx, c, req, "/apps/%s/volumes", app)
}

// UpdateVolume changes what is not nil.
func (c *Client) UpdateVolume(ctx context.Context, app drover.AppName, id drover.VolumeID, req apiv1.UpdateVolumeRequest) (apiv1.Volume, error) {
	return put[apiv1.Volume](ctx, c, req, volumePath, app, id)
}

// ExtendVolume makes a volume larger. Invalid for a size below its present one.
func (c *Client) ExtendVolume(ctx context.Context, app drover.AppName, id drover.VolumeID, size drover.Bytes) (apiv1.ExtendVolumeResponse, error) {
	return put[apiv1.ExtendVolumeResponse](ctx, c, apiv1.ExtendVolumeRequest{Size: size}, volumePath+"/extend", app, id)
}

// DestroyVolume destroys a volume; until its WipeAt it can be brought back. Precondition while a machine has it.
func (c *Client) DestroyVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (apiv1.Volume, error) {
	return remove[apiv1.Volume](ctx, c, nil, volumePath, app, id)
}

// UndeleteVolume brings a destroyed volume back.
func (c *Client) UndeleteVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (apiv1.Volume, error) {
	return post[apiv1.Volume](ctx, c, nil, volumePath+"/undelete", app, id)
}

// VerifyVolume begins to compare a volume with its checksums, or with a snapshot if one is given; of one that runs it tells how far it is.
func (c *Client) VerifyVolume(ctx context.Context, app drover.AppName, id drover.VolumeID, against drover.SnapshotID) (drover.Verification, error) {
	return post[drover.Verification](ctx, c, apiv1.VerifyRequest{SnapshotID: string(against)}, volumePath+"/verify", app, id)
}

// Verification returns the newest one. NotFound when there was none since the volume came to its host.
func (c *Client) Verification(ctx context.Context, app drover.AppName, id drover.VolumeID) (drover.Verification, error) {
	return get[drover.Verification](ctx, c, nil, volumePath+"/verify", app, id)
}

// SetHydration changes the background copy of a volume; what is nil stays. Precondition for one that does not hydrate.
func (c *Client) SetHydration(ctx context.Context, app drover.AppName, id drover.VolumeID, req apiv1.HydrationRequest) (apiv1.Volume, error) {
	return put[apiv1.Volume](ctx, c, req, volumePath+"/hydration", app, id)
}

// Snapshots lists a volume's snapshots, newest first; those of all volumes of the app, of destroyed ones too, when volume is empty.
func (c *Client) Snapshots(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]apiv1.Snapshot, error) {
	if volume == "" {
		return get[[]apiv1.Snapshot](ctx, c, nil, "/apps/%s/snapshots", app)
	}
	return get[[]apiv1.Snapshot](ctx, c, nil, volumePath+"/snapshots", app, volume)
}

// CreateSnapshot takes a snapshot. Its moment is past when this returns; its way into the object store goes on.
func (c *Client) CreateSnapshot(ctx context.Context, app drover.AppName, volume drover.VolumeID, req apiv1.CreateSnapshotRequest) (apiv1.Snapshot, error) {
	return post[apiv1.Snapshot](ctx, c, req, volumePath+"/snapshots", app, volume)
}

// Snapshot returns one snapshot.
func (c *Client) Snapshot(ctx context.Context, app drover.AppName, volume drover.VolumeID, id drover.SnapshotID) (apiv1.Snapshot, error) {
	return get[apiv1.Snapshot](ctx, c, nil, snapshotPath, app, volume, id)
}

// DeleteSnapshot removes a snapshot.
func (c *Client) DeleteSnapshot(ctx context.Context, app drover.AppName, volume drover.VolumeID, id drover.SnapshotID) (apiv1.Snapshot, error) {
	return remove[apiv1.Snapshot](ctx, c, nil, snapshotPath, app, volume, id)
}
