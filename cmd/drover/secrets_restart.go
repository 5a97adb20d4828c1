package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// afterSecrets says what becomes of machines that run with older secrets.
type afterSecrets struct {
	restart, stage bool
	timeout        time.Duration
}

func (a *afterSecrets) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.restart, "restart", false, "restart the machines that need it, one after another, each healthy before the next")
	cmd.Flags().BoolVar(&a.stage, "stage", false, "only store them: do not look which machines need a restart")
	cmd.Flags().DurationVar(&a.timeout, "timeout", 5*time.Minute, "how long each machine may take to be healthy again")
}

// secretsChanged is what a change of secrets prints as JSON.
type secretsChanged struct {
	apiv1.SecretsResponse
	// NeedRestart are the machines that run with older secrets, Restarted those that were restarted by this command.
	NeedRestart []drover.MachineID `json:"need_restart"`
	Restarted   []drover.MachineID `json:"restarted"`
}

// changeSecrets changes secrets, and sees to the machines that run with older ones.
func (c *cli) changeSecrets(ctx context.Context, app drover.AppName, values map[string]*string, after afterSecrets) error {
	if after.restart && after.stage {
		return drover.Errorf(drover.Invalid, "--stage and --restart exclude each other")
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	set, err := cl.ChangeSecrets(ctx, app, values)
	if err != nil {
		return err
	}
	if !c.json {
		if err := c.print("secrets of app %s are at version %d\n", app, set.Version); err != nil {
			return err
		}
	}
	done := secretsChanged{SecretsResponse: set, NeedRestart: []drover.MachineID{}, Restarted: []drover.MachineID{}}
	var failed error
	if !after.stage {
		machines, err := cl.Machines(ctx, app)
		if err != nil {
			return err
		}
		older := slices.DeleteFunc(machines, func(m apiv1.Machine) bool { return !runsWithOlder(m, set.Version) })
		failed = c.renewMachines(ctx, cl, older, after, &done)
	}
	if c.json {
		if err := c.printJSON(done); err != nil {
			return err
		}
	}
	return failed
}

// runsWithOlder reports whether a machine runs with older secrets than those of a version.
func runsWithOlder(m apiv1.Machine, version uint64) bool {
	running := m.State == drover.StateStarted || m.State == drover.StateStarting
	return running && !m.SkipSecrets && m.SecretsVersion < version
}

// renewMachines names the machines, or restarts them.
func (c *cli) renewMachines(ctx context.Context, cl *client.Client, older []apiv1.Machine, after afterSecrets, done *secretsChanged) error {
	if !after.restart {
		for _, m := range older {
			done.NeedRestart = append(done.NeedRestart, m.ID)
			if !c.json {
				if err := c.print("machine %s (%s) runs with older ones until it is restarted\n", m.ID, m.Name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for i, m := range older {
		if err := c.restartHealthy(ctx, cl, m, after.timeout); err != nil {
			for _, left := range older[i:] {
				done.NeedRestart = append(done.NeedRestart, left.ID)
			}
			return drover.AsError(fmt.Errorf("the secrets are stored; of %d machines %d were restarted, then: %w", len(older), i, err)).
				WithHint("'drover secrets list' and 'drover machine list' show how things are; the machines that are left keep the older secrets until they are restarted")
		}
		done.Restarted = append(done.Restarted, m.ID)
		if !c.json {
			if err := c.print("machine %s (%s) was restarted\n", m.ID, m.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// restartHealthy restarts a machine, and waits until it runs and its checks pass.
func (c *cli) restartHealthy(ctx context.Context, cl *client.Client, before apiv1.Machine, timeout time.Duration) error {
	if err := cl.RestartMachine(ctx, before.App, before.ID, client.RestartOptions{}); err != nil {
		return err
	}
	begun := c.now()
	m, err := c.followAgain(ctx, cl, before, timeout)
	if err != nil {
		return err
	}
	if m.State != drover.StateStarted {
		return drover.Errorf(drover.Precondition, "machine %s is %s after its restart", m.ID, m.State)
	}
	_, err = c.followMachine(ctx, cl, m, max(timeout-c.now().Sub(begun), 0), func(now apiv1.Machine) (bool, error) {
		if now.State != drover.StateStarted {
			return false, drover.Errorf(drover.Precondition, "machine %s is %s after its restart", now.ID, now.State)
		}
		return !slices.ContainsFunc(now.Checks, func(ck drover.CheckStatus) bool { return ck.Status != "passing" }), nil
	})
	return err
}
