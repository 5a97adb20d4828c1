package fleet

import (
	"context"
	"time"

	"drover"
)

// maxIOPS and maxRate bound what a limit can be: more is a mistake of units.
const (
	maxIOPS = 10_000_000
	maxRate = 100 * drover.GiB
)

// checkLimits checks what a machine may ask of a volume.
func checkLimits(p *problems, l drover.Limits) {
	if l.IOPS < 0 || l.IOPS > maxIOPS {
		p.add("limits.iops", "%d is out of range: 0 for no limit, at most %d", l.IOPS, maxIOPS)
	}
	if l.BytesPerSecond < 0 || l.BytesPerSecond > maxRate {
		p.add("limits.bytes_per_second", "%d is out of range: 0 for no limit, at most %d", l.BytesPerSecond, maxRate)
	}
}

// checkSchedule checks an interval and a number of days; 0 stands for the defaults.
func checkSchedule(p *problems, every drover.Duration, days int) {
	if every != 0 && (every < drover.MinSnapshotInterval || every > drover.MaxSnapshotInterval) {
		p.add("snapshot_interval", "%v is out of range: %v to %v", time.Duration(every), time.Duration(drover.MinSnapshotInterval),
			time.Duration(drover.MaxSnapshotInterval))
	}
	if days < 0 || days > drover.MaxRetentionDays {
		p.add("retention_days", "%d is out of range: 1 to %d", days, drover.MaxRetentionDays)
	}
}

// UpdateVolume changes a volume's schedule, retention or limits. Limits reach a host that does not answer when it is back.
func (f *Fleet) UpdateVolume(ctx context.Context, req UpdateVolume) (VolumeView, error) {
	if err := f.await(ctx); err != nil {
		return VolumeView{}, err
	}
	var p problems
	if req.Limits != nil {
		checkLimits(&p, *req.Limits)
	}
	if req.SnapshotInterval != nil {
		checkSchedule(&p, *req.SnapshotInterval, 0)
	}
	if req.RetentionDays != nil {
		checkSchedule(&p, 0, *req.RetentionDays)
	}
	if err := p.err(); err != nil {
		return VolumeView{}, err
	}
	if _, err := f.readVolume(ctx, req.App, req.Volume); err != nil {
		return VolumeView{}, err
	}
	v, err := f.changeVolume(ctx, req.Volume, func(v *drover.Volume) error {
		if v.State != drover.VolumeCreated && v.State != drover.VolumeHydrating {
			return inState(*v)
		}
		if req.AutoBackup != nil {
			v.AutoBackup = *req.AutoBackup
		}
		if req.SnapshotInterval != nil {
			v.SnapshotInterval = orDefault(*req.SnapshotInterval, drover.DefaultSnapshotInterval)
		}
		if req.RetentionDays != nil {
			v.RetentionDays = orDefault(*req.RetentionDays, drover.DefaultRetentionDays)
		}
		if req.Limits != nil && v.Limits != *req.Limits {
			v.Limits, v.LimitsPending = *req.Limits, true
		}
		return nil
	})
	if err != nil {
		return VolumeView{}, err
	}
	if host := f.volumeView(v).Volume.Host; v.LimitsPending && f.reachable(host) && (v.Machine == "" || !f.moves(v.Machine)) {
		if err := f.tellLimits(ctx, v, host); err != nil {
			f.log.Warn("limits are told later", "volume", v.ID, "host", host, "err", err)
		}
	}
	return f.Volume(ctx, req.App, req.Volume)
}

func orDefault[T comparable](value, standard T) T {
	var none T
	if value == none {
		return standard
	}
	return value
}

// tellLimits makes the host apply the limits of the record.
func (f *Fleet) tellLimits(ctx context.Context, v drover.Volume, host drover.HostID) error {
	if err := f.order(ctx, f.timing.Apply, host, drover.OrderVolumeLimits, drover.VolumeRequest{Volume: v}, nil); err != nil {
		return err
	}
	f.hit("fleet.volume.limits.after")
	_, err := f.changeVolume(ctx, v.ID, func(now *drover.Volume) error {
		if now.Limits == v.Limits {
			now.LimitsPending = false
		}
		return nil
	})
	return err
}

// VerifyVolume begins, or follows, a verification.
func (f *Fleet) VerifyVolume(ctx context.Context, req VerifyVolume) (drover.Verification, error) {
	if err := f.await(ctx); err != nil {
		return drover.Verification{}, err
	}
	v, err := f.readVolume(ctx, req.App, req.Volume)
	if err != nil {
		return drover.Verification{}, err
	}
	order := drover.VerifyRequest{Volume: v.ID}
	if req.Snapshot != "" {
		s, err := f.Snapshot(ctx, req.App, req.Snapshot)
		if err != nil {
			return drover.Verification{}, err
		}
		if s.Volume != v.ID && !v.MadeOf(s.ID) {
			return drover.Verification{}, drover.Errorf(drover.Invalid, "snapshot %q is one of volume %q, and volume %q was not made of it", s.ID, s.Volume, v.ID).
				WithHint("'drover volume snapshot list %s' shows the snapshots of the volume", v.ID).WithField("snapshot_id")
		}
		if err := restorable(s); err != nil {
			return drover.Verification{}, err
		}
		order.Against = &drover.SnapshotSource{Snapshot: s.ID, Volume: s.Volume, Manifest: s.Manifest, Size: s.Size, Data: s.Data}
	}
	var verification drover.Verification
	return verification, f.orderVolume(ctx, v, drover.OrderVolumeVerify, order, &verification)
}

// orderVolume gives an order to the host that has the volume.
func (f *Fleet) orderVolume(ctx context.Context, v drover.Volume, order drover.Order, request, answer any) error {
	if v.State == drover.VolumeCreating || v.State == drover.VolumeDestroying {
		return inState(v)
	}
	host, err := f.hostOfVolume(ctx, v)
	if err != nil {
		return err
	}
	if err := f.answers(v, host); err != nil {
		return err
	}
	return f.order(ctx, f.timing.Apply, host, order, request, answer)
}

// SetHydration changes the background copy of a volume.
func (f *Fleet) SetHydration(ctx context.Context, req SetHydration) (VolumeView, error) {
	if err := f.await(ctx); err != nil {
		return VolumeView{}, err
	}
	switch {
	case req.Limit == nil && req.Paused == nil:
		return VolumeView{}, drover.Errorf(drover.Invalid, "nothing is to be changed: give a limit, or pause or resume").WithField("limit")
	case req.Limit != nil && (*req.Limit < 0 || *req.Limit > maxRate):
		return VolumeView{}, drover.Errorf(drover.Invalid, "limit: %d bytes per second are out of range: 0 for no limit, at most %d", *req.Limit, maxRate).
			WithField("limit")
	}
	v, err := f.readVolume(ctx, req.App, req.Volume)
	if err != nil {
		return VolumeView{}, err
	}
	var status drover.LayerStatus
	if err := f.orderVolume(ctx, v, drover.OrderVolumeHydration, drover.HydrationRequest{Volume: v.ID, Limit: req.Limit, Paused: req.Paused}, &status); err != nil {
		return VolumeView{}, err
	}
	view := f.volumeView(v)
	view.take(status)
	return view, nil
}

// SetStorage sets what holds for a host's storage as a whole.
func (f *Fleet) SetStorage(ctx context.Context, host drover.HostID, settings drover.StorageSettings) (drover.StorageSettings, error) {
	info, err := f.Host(ctx, host)
	if err != nil {
		return settings, err
	}
	var p problems
	if settings.HydrationLimit < 0 || settings.HydrationLimit > maxRate {
		p.add("hydration_limit", "%d bytes per second are out of range: 0 for no limit, at most %d", settings.HydrationLimit, maxRate)
	}
	if settings.StallAfter < 0 || time.Duration(settings.StallAfter) > 24*time.Hour {
		p.add("stall_after", "%v is out of range: 0 for the default, at most 24h", time.Duration(settings.StallAfter))
	}
	if err := p.err(); err != nil {
		return settings, err
	}
	if info.Status == drover.HostUnreachable {
		return settings, drover.Errorf(drover.Unavailable, "host %q does not answer", host).WithHint("ask again when it is back")
	}
	var answer drover.StorageSettings
	return answer, f.order(ctx, f.timing.Apply, host, drover.OrderStorageSettings, settings, &answer)
}
