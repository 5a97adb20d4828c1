package apitest

import (
	"context"
	"fmt"
	"time"

	"drover"
	"drover/fleet"
)

// undeleteWindow is how long a destroyed volume can be brought back.
const undeleteWindow = 24 * time.Hour

// CreateVolume makes a volume. A restored one and a fork hydrate until the test changes them.
func (b *Backend) CreateVolume(_ context.Context, req fleet.CreateVolume) (fleet.VolumeView, error) {
	if err := b.begin("CreateVolume"); err != nil {
		return fleet.VolumeView{}, err
	}
	defer b.mu.Unlock()
	host := drover.HostID("h1")
	if req.Host != "" {
		host = req.Host
	}
	info, err := b.hostLocked(host)
	if err != nil {
		return fleet.VolumeView{}, drover.AsError(err).WithField("host")
	}
	n := b.nextLocked()
	v := fleet.VolumeView{HostStatus: drover.HostOK, Volume: drover.Volume{ID: volumeID(n), App: req.App, Name: req.Name, Region: info.Region, Size: req.Size,
		State: drover.VolumeCreated, Host: host, Limits: req.Limits, CreatedAt: b.Now()}}
	v.Volume.AutoBackup, v.Volume.SnapshotInterval, v.Volume.RetentionDays = !req.NoAutoBackup, req.SnapshotInterval, req.RetentionDays
	if v.Volume.SnapshotInterval == 0 {
		v.Volume.SnapshotInterval = drover.DefaultSnapshotInterval
	}
	if v.Volume.RetentionDays == 0 {
		v.Volume.RetentionDays = drover.DefaultRetentionDays
	}
	if !req.Unencrypted {
		v.Volume.Cipher = &drover.Cipher{Algorithm: drover.CipherAES256XTS, SectorSize: 512, Key: drover.KeyID(fmt.Sprintf("key_%016x", n))}
	}
	if err := b.fillLocked(&v, req); err != nil {
		return fleet.VolumeView{}, err
	}
	b.volumes[v.Volume.ID] = v
	return v, nil
}

// fillLocked gives a restored volume, or a fork, what it has of what it is made of.
func (b *Backend) fillLocked(v *fleet.VolumeView, req fleet.CreateVolume) error {
	var size, data drover.Bytes
	switch {
	case req.Snapshot != "":
		s, ok := b.snapshots[req.Snapshot]
		if !ok || s.App != req.App {
			return drover.Errorf(drover.NotFound, "no snapshot %q", req.Snapshot).WithField("snapshot_id")
		}
		size, data, v.Volume.Cipher = s.Size, s.Data, s.Cipher
		v.Volume.From = &drover.VolumeOrigin{Snapshot: &drover.SnapshotSource{Snapshot: s.ID, Volume: s.Volume, Manifest: s.Manifest, Size: s.Size, Data: s.Data}}
	case req.Source != "":
		source, ok := b.volumes[req.Source]
		if !ok || source.Volume.App != req.App || source.Volume.State == drover.VolumeDestroyed {
			return drover.Errorf(drover.NotFound, "no volume %q", req.Source).WithField("source_volume_id")
		}
		size, data, v.Volume.Cipher = source.Volume.Size, source.Volume.Size/4, source.Volume.Cipher
		v.Volume.From = &drover.VolumeOrigin{Volume: req.Source, Host: source.Volume.Host}
	default:
		return nil
	}
	if v.Volume.Size == 0 {
		v.Volume.Size = size
	}
	v.Volume.State = drover.VolumeHydrating
	v.Hydration = &drover.Hydration{Total: data, TotalKnown: true, StartedAt: b.Now()}
	return nil
}

// layerLocked is what the volume's host says of it.
func (b *Backend) layerLocked(v fleet.VolumeView) drover.LayerStatus {
	l := drover.LayerStatus{ID: drover.LayerFor(v.Volume.ID.Disk(), ""), Disk: v.Volume.ID.Disk(), State: drover.LayerReady, Size: v.Volume.Size,
		Allocated: v.Volume.Size / 4, Writer: v.Volume.Epoch, Hydration: v.Hydration, Cipher: v.Volume.Cipher, Limits: v.Volume.Limits}
	if done, ok := b.verified[v.Volume.ID]; ok {
		l.Verification = &done
	}
	return l
}

// Volumes lists an app's volumes.
func (b *Backend) Volumes(_ context.Context, app drover.AppName) ([]fleet.VolumeView, error) {
	return b.list("Volumes", app, false)
}

// DestroyedVolumes lists those of an app that can be brought back.
func (b *Backend) DestroyedVolumes(_ context.Context, app drover.AppName) ([]fleet.VolumeView, error) {
	return b.list("DestroyedVolumes", app, true)
}

func (b *Backend) list(method string, app drover.AppName, destroyed bool) ([]fleet.VolumeView, error) {
	if err := b.begin(method); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var views []fleet.VolumeView
	for _, v := range b.volumes {
		if v.Volume.App == app && (v.Volume.State == drover.VolumeDestroyed) == destroyed {
			views = append(views, v)
		}
	}
	return views, nil
}

// volumeLocked finds a volume, one that is destroyed too.
func (b *Backend) volumeLocked(app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error) {
	v, ok := b.volumes[id]
	if !ok || v.Volume.App != app {
		return fleet.VolumeView{}, drover.Errorf(drover.NotFound, "app %q has no volume %q", app, id)
	}
	return v, nil
}

// Volume returns a volume, with what its host says of it.
func (b *Backend) Volume(_ context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error) {
	if err := b.begin("Volume"); err != nil {
		return fleet.VolumeView{}, err
	}
	defer b.mu.Unlock()
	v, err := b.volumeLocked(app, id)
	if err == nil && v.HostStatus == drover.HostOK && v.Layer == nil {
		l := b.layerLocked(v)
		v.Layer = &l
	}
	return v, err
}

// change finds a volume that is not destroyed and changes it.
func (b *Backend) change(method string, app drover.AppName, id drover.VolumeID, change func(*fleet.VolumeView) error) (fleet.VolumeView, error) {
	if err := b.begin(method); err != nil {
		return fleet.VolumeView{}, err
	}
	defer b.mu.Unlock()
	v, err := b.volumeLocked(app, id)
	if err != nil {
		return v, err
	}
	if v.Volume.State == drover.VolumeDestroyed && method != "UndeleteVolume" {
		return v, drover.Errorf(drover.Precondition, "volume %q is destroyed", id).WithHint("'drover volume undelete %s' brings it back", id)
	}
	if err := change(&v); err != nil {
		return v, err
	}
	b.volumes[id] = v
	return v, nil
}

// DestroyVolume destroys a volume that no machine has, so that it can be brought back for a day.
func (b *Backend) DestroyVolume(_ context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error) {
	return b.change("DestroyVolume", app, id, func(v *fleet.VolumeView) error {
		if v.Volume.Machine != "" {
			return drover.Errorf(drover.Precondition, "machine %q has volume %q", v.Volume.Machine, id).WithHint("destroy the machine first")
		}
		v.Volume.State, v.Volume.DestroyedAt, v.Volume.WipeAt = drover.VolumeDestroyed, b.Now(), b.Now().Add(undeleteWindow)
		return nil
	})
}

// UndeleteVolume brings a destroyed volume back.
func (b *Backend) UndeleteVolume(_ context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error) {
	return b.change("UndeleteVolume", app, id, func(v *fleet.VolumeView) error {
		if v.Volume.State != drover.VolumeDestroyed {
			return drover.Errorf(drover.Precondition, "volume %q is %s, not destroyed", id, v.Volume.State)
		}
		v.Volume.State, v.Volume.DestroyedAt, v.Volume.WipeAt = drover.VolumeCreated, time.Time{}, time.Time{}
		return nil
	})
}

// UpdateVolume changes a volume's schedule, retention and limits.
func (b *Backend) UpdateVolume(_ context.Context, req fleet.UpdateVolume) (fleet.VolumeView, error) {
	return b.change("UpdateVolume", req.App, req.Volume, func(v *fleet.VolumeView) error {
		set(&v.Volume.AutoBackup, req.AutoBackup)
		set(&v.Volume.SnapshotInterval, req.SnapshotInterval)
		set(&v.Volume.RetentionDays, req.RetentionDays)
		set(&v.Volume.Limits, req.Limits)
		return nil
	})
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// ExtendVolume makes a volume larger.
func (b *Backend) ExtendVolume(_ context.Context, req fleet.ExtendVolume) (fleet.Extended, error) {
	v, err := b.change("ExtendVolume", req.App, req.Volume, func(v *fleet.VolumeView) error {
		if req.Size < v.Volume.Size {
			return drover.Errorf(drover.Invalid, "volume %q has %d bytes already: a volume never shrinks", req.Volume, v.Volume.Size).WithField("size_gb")
		}
		v.Volume.Size = req.Size
		return nil
	})
	return fleet.Extended{Volume: v, NeedsRestart: b.NeedsRestart}, err
}

// SetHydration changes the background copy of a volume that hydrates.
func (b *Backend) SetHydration(_ context.Context, req fleet.SetHydration) (fleet.VolumeView, error) {
	return b.change("SetHydration", req.App, req.Volume, func(v *fleet.VolumeView) error {
		if v.Hydration == nil || v.Hydration.Done {
			return drover.Errorf(drover.Precondition, "volume %q does not hydrate: all of its blocks are on its host", req.Volume)
		}
		h := *v.Hydration
		set(&h.Limit, req.Limit)
		set(&h.Paused, req.Paused)
		v.Hydration = &h
		return nil
	})
}

// VerifyVolume finds everything as it should be; with Slow it stays at the start.
func (b *Backend) VerifyVolume(_ context.Context, req fleet.VerifyVolume) (drover.Verification, error) {
	result := drover.Verification{Against: "checksums"}
	_, err := b.change("VerifyVolume", req.App, req.Volume, func(v *fleet.VolumeView) error {
		if running, ok := b.verified[req.Volume]; ok && !running.Done {
			result = running
			return nil
		}
		if req.Snapshot != "" {
			if s, ok := b.snapshots[req.Snapshot]; !ok || s.Volume != req.Volume {
				return drover.Errorf(drover.NotFound, "volume %q has no snapshot %q", req.Volume, req.Snapshot).WithField("snapshot_id")
			}
			result.Against = string(req.Snapshot)
		}
		result.Total, result.StartedAt = v.Volume.Size/4, b.Now()
		if !b.Slow {
			result.Checked, result.Done, result.DoneAt = result.Total, true, b.Now()
		}
		b.verified[req.Volume] = result
		return nil
	})
	return result, err
}
