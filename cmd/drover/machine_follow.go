package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// followFlags say whether and how long to follow what was asked.
type followFlags struct {
	detach  bool
	timeout time.Duration
}

func (f *followFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "do not wait; print the ID only")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait")
}

// lookInterval is the pause between two looks at a machine that is followed.
const lookInterval = 250 * time.Millisecond

// followMachine looks at the machine again and again, shows each state on the way, and returns it when done says so. A machine that is
// gone is passed to done in StateDestroyed.
func (c *cli) followMachine(ctx context.Context, cl *client.Client, m apiv1.Machine, timeout time.Duration, done func(apiv1.Machine) (bool, error)) (apiv1.Machine, error) {
	p := c.progress()
	defer p.clear()
	begun := c.now()
	ticks := time.NewTicker(cmp.Or(c.interval, lookInterval))
	defer ticks.Stop()
	unanswered := false
	for {
		now, err := cl.Machine(ctx, m.App, m.ID)
		unanswered = drover.Is(err, drover.Unavailable)
		switch {
		case err == nil:
			m = now
		case drover.Is(err, drover.NotFound):
			m.State, m.Reason = drover.StateDestroyed, ""
		case drover.Is(err, drover.Canceled):
			return m, stoppedFollowing(m)
		case !unanswered: // one that does not answer may do so before the time is up
			return m, err
		}
		if !unanswered {
			if ok, err := done(m); ok || err != nil {
				return m, err
			}
		}
		elapsed := c.now().Sub(begun)
		if elapsed >= timeout && unanswered {
			return m, err
		}
		if elapsed >= timeout {
			return m, drover.Errorf(drover.Unavailable, "machine %s is still %s after %s", m.ID, m.State, durationText(timeout)).
				WithHint("it goes on by itself; 'drover machine show %s' shows how far it is", m.ID)
		}
		p.state(string(m.State)+m.Reason, "machine %s: %s%s", m.ID, m.State, c.stateSuffix(m, elapsed))
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return m, stoppedFollowing(m)
		}
	}
}

// stateSuffix adds what the machine waits for and, on a line that is drawn again, for how long.
func (c *cli) stateSuffix(m apiv1.Machine, elapsed time.Duration) string {
	text := ""
	if m.Reason != "" {
		text = ": " + m.Reason
	}
	if c.redraw {
		text += fmt.Sprintf(" (%d s)", int(elapsed.Seconds()))
	}
	return text
}

func stoppedFollowing(m apiv1.Machine) error {
	return drover.Errorf(drover.Canceled, "stopped waiting for machine %s; what was asked goes on", m.ID).
		WithHint("'drover machine show %s' shows how far it is", m.ID)
}

// newestEvent names the last thing that is known to have happened to the machine.
func newestEvent(m apiv1.Machine) string {
	if len(m.Events) == 0 {
		return ""
	}
	return m.Events[0].ID
}

// followStart follows a machine that was created.
func (c *cli) followStart(ctx context.Context, cl *client.Client, m apiv1.Machine, timeout time.Duration) (apiv1.Machine, error) {
	return c.followMachine(ctx, cl, m, timeout, func(now apiv1.Machine) (bool, error) { return hasStarted(now) })
}

// followAgain follows a machine that was in the state of before when it was asked to start: a state counts only when something
// has happened since.
func (c *cli) followAgain(ctx context.Context, cl *client.Client, before apiv1.Machine, timeout time.Duration) (apiv1.Machine, error) {
	return c.followMachine(ctx, cl, before, timeout, func(now apiv1.Machine) (bool, error) {
		if newestEvent(now) == newestEvent(before) && now.StartedAt.Equal(before.StartedAt) {
			return false, nil
		}
		return hasStarted(now)
	})
}

// followUpdate follows a machine that got a new config. One that was stopped may stay so.
func (c *cli) followUpdate(ctx context.Context, cl *client.Client, before, updated apiv1.Machine, timeout time.Duration) (apiv1.Machine, error) {
	if updated.Goal == drover.GoalStopped {
		return updated, nil
	}
	return c.followAgain(ctx, cl, before, timeout)
}

// hasStarted reports whether a start has come to its end. A main process that has ended already had started.
func hasStarted(m apiv1.Machine) (bool, error) {
	switch m.State {
	case drover.StateStarted:
		return true, nil
	case drover.StateStopped, drover.StateDestroying, drover.StateDestroyed:
		return !m.StartedAt.IsZero() || m.State != drover.StateStopped, nil
	case drover.StateFailed:
		reason := m.Reason
		if reason == "" {
			reason = "its events say why"
		}
		return false, drover.Errorf(drover.Precondition, "machine %s has failed: %s", m.ID, reason).
			WithHint("'drover machine logs %s' and 'drover machine events %s' tell more", m.ID, m.ID)
	}
	return false, nil
}
