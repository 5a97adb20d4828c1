package host

import (
	"context"

	"drover"
	"drover/boltstore"
)

// volumeCreate makes a volume's first layer. The record comes first, so that a layer never is without one.
func (a *Agent) volumeCreate(ctx context.Context, req drover.VolumeRequest) (drover.LayerStatus, error) {
	v := req.Volume
	if v.ID == "" || v.Size <= 0 || v.Size%drover.BlockSize != 0 {
		return drover.LayerStatus{}, drover.Errorf(drover.Invalid, "volume %q: a size of %d bytes is not a positive multiple of %d", v.ID, v.Size,
			drover.BlockSize).WithField("size")
	}
	if _, err := a.disk(v.ID.Disk()); drover.Is(err, drover.NotFound) {
		if err := a.checkProvision(v.Size); err != nil {
			return drover.LayerStatus{}, err
		}
	}
	disk := diskRecord{Disk: v.ID.Disk(), Volume: v.ID, Layer: drover.LayerFor(v.ID.Disk(), ""), Size: v.Size}
	err := a.update(func(tx *boltstore.Tx) error {
		old, ok, err := diskBucket.Get(tx, string(disk.Disk))
		if err != nil {
			return err
		}
		if ok {
			disk = old
			return nil
		}
		return diskBucket.Put(tx, string(disk.Disk), disk)
	})
	if err != nil {
		return drover.LayerStatus{}, err
	}
	if disk.Made {
		return call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, disk.Layer) })
	}
	a.hit("host.volume-create.before")
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		return a.cfg.Storage.CreateLayer(ctx, LayerSpec{ID: disk.Layer, Disk: disk.Disk, Size: disk.Size})
	})
	if err != nil {
		return status, err
	}
	a.hit("host.volume-create.after")
	disk.Made = true
	return status, a.update(func(tx *boltstore.Tx) error { return diskBucket.Put(tx, string(disk.Disk), disk) })
}

// volumeDestroy removes every layer of a volume from the host: the present one, and retired ones. Precondition while a machine of the
// host has the volume.
func (a *Agent) volumeDestroy(ctx context.Context, req drover.VolumeRequest) (drover.Empty, error) {
	id := req.Volume.ID.Disk()
	for _, m := range a.list() {
		r := m.rec.Load()
		if r.Desired == nil || r.Obs.Status.State == drover.StateDestroyed {
			continue
		}
		for _, mount := range r.Desired.Machine.Config.Mounts {
			if mount.Volume == req.Volume.ID {
				return drover.Empty{}, drover.Errorf(drover.Precondition, "volume %q is mounted by machine %q", mount.Volume, m.id).
					WithHint("destroy the machine, or take the mount out of its config, first")
			}
		}
	}
	all, err := call(ctx, a.cfg.Storage.Layers)
	if err != nil {
		return drover.Empty{}, err
	}
	a.hit("host.volume-destroy.before")
	for _, layer := range all {
		if layer.Disk != id {
			continue
		}
		if err := a.deleteLayer(ctx, layer.ID); err != nil {
			return drover.Empty{}, err
		}
		if err := a.update(func(tx *boltstore.Tx) error { return retiredBucket.Delete(tx, string(layer.ID)) }); err != nil {
			return drover.Empty{}, err
		}
	}
	a.hit("host.volume-destroy.after")
	return drover.Empty{}, a.update(func(tx *boltstore.Tx) error { return diskBucket.Delete(tx, string(id)) })
}
