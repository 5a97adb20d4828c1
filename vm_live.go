package drover

import "time"

// VMSend tells a VMM where to send the memory of a VM that runs on.
type VMSend struct {
	// Address is the host and port at which the other side takes the memory (LiveVM.Listen); Peer is the host whose certificate it must show.
	Address string `json:"address"`
	Peer    HostID `json:"peer"`
	// Bandwidth bounds the copying, in bytes per second; 0 is no limit.
	Bandwidth Bytes `json:"bandwidth,omitempty"`
	// Pause is how long the VM may stand still for what is left: the copying goes on until it would take no longer than that.
	Pause time.Duration `json:"pause"`
}

// VMTransferState is how far the memory of a VM is on its way between two VMMs.
type VMTransferState string

// The states, at the sender's and at the receiver's.
const (
	// TransferNone: nothing was asked for.
	TransferNone VMTransferState = ""
	// TransferActive: memory is being copied, or the receiver waits for it.
	TransferActive VMTransferState = "active"
	// TransferPaused, at the sender: the VM stands still, and waits to be let go (LiveVM.Handover).
	TransferPaused VMTransferState = "paused"
	// TransferDone: all of the VM's state is at the receiver, which has confirmed it.
	TransferDone VMTransferState = "done"
	// TransferFailed: it came to nothing; Reason says why.
	TransferFailed VMTransferState = "failed"
)

// VMTransfer is what a VMM tells of it.
type VMTransfer struct {
	State  VMTransferState `json:"state"`
	Reason string          `json:"reason,omitempty"`
	// Running: the VM executes.
	Running bool `json:"running"`
	// PausedAt and ResumedAt are when it last stood still and went on, as far as that was seen.
	PausedAt  time.Time  `json:"paused_at,omitzero"`
	ResumedAt time.Time  `json:"resumed_at,omitzero"`
	Memory    MemoryMove `json:"memory"`
}
