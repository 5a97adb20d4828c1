package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// afterSecrets says what becomes of machines that run with older secrets.
type afterSecrets struct{ restart, detach, stage bool }

func (a *afterSecrets) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.restart, "restart", false, "restart the machines that need it, one after another, each healthy before the next, as a deploy")
	cmd.Flags().BoolVarP(&a.detach, "detach", "d", false, "with --restart: do not follow the deploy")
	cmd.Flags().BoolVar(&a.stage, "stage", false, "only store them: do not look which machines need a restart")
}

// secretsChanged is what a change of secrets prints as JSON.
type secretsChanged struct {
	apiv1.SecretsResponse
	// NeedRestart are the machines that run with older secrets. Deploy restarts them, where that was asked for.
	NeedRestart []drover.MachineID `json:"need_restart"`
	Deploy      *apiv1.Deploy      `json:"deploy,omitempty"`
}

// changeSecrets changes secrets, and sees to the machines that run with older ones.
func (c *cli) changeSecrets(ctx context.Context, app drover.AppName, values map[string]*string, after afterSecrets) error {
	switch {
	case after.restart && after.stage:
		return drover.Errorf(drover.Invalid, "--stage and --restart exclude each other")
	case after.detach && !after.restart:
		return drover.Errorf(drover.Invalid, "--detach is for --restart")
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	set, err := cl.ChangeSecrets(ctx, app, values)
	if err != nil {
		return err
	}
	done := secretsChanged{SecretsResponse: set, NeedRestart: []drover.MachineID{}}
	if !c.json {
		if err := c.print("secrets of app %s are at version %d\n", app, set.Version); err != nil {
			return err
		}
	}
	var older []apiv1.Machine
	if !after.stage {
		machines, err := cl.Machines(ctx, app)
		if err != nil {
			return err
		}
		older = slices.DeleteFunc(machines, func(m apiv1.Machine) bool { return !runsWithOlder(m, set.Version) })
	}
	for _, m := range older {
		done.NeedRestart = append(done.NeedRestart, m.ID)
		if !c.json && !after.restart {
			if err := c.print("machine %s (%s) runs with older ones until it is restarted\n", m.ID, m.Name); err != nil {
				return err
			}
		}
	}
	if after.restart && len(older) > 0 {
		return c.renewMachines(ctx, cl, app, done, after.detach)
	}
	if c.json {
		return c.printJSON(done)
	}
	return nil
}

// runsWithOlder reports whether a machine runs with older secrets than those of a version.
func runsWithOlder(m apiv1.Machine, version uint64) bool {
	running := m.State == drover.StateStarted || m.State == drover.StateStarting
	return running && !m.SkipSecrets && m.SecretsVersion < version
}

// renewMachines lets a deploy restart the machines, and follows it.
func (c *cli) renewMachines(ctx context.Context, cl *client.Client, app drover.AppName, done secretsChanged, detach bool) error {
	req := apiv1.DeployRequest{Text: "secrets"}
	for _, id := range done.NeedRestart {
		req.Items = append(req.Items, apiv1.DeployItemRequest{Action: drover.DeployRestart, Machine: id})
	}
	d, err := cl.CreateDeploy(ctx, app, req)
	if err != nil {
		return drover.AsError(err).WithHint("the secrets are stored; 'drover app restart %s' restarts its machines with them", app)
	}
	if !detach && !c.json {
		return c.followDeploy(ctx, cl, d)
	}
	if !detach {
		if d, err = c.watchDeploy(ctx, cl, d); err != nil {
			return err
		}
		err = deployOutcome(d)
	}
	done.Deploy = &d
	if !c.json {
		return c.print("deploy %s restarts %d machines\n", d.ID, len(done.NeedRestart))
	}
	if perr := c.printJSON(done); perr != nil {
		return perr
	}
	return err
}
