package apiv1

import (
	"time"

	"drover"
)

// Volume is one volume.
type Volume struct {
	ID     drover.VolumeID    `json:"id"`
	Name   string             `json:"name"`
	App    drover.AppName     `json:"app"`
	State  drover.VolumeState `json:"state"`
	Region drover.Region      `json:"region"`
	// SizeGB is the size in GiB, rounded up; Size is exact, in bytes.
	SizeGB int          `json:"size_gb"`
	Size   drover.Bytes `json:"size"`
	// Zone and Host both name the host that the volume is on now.
	Zone              string            `json:"zone,omitempty"`
	Host              drover.HostID     `json:"host,omitempty"`
	Encrypted         bool              `json:"encrypted"`
	AttachedMachineID drover.MachineID  `json:"attached_machine_id,omitempty"`
	CreatedAt         time.Time         `json:"created_at"`
	HostStatus        drover.HostStatus `json:"host_status"`
	BlockSize         int               `json:"block_size"`
	Blocks            int64             `json:"blocks"`
	Epoch             drover.Epoch      `json:"epoch"`
	// Hydration is there while blocks are fetched from another host.
	Hydration *drover.Hydration `json:"hydration,omitempty"`
}

// CreateVolumeRequest asks for a blank volume. One of SizeGB and Size is given.
type CreateVolumeRequest struct {
	Name   string `json:"name"`
	Region string `json:"region,omitempty"`
	// Host pins the volume to a host.
	Host   string       `json:"host,omitempty"`
	SizeGB int          `json:"size_gb,omitempty"`
	Size   drover.Bytes `json:"size,omitempty"`
	// SnapshotID and SourceVolumeID are refused: this version has neither snapshots nor forks.
	SnapshotID     string `json:"snapshot_id,omitempty"`
	SourceVolumeID string `json:"source_volume_id,omitempty"`
	// FSType may be empty or "ext4".
	FSType string `json:"fstype,omitempty"`
}
