package host

import (
	"context"
	"errors"
	"time"

	"drover"
	"drover/boltstore"
)

// fillEvery is how often volumes that are being filled are looked at.
const fillEvery = 2 * time.Second

// fillLoop keeps the background copy of forks and restored volumes going, and notes when one is complete. It needs nobody's help: a host that
// comes back goes on by itself.
func (a *Agent) fillLoop(ctx context.Context) {
	for ctx.Err() == nil {
		if err := a.fill(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot go on with filling volumes", "err", err)
		}
		pause(ctx, fillEvery)
	}
}

// fill looks once.
func (a *Agent) fill(ctx context.Context) error {
	var filling []diskRecord
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return diskBucket.ForEachOf(tx, notRoot, func(_ string, d diskRecord, err error) error {
			if err == nil && d.Made && d.filling() {
				filling = append(filling, d)
			}
			return err
		})
	})
	for _, d := range filling {
		err = errors.Join(err, a.fillDisk(ctx, d))
	}
	return err
}

// fillDisk goes on with one disk.
func (a *Agent) fillDisk(ctx context.Context, d diskRecord) error {
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, d.Layer) })
	if drover.Is(err, drover.NotFound) {
		return nil // it is being removed
	}
	if err != nil {
		return err
	}
	if h := status.Hydration; h != nil && !h.Done {
		a.hit("host.fill.before")
		return a.keepHydrating(ctx, d, 0)
	}
	a.hit("host.fill.done")
	return a.changeDisk(d.Disk, func(now *diskRecord) error {
		if now.Layer == d.Layer {
			now.Parent, now.Snapshot = nil, nil
		}
		return nil
	})
}

// keepHydrating lets the background copy of a layer go on as the operator wishes it, and under the limit where he wishes none.
func (a *Agent) keepHydrating(ctx context.Context, d diskRecord, limit drover.Bytes) error {
	if d.HydratePaused {
		return nil
	}
	if d.HydrateLimit != nil {
		limit = *d.HydrateLimit
	}
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.cfg.Storage.Hydrate(ctx, d.Layer, limit)
	})
	return err
}

// changeDisk changes the record of a disk. NotFound when the host does not have it.
func (a *Agent) changeDisk(id drover.DiskID, change func(d *diskRecord) error) error {
	return a.update(func(tx *boltstore.Tx) error { return changeDisk(tx, a.cfg.ID, id, change) })
}

func changeDisk(tx *boltstore.Tx, host drover.HostID, id drover.DiskID, change func(d *diskRecord) error) error {
	d, ok, err := diskBucket.Get(tx, string(id))
	if err != nil {
		return err
	}
	if !ok {
		return drover.Errorf(drover.NotFound, "host %q has no layer of the disk %q", host, id)
	}
	if err := change(&d); err != nil {
		return err
	}
	return diskBucket.Put(tx, string(id), d)
}
