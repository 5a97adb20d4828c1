package drover

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

type (
	// RecoveryID names one recovery of a machine: "rec_" and 16 lower-case hexadecimal digits.
	RecoveryID string
	// StandbyID names one standby of a volume: "sby_" and 16 lower-case hexadecimal digits.
	StandbyID string
)

// RecoveryOf returns the ID of the recovery of a machine from a placement, after so many earlier ones that were given up. Two who begin one at once begin
// the same.
func RecoveryOf(machine MachineID, from Epoch, earlier int) RecoveryID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", machine, from, earlier))
	return RecoveryID("rec_" + hex.EncodeToString(sum[:8]))
}

// NewStandbyID returns a fresh random standby ID.
func NewStandbyID() StandbyID { return StandbyID("sby_" + randomHex(16)) }

// Observation is what one host says of another after it has tried it: the storage address over TLS, up to a real answer.
type Observation struct {
	// Host is the one that was tried.
	Host    HostID `json:"host"`
	Reached bool   `json:"reached"`
	// Since is when it began to be as Reached says, by the observer's clock. Problem is how the first try failed that was not reached.
	Since   time.Time `json:"since"`
	Problem string    `json:"problem,omitempty"`
}

// HostReach is what the observers and the bus together tell of a host.
type HostReach string

// The verdicts.
const (
	// ReachOK: it is heard on the bus, and every observer reaches it.
	ReachOK HostReach = "ok"
	// ReachSilent: it is not heard on the bus, but its observers reach it. Its machines run on; the bus or its agent is at fault.
	ReachSilent HostReach = "silent"
	// ReachPartitioned: some reach it and some do not.
	ReachPartitioned HostReach = "partitioned"
	// ReachNone: it is not heard on the bus, and nobody who tried reaches it. It may be dead.
	ReachNone HostReach = "unreachable"
)

// The conditions about whether a host can be reached. The control side raises them.
const (
	HostIsSilent      ConditionCode = "host-silent"
	HostIsPartitioned ConditionCode = "host-partitioned"
	HostIsUnreachable ConditionCode = "host-unreachable"
	// PowerOffFails: a host is to be switched off by the power command, and that fails.
	PowerOffFails ConditionCode = "power-off-fails"
	// StandbyLagging: a standby has not completed a step for a long time.
	StandbyLagging ConditionCode = "standby-lagging"
)

// FenceBy is what a fence is certain by.
type FenceBy string

// The ways.
const (
	// FenceByOperator: a person said that the host is off.
	FenceByOperator FenceBy = "operator"
	// FenceByCommand: the command of the control hosts' configuration has switched it off.
	FenceByCommand FenceBy = "command"
)

// HostFence says that a host can write no volume any more, and why that is certain. It holds until the host is heard of again.
type HostFence struct {
	Host   HostID    `json:"host"`
	By     FenceBy   `json:"by"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// ReturnedAt is when the host was heard of again: the fence holds no more, and the placements alone tell what the host may run.
	ReturnedAt time.Time `json:"returned_at,omitzero"`
}

// SourceKind is where the data of a recovered volume comes from.
type SourceKind string

// The kinds.
const (
	FromStandby  SourceKind = "standby"
	FromSnapshot SourceKind = "snapshot"
	// FromNothing: there is no copy. The machine is not started.
	FromNothing SourceKind = "none"
)

// RecoverySource is the newest copy of a volume that there is outside its dead host.
type RecoverySource struct {
	Volume   VolumeID        `json:"volume"`
	Name     string          `json:"name,omitempty"`
	Kind     SourceKind      `json:"kind"`
	Standby  StandbyID       `json:"standby,omitempty"`
	Snapshot *SnapshotSource `json:"snapshot,omitempty"`
	// Host has the standby, and Layer is its last complete step there.
	Host HostID `json:"host,omitempty"`
	// At is the moment whose content it has: what was written later is lost, or on the dead host alone.
	At   time.Time `json:"at,omitzero"`
	Size Bytes     `json:"size,omitempty"`
}

// RecoveryState is how far a recovery is.
type RecoveryState string

// The states, in their order.
const (
	// RecoveryChoosing: the record is there. A host is looked for. Nothing exists elsewhere; ends as canceled when the host is back.
	RecoveryChoosing RecoveryState = "choosing"
	// RecoveryMaking: the target is chosen, and the volumes are being made there. Nobody writes them. Ends as canceled when the host is back.
	RecoveryMaking RecoveryState = "making"
	// RecoverySwitching: the placement is being changed, or may have been: from here on the placement alone tells.
	RecoverySwitching RecoveryState = "switching"
	// RecoveryStarting: the machine is the target's. It is told so until it runs.
	RecoveryStarting RecoveryState = "starting"
	// RecoveryDone: the machine has come to run, or has come to rest, on the target.
	RecoveryDone RecoveryState = "done"
	// RecoveryCanceling: it was given up before the switch; what was made on the target is being removed.
	RecoveryCanceling RecoveryState = "canceling"
	// RecoveryCanceled: nothing is left of it; the machine is where it was.
	RecoveryCanceled RecoveryState = "canceled"
)

// Ended reports whether nothing is done for the recovery any more.
func (s RecoveryState) Ended() bool { return s == RecoveryDone || s == RecoveryCanceled }

// Recovery is the durable record of starting the machine of a fenced host elsewhere, from copies of its volumes.
type Recovery struct {
	ID      RecoveryID    `json:"id"`
	Machine MachineID     `json:"machine"`
	App     AppName       `json:"app"`
	From    HostID        `json:"from"`
	Target  HostID        `json:"target,omitempty"`
	State   RecoveryState `json:"state"`
	// FromEpoch is the placement that the recovery leaves, ToEpoch the one that it made (0 before).
	FromEpoch Epoch `json:"from_epoch"`
	ToEpoch   Epoch `json:"to_epoch,omitempty"`
	// Sources has the copy of each volume, in the order of the machine's mounts.
	Sources []RecoverySource `json:"sources,omitempty"`
	// Fence is what made sure that the host writes no more.
	Fence HostFence `json:"fence"`
	// Tried are hosts that could not take it, with the reason.
	Tried map[HostID]string `json:"tried,omitempty"`
	// Automatic: it was begun by the app's own setting, not by a person.
	Automatic bool      `json:"automatic,omitempty"`
	Actor     string    `json:"actor"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// SwitchedAt is when the placement was changed, RunningAt when the machine ran again.
	SwitchedAt time.Time `json:"switched_at,omitzero"`
	RunningAt  time.Time `json:"running_at,omitzero"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
	// Problem is what it waits for, or was canceled for.
	Problem *Error `json:"problem,omitempty"`
}

// RecoveryNote tells the host that gets a recovered machine what became of it, for the machine's events.
type RecoveryNote struct {
	Recovery RecoveryID       `json:"recovery"`
	From     HostID           `json:"from"`
	Sources  []RecoverySource `json:"sources,omitempty"`
	// At is when the placement was changed. The age of the data is counted from it.
	At time.Time `json:"at"`
	// Status is the machine's last status at the dead host.
	Status *MachineStatus `json:"status,omitempty"`
}

// PlannedRecovery is what a recovery of one machine would use.
type PlannedRecovery struct {
	Machine MachineID `json:"machine"`
	Name    string    `json:"name"`
	App     AppName   `json:"app"`
	// Automatic: the app agreed to it beforehand.
	Automatic bool             `json:"automatic,omitempty"`
	Sources   []RecoverySource `json:"sources,omitempty"`
	// Recovery is the one that is under way; empty for none.
	Recovery RecoveryID `json:"recovery,omitempty"`
	// Problem says why it cannot be recovered; empty when it can.
	Problem string `json:"problem,omitempty"`
}

// RecoveryPlan is what can be done for the machines of a host.
type RecoveryPlan struct {
	Host  HostID    `json:"host"`
	Reach HostReach `json:"reach"`
	Text  string    `json:"text"`
	// Fence is there once it is certain that the host writes no more; nil before.
	Fence    *HostFence        `json:"fence,omitempty"`
	Machines []PlannedRecovery `json:"machines"`
	// Volumes are those on the host that no machine has; they wait for it, or are restored by hand.
	Volumes []RecoverySource `json:"volumes,omitempty"`
	AsOf    time.Time        `json:"as_of"`
}

// KeptLayer is a layer that a host keeps aside because its machine went on elsewhere without it.
type KeptLayer struct {
	Host      HostID    `json:"host"`
	Layer     LayerID   `json:"layer"`
	Disk      DiskID    `json:"disk"`
	Volume    VolumeID  `json:"volume,omitempty"`
	Machine   MachineID `json:"machine,omitempty"`
	Owner     HostID    `json:"owner"`
	Epoch     Epoch     `json:"epoch"`
	Allocated Bytes     `json:"allocated"`
	// Later is what the layer got after the last point that a standby or snapshot on this host still marks. LaterKnown: there is one.
	Later       Bytes     `json:"later,omitempty"`
	LaterKnown  bool      `json:"later_known,omitempty"`
	KeptAt      time.Time `json:"kept_at"`
	DeleteAfter time.Time `json:"delete_after"`
}

// The orders of recoveries.
const (
	// OrderRecoveryMake, to the target: make a volume from its copy; nobody opens it before the placement says so. RecoveryMakeRequest,
	// LayerStatus. Conflict while the host has the volume.
	OrderRecoveryMake Order = "recovery.make"
	// OrderRecoveryDrop, to the target: give up what was made; the copy that it was made of stays. RecoveryMakeRequest, Empty.
	OrderRecoveryDrop Order = "recovery.drop"
	// OrderRecoveryKept lists what a host keeps aside. Empty, []KeptLayer.
	OrderRecoveryKept Order = "recovery.kept"
)

// RecoveryMakeRequest names a volume of a recovery and its copy.
type RecoveryMakeRequest struct {
	Recovery RecoveryID     `json:"recovery"`
	Volume   Volume         `json:"volume"`
	Source   RecoverySource `json:"source"`
}

// RecoveryLayer names the layer of a recovered volume on its new host.
func RecoveryLayer(d DiskID, r RecoveryID) LayerID {
	return LayerID(string(d) + ".r" + string(r[min(len(r), len("rec_")):]))
}
