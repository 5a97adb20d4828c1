package drover

import "time"

// The bounds of what a step remembers, so that a record stays small however long a fault lasts. What comes after is left out, but for the last
// wait, which goes on.
const (
	MaxStepWaits  = 8
	MaxStepOrders = 32
)

// Wait is a time in which a step waited for something that was not its own work.
type Wait struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// For says what it waited for.
	For string `json:"for"`
}

// StepOrder is an order that a host answered well during a step.
type StepOrder struct {
	Order     Order     `json:"order"`
	Host      HostID    `json:"host"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
}

// Interruption is how long the machine executed nothing; false while that is not known, or when it was not interrupted. The clocks of two hosts are
// compared in it, so it may be a little off; it is never negative.
func (m *Migration) Interruption() (time.Duration, bool) {
	if m.StoppedAt.IsZero() || m.RunningAt.IsZero() {
		return 0, false
	}
	return max(0, m.RunningAt.Sub(m.StoppedAt)), true
}

// Bytes is what the migration copied, over all its steps: of the disks before and after the switch, and of the memory.
func (m *Migration) Bytes() Bytes {
	var sum Bytes
	for _, s := range m.Steps {
		sum += s.Bytes
	}
	return sum
}

// DiskBytes is Bytes without the memory, which the step that pauses the machine copies.
func (m *Migration) DiskBytes() Bytes {
	var memory Bytes
	for _, s := range m.Steps {
		if s.Phase == PhaseQuiesce {
			memory += s.Bytes
		}
	}
	return m.Bytes() - memory
}

// TraceResult is what became of the trace of a migration that ended.
type TraceResult string

// The results.
const (
	// TraceExported: the endpoint has taken it.
	TraceExported TraceResult = "exported"
	// TraceDropped: the endpoint did not take it for so long that it was given up.
	TraceDropped TraceResult = "dropped"
)

// TraceResults lists them.
var TraceResults = []TraceResult{TraceExported, TraceDropped}
