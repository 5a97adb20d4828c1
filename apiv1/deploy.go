package apiv1

import "drover"

// DeployRequest begins a deploy. Options that are left out: rolling, one machine at a time, five minutes for each.
type DeployRequest struct {
	// Text says in words what the deploy brings, such as the image.
	Text           string                `json:"text,omitempty"`
	Strategy       drover.DeployStrategy `json:"strategy,omitempty"`
	MaxUnavailable int                   `json:"max_unavailable,omitempty"`
	WaitTimeout    drover.Duration       `json:"wait_timeout,omitempty"`
	Items          []DeployItemRequest   `json:"items"`
}

// DeployItemRequest says what is to become of one machine. One that is to be created, or that runs a command, has a name and perhaps a region; the others an
// ID. Timeout is how long a command may run: five minutes when it is left out.
type DeployItemRequest struct {
	Action  drover.DeployAction   `json:"action"`
	Machine drover.MachineID      `json:"machine,omitempty"`
	Name    string                `json:"name,omitempty"`
	Region  drover.Region         `json:"region,omitempty"`
	Group   string                `json:"group,omitempty"`
	Config  *drover.MachineConfig `json:"config,omitempty"`
	Timeout drover.Duration       `json:"timeout,omitempty"`
}

// Deploy is a deploy as it is now.
type Deploy struct {
	drover.Deploy
}
