package apiv1

import (
	"time"

	"drover"
)

// Drain is the record of a drain with what is computed from it.
type Drain struct {
	drover.Drain
	// AsOf is when the server answered, by its own clock.
	AsOf time.Time `json:"as_of"`
}

// DrainRequest asks for a drain of a host, or for the plan of one.
type DrainRequest struct {
	Host   string `json:"host"`
	Reason string `json:"reason"`
	drover.DrainOptions
}

// ReturnRequest asks for the way back of what a drain moved. With DryRun only the plan is made.
type ReturnRequest struct {
	Reason string `json:"reason"`
	DryRun bool   `json:"dry_run,omitempty"`
	drover.DrainOptions
}

// ResumeDrainRequest lets a drain go on; with a class it lifts that class's halt.
type ResumeDrainRequest struct {
	Class string `json:"class,omitempty"`
}

// AbortDrainRequest ends a drain. Running takes those along that are under way and have not reached their switch.
type AbortDrainRequest struct {
	Running bool `json:"running,omitempty"`
}

// ApproveRequest names a machine whose label asks for it.
type ApproveRequest struct {
	Machine string `json:"machine"`
}

// CordonRequest closes a host for everything new.
type CordonRequest struct {
	Reason  string          `json:"reason"`
	Suspect bool            `json:"suspect,omitempty"`
	For     drover.Duration `json:"for,omitempty"`
}

// LabelRequest is the value of a label; an empty one removes it.
type LabelRequest struct {
	Value string `json:"value"`
}
