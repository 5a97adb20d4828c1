package apiv1

import (
	"time"

	"drover"
)

// PhaseReport sums up how long the phases of the fleet's migrations took.
type PhaseReport struct {
	// Since is the begin of what is looked at; what ended before it is left out. It is not there when all that is kept is looked at.
	Since time.Time `json:"since,omitzero"`
	AsOf  time.Time `json:"as_of"`
	// Migrations is how many were looked at, Running how many of them have not ended, Aborted how many were.
	Migrations int `json:"migrations"`
	Running    int `json:"running"`
	Aborted    int `json:"aborted"`
	// Slowest is the phase that took the most time of all; empty when there is none.
	Slowest drover.Phase `json:"slowest"`
	// Phases are in the order of a migration.
	Phases []PhaseSummary `json:"phases"`
	// Interruption sums up the interruptions of machines that ran.
	Interruption PhaseSummary `json:"interruption"`
}

// PhaseSummary sums up one phase over many migrations. A phase that goes on counts with its length so far.
type PhaseSummary struct {
	Phase drover.Phase `json:"phase,omitempty"`
	Count int          `json:"count"`
	// Running is how many of them go on.
	Running int `json:"running"`
	// Lengths are in milliseconds; the percentiles are those of the nearest rank.
	P50MS   int64 `json:"p50_ms"`
	P95MS   int64 `json:"p95_ms"`
	MaxMS   int64 `json:"max_ms"`
	TotalMS int64 `json:"total_ms"`
	// SharePercent is the phase's part of the time of all phases.
	SharePercent int `json:"share_percent"`
	// Retried is how many were begun more than once.
	Retried int          `json:"retried"`
	Bytes   drover.Bytes `json:"bytes"`
	// SlowestMigration is the one in which the phase took the longest.
	SlowestMigration drover.MigrationID `json:"slowest_migration,omitempty"`
}
