package drover

import "time"

// VolumeState is what a volume is now, in the words of the Machines API.
type VolumeState string

// The states.
const (
	// VolumeCreating: the record is there, its layer may not be.
	VolumeCreating VolumeState = "creating"
	// VolumeCreated: the layer is there and complete.
	VolumeCreated VolumeState = "created"
	// VolumeHydrating: usable, while blocks are still fetched from another host, a frozen layer, or the object store.
	VolumeHydrating VolumeState = "hydrating"
	// VolumeDestroyed: it was destroyed by a user, and can be brought back until Volume.WipeAt.
	VolumeDestroyed VolumeState = "destroyed"
	// VolumeDestroying: its layers are being removed.
	VolumeDestroying VolumeState = "pending_destroy"
)

// Volume is a block device of an app. The control side writes it.
type Volume struct {
	ID     VolumeID `json:"id"`
	App    AppName  `json:"app"`
	Name   string   `json:"name"`
	Region Region   `json:"region"`
	Size   Bytes    `json:"size"`
	// Grow is what it is being made larger to; 0 when that is done.
	Grow  Bytes       `json:"grow,omitempty"`
	State VolumeState `json:"state"`
	// Host is where the volume lives while no machine has it. While one has, the machine's placement says it.
	Host HostID `json:"host"`
	// Machine has the volume; empty when none has.
	Machine MachineID `json:"machine,omitempty"`
	// Epoch is the newest one at which the volume was opened or placed, so that the next machine's is larger.
	Epoch Epoch `json:"epoch"`
	// Cipher is how it is encrypted; nil for not at all.
	Cipher *Cipher `json:"cipher,omitempty"`
	Limits Limits  `json:"limits,omitzero"`
	// LimitsPending: the host has not been told of the newest limits yet.
	LimitsPending bool `json:"limits_pending,omitempty"`
	// From is what it was made of; nil for a blank one.
	From *VolumeOrigin `json:"from,omitempty"`
	// AutoBackup: snapshots are taken by the schedule, one every SnapshotInterval. They are kept for RetentionDays.
	AutoBackup       bool     `json:"auto_backup"`
	SnapshotInterval Duration `json:"snapshot_interval,omitempty"`
	RetentionDays    int      `json:"retention_days,omitempty"`
	// DestroyedAt is when a user destroyed it, WipeAt when that becomes final.
	DestroyedAt time.Time `json:"destroyed_at,omitzero"`
	WipeAt      time.Time `json:"wipe_at,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
	// Compute is the size of a machine for which its host holds room with the volume, until ReservedUntil or a machine has the volume.
	Compute       *Guest    `json:"compute,omitempty"`
	ReservedUntil time.Time `json:"reserved_until,omitzero"`
}

// Defaults and bounds of a volume's schedule.
const (
	DefaultRetentionDays    = 5
	MaxRetentionDays        = 60
	DefaultSnapshotInterval = Duration(24 * time.Hour)
	MinSnapshotInterval     = Duration(time.Minute)
	MaxSnapshotInterval     = Duration(30 * 24 * time.Hour)
)

// VolumeOrigin is what a volume was made of.
type VolumeOrigin struct {
	// Snapshot is set for a restored volume, Volume for a fork.
	Snapshot *SnapshotSource `json:"snapshot,omitempty"`
	Volume   VolumeID        `json:"volume,omitempty"`
	// Host is where a fork's source was at that moment, and Layer the frozen layer there that the fork is filled from.
	Host  HostID  `json:"host,omitempty"`
	Layer LayerID `json:"layer,omitempty"`
	// Released: nothing of the source is needed any more, and its frozen layer is given up.
	Released bool `json:"released,omitempty"`
}

// MadeOf reports whether the volume was restored from the snapshot.
func (v Volume) MadeOf(s SnapshotID) bool {
	return v.From != nil && v.From.Snapshot != nil && v.From.Snapshot.Snapshot == s
}

// Filling reports whether blocks of what it was made of are still fetched. (A volume of a machine that is being moved is in the state
// hydrating, too.)
func (v Volume) Filling() bool {
	return v.State == VolumeHydrating && v.From != nil && !v.From.Released
}

// LayerState is what a layer of a host's pool is now.
type LayerState string

// The states of a layer.
const (
	// LayerReady: may be opened for writing at an epoch.
	LayerReady LayerState = "ready"
	// LayerFrozen: never written again, unless thawed before the switch. Reads and exports go on.
	LayerFrozen LayerState = "frozen"
	// LayerImage: an image's content, read-only for life, the base of root disks.
	LayerImage LayerState = "image"
)

// LayerStatus is one layer as the storage daemon sees it.
type LayerStatus struct {
	ID    LayerID    `json:"id"`
	Disk  DiskID     `json:"disk"`
	State LayerState `json:"state"`
	Size  Bytes      `json:"size"`
	// Allocated is what the layer's file takes on the host's disk.
	Allocated Bytes `json:"allocated"`
	// Own is what the layer's own file takes, without those of the layers below: what was written since it was made, or split.
	Own Bytes `json:"own"`
	// Writer is the epoch at which the layer is open for writing; 0 when it is not.
	Writer Epoch `json:"writer,omitempty"`
	// Base is the layer below, on the same host; empty for none.
	Base LayerID `json:"base,omitempty"`
	// Unwanted: it was deleted, and is there only until the layer over it has taken it in.
	Unwanted bool `json:"unwanted,omitempty"`
	// Clients counts connections.
	Clients int `json:"clients"`
	// Exports lists the hosts that may read the layer.
	Exports []HostID `json:"exports,omitempty"`
	// Hydration is there while the layer has a parent on another host, and stays with Done set when it has none any more.
	Hydration *Hydration `json:"hydration,omitempty"`
	// Upload is there while, and after, a frozen layer's content is copied into the object store as a snapshot.
	Upload *Upload `json:"upload,omitempty"`
	// Verification is the newest comparison of the layer with what it should be; nil when there was none.
	Verification *Verification `json:"verification,omitempty"`
	Cipher       *Cipher       `json:"cipher,omitempty"`
	Limits       Limits        `json:"limits,omitzero"`
	// Trouble says why the layer cannot be used (its files are damaged) or written (the disk failed); empty when it can.
	Trouble string `json:"trouble,omitempty"`
}

// Hydration is the progress of the background copy that fills a layer.
type Hydration struct {
	// Total is the data to be fetched: what is allocated at the parent. It is exact once TotalKnown.
	Total      Bytes `json:"total"`
	TotalKnown bool  `json:"total_known"`
	// Copied is the data that came over the network, by the background copy and by reads of the guest.
	Copied Bytes `json:"copied"`
	// Wire is how many bytes carried that data: fewer than Copied where the link compresses.
	Wire Bytes `json:"wire,omitempty"`
	// Skipped is the data that needed no copy because the guest overwrote or discarded it first.
	Skipped Bytes `json:"skipped"`
	// Verified is how much of what was copied was compared with the checksums of the parent before it was let go; what is missing of it
	// was written by the guest since. Repaired is what was different, and fetched again.
	Verified Bytes `json:"verified,omitempty"`
	Repaired Bytes `json:"repaired,omitempty"`
	// BytesPerSecond is the rate of the last seconds.
	BytesPerSecond Bytes `json:"bytes_per_second"`
	// Done: every block is here, durably, and the parent is needed no more.
	Done bool `json:"done"`
	// Waiting says why nothing moves ("parent h1 at 10.0.0.1:4290: connection refused"); empty while it does.
	Waiting string `json:"waiting,omitempty"`
	// Paused: an operator stopped the background copy; reads of the guest are still served from the parent.
	Paused bool `json:"paused,omitempty"`
	// Stalled: nothing was copied for the time that counts as no progress (see StorageSettings), though it should be.
	Stalled bool `json:"stalled,omitempty"`
	// Holes is what was written off with the source and not written since, the first MaxDamaged ranges of it; Lost how much it is in all. The copy is done then: nothing
	// more will come.
	Holes []ByteRange `json:"holes,omitempty"`
	Lost  Bytes       `json:"lost,omitempty"`
	// Limit is the limit of this copy in bytes per second; 0 for none.
	Limit     Bytes     `json:"limit,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	DoneAt    time.Time `json:"done_at,omitzero"`
}

// Upload is the progress of a snapshot's way into the object store.
type Upload struct {
	Snapshot SnapshotID `json:"snapshot"`
	// Total is the data to be looked at, Read how much of it was, Stored what was new to the store.
	Total  Bytes `json:"total"`
	Read   Bytes `json:"read"`
	Stored Bytes `json:"stored"`
	// Done: the manifest is in the store. Manifest is its SHA-256.
	Done     bool   `json:"done"`
	Manifest string `json:"manifest,omitempty"`
	// Waiting says why nothing moves; empty while it does.
	Waiting string `json:"waiting,omitempty"`
}

// Verification is a comparison of what a layer holds with the checksums of what it should hold.
type Verification struct {
	// Against says with what: "parent" (a hydration: the checksums of both sides before it is done, then what the disk has of it, for
	// which the parent is not needed, but can give again what the disk lost), "checksums" (those kept with the layer), or a snapshot's ID.
	Against string `json:"against"`
	// Total is what is to be compared, Checked how much was, Unknown what could not be compared because nothing is known of it
	// (the guest wrote it since).
	Total   Bytes `json:"total"`
	Checked Bytes `json:"checked"`
	Unknown Bytes `json:"unknown"`
	// Repaired counts bytes that were different and fetched again.
	Repaired Bytes `json:"repaired"`
	// Damaged lists what is different and could not be repaired, the first MaxDamaged of it.
	Damaged []ByteRange `json:"damaged,omitempty"`
	Done    bool        `json:"done"`
	// Problem says why it could not be finished.
	Problem   string    `json:"problem,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	DoneAt    time.Time `json:"done_at,omitzero"`
}

// MaxDamaged bounds Verification.Damaged.
const MaxDamaged = 100

// ByteRange is a part of a disk.
type ByteRange struct {
	Offset Bytes `json:"offset"`
	Length Bytes `json:"length"`
}

// StorageSettings are what an operator sets for a host's storage as a whole, while it runs. Zero values mean the defaults.
type StorageSettings struct {
	// HydrationLimit bounds all hydrations of the host together, in bytes per second; 0 for no limit.
	HydrationLimit Bytes `json:"hydration_limit,omitempty"`
	// StallAfter is how long a hydration may make no progress before that is a condition. Default 60 s.
	StallAfter Duration `json:"stall_after,omitempty"`
}
