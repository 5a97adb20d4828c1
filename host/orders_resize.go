package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover"
	"drover/boltstore"
)

// growWait bounds the way to a guest that is to make its file system larger: it may be booting, or be busy.
const growWait = 15 * time.Second

// volumeResize makes a volume larger. The record comes first: an export that begins later makes sure that the layer is as large as it
// says, and one that began before is refused here, so that no target ever clones a volume at a size that it does not have any more.
func (a *Agent) volumeResize(ctx context.Context, req drover.ResizeRequest) (drover.Resized, error) {
	id := req.Volume.ID
	if req.Size <= 0 || req.Size%drover.BlockSize != 0 {
		return drover.Resized{}, drover.Errorf(drover.Invalid, "volume %q: a size of %d bytes is not a positive multiple of %d", id, req.Size,
			drover.BlockSize).WithField("size")
	}
	end, err := a.volumes.take(ctx, id)
	if err != nil {
		return drover.Resized{}, err
	}
	defer end()
	grow := func(tx *boltstore.Tx) error {
		return changeDisk(tx, a.cfg.ID, id.Disk(), func(d *diskRecord) error {
			if req.Size < d.Size {
				return drover.Errorf(drover.Invalid, "volume %q has %d bytes: it cannot be made smaller", id, d.Size).WithField("size")
			}
			d.Size = req.Size
			return nil
		})
	}
	if old, err := a.disk(id.Disk()); err == nil && req.Size > old.Size {
		kept, err := a.promise(id, req.Size)
		if err != nil {
			return drover.Resized{}, err
		}
		defer kept()
	}
	m, index := a.mountedBy(id)
	if m == nil {
		err = a.update(grow)
	} else {
		err = m.change(func(r *records, tx *boltstore.Tx) error {
			if src := r.source(); src != nil {
				return drover.Errorf(drover.Conflict, "volume %q is part of migration %s", id, src.Migration).WithHint("ask again when the machine has moved")
			}
			return grow(tx)
		})
	}
	if err != nil {
		return drover.Resized{}, err
	}
	disk, err := a.disk(id.Disk())
	if err != nil {
		return drover.Resized{}, err
	}
	a.hit("host.resize.before")
	if err := a.resizeLayer(ctx, disk); err != nil {
		if drover.Is(err, drover.Exhausted) || drover.Is(err, drover.Invalid) {
			err = errors.Join(err, a.sizeAsItIs(ctx, disk))
		}
		return drover.Resized{}, fmt.Errorf("cannot make volume %q larger: %w", id, err)
	}
	a.hit("host.resize.after")
	if m != nil && m.rec.Load().Obs.Memory.whole() {
		return drover.Resized{NeedsRestart: true, Reason: "the machine is suspended: its guest sees the new size after a restart"}, nil
	}
	if m == nil || !m.rec.Load().Obs.VM.Live {
		return drover.Resized{}, nil
	}
	if err := a.tellGrown(ctx, m, index, disk); err != nil {
		m.log.Warn("the guest sees the new size of its volume after its next start", "volume", string(id), "err", err)
		return drover.Resized{NeedsRestart: true, Reason: err.Error()}, nil
	}
	return drover.Resized{}, nil
}

// sizeAsItIs makes the record of a disk that could not be made larger say again what its layer is: a move would try to make it larger, too.
func (a *Agent) sizeAsItIs(ctx context.Context, disk diskRecord) error {
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, disk.Layer) })
	if err != nil {
		return err
	}
	return a.update(func(tx *boltstore.Tx) error {
		return changeDisk(tx, a.cfg.ID, disk.Disk, func(d *diskRecord) error {
			if d.Layer == disk.Layer && d.Size == disk.Size {
				d.Size = status.Size
			}
			return nil
		})
	})
}

// resizeLayer makes a disk's layer as large as the disk's record says.
func (a *Agent) resizeLayer(ctx context.Context, disk diskRecord) error {
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.cfg.Storage.Resize(ctx, disk.Layer, disk.Size)
	})
	return err
}

// tellGrown tells the VM, then the guest, that a volume has grown.
func (a *Agent) tellGrown(ctx context.Context, m *machine, index int, disk diskRecord) error {
	vm, err := call(ctx, func(ctx context.Context) (VM, error) { return a.cfg.VMM.Find(ctx, m.id) })
	if drover.Is(err, drover.NotFound) {
		return nil // it has ended: its next start sees the new size
	}
	if err != nil {
		return err
	}
	a.hit("host.resize.before-vm")
	// The VM opens the layer anew to see its size: at its own epoch, so that nothing else may write.
	at, err := call(ctx, func(ctx context.Context) (drover.Attachment, error) {
		return a.cfg.Storage.Open(ctx, disk.Layer, m.rec.Load().Obs.VM.Epoch)
	})
	if err != nil {
		return err
	}
	if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, vm.Resize(ctx, index+1, at, disk.Size) }); err != nil {
		return err
	}
	a.hit("host.resize.after-vm")
	ctx, cancel := context.WithTimeout(ctx, growWait)
	defer cancel()
	g, err := a.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return err
	}
	defer g.Close() // the answer is here
	return g.Grow(ctx, disk.Volume, disk.Size)
}
