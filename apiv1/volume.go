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
	AttachedMachineID drover.MachineID  `json:"attached_machine_id,omitempty"`
	CreatedAt         time.Time         `json:"created_at"`
	HostStatus        drover.HostStatus `json:"host_status"`
	FSType            string            `json:"fstype"`
	BlockSize         int               `json:"block_size"`
	Blocks            int64             `json:"blocks"`
	// BytesTotal is Size; BytesUsed is what the volume takes on its host's disk, where the host was asked and answered.
	BytesTotal drover.Bytes  `json:"bytes_total"`
	BytesUsed  *drover.Bytes `json:"bytes_used,omitempty"`
	Epoch      drover.Epoch  `json:"epoch"`
	// Cipher is how it is encrypted; the key itself is in no answer.
	Encrypted bool           `json:"encrypted"`
	Cipher    *drover.Cipher `json:"cipher,omitempty"`
	Limits    drover.Limits  `json:"limits"`
	// AutoBackupEnabled: a snapshot is taken every SnapshotInterval. Snapshots are kept for SnapshotRetention days.
	AutoBackupEnabled bool            `json:"auto_backup_enabled"`
	SnapshotInterval  drover.Duration `json:"snapshot_interval,omitempty"`
	SnapshotRetention int             `json:"snapshot_retention"`
	// SnapshotID is what the volume was restored from, SourceVolumeID what it was forked from.
	SnapshotID     drover.SnapshotID `json:"snapshot_id,omitempty"`
	SourceVolumeID drover.VolumeID   `json:"source_volume_id,omitempty"`
	// DestroyedAt and WipeAt are there for a destroyed volume: until WipeAt it can be brought back.
	DestroyedAt time.Time `json:"destroyed_at,omitzero"`
	WipeAt      time.Time `json:"wipe_at,omitzero"`
	// Hydration is there while blocks are fetched from another host, another volume or a snapshot.
	Hydration *VolumeHydration `json:"hydration,omitempty"`
	// Verification is the newest one, where the host was asked and answered.
	Verification *drover.Verification `json:"verification,omitempty"`
	// Compute is the size of a machine for which room is held with the volume until ReservedUntil, or a machine has the volume.
	Compute          *drover.Guest `json:"compute,omitempty"`
	ReservedUntil    time.Time     `json:"reserved_until,omitzero"`
	HostDedicationID string        `json:"host_dedication_id,omitempty"`
	// Trouble says why the volume cannot be used, or not be written.
	Trouble string `json:"trouble,omitempty"`
	// Conditions is what is not as it should be with its snapshots.
	Conditions []drover.Condition `json:"conditions,omitempty"`
}

// VolumeHydration is the progress of a hydration with what is computed from it.
type VolumeHydration struct {
	drover.Hydration
	// SecondsLeft is the time that is left at the present rate, where it can be told.
	SecondsLeft *int64 `json:"seconds_left,omitempty"`
}

// CreateVolumeRequest asks for a volume: a blank one, one that is restored from a snapshot, or a fork. One of SizeGB and Size is given; for
// a restored one and a fork neither need be. Null is the same as absent.
type CreateVolumeRequest struct {
	// Name may be left out for a restored volume and a fork: it is then that of what it is made of.
	Name string `json:"name,omitempty"`
	// Region is a region, or several with commas between them, in the order in which they are to be tried. That of a fork is by default its source's.
	Region string `json:"region,omitempty"`
	// Host pins the volume to a host.
	Host   string       `json:"host,omitempty"`
	SizeGB int          `json:"size_gb,omitempty"`
	Size   drover.Bytes `json:"size,omitempty"`
	// SnapshotID restores the volume, SourceVolumeID forks it from another one of the app; it is usable at once. At most one is given.
	SnapshotID     string `json:"snapshot_id,omitempty"`
	SourceVolumeID string `json:"source_volume_id,omitempty"`
	// Encrypted is by default true. A restored volume and a fork are encrypted as what they are made of, and may be asked for no less.
	Encrypted *bool          `json:"encrypted,omitempty"`
	Limits    *LimitsRequest `json:"limits,omitempty"`
	// AutoBackupEnabled is by default true, SnapshotInterval a day, SnapshotRetention 5 days.
	AutoBackupEnabled *bool            `json:"auto_backup_enabled,omitempty"`
	SnapshotInterval  *drover.Duration `json:"snapshot_interval,omitempty"`
	SnapshotRetention *int             `json:"snapshot_retention,omitempty"`
	// FSType may be empty or "ext4".
	FSType string `json:"fstype,omitempty"`
	// Compute is the size of the machine that is to have the volume: room for it is held with the volume for a time.
	Compute map[string]any `json:"compute,omitempty"`
	// What else clients of the Machines API say of the machine and of other volumes. It is read and has no effect: the volumes of an app are spread over
	// the hosts in any case.
	ComputeImage      string `json:"compute_image,omitempty"`
	RequireUniqueZone bool   `json:"require_unique_zone,omitempty"`
	UniqueZoneAppWide bool   `json:"unique_zone_app_wide,omitempty"`
}

// LimitsRequest changes a volume's limits: null and absent leave one as it is, 0 takes it away.
type LimitsRequest struct {
	IOPS           *int          `json:"iops,omitempty"`
	BytesPerSecond *drover.Bytes `json:"bytes_per_second,omitempty"`
}

// UpdateVolumeRequest changes a volume. Null and absent leave a field as it is.
type UpdateVolumeRequest struct {
	AutoBackupEnabled *bool            `json:"auto_backup_enabled,omitempty"`
	SnapshotInterval  *drover.Duration `json:"snapshot_interval,omitempty"`
	SnapshotRetention *int             `json:"snapshot_retention,omitempty"`
	Limits            *LimitsRequest   `json:"limits,omitempty"`
}

// ExtendVolumeRequest asks for a larger volume. One of SizeGB and Size is given, and is the new size.
type ExtendVolumeRequest struct {
	SizeGB int          `json:"size_gb,omitempty"`
	Size   drover.Bytes `json:"size,omitempty"`
}

// ExtendVolumeResponse is the volume with its new size. NeedsRestart: the guest sees it only after the machine was started again.
type ExtendVolumeResponse struct {
	Volume       Volume `json:"volume"`
	NeedsRestart bool   `json:"needs_restart"`
}

// HydrationRequest changes the background copy of a volume that hydrates. Null and absent leave a field as it is. Limit is in bytes per
// second, 0 for none. While it is paused, reads of blocks that are not there yet are still served.
type HydrationRequest struct {
	Limit  *drover.Bytes `json:"limit,omitempty"`
	Paused *bool         `json:"paused,omitempty"`
}

// VerifyRequest asks to compare a volume with the checksums that are kept with it, or with a snapshot.
type VerifyRequest struct {
	SnapshotID string `json:"snapshot_id,omitempty"`
}

// StorageRequest sets what holds for a host's storage as a whole. Null and absent leave a field as it is; 0 means the default.
type StorageRequest struct {
	// HydrationLimit bounds all hydrations of the host together, in bytes per second; 0 for no limit.
	HydrationLimit *drover.Bytes `json:"hydration_limit,omitempty"`
	// StallAfter is how long a hydration may make no progress before that is a condition.
	StallAfter *drover.Duration `json:"stall_after,omitempty"`
}
