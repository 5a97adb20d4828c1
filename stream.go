package drover

import (
	"slices"
	"strings"
	"time"
)

// OrderExecStream runs a command in a started machine whose input and output go by a stream of frames (package internal/frames). ExecStreamRequest.
const OrderExecStream Order = "exec.stream"

// TerminalSize is that of a terminal, in characters. Zero is none.
type TerminalSize struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// ExecStreamRequest is a command for a machine. No Command is the machine's shell.
type ExecStreamRequest struct {
	Machine MachineID `json:"machine"`
	Command []string  `json:"command,omitempty"`
	// Env is added to the machine's own.
	Env []string `json:"env,omitempty"`
	// Terminal gives the command a terminal of its own, of the size.
	Terminal bool         `json:"terminal,omitempty"`
	Size     TerminalSize `json:"size,omitzero"`
	// Timeout is how long the command may run; 0 is for as long as it likes.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// StreamExit is how a command ended: by a signal if there is one, whose code is 128 and its number.
type StreamExit struct {
	ExitCode   int `json:"exit_code"`
	ExitSignal int `json:"exit_signal,omitempty"`
}

// TimeoutField is the field of the error with which a command ends that took longer than it may. The code is Canceled.
const TimeoutField = "timeout"

// The bounds of a command that is started with a stream.
const (
	MaxCommand = 128 << 10 // bytes of its words and its environment
)

// Validate refuses what no command can be; the error names the field.
func (r ExecStreamRequest) Validate() error {
	size := 0
	for _, words := range []struct {
		field string
		words []string
	}{{"command", r.Command}, {"env", r.Env}} {
		for i, w := range words.words {
			size += len(w)
			if strings.ContainsRune(w, 0) {
				return Errorf(Invalid, "%s[%d] contains a zero byte, which no argument can", words.field, i).WithField(words.field)
			}
		}
	}
	bad := slices.IndexFunc(r.Env, func(e string) bool { return strings.Index(e, "=") < 1 })
	switch {
	case size > MaxCommand:
		return Errorf(Invalid, "command and env have %d bytes together; expected %d at most", size, MaxCommand).WithField("command")
	case len(r.Command) > 0 && r.Command[0] == "":
		return Errorf(Invalid, "command[0], the program, is empty").WithField("command")
	case bad >= 0:
		return Errorf(Invalid, "env[%d] is %.60q; expected NAME=VALUE", bad, r.Env[bad]).WithField("env")
	case r.Timeout < 0:
		return Errorf(Invalid, "timeout is %v; expected 0 (no limit) or more", r.Timeout).WithField("timeout")
	}
	return nil
}
