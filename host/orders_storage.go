package host

import (
	"context"
	"fmt"

	"drover"
)

// volumeLayer calls fn with the layer of a volume, and returns what the layer is then.
func (a *Agent) volumeLayer(ctx context.Context, id drover.VolumeID, fn func(ctx context.Context, d diskRecord) error) (drover.LayerStatus, error) {
	disk, err := a.disk(id.Disk())
	if err != nil {
		return drover.LayerStatus{}, err
	}
	return call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		if err := fn(ctx, disk); err != nil {
			return drover.LayerStatus{}, err
		}
		return a.cfg.Storage.Layer(ctx, disk.Layer)
	})
}

// volumeStatus describes the layer of a volume.
func (a *Agent) volumeStatus(ctx context.Context, req drover.VolumeRequest) (drover.LayerStatus, error) {
	return a.volumeLayer(ctx, req.Volume.ID, func(context.Context, diskRecord) error { return nil })
}

// volumeLimits sets what the machine may ask of the volume per second.
func (a *Agent) volumeLimits(ctx context.Context, req drover.VolumeRequest) (drover.LayerStatus, error) {
	return a.volumeLayer(ctx, req.Volume.ID, func(ctx context.Context, d diskRecord) error {
		a.hit("host.limits.before")
		return a.cfg.Storage.Limit(ctx, d.Layer, req.Volume.Limits)
	})
}

// volumeHydration changes the background copy of a volume. The wish is stored first, because the agent tells the daemon again and
// again to go on.
func (a *Agent) volumeHydration(ctx context.Context, req drover.HydrationRequest) (drover.LayerStatus, error) {
	if req.Limit != nil && *req.Limit < 0 {
		return drover.LayerStatus{}, drover.Errorf(drover.Invalid, "volume %q: a limit of %d bytes per second is negative", req.Volume, *req.Limit).
			WithField("limit")
	}
	var wish diskRecord
	err := a.changeDisk(req.Volume.Disk(), func(d *diskRecord) error {
		if req.Limit != nil {
			d.HydrateLimit = req.Limit
		}
		if req.Paused != nil {
			d.HydratePaused = *req.Paused
		}
		wish = *d
		return nil
	})
	if err != nil {
		return drover.LayerStatus{}, err
	}
	return a.volumeLayer(ctx, req.Volume, func(ctx context.Context, d diskRecord) error {
		status, err := a.cfg.Storage.Layer(ctx, d.Layer)
		if err != nil {
			return err
		}
		if status.Hydration == nil || status.Hydration.Done {
			return drover.Errorf(drover.Precondition, "volume %q is complete on host %q: nothing is copied", req.Volume, a.cfg.ID)
		}
		a.hit("host.hydration.before")
		if !wish.HydratePaused {
			limit := status.Hydration.Limit
			if wish.HydrateLimit != nil {
				limit = *wish.HydrateLimit
			}
			if err := a.cfg.Storage.Hydrate(ctx, d.Layer, limit); err != nil {
				return err
			}
		}
		return a.cfg.Storage.PauseHydration(ctx, d.Layer, wish.HydratePaused)
	})
}

// volumeVerify begins, or follows, a verification.
func (a *Agent) volumeVerify(ctx context.Context, req drover.VerifyRequest) (drover.Verification, error) {
	disk, err := a.disk(req.Volume.Disk())
	if err != nil {
		return drover.Verification{}, err
	}
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		return a.cfg.Storage.Verify(ctx, disk.Layer, req.Against)
	})
	if err != nil {
		return drover.Verification{}, fmt.Errorf("cannot verify volume %q: %w", req.Volume, err)
	}
	if status.Verification == nil {
		return drover.Verification{}, drover.Errorf(drover.Internal, "the storage of host %q says nothing of the verification of volume %q", a.cfg.ID, req.Volume)
	}
	return *status.Verification, nil
}

// storageSettings sets what holds for the host's storage as a whole.
func (a *Agent) storageSettings(ctx context.Context, req drover.StorageSettings) (drover.StorageSettings, error) {
	if req.HydrationLimit < 0 || req.StallAfter < 0 {
		return req, drover.Errorf(drover.Invalid, "the limit and the time of the storage settings cannot be negative")
	}
	if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.cfg.Storage.Settings(ctx, req) }); err != nil {
		return req, err
	}
	return req, a.rememberStorage(req)
}
