package drover

import "time"

// Handover is what the next host has to know of a VM that moved with its memory, beyond the memory: what the VM told its host before it
// was paused. It tells nothing twice.
type Handover struct {
	// Checks are the health checks as the VM reported them last.
	Checks []CheckStatus `json:"checks,omitempty"`
	// LogNext is where the machine's log ended: it goes on from there.
	LogNext int64 `json:"log_next"`
	// Exit is the end of the main process, when the VM had reported it and not ended yet; nil while it runs.
	Exit *MainExit `json:"exit,omitempty"`
}

// MainExit is the end of a main process in the guest's own words.
type MainExit struct {
	Code int       `json:"code"`
	OOM  bool      `json:"oom,omitempty"`
	Text string    `json:"text,omitempty"`
	At   time.Time `json:"at"`
}
