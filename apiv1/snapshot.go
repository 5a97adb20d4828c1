package apiv1

import (
	"time"

	"drover"
)

// Snapshot is what a volume held at one moment.
type Snapshot struct {
	ID     drover.SnapshotID    `json:"id"`
	Status drover.SnapshotState `json:"status"`
	// Size is the data that the snapshot holds, Stored what was new of it in the object store; VolumeSize is the volume's size.
	Size       drover.Bytes `json:"size"`
	Stored     drover.Bytes `json:"stored"`
	VolumeSize drover.Bytes `json:"volume_size"`
	// Digest is the SHA-256 of the list of its chunks, once it is created.
	Digest string `json:"digest"`
	// TakenAt is the moment whose content it has; ExpiresAt, RetentionDays later, is when it is removed.
	CreatedAt     time.Time `json:"created_at"`
	TakenAt       time.Time `json:"taken_at,omitzero"`
	DoneAt        time.Time `json:"done_at,omitzero"`
	ExpiresAt     time.Time `json:"expires_at"`
	RetentionDays int       `json:"retention_days"`

	VolumeID drover.VolumeID `json:"volume_id"`
	// VolumeName is the volume's, kept for the time when the volume is gone.
	VolumeName string         `json:"volume_name"`
	App        drover.AppName `json:"app"`
	Encrypted  bool           `json:"encrypted"`
	// Scheduled: it was made by the volume's schedule. Quiesced: the guest's file systems were frozen for the moment.
	Scheduled bool `json:"scheduled"`
	Quiesced  bool `json:"quiesced"`
	// Full: all of it was stored again, also what the object store had.
	Full bool `json:"full"`
	// Host takes the snapshot, and Progress is how far it is on its way into the object store, while the status is creating.
	Host     drover.HostID  `json:"host,omitempty"`
	Progress *drover.Upload `json:"progress,omitempty"`
	// Problem says why it failed, or what it waits for.
	Problem *drover.Error `json:"problem,omitempty"`
}

// CreateSnapshotRequest asks for a snapshot of a volume. RetentionDays is by default the volume's.
type CreateSnapshotRequest struct {
	// Quiesce freezes the guest's file systems for the moment, so that they are clean in the snapshot. Without it the snapshot is what a
	// power cut would leave.
	Quiesce bool `json:"quiesce,omitempty"`
	// Full stores all of it again, also what the object store has, which mends what is damaged there, for older snapshots too.
	Full          bool `json:"full,omitempty"`
	RetentionDays *int `json:"retention_days,omitempty"`
}
