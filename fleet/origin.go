package fleet

import (
	"context"
	"fmt"

	"drover"
)

// origin is what a volume is made of: nothing, a snapshot, or another volume.
type origin struct {
	from   *drover.VolumeOrigin
	cipher *drover.Cipher
	size   drover.Bytes
	// data is what there is to be copied.
	data drover.Bytes
}

// originOf looks at what a new volume is to be made of, and fills in what the request leaves to it.
func (f *Fleet) originOf(ctx context.Context, req *CreateVolume) (o origin, err error) {
	switch {
	case req.Snapshot != "" && req.Source != "":
		return o, drover.Errorf(drover.Invalid, "a volume is made of a snapshot or of a volume, not of both").WithField("source_volume_id")
	case req.Snapshot != "":
		o, err = f.snapshotOrigin(ctx, *req)
	case req.Source != "":
		o, err = f.volumeOrigin(ctx, req)
	default:
		return o, nil
	}
	if err != nil {
		return o, err
	}
	if req.Size == 0 {
		req.Size = o.size
	}
	if req.Size < o.size {
		return o, drover.Errorf(drover.Invalid, "size_gb: %d bytes are too few: what the volume is made of has %d", req.Size, o.size).WithField("size_gb")
	}
	return o, nil
}

func (f *Fleet) snapshotOrigin(ctx context.Context, req CreateVolume) (origin, error) {
	s, _, err := f.state.snapshots.get(ctx, string(req.Snapshot))
	if drover.Is(err, drover.NotFound) || err == nil && s.App != req.App {
		return origin{}, noSnapshot(req.Snapshot).WithField("snapshot_id")
	}
	if err != nil {
		return origin{}, err
	}
	if err := restorable(s); err != nil {
		return origin{}, err
	}
	from := &drover.VolumeOrigin{Snapshot: &drover.SnapshotSource{Snapshot: s.ID, Volume: s.Volume, Manifest: s.Manifest, Size: s.Size, Data: s.Data}}
	return origin{from: from, cipher: s.Cipher, size: s.Size, data: s.Data}, nil
}

// restorable tells why nothing can be made of a snapshot; nil when it can.
func restorable(s drover.Snapshot) error {
	switch s.State {
	case drover.SnapshotCreated:
		return nil
	case drover.SnapshotCreating:
		return drover.Errorf(drover.Conflict, "snapshot %q is not in the object store yet", s.ID).WithField("snapshot_id").
			WithHint("ask again when it is created: drover volume snapshot list %s", s.Volume)
	}
	return drover.Errorf(drover.Precondition, "snapshot %q is in state %s: nothing can be made of it", s.ID, s.State).WithField("snapshot_id")
}

func (f *Fleet) volumeOrigin(ctx context.Context, req *CreateVolume) (origin, error) {
	v, err := f.readVolume(ctx, req.App, req.Source)
	if err != nil {
		return origin{}, drover.AsError(err).WithField("source_volume_id")
	}
	host, err := f.steady(ctx, v)
	if err != nil {
		return origin{}, drover.AsError(err).WithField("source_volume_id")
	}
	if req.Region == "" && req.Host == "" {
		req.Region = f.regionOf(host)
	}
	var status drover.LayerStatus
	if err := f.order(ctx, f.timing.Apply, host, drover.OrderVolumeStatus, drover.VolumeRequest{Volume: v}, &status); err != nil {
		return origin{}, fmt.Errorf("cannot look at volume %q: %w", v.ID, err)
	}
	return origin{from: &drover.VolumeOrigin{Volume: v.ID, Host: host}, cipher: v.Cipher, size: max(v.Size, v.Grow), data: status.Allocated}, nil
}

// originStays makes sure, after the record of the volume is there, that what it is made of is still there: whoever removes a snapshot says so
// first and looks for volumes then, so that one of the two sees the other.
func (f *Fleet) originStays(ctx context.Context, v drover.Volume) error {
	if v.From == nil || v.From.Snapshot == nil {
		return nil
	}
	s, _, err := f.state.snapshots.get(ctx, string(v.From.Snapshot.Snapshot))
	if drover.Is(err, drover.NotFound) {
		return noSnapshot(v.From.Snapshot.Snapshot).WithField("snapshot_id")
	}
	if err != nil {
		return err
	}
	return restorable(s)
}

// forks reports whether a volume is a fork whose source has still something frozen for it.
func forks(v drover.Volume) bool { return v.From != nil && v.From.Volume != "" && !v.From.Released }

func forkRequest(v drover.Volume) drover.ForkRequest {
	return drover.ForkRequest{Volume: v.ID, Source: v.From.Volume, Target: v.Host}
}

// freezeSource makes the host of a fork's source freeze what the fork is made of. nil for a volume that is no fork.
func (f *Fleet) freezeSource(ctx context.Context, v drover.Volume) (*drover.Export, error) {
	if !forks(v) {
		return nil, nil
	}
	var export drover.Export
	if err := f.order(ctx, f.timing.Apply, v.From.Host, drover.OrderVolumeFork, forkRequest(v), &export); err != nil {
		return nil, err
	}
	f.hit("fleet.volume.fork.after")
	return &export, nil
}

// releaseSource lets the host of a fork's source give up what it froze.
func (f *Fleet) releaseSource(ctx context.Context, v drover.Volume) error {
	if !forks(v) {
		return nil
	}
	source, _, err := f.state.volumes.get(ctx, string(v.From.Volume))
	gone := drover.Is(err, drover.NotFound)
	if err != nil && !gone {
		return err
	}
	req := forkRequest(v)
	req.Wipe = gone || source.State == drover.VolumeDestroying
	if err := f.order(ctx, f.timing.Apply, v.From.Host, drover.OrderVolumeForkEnd, req, nil); err != nil {
		return err
	}
	f.hit("fleet.volume.fork-end.after")
	return nil
}

// stepFill looks how far a volume that is made of something is. When it is complete its source is let go; a source whose host does
// not answer holds nothing up.
func (w *volumeWorker) stepFill(ctx context.Context, v drover.Volume, host drover.HostID) error {
	if v.State != drover.VolumeCreated {
		var status drover.LayerStatus
		if err := w.order(ctx, w.timing.Apply, host, drover.OrderVolumeStatus, drover.VolumeRequest{Volume: v}, &status); err != nil {
			return err
		}
		if status.Hydration != nil && !status.Hydration.Done {
			return nil
		}
	}
	released := v.From.Volume == ""
	var err error
	if !released {
		err = w.releaseSource(ctx, v)
		released = err == nil
	}
	_, cerr := w.changeVolume(ctx, v.ID, func(now *drover.Volume) error {
		if now.From == nil {
			return nil
		}
		from := *now.From
		from.Released = from.Released || released
		now.From = &from
		if now.State == drover.VolumeHydrating && (now.Machine == "" || !w.moves(now.Machine)) {
			now.State = drover.VolumeCreated
		}
		return nil
	})
	if cerr != nil {
		return cerr
	}
	if released {
		w.log.Info("volume is complete", "volume", v.ID, "app", v.App)
		return nil
	}
	if drover.Is(err, drover.Unavailable) {
		return nil
	}
	return err
}

// moves reports whether a machine takes part in a migration that has not ended.
func (f *Fleet) moves(id drover.MachineID) bool {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.state.moveLocked(id) != nil
}
