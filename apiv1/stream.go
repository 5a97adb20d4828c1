package apiv1

import "drover"

// ExecStreamRequest is the first message of a WebSocket on which a command runs. No Command is the machine's shell.
type ExecStreamRequest struct {
	Command []string `json:"command,omitempty"`
	// Env is added to the machine's own, each NAME=VALUE.
	Env []string `json:"env,omitempty"`
	// Terminal gives the command a terminal of its own, of the size.
	Terminal bool                `json:"terminal,omitempty"`
	Size     drover.TerminalSize `json:"size,omitzero"`
	// Timeout is in seconds; 0 means no limit.
	Timeout int `json:"timeout,omitempty"`
}

// ExecStreamAnswer is what the document says a stream answers: that the protocol is another one from then on. docs/EXEC.md has the frames.
type ExecStreamAnswer struct{}
