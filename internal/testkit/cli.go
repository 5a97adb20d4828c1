// Package testkit is what the demo, the benchmarks and the end-to-end tests share: a way to type drover commands at a
// development fleet and to wait for things. It knows the command line only, as a user does; it takes no short cuts
// through packages.
package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// CLI types drover commands at one development fleet.
type CLI struct {
	// Bin is the path of the drover binary.
	Bin string
	// Dir is the fleet's directory.
	Dir string
	// Env has more variables, as NAME=VALUE.
	Env []string
	// Stderr gets what commands print there.
	Stderr io.Writer
}

// Command makes a command that is not run yet.
func (c CLI) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Bin, args...)
	cmd.Env = append(os.Environ(), "DROVER_DEV_DIR="+c.Dir)
	cmd.Env = append(cmd.Env, c.Env...)
	cmd.Stderr = c.Stderr
	return cmd
}

// Run runs a command and lets its output through to out.
func (c CLI) Run(ctx context.Context, out io.Writer, args ...string) error {
	cmd := c.Command(ctx, args...)
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("drover %s: %w", Words(args), err)
	}
	return nil
}

// Ask runs a command with --json and decodes what it prints into answer, unless that is nil.
func (c CLI) Ask(ctx context.Context, answer any, args ...string) error {
	var out bytes.Buffer
	if err := c.Run(ctx, &out, append([]string{"--json"}, args...)...); err != nil {
		return err
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return fmt.Errorf("drover %s printed something else than JSON: %w", Words(args), err)
	}
	return nil
}

// Words joins arguments as a user would type them.
func Words(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if quoted[i] = a; strings.ContainsAny(a, " '\"$") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// Eventually polls until the condition holds, at most for the bound; what names the condition in the error.
func Eventually(ctx context.Context, bound time.Duration, what string, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("%s did not happen within %s", what, bound))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := condition()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
