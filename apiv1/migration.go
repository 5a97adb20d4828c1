package apiv1

import (
	"time"

	"drover"
)

// Migration is the record of a migration with what is computed from it.
type Migration struct {
	drover.Migration
	// InterruptionMS is the time in which the machine executed nothing, in milliseconds, once it is known.
	InterruptionMS *int64 `json:"interruption_ms,omitempty"`
	// TraceID is the trace that the migration is in, or will be once it has ended, where traces are exported.
	TraceID drover.TraceID `json:"trace_id"`
	// AsOf is when the server answered, by its own clock: the end of what is still going on.
	AsOf time.Time `json:"as_of"`
}

// UndoRequest takes a migration back. Without Confirm it is only answered what would be given up.
type UndoRequest struct {
	Confirm bool `json:"confirm,omitempty"`
}

// Undo is what taking a migration back gives up.
type Undo struct {
	drover.MoveUndo
	// Migration is what takes it back, once that was confirmed.
	Migration *Migration `json:"migration,omitempty"`
}

// WriteOffRequest gives up the source of a migration that is lost. Without Confirm it is only answered what that would be.
type WriteOffRequest struct {
	Confirm bool   `json:"confirm,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// MoveRequest asks for a migration. Target empty lets the fleet choose.
type MoveRequest struct {
	Machine string `json:"machine"`
	Target  string `json:"target,omitempty"`
	drover.MoveOptions
}
