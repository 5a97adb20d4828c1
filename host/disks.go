package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"drover"
	"drover/boltstore"
)

// disk returns the record of a disk. NotFound when the host has none.
func (m *machine) disk(id drover.DiskID) (diskRecord, error) { return m.agent.disk(id) }

func (a *Agent) disk(id drover.DiskID) (disk diskRecord, err error) {
	err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
		d, ok, err := diskBucket.Get(tx, string(id))
		if err == nil && !ok {
			return drover.Errorf(drover.NotFound, "host %q has no layer of the disk %q", a.cfg.ID, id)
		}
		disk = d
		return err
	})
	return disk, err
}

// volumeDisks returns the disks of the machine's volumes, in the order of its mounts.
func (m *machine) volumeDisks() ([]diskRecord, error) {
	var disks []diskRecord
	for _, mount := range m.rec.Load().Desired.Machine.Config.Mounts {
		disk, err := m.disk(mount.Volume.Disk())
		if err != nil {
			return nil, err
		}
		disks = append(disks, disk)
	}
	return disks, nil
}

// allDisks returns the disks of the machine that have a layer here: the root disk, unless it is to be replaced at the next
// start, the volumes, and the memory of one that is suspended.
func (m *machine) allDisks() ([]diskRecord, error) {
	var disks []diskRecord
	r := m.rec.Load()
	if r.Desired == nil {
		return nil, nil
	}
	root, err := m.disk(drover.RootDisk(m.id))
	switch {
	case err == nil && (r.Obs.VM.Live || root.Image != nil && root.Image.Ref.Digest == r.Desired.Machine.Image.Digest):
		disks = append(disks, root)
	case err != nil && !drover.Is(err, drover.NotFound):
		return nil, err
	}
	volumes, err := m.volumeDisks()
	disks = append(disks, volumes...)
	if err != nil || !r.Obs.Memory.whole() {
		return disks, err
	}
	memory, err := m.disk(drover.MemoryDisk(m.id))
	if drover.Is(err, drover.NotFound) || err == nil && memory.Layer != r.Obs.Memory.Layer {
		return disks, nil // it cannot be had: the start says so
	}
	return append(disks, memory), err
}

// ensureRoot makes the root disk's layer over the image's, or finds it. A disk over another image, from before an update of the
// config, is replaced: what a machine wrote on its root disk lives as long as its image.
func (m *machine) ensureRoot(ctx context.Context) (diskRecord, error) {
	d := m.rec.Load().Desired.Machine
	id := drover.RootDisk(m.id)
	root, err := m.disk(id)
	switch {
	case err == nil && root.Made && root.Image.Ref.Digest == d.Image.Digest:
		return root, nil
	case err != nil && !drover.Is(err, drover.NotFound):
		return root, err
	}
	known := err == nil
	image, err := m.agent.cfg.Images.Ensure(ctx, d.Config.Image, d.Image, m.progress())
	if err != nil {
		return root, err
	}
	image.Ref.Digest = d.Image.Digest // the record is compared by it
	if known && root.Image.Ref.Digest != d.Image.Digest {
		m.agent.hit("host.start.before-root-delete")
		if err := errors.Join(m.closeLayer(ctx, root.Layer), m.deleteLayer(ctx, root.Layer)); err != nil {
			return root, err
		}
	}
	fresh := diskRecord{Disk: id, Layer: drover.LayerFor(id, root.Migration), Migration: root.Migration, Size: image.Size, Image: &image}
	if err := m.agent.update(func(tx *boltstore.Tx) error { return diskBucket.Put(tx, string(id), fresh) }); err != nil {
		return root, err
	}
	m.agent.hit("host.start.before-root-create")
	if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		return m.agent.cfg.Storage.CreateLayer(ctx, LayerSpec{ID: fresh.Layer, Disk: id, Size: fresh.Size, Base: image.Layer})
	}); err != nil {
		return root, err
	}
	m.agent.hit("host.start.after-root-create")
	fresh.Made = true
	return fresh, m.agent.update(func(tx *boltstore.Tx) error { return diskBucket.Put(tx, string(id), fresh) })
}

// progressEvery bounds how often the status tells of an image's progress: each time is a journal write.
const progressEvery = 2 * time.Second

// progress returns a function that shows in the machine's status what its image is doing. It is called from one goroutine at a time.
func (m *machine) progress() func(text string) {
	var last time.Time
	var mu sync.Mutex
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if m.agent.now().Sub(last) < progressEvery {
			return
		}
		last = m.agent.now()
		m.log.Info("image", "text", text)
		if err := m.change(func(r *records, _ *boltstore.Tx) error {
			if r.Desired != nil && !r.Obs.VM.Live {
				r.Obs.Status.Reason = text
			}
			return nil
		}); err != nil {
			m.log.Warn("cannot store an image's progress", "err", err)
		}
	}
}

// deleteLayer removes a layer; one that is not there is no error.
func (m *machine) deleteLayer(ctx context.Context, id drover.LayerID) error {
	return m.agent.deleteLayer(ctx, id)
}

func (a *Agent) deleteLayer(ctx context.Context, id drover.LayerID) error {
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.cfg.Storage.Delete(ctx, id) })
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	return err
}

// eachDisk calls fn for each disk, bounded, and goes on past a layer that is not there when missing says so.
func eachDisk(ctx context.Context, disks []diskRecord, missing bool, fn func(ctx context.Context, disk diskRecord) error) error {
	for _, disk := range disks {
		_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx, disk) })
		if err != nil && !(missing && drover.Is(err, drover.NotFound)) {
			return err
		}
	}
	return nil
}
