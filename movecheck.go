package drover

import "time"

// MoveCheck is what is known of a migration before it is made: everything that was looked at, not only what is against it.
type MoveCheck struct {
	Machine MachineID `json:"machine"`
	Source  HostID    `json:"source"`
	// Target is the host that it would go to; empty when there is none.
	Target HostID `json:"target,omitempty"`
	// Possible: nothing is against the migration as it was asked for. Live: with its memory; else ColdReason says why not, if it was asked for.
	Possible   bool   `json:"possible"`
	Live       bool   `json:"live"`
	ColdReason string `json:"cold_reason,omitempty"`
	// Late: the switch would be late, because of SwitchReason. Copies is what would be copied.
	Late         bool          `json:"late"`
	SwitchReason string        `json:"switch_reason,omitempty"`
	Copies       Bytes         `json:"copies"`
	Findings     []MoveFinding `json:"findings"`
}

// MoveUndo is what taking a migration back would give up, or gave up.
type MoveUndo struct {
	// Undoes is the migration that is taken back: the machine goes from From, where it is now, to To, which kept its copy until KeptUntil.
	Undoes    MigrationID `json:"undoes"`
	Machine   MachineID   `json:"machine"`
	From      HostID      `json:"from"`
	To        HostID      `json:"to"`
	KeptUntil time.Time   `json:"kept_until,omitzero"`
	// SwitchedAt is the moment to which the disks go back. Written is how much was written since, at least: what was overwritten more than once
	// is not known.
	SwitchedAt time.Time `json:"switched_at"`
	Written    Bytes     `json:"written"`
	// Unfinished: not all of the machine's data is on From, so that nothing of what was written there is kept. SourceOff: From is fenced, and what was
	// written there is not known.
	Unfinished bool `json:"unfinished,omitempty"`
	SourceOff  bool `json:"source_off,omitempty"`
	// Migration is what takes it back; nil when that was only asked about.
	Migration *Migration `json:"-"`
}
