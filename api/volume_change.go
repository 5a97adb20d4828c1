package api

import (
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// Bounds of what a volume may be set to.
const (
	minInterval = time.Minute
	maxInterval = 30 * 24 * time.Hour
	maxIOPS     = 10_000_000
	minRate     = drover.BlockSize
	maxRate     = 1 << 10 * drover.GiB
)

// checkSchedule checks how often snapshots are taken and how long they are kept; nil is not given.
func checkSchedule(interval *drover.Duration, days *int) error {
	if interval != nil && (time.Duration(*interval) < minInterval || time.Duration(*interval) > maxInterval) {
		return badField("snapshot_interval", "is %s; expected %s to %s", time.Duration(*interval), minInterval, maxInterval)
	}
	return checkRetention("snapshot_retention", days)
}

func checkRetention(field string, days *int) error {
	if days != nil && (*days < 1 || *days > drover.MaxRetentionDays) {
		return badField(field, "is %d; expected 1 to %d days", *days, drover.MaxRetentionDays)
	}
	return nil
}

// newLimitsOf applies a change of limits to what holds now.
func newLimitsOf(now drover.Limits, change *apiv1.LimitsRequest) (drover.Limits, error) {
	if change == nil {
		return now, nil
	}
	if change.IOPS != nil {
		if now.IOPS = *change.IOPS; now.IOPS < 0 || now.IOPS > maxIOPS {
			return now, badField("limits.iops", "is %d; expected 1 to %d, or 0 for no limit", now.IOPS, maxIOPS)
		}
	}
	if change.BytesPerSecond != nil {
		now.BytesPerSecond = *change.BytesPerSecond
		if err := checkRate("limits.bytes_per_second", now.BytesPerSecond); err != nil {
			return now, err
		}
	}
	return now, nil
}

// checkRate checks a limit in bytes per second.
func checkRate(field string, rate drover.Bytes) error {
	if rate != 0 && (rate < minRate || rate > maxRate) {
		return badField(field, "is %d; expected %d to %d bytes per second, or 0 for no limit", rate, minRate, maxRate)
	}
	return nil
}

func (h *handler) updateVolume(c *call) (any, error) {
	var req apiv1.UpdateVolumeRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if err := checkSchedule(req.SnapshotInterval, req.SnapshotRetention); err != nil {
		return nil, err
	}
	view, err := h.volume(c)
	if err != nil {
		return nil, err
	}
	order := fleet.UpdateVolume{App: c.app.Name, Volume: view.Volume.ID, AutoBackup: req.AutoBackupEnabled, SnapshotInterval: req.SnapshotInterval,
		RetentionDays: req.SnapshotRetention}
	if req.Limits != nil {
		limits, err := newLimitsOf(view.Volume.Limits, req.Limits)
		if err != nil {
			return nil, err
		}
		order.Limits = &limits
	}
	if view, err = h.backend.UpdateVolume(c.ctx(), order); err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}

func (h *handler) extendVolume(c *call) (any, error) {
	var req apiv1.ExtendVolumeRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	size, err := volumeSize(req.SizeGB, req.Size, false)
	if err != nil {
		return nil, err
	}
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	done, err := h.backend.ExtendVolume(c.ctx(), fleet.ExtendVolume{App: c.app.Name, Volume: id, Size: size})
	if err != nil {
		return nil, err
	}
	return apiv1.ExtendVolumeResponse{Volume: volumeForm(done.Volume), NeedsRestart: done.NeedsRestart}, nil
}

func (h *handler) setHydration(c *call) (any, error) {
	var req apiv1.HydrationRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if req.Limit == nil && req.Paused == nil {
		return nil, badField("limit", "and paused are both missing; expected one of them at least")
	}
	if req.Limit != nil {
		if err := checkRate("limit", *req.Limit); err != nil {
			return nil, err
		}
	}
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	view, err := h.backend.SetHydration(c.ctx(), fleet.SetHydration{App: c.app.Name, Volume: id, Limit: req.Limit, Paused: req.Paused})
	if err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}

func (h *handler) verifyVolume(c *call) (any, error) {
	var req apiv1.VerifyRequest
	if err := readStrict(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	if req.SnapshotID != "" && !validSnapshotID(req.SnapshotID) {
		return nil, badField("snapshot_id", "is %q; expected a snapshot ID, which is \"vs_\" and 16 digits from 0 to f", req.SnapshotID)
	}
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.VerifyVolume(c.ctx(), fleet.VerifyVolume{App: c.app.Name, Volume: id, Snapshot: drover.SnapshotID(req.SnapshotID)})
}

func (h *handler) showVerification(c *call) (any, error) {
	view, err := h.volume(c)
	if err != nil {
		return nil, err
	}
	switch {
	case view.Layer == nil:
		return nil, drover.Errorf(drover.Unavailable, "host %s, which has volume %s, does not answer", view.Volume.Host, view.Volume.ID).
			WithHint("ask again; 'drover host list' shows which hosts answer")
	case view.Layer.Verification == nil:
		return nil, drover.Errorf(drover.NotFound, "volume %s was not verified since it came to host %s", view.Volume.ID, view.Volume.Host).
			WithHint("'drover volume verify %s' does it", view.Volume.ID)
	}
	return *view.Layer.Verification, nil
}
