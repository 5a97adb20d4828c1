package drover

import "time"

// The orders of a migration that moves the memory, or copies in rounds before the switch.
const (
	// OrderMoveCheck, to both, before anything is done: what is known now that would stop the migration later. MoveCheckRequest, MoveChecked.
	// Changes nothing.
	OrderMoveCheck Order = "move.check"
	// OrderMoveRound, to the source: freeze what changed since the last round, and let the target read it. MoveRoundRequest, MoveExports.
	OrderMoveRound Order = "move.round"
	// OrderMoveCopy, to the target: copy a round, and tell how far that is. MoveCopyRequest, MoveCopied. Begins it and answers at once.
	OrderMoveCopy Order = "move.copy"
	// OrderMoveIncoming, to the target: start a VM that waits for the memory. MoveIncomingRequest, MoveIncoming.
	OrderMoveIncoming Order = "move.incoming"
	// OrderMoveLive, to the source: copy the memory while the machine runs, then pause it, freeze its layers and let the rest of its state
	// follow. MoveLiveRequest, MoveLive. Answers while it goes on too; Paused tells.
	OrderMoveLive Order = "move.live"
	// OrderMoveUndo, to the host that kept its copy: make layers over it that the machine can have again. MoveUndoRequest, Empty.
	OrderMoveUndo Order = "move.undo"
	// OrderMoveWriteOff, to the target while it hydrates: its source is lost, and what has not come will not. MoveRequest, MoveProgress.
	OrderMoveWriteOff Order = "move.write-off"
)

// MoveCheckRequest describes a migration that may be made.
type MoveCheckRequest struct {
	Machine MachineID `json:"machine"`
	// Source and Target are the hosts; Spec and Volumes the machine's records.
	Source  HostID   `json:"source"`
	Target  HostID   `json:"target"`
	Spec    Machine  `json:"spec"`
	Volumes []Volume `json:"volumes,omitempty"`
	Disk    Bytes    `json:"disk"`
	Live    bool     `json:"live,omitempty"`
	// Peer is the other host's own description: its address and its storage address are tried.
	Peer HostInfo `json:"peer"`
	// Undoes is the migration that would be taken back: the target must have kept its copy.
	Undoes MigrationID `json:"undoes,omitempty"`
	// At is the control side's clock, for the difference.
	At time.Time `json:"at"`
}

// MoveFinding is one thing that was checked.
type MoveFinding struct {
	// Check names it: "memory", "disk", "image", "cpu", "vmm", "block-size", "cipher", "network", "credentials", "clock", "transport".
	Check string `json:"check"`
	Host  HostID `json:"host"`
	OK    bool   `json:"ok"`
	// LiveOnly: it stops a live migration only.
	LiveOnly bool   `json:"live_only,omitempty"`
	Text     string `json:"text"`
	Hint     string `json:"hint,omitempty"`
}

// MoveChecked is what a host found.
type MoveChecked struct {
	Findings []MoveFinding `json:"findings"`
	// KeptUntil is how long the target keeps its copy of the migration that would be taken back.
	KeptUntil time.Time `json:"kept_until,omitzero"`
}

// MoveRoundRequest asks for a round, numbered from 1, when every earlier one has been copied. Asked again, it answers with what has changed
// since. The frozen layers go with the end of the migration.
type MoveRoundRequest struct {
	MoveRequest
	Round int `json:"round"`
}

// MoveCopyRequest hands a round's exports to the target. Limit bounds the copying, in bytes per second; 0 leaves it to the host.
type MoveCopyRequest struct {
	MoveRequest
	Round   int      `json:"round"`
	Exports []Export `json:"exports"`
	Limit   Bytes    `json:"limit,omitempty"`
}

// MoveUndoRequest asks for layers over what a host kept of an earlier migration.
type MoveUndoRequest struct {
	MoveRequest
	Undoes MigrationID `json:"undoes"`
}

// MoveCopied is how far a round is.
type MoveCopied struct {
	Hydration map[DiskID]Hydration `json:"hydration"`
	Done      bool                 `json:"done"`
}

// MoveIncomingRequest prepares the target's VM. Exports are the layers that it will own, as in MoveCloneRequest.
type MoveIncomingRequest struct {
	MoveRequest
	Exports []Export `json:"exports"`
	Source  HostID   `json:"source"`
	// Incarnation is what the source tells of the running VM: which version of the config it was started with.
	Incarnation Incarnation `json:"incarnation"`
}

// Incarnation describes a VM that runs, as far as another host must know it to go on with it.
type Incarnation struct {
	Instance InstanceID `json:"instance"`
	Run      uint64     `json:"run"`
	// Spec is the machine's record as the VM was started with.
	Spec Machine `json:"spec"`
	// MemoryMB and CPUs are what the VM has.
	MemoryMB int `json:"memory_mb"`
	CPUs     int `json:"cpus"`
	// Boot is the VM's name in what it reports.
	Boot string `json:"boot,omitempty"`
}

// MoveIncoming is where the source sends the memory to.
type MoveIncoming struct {
	// Address is host and port; the target shows its host certificate there and takes the source's only.
	Address string `json:"address"`
}

// MoveLiveRequest begins, or follows, the copying of the memory.
type MoveLiveRequest struct {
	MoveRequest
	Address string `json:"address"`
	Target  HostID `json:"target"`
	// Bandwidth is in bytes per second; 0 is no limit.
	Bandwidth Bytes `json:"bandwidth,omitempty"`
}

// MoveLive is how far the copying of the memory is. When Paused, the machine executes nothing on the source any more, its layers are
// frozen, and all of its state is at the target.
type MoveLive struct {
	Memory    MemoryMove `json:"memory"`
	Paused    bool       `json:"paused"`
	StoppedAt time.Time  `json:"stopped_at,omitzero"`
	// Handover is for the order to activate; there when Paused.
	Handover  *Handover        `json:"handover,omitempty"`
	Allocated map[DiskID]Bytes `json:"allocated,omitempty"`
}
