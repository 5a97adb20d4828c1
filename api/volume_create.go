package api

import (
	"encoding/json"
	"reflect"

	"drover"
	"drover/apiv1"
	"drover/fleet"
	"drover/internal/units"
)

func (h *handler) createVolume(c *call) (any, error) {
	var req apiv1.CreateVolumeRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	order, err := volumeOrder(c, req)
	if err != nil {
		return nil, err
	}
	if err := h.fromSource(c, &order, req); err != nil {
		return nil, err
	}
	if !drover.ValidVolumeName(order.Name) {
		return nil, badField("name", "is %q; expected 1 to 30 lower-case letters, digits and underscores", order.Name)
	}
	view, err := h.backend.CreateVolume(c.ctx(), order)
	if err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}

// volumeOrder checks what can be told from the request alone.
func volumeOrder(c *call, req apiv1.CreateVolumeRequest) (fleet.CreateVolume, error) {
	order := fleet.CreateVolume{App: c.app.Name, Name: req.Name, Host: drover.HostID(req.Host),
		Snapshot: drover.SnapshotID(req.SnapshotID), Source: drover.VolumeID(req.SourceVolumeID),
		Unencrypted:  req.Encrypted != nil && !*req.Encrypted,
		NoAutoBackup: req.AutoBackupEnabled != nil && !*req.AutoBackupEnabled}
	made := req.SnapshotID != "" || req.SourceVolumeID != ""
	if (req.Name != "" || !made) && !drover.ValidVolumeName(req.Name) {
		return order, badField("name", "is %q; expected 1 to 30 lower-case letters, digits and underscores", req.Name)
	}
	if err := needName("host", req.Host, true); err != nil {
		return order, err
	}
	var err error
	if order.Region, order.Fallback, err = regionList("region", req.Region); err != nil {
		return order, err
	}
	if order.Compute, err = computeOf(req.Compute); err != nil {
		return order, err
	}
	switch {
	case req.SnapshotID != "" && req.SourceVolumeID != "":
		return order, badField("snapshot_id", "and source_volume_id are both given; expected one of them at most")
	case req.SnapshotID != "" && !validSnapshotID(req.SnapshotID):
		return order, badField("snapshot_id", "is %q; expected a snapshot ID, which is \"vs_\" and 16 digits from 0 to f", req.SnapshotID)
	case req.SourceVolumeID != "" && !validVolumeID(req.SourceVolumeID):
		return order, badField("source_volume_id", "is %q; expected a volume ID, which is \"vol_\" and 16 digits from 0 to f", req.SourceVolumeID)
	case req.FSType != "" && req.FSType != "ext4":
		return order, badField("fstype", "is %q; expected \"ext4\"", req.FSType)
	}
	if err := checkSchedule(req.SnapshotInterval, req.SnapshotRetention); err != nil {
		return order, err
	}
	if req.SnapshotInterval != nil {
		order.SnapshotInterval = *req.SnapshotInterval
	}
	if req.SnapshotRetention != nil {
		order.RetentionDays = *req.SnapshotRetention
	}
	if order.Limits, err = newLimitsOf(drover.Limits{}, req.Limits); err != nil {
		return order, err
	}
	order.Size, err = volumeSize(req.SizeGB, req.Size, made)
	return order, err
}

// computeOf reads the size of the machine that room is to be held for; nil for none. Fields that Drover does not have are ignored.
func computeOf(fields map[string]any) (*drover.Guest, error) {
	if len(fields) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return nil, badField("compute", "cannot be read")
	}
	if err := checkShape("compute", raw, reflect.TypeFor[drover.Guest]()); err != nil {
		return nil, err
	}
	var g drover.Guest
	if err := json.Unmarshal(raw, &g); err != nil {
		return nil, badField("compute", "cannot be read: %v", err)
	}
	return &g, nil
}

// fromSource fills in what a restored volume and a fork have of what they are made of, and refuses what these cannot be.
func (h *handler) fromSource(c *call, order *fleet.CreateVolume, req apiv1.CreateVolumeRequest) error {
	var field, name string
	var size drover.Bytes
	var cipher *drover.Cipher
	switch {
	case order.Snapshot != "":
		s, err := h.backend.Snapshot(c.ctx(), c.app.Name, order.Snapshot)
		if err != nil {
			return drover.AsError(err).WithField("snapshot_id")
		}
		if s.State != drover.SnapshotCreated {
			return drover.Errorf(drover.Precondition, "snapshot %s is %s, and cannot be restored", s.ID, s.State).WithField("snapshot_id").
				WithHint("'drover volume snapshot show %s' shows how far it is", s.ID)
		}
		field, name, size, cipher = "snapshot "+string(s.ID), s.Name, s.Size, s.Cipher
	case order.Source != "":
		v, err := h.backend.Volume(c.ctx(), c.app.Name, order.Source)
		if err != nil {
			return drover.AsError(err).WithField("source_volume_id")
		}
		field, name, size, cipher = "volume "+string(v.Volume.ID), v.Volume.Name, v.Volume.Size, v.Volume.Cipher
		if order.Region == "" && order.Host == "" {
			order.Region = v.Volume.Region
		}
	default:
		return nil
	}
	if order.Name == "" {
		order.Name = name
	}
	if order.Size != 0 && order.Size < size {
		sizeField := "size_gb"
		if req.Size != 0 {
			sizeField = "size"
		}
		return badField(sizeField, "is %s, which is less than the %s of %s; leave it out, or give as much at least", units.Size(order.Size), units.Size(size), field)
	}
	if order.Unencrypted && cipher != nil {
		return badField("encrypted", "is false, but %s is encrypted, and so is what is made of it", field)
	}
	return nil
}
