package fleet

import (
	"context"
	"strings"

	"drover"
	"drover/plan"
)

// runHook runs the command that a machine's label wants run in its guest before its move, unless this controller has begun it. A controller that
// takes over runs it once more: a hook is to be written so that this does no harm.
func (r *drainer) runHook(ctx context.Context, d drover.Drain, id drover.MachineID) {
	item := d.Item(id)
	if item == nil {
		return
	}
	key := hookKey{d.ID, id, item.HookAt.UnixNano()}
	r.mu.Lock()
	_, begun := r.ran[key]
	if !begun {
		r.ran[key] = nil
	}
	r.mu.Unlock()
	if begun {
		return
	}
	r.state.mu.RLock()
	c, _, ok := r.candidateLocked(string(id))
	r.state.mu.RUnlock()
	if !ok {
		return // the next look finds it gone
	}
	r.hooks.Go(func() {
		err := r.execHook(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.log.Warn("hook of a drain failed", "drain", d.ID, "machine", id, "err", err)
		}
		r.mu.Lock()
		r.ran[key] = &plan.HookResult{Err: drover.AsError(err)}
		r.mu.Unlock()
	})
}

// hookText bounds what is told of a hook's output.
const hookText = 300

// execHook runs the command and makes an error of everything but exit code 0.
func (r *drainer) execHook(ctx context.Context, c plan.Candidate) error {
	bound := c.Labels.PreMoveTimeout
	var result drover.ExecResult
	err := r.order(ctx, bound+execMargin, c.Source, drover.OrderExec,
		drover.ExecRequest{Machine: c.Machine, Command: []string{"/bin/sh", "-c", c.Labels.PreMove}, Timeout: bound}, &result)
	if err != nil {
		return err
	}
	if result.ExitCode == 0 && result.ExitSignal == 0 {
		return nil
	}
	said := strings.TrimSpace(string(result.Stderr))
	if said == "" {
		said = strings.TrimSpace(string(result.Stdout))
	}
	said = strings.ToValidUTF8(said[:min(len(said), hookText)], "")
	if said == "" {
		said = "it printed nothing"
	}
	return drover.Errorf(drover.Precondition, "exit code %d: %s", result.ExitCode, said)
}
