package api

import (
	"cmp"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// Bounds of a volume's size.
const (
	minVolume = drover.MiB
	maxVolume = 64 << 10 * drover.GiB
)

func (h *handler) listVolumes(c *call) (any, error) {
	views, err := h.backend.Volumes(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(views, func(a, b fleet.VolumeView) int {
		return cmp.Or(a.Volume.CreatedAt.Compare(b.Volume.CreatedAt), cmp.Compare(a.Volume.ID, b.Volume.ID))
	})
	forms := []apiv1.Volume{}
	for _, v := range views {
		forms = append(forms, volumeForm(v))
	}
	return forms, nil
}

func (h *handler) createVolume(c *call) (any, error) {
	var req apiv1.CreateVolumeRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if !drover.ValidVolumeName(req.Name) {
		return nil, badField("name", "is %q; expected 1 to 30 lower-case letters, digits and underscores", req.Name)
	}
	for _, n := range []struct{ field, value string }{{"region", req.Region}, {"host", req.Host}} {
		if err := needName(n.field, n.value, true); err != nil {
			return nil, err
		}
	}
	switch {
	case req.SnapshotID != "":
		return nil, badField("snapshot_id", "is %q; this version of Drover has no snapshots", req.SnapshotID)
	case req.SourceVolumeID != "":
		return nil, badField("source_volume_id", "is %q; this version of Drover cannot fork volumes", req.SourceVolumeID)
	case req.FSType != "" && req.FSType != "ext4":
		return nil, badField("fstype", "is %q; expected \"ext4\"", req.FSType)
	}
	size, err := volumeSize(req)
	if err != nil {
		return nil, err
	}
	view, err := h.backend.CreateVolume(c.ctx(), fleet.CreateVolume{App: c.app.Name, Name: req.Name, Region: drover.Region(req.Region),
		Host: drover.HostID(req.Host), Size: size})
	if err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}

// volumeSize reads the size from size_gb, or from size in bytes.
func volumeSize(req apiv1.CreateVolumeRequest) (drover.Bytes, error) {
	switch {
	case req.SizeGB != 0 && req.Size != 0:
		return 0, badField("size", "and size_gb are both given; expected one of them")
	case req.SizeGB == 0 && req.Size == 0:
		return 0, badField("size_gb", "is missing or 0; expected the size in GiB, at least 1")
	case req.SizeGB != 0 && (req.SizeGB < 1 || req.SizeGB > int(maxVolume/drover.GiB)):
		return 0, badField("size_gb", "is %d; expected 1 to %d", req.SizeGB, maxVolume/drover.GiB)
	case req.SizeGB != 0:
		return drover.Bytes(req.SizeGB) * drover.GiB, nil
	case req.Size < minVolume || req.Size > maxVolume:
		return 0, badField("size", "is %d bytes; expected %d to %d", req.Size, minVolume, maxVolume)
	case req.Size%drover.BlockSize != 0:
		return 0, badField("size", "is %d bytes; expected a multiple of %d", req.Size, drover.BlockSize)
	}
	return req.Size, nil
}

func (h *handler) showVolume(c *call) (any, error) {
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	view, err := h.backend.Volume(c.ctx(), c.app.Name, id)
	if err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}

func (h *handler) destroyVolume(c *call) (any, error) {
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	view, err := h.backend.DestroyVolume(c.ctx(), c.app.Name, id)
	if err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}
