package drover

import "time"

// Order is a request that the control side makes of a host's agent over the bus. Every order can be asked again
// without harm: the second answer is that of the first, or what has become of it since. An order that carries an
// epoch is refused with Conflict when the host knows a newer one for the machine.
type Order string

// The orders, with their request and answer types. Those of a migration carry its ID and are remembered with it.
const (
	// OrderOffer asks whether the host could take a machine. OfferRequest, Offer. Changes nothing.
	OrderOffer Order = "offer"
	// OrderResolve looks an image up. ResolveRequest, ResolvedImage. Invalid or NotFound names the image.
	OrderResolve Order = "resolve"
	// OrderApply makes the desired state of a machine known. ApplyRequest, MachineStatus. Durable before it answers; does not
	// wait for the machine to get there.
	OrderApply Order = "apply"
	// OrderExec runs a command in a started machine. ExecRequest, ExecResult.
	OrderExec Order = "exec"
	// OrderSignal sends the main process a signal. SignalRequest, Empty.
	OrderSignal Order = "signal"
	// OrderLogs reads a machine's log from an offset. LogsRequest, LogsAnswer. May wait for more.
	OrderLogs Order = "logs"
	// OrderInfo describes the host. Empty, HostInfo.
	OrderInfo Order = "info"
	// OrderLayers lists the layers of the host's pool. Empty, []LayerStatus.
	OrderLayers Order = "layers"
	// OrderVolumeCreate makes a volume's first layer, which may have to be filled then. VolumeRequest, LayerStatus.
	OrderVolumeCreate Order = "volume.create"
	// OrderVolumeDestroy removes every layer of a volume from the host. VolumeRequest, Empty. Precondition while open.
	OrderVolumeDestroy Order = "volume.destroy"

	// OrderMoveReserve, to the target: reserve memory and disk, fetch the image. MoveReserveRequest, Empty.
	OrderMoveReserve Order = "move.reserve"
	// OrderMoveExport, to the source: let the target read the machine's layers. MoveExportRequest, MoveExports.
	OrderMoveExport Order = "move.export"
	// OrderMoveClone, to the target: make layers over the exports and read from each. MoveCloneRequest, Empty.
	OrderMoveClone Order = "move.clone"
	// OrderMoveQuiesce, to the source: stop the machine and keep it stopped. MoveRequest, MoveQuiesced.
	OrderMoveQuiesce Order = "move.quiesce"
	// OrderMoveFreeze, to the source: flush and freeze the layers; the point from which the source waits for the
	// placement to tell whether it still owns the machine. MoveRequest, MoveFrozen.
	OrderMoveFreeze Order = "move.freeze"
	// OrderMoveActivate, to the target, after the switch: own the machine and start it. MoveActivateRequest, MachineStatus.
	OrderMoveActivate Order = "move.activate"
	// OrderMoveProgress, to the target: how far start and hydration are. MoveRequest, MoveProgress.
	OrderMoveProgress Order = "move.progress"
	// OrderMoveRelease, to the source, after hydration: end the exports, keep the copy for the grace period. MoveRequest, Empty.
	OrderMoveRelease Order = "move.release"
	// OrderMoveAbort, to both, before the switch: undo whatever was done for the migration. The source thaws, and starts the
	// machine again if it ran. MoveRequest, Empty. Refused with Precondition by a host that knows the switch was made.
	OrderMoveAbort Order = "move.abort"
)

// Empty is the request or answer that says nothing.
type Empty struct{}

// OfferRequest describes a machine to be placed.
type OfferRequest struct {
	Machine  MachineID `json:"machine"`
	MemoryMB int       `json:"memory_mb"`
	CPUs     int       `json:"cpus"`
	// Disk is the data that would have to fit beside what is there: what is allocated for a move, 0 for a new machine.
	Disk Bytes `json:"disk"`
	// Provision is what a new volume may grow to; 0 for a move, which goes by what is there.
	Provision Bytes `json:"provision,omitempty"`
	// CPUKind and Dedication are those of the machine's guest.
	CPUKind    string `json:"cpu_kind,omitempty"`
	Dedication string `json:"dedication,omitempty"`
	// Volumes are the host's volumes that the machine is to have: what is held with them is for it.
	Volumes []VolumeID `json:"volumes,omitempty"`
}

// Offer is a host's answer. Reasons says, in words for the user, why it does not fit; empty when it does.
type Offer struct {
	Host       HostID   `json:"host"`
	Region     Region   `json:"region"`
	Reasons    []string `json:"reasons,omitempty"`
	MemoryFree Bytes    `json:"memory_free"`
	DiskFree   Bytes    `json:"disk_free"`
	// Disk is the size of the disk, DiskProvisioned what the host's volumes may grow to together.
	Disk            Bytes `json:"disk"`
	DiskProvisioned Bytes `json:"disk_provisioned"`
	Machines        int   `json:"machines"`
	// Fits is how many of what was asked for fit; 0 from a host that does not tell, or when there are reasons. CPUsFree is what is left of the CPUs
	// that it promises.
	Fits     int     `json:"fits,omitempty"`
	CPUsFree float64 `json:"cpus_free,omitempty"`
}

// ResolveRequest names an image as a user wrote it.
type ResolveRequest struct {
	Image string `json:"image"`
}

// ApplyRequest is a machine's desired state at an epoch. Volumes holds the record of each mounted volume.
type ApplyRequest struct {
	Machine Machine  `json:"machine"`
	Volumes []Volume `json:"volumes,omitempty"`
	Epoch   Epoch    `json:"epoch"`
	// Recovery is there when the machine comes here by one.
	Recovery *RecoveryNote `json:"recovery,omitempty"`
}

// ExecRequest is a command for a machine. Timeout 0 means 60 s.
type ExecRequest struct {
	Machine MachineID     `json:"machine"`
	Command []string      `json:"command"`
	Stdin   []byte        `json:"stdin,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// ExecResult is what a command left. Output beyond 1 MiB per stream is cut, and Truncated is set.
type ExecResult struct {
	Stdout     []byte `json:"stdout,omitempty"`
	Stderr     []byte `json:"stderr,omitempty"`
	ExitCode   int    `json:"exit_code"`
	ExitSignal int    `json:"exit_signal,omitempty"`
	Truncated  bool   `json:"truncated,omitempty"`
}

// SignalRequest names a signal such as "SIGHUP".
type SignalRequest struct {
	Machine MachineID `json:"machine"`
	Signal  string    `json:"signal"`
}

// LogsRequest reads a machine's log. Offset -1 with Tail N starts N lines before the end. Wait bounds how long the answer may be
// held back when there is nothing new.
type LogsRequest struct {
	Machine MachineID     `json:"machine"`
	Offset  int64         `json:"offset"`
	Tail    int           `json:"tail,omitempty"`
	Wait    time.Duration `json:"wait,omitempty"`
	// Host is where the machine was before its last move, to read what it wrote there to the end; empty for where it is.
	Host HostID `json:"host,omitempty"`
}

// LogsAnswer holds the lines from the offset, at most 1000 or 256 KiB, and the offset to go on from.
type LogsAnswer struct {
	Lines []LogLine `json:"lines,omitempty"`
	Next  int64     `json:"next"`
	// Host is where the lines were written; offsets are those of its log.
	Host HostID `json:"host,omitempty"`
}

// LogLine is one line that the machine wrote to stdout or stderr.
type LogLine struct {
	At     time.Time `json:"at"`
	Stream string    `json:"stream"`
	// Process is which of several processes wrote it; empty where there is one.
	Process string `json:"process,omitempty"`
	Text    string `json:"text"`
}

// VolumeRequest names a volume by its record. What a new one is filled from is in the record (Volume.From), or is Parent.
type VolumeRequest struct {
	Volume Volume `json:"volume"`
	// Parent is what OrderVolumeFork answered, to make a fork.
	Parent *Export `json:"parent,omitempty"`
	// Wipe makes what is removed unreadable.
	Wipe bool `json:"wipe,omitempty"`
}

// MoveRequest names a migration and its machine.
type MoveRequest struct {
	Migration MigrationID `json:"migration"`
	Machine   MachineID   `json:"machine"`
}

// MoveReserveRequest tells the target what is coming.
type MoveReserveRequest struct {
	MoveRequest
	Spec    Machine  `json:"spec"`
	Volumes []Volume `json:"volumes,omitempty"`
	// Status is the machine's status at the source, so that its events and counters go on.
	Status MachineStatus `json:"status"`
	Disk   Bytes         `json:"disk"`
	// Undoes is the migration that this one takes back. A host that still serves what it had at that one's switch keeps doing so.
	Undoes MigrationID `json:"undoes,omitempty"`
}

// MoveExportRequest tells the source who may read.
type MoveExportRequest struct {
	MoveRequest
	Target HostID `json:"target"`
	// Undoes is the migration that this one takes back: its data may still be on the way here. The copying stops.
	Undoes MigrationID `json:"undoes,omitempty"`
}

// MoveExports is what the source exports.
type MoveExports struct {
	Exports []Export `json:"exports"`
	// At is when the layers of a round were frozen, by the host's clock. Changed is what was written to the machine's layers since.
	At      time.Time `json:"at,omitzero"`
	Changed Bytes     `json:"changed,omitempty"`
	// Incarnation describes the VM that runs; nil when none does.
	Incarnation *Incarnation `json:"incarnation,omitempty"`
}

// Export is one layer that another host may read, over NBD with TLS (NBD protocol, "doc/proto.md").
type Export struct {
	Disk   DiskID   `json:"disk"`
	Volume VolumeID `json:"volume,omitempty"`
	Layer  LayerID  `json:"layer"`
	Size   Bytes    `json:"size"`
	// Host is whose certificate the server shows; Address its host and port.
	Host    HostID `json:"host"`
	Address string `json:"address"`
	// Name is the NBD export name.
	Name string `json:"name"`
	// Since is a frozen layer under this one that the reader has a copy of: only what lies above it counts as the export's own. Empty for all
	// that it has. When there is no such layer, everything counts, which costs time and nothing else.
	Since LayerID `json:"since,omitempty"`
	// Allocated is what the layer holds, as far as it is known now.
	Allocated Bytes `json:"allocated"`
	// Cipher is how the content is encrypted: what travels is what the source's disk holds.
	Cipher *Cipher `json:"cipher,omitempty"`
}

// MoveCloneRequest tells the target what to clone.
type MoveCloneRequest struct {
	MoveRequest
	Exports []Export `json:"exports"`
}

// MoveQuiesced says when the machine executed its last instruction; zero if it was not running.
type MoveQuiesced struct {
	StoppedAt time.Time `json:"stopped_at"`
}

// MoveFrozen says what each layer holds now that it cannot change any more.
type MoveFrozen struct {
	Allocated map[DiskID]Bytes `json:"allocated"`
}

// MoveActivateRequest hands the machine over. Run and goal come with the spec as it is now.
type MoveActivateRequest struct {
	MoveRequest
	Apply ApplyRequest `json:"apply"`
	// Exports is repeated so that a target that lost its memory of the reservation can still go forward.
	Exports []Export `json:"exports"`
	// Status is the machine's last status at the source.
	Status MachineStatus `json:"status"`
	// Undoes is the migration that this one takes back: the layers lie over what the target kept of it.
	Undoes MigrationID `json:"undoes,omitempty"`
	// Limit bounds the background copy of all disks together, in bytes per second; 0 leaves it to the host.
	Limit Bytes `json:"limit,omitempty"`
	// Live: the machine's state was sent to the VM that waits on the target; it goes on. When there is none, the machine is booted.
	Live bool `json:"live,omitempty"`
	// Handover is what the source answered when the machine was paused (MoveLive); nil otherwise.
	Handover *Handover `json:"handover,omitempty"`
}

// MoveProgress is the target's view of a move after the switch.
type MoveProgress struct {
	Status    MachineStatus        `json:"status"`
	Hydration map[DiskID]Hydration `json:"hydration"`
	// Done: every layer is complete and durable, and no parent is needed any more.
	Done bool `json:"done"`
	// ResumedAt is when a machine that moved live went on here. ColdReason says why it was booted instead.
	ResumedAt  time.Time `json:"resumed_at,omitzero"`
	ColdReason string    `json:"cold_reason,omitempty"`
}
