package powercommand

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"drover"
)

// Placeholder is what stands for the host's ID in the arguments.
const Placeholder = "{host}"

const (
	// maxOutput bounds what is kept of what the program says, in bytes.
	maxOutput = 2000
	// endWait is how long the output of a program that was killed is waited for.
	endWait = time.Second
)

// Command is a program with its arguments; Placeholder in them is replaced by the host's ID. It must exit with 0 when the host is certainly off, also when
// it was before, and with anything else when that is not certain.
type Command []string

// Off runs the program. It returns what it said. Unavailable when it failed, or did not end before ctx.
func (c Command) Off(ctx context.Context, host drover.HostID) (said string, err error) {
	args := make([]string, 0, len(c))
	for _, a := range c {
		args = append(args, strings.ReplaceAll(a, Placeholder, string(host)))
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = endWait
	// The program and what it started are one group, and end together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	said = strings.TrimSpace(string(out[:min(len(out), maxOutput)]))
	if err == nil {
		return said, nil
	}
	if ctx.Err() != nil {
		err = errors.New("it did not end in time, and was killed")
	}
	if said != "" {
		said = ": " + said
	}
	return "", drover.Errorf(drover.Unavailable, "the power command %s of host %q failed: %w%s", args[0], host, err, said)
}
