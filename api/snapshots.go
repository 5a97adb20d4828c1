package api

import (
	"cmp"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// newestFirst orders snapshots.
func newestFirst(a, b drover.Snapshot) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
}

func (h *handler) listAppSnapshots(c *call) (any, error) {
	snapshots, err := h.backend.Snapshots(c.ctx(), c.app.Name, "")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(snapshots, newestFirst)
	return snapshotForms(snapshots), nil
}

func (h *handler) listSnapshots(c *call) (any, error) {
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	snapshots, err := h.backend.Snapshots(c.ctx(), c.app.Name, id)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(snapshots, newestFirst)
	return snapshotForms(snapshots), nil
}

func (h *handler) createSnapshot(c *call) (any, error) {
	var req apiv1.CreateSnapshotRequest
	if err := readStrict(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	if err := checkRetention("retention_days", req.RetentionDays); err != nil {
		return nil, err
	}
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	order := fleet.CreateSnapshot{App: c.app.Name, Volume: id, Quiesce: req.Quiesce, Full: req.Full}
	if req.RetentionDays != nil {
		order.RetentionDays = *req.RetentionDays
	}
	s, err := h.backend.CreateSnapshot(c.ctx(), order)
	if err != nil {
		return nil, err
	}
	return snapshotForm(s), nil
}

// snapshot returns the snapshot that the path names. Its volume may be gone.
func (h *handler) snapshot(c *call) (drover.Snapshot, error) {
	volume, err := volumeID(c)
	if err != nil {
		return drover.Snapshot{}, err
	}
	id, err := snapshotID(c)
	if err != nil {
		return drover.Snapshot{}, err
	}
	s, err := h.backend.Snapshot(c.ctx(), c.app.Name, id)
	if err == nil && s.Volume != volume {
		return drover.Snapshot{}, drover.Errorf(drover.NotFound, "snapshot not found: %s is one of volume %s, not of %s", id, s.Volume, volume)
	}
	return s, err
}

func (h *handler) showSnapshot(c *call) (any, error) {
	s, err := h.snapshot(c)
	if err != nil {
		return nil, err
	}
	return snapshotForm(s), nil
}

func (h *handler) deleteSnapshot(c *call) (any, error) {
	s, err := h.snapshot(c)
	if err != nil {
		return nil, err
	}
	if s, err = h.backend.DeleteSnapshot(c.ctx(), c.app.Name, s.ID); err != nil {
		return nil, err
	}
	return snapshotForm(s), nil
}
