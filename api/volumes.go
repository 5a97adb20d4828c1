package api

import (
	"slices"

	"drover"
	"drover/fleet"
	"drover/internal/units"
)

func (h *handler) listVolumes(c *call) (any, error) {
	deleted, err := queryBool(c.r.URL.Query(), "deleted")
	if err != nil {
		return nil, err
	}
	list := h.backend.Volumes
	if deleted {
		list = h.backend.DestroyedVolumes
	}
	views, err := list(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	// Clients take what is listed for what they may mount.
	views = slices.DeleteFunc(views, func(v fleet.VolumeView) bool { return (v.Volume.State == drover.VolumeDestroyed) != deleted })
	slices.SortFunc(views, oldestFirst)
	return volumeForms(views), nil
}

// volume returns the volume that the path names.
func (h *handler) volume(c *call) (fleet.VolumeView, error) {
	id, err := volumeID(c)
	if err != nil {
		return fleet.VolumeView{}, err
	}
	return h.backend.Volume(c.ctx(), c.app.Name, id)
}

func (h *handler) showVolume(c *call) (any, error) {
	view, err := h.volume(c)
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

func (h *handler) undeleteVolume(c *call) (any, error) {
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	view, err := h.backend.UndeleteVolume(c.ctx(), c.app.Name, id)
	if err != nil {
		return nil, err
	}
	return volumeForm(view), nil
}

// Bounds of a volume's size.
const (
	minVolume = drover.MiB
	maxVolume = 64 << 10 * drover.GiB
)

// volumeSize reads a size from size_gb, or from size in bytes. Both may be left out where it is optional: 0.
func volumeSize(sizeGB int, size drover.Bytes, optional bool) (drover.Bytes, error) {
	switch {
	case sizeGB != 0 && size != 0:
		return 0, badField("size", "and size_gb are both given; expected one of them")
	case sizeGB == 0 && size == 0 && optional:
		return 0, nil
	case sizeGB == 0 && size == 0:
		return 0, badField("size_gb", "is missing or 0; expected the size in GiB, at least 1")
	case sizeGB != 0 && (sizeGB < 1 || sizeGB > int(maxVolume/drover.GiB)):
		return 0, badField("size_gb", "is %d; expected 1 to %d", sizeGB, maxVolume/drover.GiB)
	case sizeGB != 0:
		return drover.Bytes(sizeGB) * drover.GiB, nil
	case size < minVolume || size > maxVolume:
		return 0, badField("size", "is %s; expected %s to %s", units.Size(size), units.Size(minVolume), units.Size(maxVolume))
	case size%drover.BlockSize != 0:
		return 0, badField("size", "is %d bytes; expected a multiple of %d", size, drover.BlockSize)
	}
	return size, nil
}
