package drover

import "time"

// Phase is a step of a migration, in the order in which they come.
type Phase string

// The phases. A migration with an early switch leaves PhaseConverge out.
const (
	// PhaseReserve: the target promises memory and disk, and fetches the image.
	PhaseReserve Phase = "reserve"
	// PhaseExport: the source exports the layers read-only; the target makes clones over them and proves it can read.
	PhaseExport Phase = "export"
	// PhaseConverge: for a late switch the layers are copied while the machine runs, in rounds, until little is left.
	PhaseConverge Phase = "converge"
	// PhaseQuiesce: cold, the source stops the machine by its stop signal; live, its memory is copied while it runs, then it is paused.
	PhaseQuiesce Phase = "quiesce"
	// PhaseSwitch: the source freezes and flushes; the placement is changed. THE commit point.
	PhaseSwitch Phase = "switch"
	// PhaseStart: the target opens the layers for writing and boots the machine.
	PhaseStart Phase = "start"
	// PhaseHydrate: the rest is copied in the background.
	PhaseHydrate Phase = "hydrate"
	// PhaseDone: the source's exports are gone; its copy is kept for a grace period.
	PhaseDone Phase = "done"
)

// Phases lists the phases in order.
var Phases = []Phase{PhaseReserve, PhaseExport, PhaseConverge, PhaseQuiesce, PhaseSwitch, PhaseStart, PhaseHydrate, PhaseDone}

// Committed reports whether a migration in the phase can only go forward. In PhaseSwitch the placement alone tells.
func (p Phase) Committed() bool {
	return p == PhaseStart || p == PhaseHydrate || p == PhaseDone
}

// Outcome is how a migration ended, or that it has not.
type Outcome string

// The outcomes.
const (
	// Running: some controller is at it, or will be.
	Running Outcome = "running"
	// Aborting: it was given up before the switch; what it made is being removed.
	Aborting Outcome = "aborting"
	// Aborted: the machine is on the source, as if nothing had been asked, or as it was at the switch when UndoneBy says what took it back.
	Aborted Outcome = "aborted"
	// Succeeded: the machine and every block are on the target.
	Succeeded Outcome = "succeeded"
)

// Migration is the durable record of moving one machine with its volumes. Whoever finds it, finishes it.
type Migration struct {
	ID      MigrationID `json:"id"`
	Machine MachineID   `json:"machine"`
	App     AppName     `json:"app"`
	Source  HostID      `json:"source"`
	Target  HostID      `json:"target"`
	Actor   string      `json:"actor"`
	Outcome Outcome     `json:"outcome"`
	Phase   Phase       `json:"phase"`
	// FromEpoch is the placement that the migration leaves, ToEpoch the one that it made at the switch (0 before).
	FromEpoch Epoch `json:"from_epoch"`
	ToEpoch   Epoch `json:"to_epoch,omitempty"`
	// Committing is set, durably, before the placement is changed for the first time. From then on the change may have been asked for, or be
	// under way unseen, so it is asked for until its outcome is known, and nothing is aborted.
	Committing bool `json:"committing,omitempty"`
	// Exports is what the source exports, so that a controller that takes over can tell the target without the source.
	Exports []Export `json:"exports,omitempty"`
	// Undone lists the hosts that confirmed, after an abort, that nothing of the migration is left there.
	Undone []HostID `json:"undone,omitempty"`
	// WasRunning says whether the machine ran when the move was asked for; a stopped one is not started.
	WasRunning bool `json:"was_running"`
	// Options is what was asked for.
	Options MoveOptions `json:"options,omitzero"`
	// Live: the memory moves with the machine. ColdReason says why it does not although it was asked for, or why it could not in the end.
	Live       bool   `json:"live,omitempty"`
	ColdReason string `json:"cold_reason,omitempty"`
	// Late: the switch waits until little is left to be copied. SwitchReason says why, when that was left to Drover.
	Late         bool   `json:"late,omitempty"`
	SwitchReason string `json:"switch_reason,omitempty"`
	// Convergence is how far a late switch is; nil before its first round.
	Convergence *Convergence `json:"convergence,omitempty"`
	// Memory is how the memory was copied; nil for a cold move.
	Memory *MemoryMove `json:"memory,omitempty"`
	// Handover is what the source told of the VM beside its memory, from the pause until the target has the machine.
	Handover *Handover `json:"handover,omitempty"`
	// Drain is the drain that asked for it; empty for none.
	Drain DrainID `json:"drain,omitempty"`
	// Undoes is the migration that this one takes back, to the copy that its source kept; empty for none.
	Undoes MigrationID `json:"undoes,omitempty"`
	// Interrupts: the one that it takes back was under way still. It stands aside while this one goes on, and ends with it.
	Interrupts bool `json:"interrupts,omitempty"`
	// SourceOff: the source was fenced when the machine was taken back from it. Nothing is asked of it; it finds out when it returns.
	SourceOff bool `json:"source_off,omitempty"`
	// UndoneBy is the migration that takes this one back before all of its data had come; empty for none. An aborted one that has it had switched.
	UndoneBy MigrationID `json:"undone_by,omitempty"`
	// Disks lists what moves.
	Disks []DiskMove `json:"disks"`
	// Steps is the waterfall: one entry per phase that was begun.
	Steps []Step `json:"steps"`
	// StoppedAt is when the source executed the machine's last instruction, RunningAt when the main process started on the
	// target. Their difference is the interruption.
	StoppedAt time.Time `json:"stopped_at,omitzero"`
	RunningAt time.Time `json:"running_at,omitzero"`
	// Hydration is the sum over the disks.
	Hydration *Hydration `json:"hydration,omitempty"`
	// WriteOff is there when the source was given up while the data was on the way; nil otherwise.
	WriteOff *WriteOff `json:"write_off,omitempty"`
	// Failed says why the machine, which is its target's since the switch, has failed there; empty while it has not.
	Failed string `json:"failed,omitempty"`
	// Problem says why it was aborted, or what it waits for now.
	Problem *Error `json:"problem,omitempty"`
	// Traced is what became of the migration's trace, once it has ended; empty before, and where no traces are exported.
	Traced    TraceResult `json:"traced,omitempty"`
	CreatedAt time.Time   `json:"created_at"`
	UpdatedAt time.Time   `json:"updated_at"`
}

// Ended reports whether nothing is left to be done.
func (m *Migration) Ended() bool { return m.Outcome == Aborted || m.Outcome == Succeeded }

// SwitchMode says when the switch is made.
type SwitchMode string

// The switch modes.
const (
	// SwitchEarly: at once; the data follows. For a source that is not trusted.
	SwitchEarly SwitchMode = "early"
	// SwitchLate: when little is left to be copied, so that a source that dies then costs nothing.
	SwitchLate SwitchMode = "late"
	// SwitchAuto: by the health of the source.
	SwitchAuto SwitchMode = "auto"
)

// MoveOptions is how a machine is to be moved. The zero value is a cold move that leaves the switch to Drover.
type MoveOptions struct {
	// Live asks for the memory to move too. LiveOrCold takes a cold move where that cannot be; without it the move is refused.
	Live       bool `json:"live,omitempty"`
	LiveOrCold bool `json:"live_or_cold,omitempty"`
	// Switch is empty for SwitchAuto.
	Switch SwitchMode `json:"switch,omitempty"`
	// Damaged moves a machine although blocks of its disks are known to be damaged: all but those are copied, after an early switch.
	Damaged bool `json:"damaged,omitempty"`
	// Bandwidth bounds the copying of disks and memory, in bytes per second; 0 leaves it to the hosts.
	Bandwidth Bytes `json:"bandwidth,omitempty"`
	// NoProgress gives the move up when nothing was copied for so long, before the switch; 0 is 2 minutes. After the switch it only raises a condition.
	NoProgress Duration `json:"no_progress,omitempty"`
	// Deadline gives the move up when the switch was not made so long after it was asked for; 0 is never.
	Deadline Duration `json:"deadline,omitempty"`
}

// Convergence is how far the rounds of a late switch are.
type Convergence struct {
	// Round is the one that goes on, from 1; Rounds how many there may be.
	Round  int `json:"round"`
	Rounds int `json:"rounds"`
	// Remaining is what would be left to be copied if the switch were made now, Threshold what may be left.
	Remaining Bytes `json:"remaining"`
	Threshold Bytes `json:"threshold"`
	// DirtyRate is what the machine writes, CopyRate what is copied, in bytes per second.
	DirtyRate Bytes `json:"dirty_rate"`
	CopyRate  Bytes `json:"copy_rate"`
	// At is when what the round copies was frozen.
	At time.Time `json:"at"`
	// Over: no further round comes.
	Over bool `json:"over,omitempty"`
}

// MemoryMove is how the memory of a machine was copied.
type MemoryMove struct {
	Total       Bytes `json:"total"`
	Transferred Bytes `json:"transferred"`
	Rounds      int   `json:"rounds"`
	// DirtyRate is what the guest changed, in bytes per second, in the last round.
	DirtyRate Bytes `json:"dirty_rate,omitempty"`
	// Remaining and Rate are there while it goes on.
	Remaining Bytes `json:"remaining,omitempty"`
	Rate      Bytes `json:"rate,omitempty"`
	// PausedFor is from the pause on the source until the guest went on at the target, by the hosts' clocks.
	PausedFor time.Duration `json:"paused_for,omitempty"`
}

// DiskMove is one disk of a migration.
type DiskMove struct {
	Disk DiskID `json:"disk"`
	// Volume is empty for the root disk.
	Volume VolumeID `json:"volume,omitempty"`
	Size   Bytes    `json:"size"`
	// Allocated is what the source's layer holds, known from the freeze on.
	Allocated Bytes   `json:"allocated,omitempty"`
	Source    LayerID `json:"source_layer,omitempty"`
	Target    LayerID `json:"target_layer,omitempty"`
}

// Step is one bar of the waterfall.
type Step struct {
	Phase     Phase     `json:"phase"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Bytes     Bytes     `json:"bytes,omitempty"`
	// Waited says what took the time, when it was not the step's own work ("h2 did not answer for 12 s").
	Waited string `json:"waited,omitempty"`
	// Tries counts how often the step was begun; more than 1 after a crash or a fault.
	Tries int `json:"tries"`
	// Waits are the times in which it waited, the oldest first; Orders what the hosts were asked and answered well, but for their progress.
	Waits  []Wait      `json:"waits,omitempty"`
	Orders []StepOrder `json:"orders,omitempty"`
}
