package host

import (
	"context"
	"fmt"

	"drover"
)

// volumeSnapshot takes a snapshot, goes on with it, and tells how far it is.
func (a *Agent) volumeSnapshot(ctx context.Context, req drover.SnapshotRequest) (drover.SnapshotProgress, error) {
	id, v := req.Snapshot.ID, req.Volume.ID
	if id == "" || v == "" {
		return drover.SnapshotProgress{}, drover.Errorf(drover.Invalid, "the order names no snapshot or no volume").WithField("snapshot")
	}
	end, err := a.volumes.take(ctx, v)
	if err != nil {
		return drover.SnapshotProgress{}, err
	}
	defer end()
	f, err := a.freezeVolume(ctx, frozenRecord{Layer: drover.SnapshotLayer(v, id), Disk: v.Disk(), Volume: v, Snapshot: id}, req.Quiesce)
	if err != nil {
		return drover.SnapshotProgress{}, err
	}
	p := drover.SnapshotProgress{TakenAt: f.TakenAt, Quiesced: f.Quiesced, Size: f.Size}
	if !req.Upload {
		return p, nil
	}
	a.hit("host.upload.before")
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		return a.cfg.Storage.Upload(ctx, f.Layer, drover.SnapshotSource{Snapshot: id, Volume: v, Size: f.Size, Full: req.Snapshot.Full})
	})
	if err != nil {
		return p, fmt.Errorf("cannot copy the layer %q into the object store: %w", f.Layer, err)
	}
	a.hit("host.upload.after")
	p.Upload = status.Upload
	return p, nil
}

// volumeSnapshotEnd gives up what the host keeps of a snapshot.
func (a *Agent) volumeSnapshotEnd(ctx context.Context, req drover.SnapshotEndRequest) (drover.Empty, error) {
	if req.Snapshot == "" || req.Volume == "" {
		return drover.Empty{}, drover.Errorf(drover.Invalid, "the order names no snapshot or no volume").WithField("snapshot")
	}
	end, err := a.volumes.take(ctx, req.Volume)
	if err != nil {
		return drover.Empty{}, err
	}
	defer end()
	return drover.Empty{}, a.giveUpFrozen(ctx, frozenRecord{Layer: drover.SnapshotLayer(req.Volume, req.Snapshot), Disk: req.Volume.Disk(),
		Volume: req.Volume, Snapshot: req.Snapshot}, req.Wipe)
}

// volumeFork freezes what the source holds, and lets the target read it.
func (a *Agent) volumeFork(ctx context.Context, req drover.ForkRequest) (drover.Export, error) {
	f, err := forkRecord(req)
	if err != nil {
		return drover.Export{}, err
	}
	end, err := a.volumes.take(ctx, req.Source)
	if err != nil {
		return drover.Export{}, err
	}
	defer end()
	if f, err = a.freezeVolume(ctx, f, false); err != nil {
		return drover.Export{}, err
	}
	if f.Target != req.Target {
		return drover.Export{}, drover.Errorf(drover.Conflict, "the fork %q of volume %q is made on host %q, not on host %q", req.Volume, req.Source,
			f.Target, req.Target)
	}
	cfg := a.cfg
	if f.Target != cfg.ID {
		a.hit("host.fork-export.before")
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, cfg.Storage.Export(ctx, f.Layer, f.Target)
		}); err != nil {
			return drover.Export{}, fmt.Errorf("cannot export the layer %q to host %q: %w", f.Layer, f.Target, err)
		}
		a.hit("host.fork-export.after")
	}
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return cfg.Storage.Layer(ctx, f.Layer) })
	if err != nil {
		return drover.Export{}, err
	}
	return drover.Export{Disk: f.Disk, Volume: f.Volume, Layer: f.Layer, Size: status.Size, Host: cfg.ID, Address: cfg.StorageAddress,
		Name: string(f.Layer), Allocated: status.Allocated, Cipher: status.Cipher}, nil
}

// volumeForkEnd gives up what was frozen for a fork.
func (a *Agent) volumeForkEnd(ctx context.Context, req drover.ForkRequest) (drover.Empty, error) {
	f, err := forkRecord(req)
	if err != nil {
		return drover.Empty{}, err
	}
	end, err := a.volumes.take(ctx, req.Source)
	if err != nil {
		return drover.Empty{}, err
	}
	defer end()
	return drover.Empty{}, a.giveUpFrozen(ctx, f, req.Wipe)
}

func forkRecord(req drover.ForkRequest) (frozenRecord, error) {
	if req.Volume == "" || req.Source == "" || req.Target == "" || req.Volume == req.Source {
		return frozenRecord{}, drover.Errorf(drover.Invalid, "the order to fork %q from %q on host %q names not all that it must", req.Volume, req.Source,
			req.Target).WithField("volume")
	}
	return frozenRecord{Layer: drover.ForkLayer(req.Source, req.Volume), Disk: req.Source.Disk(), Volume: req.Source, Fork: req.Volume,
		Target: req.Target}, nil
}
