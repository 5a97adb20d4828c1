package drover

import "time"

// SnapshotID names one snapshot for life: "vs_" and 16 lower-case hexadecimal digits.
type SnapshotID string

// NewSnapshotID returns a fresh random snapshot ID.
func NewSnapshotID() SnapshotID { return SnapshotID("vs_" + randomHex(16)) }

// SnapshotState is what a snapshot is now.
type SnapshotState string

// The states.
const (
	// SnapshotCreating: the record is there; the volume may not be frozen yet, or its blocks are on their way to the object store.
	SnapshotCreating SnapshotState = "creating"
	// SnapshotCreated: everything is in the object store, and nothing is needed of any host.
	SnapshotCreated SnapshotState = "created"
	// SnapshotFailed: it cannot be finished any more (its host lost the frozen layer); Problem says why. It is removed like any other.
	SnapshotFailed SnapshotState = "failed"
	// SnapshotDestroying: what only it needs is being removed from the object store.
	SnapshotDestroying SnapshotState = "destroying"
)

// Snapshot is what a volume held at one moment. The control side writes it.
type Snapshot struct {
	ID     SnapshotID `json:"id"`
	Volume VolumeID   `json:"volume"`
	App    AppName    `json:"app"`
	// Name is the volume's, kept for the time when the volume is gone.
	Name  string        `json:"name"`
	State SnapshotState `json:"state"`
	// Host is the one that takes it; of no meaning once it is created.
	Host HostID `json:"host,omitempty"`
	// Size is the volume's size at that moment; Data what the snapshot holds, Stored what was new of it in the object store.
	Size   Bytes `json:"size"`
	Data   Bytes `json:"data"`
	Stored Bytes `json:"stored"`
	// Manifest is the SHA-256 of the manifest in the object store, in hexadecimal digits, once it is created.
	Manifest string `json:"manifest,omitempty"`
	// Cipher is the volume's: the store holds what the volume's host holds, encrypted.
	Cipher *Cipher `json:"cipher,omitempty"`
	// Scheduled: it was made by the volume's schedule, not asked for by a user.
	Scheduled bool `json:"scheduled,omitempty"`
	// Quiesced: the guest's file systems were frozen for the moment; without it the snapshot is what a power cut would leave.
	Quiesced bool `json:"quiesced,omitempty"`
	// Full: all of it is stored again, also what the object store has, which mends what is damaged there.
	Full bool `json:"full,omitempty"`
	// RetentionDays is how long it is kept after TakenAt.
	RetentionDays int `json:"retention_days"`
	// TakenAt is the moment whose content it has.
	TakenAt   time.Time `json:"taken_at,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	DoneAt    time.Time `json:"done_at,omitzero"`
	// Upload is how far its way into the object store is, as last heard of its host, while it is created.
	Upload  *Upload `json:"upload,omitempty"`
	Problem *Error  `json:"problem,omitempty"`
}

// SnapshotSource says what a new layer is filled from.
type SnapshotSource struct {
	Snapshot SnapshotID `json:"snapshot"`
	// Volume is the one that the snapshot was taken of: chunks are kept under its name in the object store.
	Volume   VolumeID `json:"volume"`
	Manifest string   `json:"manifest"`
	Size     Bytes    `json:"size"`
	Data     Bytes    `json:"data"`
	// Full is Snapshot.Full, for an upload.
	Full bool `json:"full,omitempty"`
}
