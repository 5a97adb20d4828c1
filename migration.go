package drover

import "time"

// Phase is a step of a migration, in the order in which they come.
type Phase string

// The phases of a cold migration with an early switch.
const (
	// PhaseReserve: the target promises memory and disk, and fetches the image.
	PhaseReserve Phase = "reserve"
	// PhaseExport: the source exports the layers read-only; the target makes clones over them and proves it can read.
	PhaseExport Phase = "export"
	// PhaseQuiesce: the source stops the machine by its stop signal.
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
var Phases = []Phase{PhaseReserve, PhaseExport, PhaseQuiesce, PhaseSwitch, PhaseStart, PhaseHydrate, PhaseDone}

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
	// Aborted: the machine is on the source as if nothing had been asked.
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
	// Problem says why it was aborted, or what it waits for now.
	Problem *Error `json:"problem,omitempty"`
	// Traced is what became of the migration's trace, once it has ended; empty before, and where no traces are exported.
	Traced    TraceResult `json:"traced,omitempty"`
	CreatedAt time.Time   `json:"created_at"`
	UpdatedAt time.Time   `json:"updated_at"`
}

// Ended reports whether nothing is left to be done.
func (m *Migration) Ended() bool { return m.Outcome == Aborted || m.Outcome == Succeeded }

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
