package host

import (
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/boltstore"
)

// volumeCreate makes a volume's first layer: a blank one, one over a parent that it is filled from, or one over a snapshot. The record
// comes first, so that a layer never is without one.
func (a *Agent) volumeCreate(ctx context.Context, req drover.VolumeRequest) (drover.LayerStatus, error) {
	v := req.Volume
	if v.ID == "" || v.Size <= 0 || v.Size%drover.BlockSize != 0 {
		return drover.LayerStatus{}, drover.Errorf(drover.Invalid, "volume %q: a size of %d bytes is not a positive multiple of %d", v.ID, v.Size,
			drover.BlockSize).WithField("size")
	}
	end, err := a.volumes.take(ctx, v.ID)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	defer end()
	if _, err := a.disk(v.ID.Disk()); drover.Is(err, drover.NotFound) {
		kept, err := a.promise(v.ID, v.Size)
		if err != nil {
			return drover.LayerStatus{}, err
		}
		defer kept()
		if err := a.hold(v); err != nil {
			return drover.LayerStatus{}, err
		}
	}
	disk, err := newVolume(req)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	err = a.update(func(tx *boltstore.Tx) error {
		old, ok, err := diskBucket.Get(tx, string(disk.Disk))
		if err != nil {
			return err
		}
		if ok {
			if old.Parent != nil && req.Parent != nil {
				old.Parent = req.Parent // its address may have changed
			}
			disk = old
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
		return a.cfg.Storage.CreateLayer(ctx, LayerSpec{ID: disk.Layer, Disk: disk.Disk, Size: disk.Size, Parent: disk.Parent,
			Snapshot: disk.Snapshot, Cipher: disk.Cipher, Limits: v.Limits})
	})
	if err != nil {
		return status, err
	}
	a.hit("host.volume-create.after")
	if disk.Parent != nil {
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, a.cfg.Storage.CheckParent(ctx, disk.Layer)
		}); err != nil {
			return status, fmt.Errorf("cannot read the source of volume %q from host %q: %w", v.ID, disk.Parent.Host, err)
		}
	}
	if err := a.changeDisk(disk.Disk, func(d *diskRecord) error { d.Made = true; return nil }); err != nil {
		return status, err
	}
	if !disk.filling() {
		return status, nil
	}
	if err := a.keepHydrating(ctx, disk, 0); err != nil {
		a.cfg.Log.Warn("a volume is filled later", "volume", string(v.ID), "err", err)
	}
	return call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, disk.Layer) })
}

// newVolume makes the record of a volume that is to be made here.
func newVolume(req drover.VolumeRequest) (diskRecord, error) {
	v := req.Volume
	disk := diskRecord{Disk: v.ID.Disk(), Volume: v.ID, Layer: drover.LayerFor(v.ID.Disk(), ""), Size: v.Size, Parent: req.Parent, Cipher: v.Cipher,
		Reserve: v.Compute, ReserveUntil: v.ReservedUntil}
	if v.From != nil {
		disk.Snapshot = v.From.Snapshot
	}
	smaller := func(than drover.Bytes) error {
		return drover.Errorf(drover.Invalid, "volume %q has %d bytes, what it is made of has %d", v.ID, v.Size, than).WithField("size")
	}
	// What holds something holds a file system: a blank disk is then an error, not a new volume.
	switch {
	case disk.Parent != nil && disk.Snapshot != nil:
		return disk, drover.Errorf(drover.Invalid, "volume %q cannot be made of a volume and of a snapshot", v.ID).WithField("parent")
	case disk.Parent != nil && disk.Parent.Size > v.Size:
		return disk, smaller(disk.Parent.Size)
	case disk.Snapshot != nil && disk.Snapshot.Size > v.Size:
		return disk, smaller(disk.Snapshot.Size)
	case disk.Parent != nil:
		disk.Used = disk.Parent.Allocated > 0
	case disk.Snapshot != nil:
		disk.Used = disk.Snapshot.Data > 0
	}
	return disk, nil
}

// volumeDestroy removes every layer of a volume from the host: the present one, and retired ones. What is frozen for a snapshot or a fork
// stays until that needs it no more. Precondition while a machine of the host has the volume.
func (a *Agent) volumeDestroy(ctx context.Context, req drover.VolumeRequest) (drover.Empty, error) {
	id := req.Volume.ID.Disk()
	if m, _ := a.mountedBy(req.Volume.ID); m != nil {
		return drover.Empty{}, drover.Errorf(drover.Precondition, "volume %q is mounted by machine %q", req.Volume.ID, m.id).
			WithHint("destroy the machine, or take the mount out of its config, first")
	}
	end, err := a.volumes.take(ctx, req.Volume.ID)
	if err != nil {
		return drover.Empty{}, err
	}
	defer end()
	layers, err := a.layersToDestroy(ctx, id)
	if err != nil {
		return drover.Empty{}, err
	}
	a.hit("host.volume-destroy.before")
	for _, layer := range layers {
		if err := a.discardLayer(ctx, layer, req.Wipe); err != nil {
			return drover.Empty{}, err
		}
		if err := a.update(func(tx *boltstore.Tx) error { return retiredBucket.Delete(tx, string(layer)) }); err != nil {
			return drover.Empty{}, err
		}
	}
	a.hit("host.volume-destroy.after")
	a.letGo(req.Volume.ID)
	return drover.Empty{}, a.update(func(tx *boltstore.Tx) error { return diskBucket.Delete(tx, string(id)) })
}

// layersToDestroy lists the layers of a disk in the order in which they can go: what is over another first.
func (a *Agent) layersToDestroy(ctx context.Context, disk drover.DiskID) ([]drover.LayerID, error) {
	all, err := call(ctx, a.cfg.Storage.Layers)
	if err != nil {
		return nil, err
	}
	kept := map[drover.LayerID]bool{}
	err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return frozenBucket.ForEach(tx, func(_ string, f frozenRecord, err error) error {
			kept[f.Layer] = true // a layer that was given up goes by itself
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	base := map[drover.LayerID]drover.LayerID{}
	var layers []drover.LayerID
	for _, l := range all {
		if l.Disk == disk && !kept[l.ID] {
			layers = append(layers, l.ID)
			base[l.ID] = l.Base
		}
	}
	height := func(id drover.LayerID) (n int) {
		for next, ok := base[id]; ok && n <= len(base); next, ok = base[next] {
			n++
		}
		return n
	}
	slices.SortStableFunc(layers, func(a, b drover.LayerID) int { return height(b) - height(a) })
	return layers, nil
}
