package drover

import "time"

// The orders about volumes besides making and removing them.
const (
	// OrderVolumeSnapshot takes a snapshot, goes on with it, and tells how far it is. SnapshotRequest, SnapshotProgress. The first one
	// splits the volume's layer, and is refused with Precondition on a host that does not have the volume; NotFound: the frozen layer
	// is lost. Canceled after OrderVolumeSnapshotEnd.
	OrderVolumeSnapshot Order = "volume.snapshot"
	// OrderVolumeSnapshotEnd gives up what the host keeps of a snapshot, whether it is in the object store or not wanted any more.
	// SnapshotEndRequest, Empty.
	OrderVolumeSnapshotEnd Order = "volume.snapshot.end"
	// OrderVolumeFork, to the host of the source: freeze what the source holds, and let the target read it. ForkRequest, Export.
	// Canceled after OrderVolumeForkEnd.
	OrderVolumeFork Order = "volume.fork"
	// OrderVolumeForkEnd, to the host of the source: nobody reads the frozen layer any more. ForkRequest, Empty.
	OrderVolumeForkEnd Order = "volume.fork.end"
	// OrderVolumeResize makes a volume larger, for its running machine too. ResizeRequest, Resized. Conflict while the machine is
	// being moved.
	OrderVolumeResize Order = "volume.resize"
	// OrderVolumeLimits sets what the machine may ask of the volume per second. VolumeRequest, LayerStatus.
	OrderVolumeLimits Order = "volume.limits"
	// OrderVolumeHydration changes the background copy of a volume. HydrationRequest, LayerStatus.
	OrderVolumeHydration Order = "volume.hydration"
	// OrderVolumeVerify begins, or follows, a verification. VerifyRequest, Verification.
	OrderVolumeVerify Order = "volume.verify"
	// OrderVolumeStatus describes the layer of a volume. VolumeRequest, LayerStatus. NotFound when the host does not have it.
	OrderVolumeStatus Order = "volume.status"
	// OrderStorageSettings sets what holds for the host's storage as a whole. StorageSettings, StorageSettings.
	OrderStorageSettings Order = "storage.settings"
)

// SnapshotRequest names a snapshot and its volume by their records.
type SnapshotRequest struct {
	Snapshot Snapshot `json:"snapshot"`
	Volume   Volume   `json:"volume"`
	// Quiesce: freeze the guest's file system for the moment. It counts for the first request only.
	Quiesce bool `json:"quiesce,omitempty"`
	// Upload: the way into the object store is free for this snapshot. Without it the volume is only split.
	Upload bool `json:"upload,omitempty"`
}

// SnapshotProgress is how far a snapshot is.
type SnapshotProgress struct {
	// TakenAt is the moment whose content it has.
	TakenAt  time.Time `json:"taken_at"`
	Quiesced bool      `json:"quiesced,omitempty"`
	Size     Bytes     `json:"size"`
	// Upload is nil until it was begun.
	Upload *Upload `json:"upload,omitempty"`
}

// SnapshotEndRequest names the snapshot. Wipe: its volume is gone, and what is left of it here is made unreadable.
type SnapshotEndRequest struct {
	Snapshot SnapshotID `json:"snapshot"`
	Volume   VolumeID   `json:"volume"`
	Wipe     bool       `json:"wipe,omitempty"`
}

// ForkRequest names a fork: the new volume, what it is made of, and the host that it is made on. Wipe, at the end: the source is gone, and
// what is left of it here is made unreadable.
type ForkRequest struct {
	Volume VolumeID `json:"volume"`
	Source VolumeID `json:"source"`
	Target HostID   `json:"target"`
	Wipe   bool     `json:"wipe,omitempty"`
}

// ResizeRequest names a volume and what it is to become.
type ResizeRequest struct {
	Volume Volume `json:"volume"`
	Size   Bytes  `json:"size"`
}

// Resized is what became of it. NeedsRestart: the running guest cannot be told, and sees the new size after the machine's next start.
// Reason says why.
type Resized struct {
	NeedsRestart bool   `json:"needs_restart,omitempty"`
	Reason       string `json:"reason,omitempty"`
}

// HydrationRequest changes what is not nil.
type HydrationRequest struct {
	Volume VolumeID `json:"volume"`
	Limit  *Bytes   `json:"limit,omitempty"`
	Paused *bool    `json:"paused,omitempty"`
}

// VerifyRequest names a volume and, if it is to be compared with one, a snapshot.
type VerifyRequest struct {
	Volume  VolumeID        `json:"volume"`
	Against *SnapshotSource `json:"against,omitempty"`
}

// SnapshotLayer names the layer that is frozen for a snapshot of a volume, on the host that takes it.
func SnapshotLayer(v VolumeID, s SnapshotID) LayerID { return LayerID(string(v) + "." + string(s)) }

// ForkLayer names the layer that is frozen for a fork of a volume, on the host that has the source.
func ForkLayer(source, fork VolumeID) LayerID { return LayerID(string(source) + "." + string(fork)) }
