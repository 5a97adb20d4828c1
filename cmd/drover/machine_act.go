package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newMachineStartCommand(c *cli) *cobra.Command {
	var app string
	var follow followFlags
	cmd := &cobra.Command{
		Use:     "start ID",
		Short:   "Start a machine, and wait until it runs",
		Example: "  drover machine start 3d8d9c2b7e0a15",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, before, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if _, err := client.StartMachine(cmd.Context(), before.App, before.ID); err != nil {
				return err
			}
			if follow.detach {
				return c.printID(before.ID, before)
			}
			m := before
			if before.State != drover.StateStarted { // else there is nothing to wait for
				if m, err = c.followAgain(cmd.Context(), client, before, follow.timeout); err != nil {
					return err
				}
			}
			return c.printMachine(m, "machine %s is %s on host %s", m.ID, m.State, m.Host)
		},
	}
	addApp(cmd, &app)
	follow.add(cmd)
	return cmd
}

func newMachineStopCommand(c *cli) *cobra.Command {
	var app, signal string
	var grace time.Duration
	var follow followFlags
	cmd := &cobra.Command{
		Use:   "stop ID",
		Short: "Stop a machine by its stop signal, and wait until it is stopped",
		Long: `Stop sends the main process its stop signal; when it has not ended after the
grace time it is killed. A stopped machine keeps its disks, its address and its
place in the app.`,
		Example: "  drover machine stop 3d8d9c2b7e0a15\n  drover machine stop 3d8d9c2b7e0a15 --signal SIGTERM --grace 30s",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := client.StopMachine(cmd.Context(), m.App, m.ID, apiv1.StopRequest{Signal: apiv1.Signal(signal), Timeout: drover.Duration(grace)}); err != nil {
				return err
			}
			if follow.detach {
				return c.printID(m.ID, m)
			}
			ended := []drover.MachineState{drover.StateStopped, drover.StateFailed, drover.StateDestroyed}
			m, err = c.followMachine(cmd.Context(), client, m, follow.timeout, func(now apiv1.Machine) (bool, error) {
				return slices.Contains(ended, now.State), nil
			})
			if err != nil {
				return err
			}
			return c.printMachine(m, "machine %s is %s", m.ID, m.State)
		},
	}
	addApp(cmd, &app)
	follow.add(cmd)
	cmd.Flags().StringVar(&signal, "signal", "", "signal in place of the config's")
	cmd.Flags().DurationVar(&grace, "grace", 0, "time before it is killed, in place of the config's")
	return cmd
}

func newMachineRestartCommand(c *cli) *cobra.Command {
	var app string
	var how client.RestartOptions
	var follow followFlags
	cmd := &cobra.Command{
		Use:     "restart ID",
		Short:   "Stop a machine and start it again, and wait until it runs",
		Example: "  drover machine restart 3d8d9c2b7e0a15\n  drover machine restart 3d8d9c2b7e0a15 --signal SIGTERM --grace 30s",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, before, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := client.RestartMachine(cmd.Context(), before.App, before.ID, how); err != nil {
				return err
			}
			if follow.detach {
				return c.printID(before.ID, before)
			}
			m, err := c.followAgain(cmd.Context(), client, before, follow.timeout)
			if err != nil {
				return err
			}
			return c.printMachine(m, "machine %s is %s on host %s", m.ID, m.State, m.Host)
		},
	}
	addApp(cmd, &app)
	follow.add(cmd)
	cmd.Flags().StringVar(&how.Signal, "signal", "", "signal in place of the config's")
	cmd.Flags().DurationVar(&how.Timeout, "grace", 0, "time before it is killed, in place of the config's")
	cmd.Flags().BoolVarP(&how.Force, "force", "f", false, "kill it, without a stop signal")
	return cmd
}

func newMachineDestroyCommand(c *cli) *cobra.Command {
	var app string
	var force, yes bool
	var follow followFlags
	cmd := &cobra.Command{
		Use:     "destroy ID",
		Short:   "Destroy a machine with its root disk; its volumes stay",
		Example: "  drover machine destroy 3d8d9c2b7e0a15\n  drover machine destroy 3d8d9c2b7e0a15 --force --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, "destroy machine "+string(m.ID)+" ("+m.Name+") of app "+string(m.App)); err != nil {
				return err
			}
			if err := client.DestroyMachine(cmd.Context(), m.App, m.ID, force); err != nil {
				return err
			}
			if follow.detach {
				return c.printID(m.ID, m)
			}
			m, err = c.followMachine(cmd.Context(), client, m, follow.timeout, func(now apiv1.Machine) (bool, error) {
				return now.State == drover.StateDestroyed || now.HostStatus == drover.HostUnreachable, nil
			})
			if err != nil {
				return err
			}
			if m.State != drover.StateDestroyed {
				return c.printMachine(m, "machine %s will be destroyed when host %s is back: it is unreachable now", m.ID, m.Host)
			}
			return c.printMachine(m, "machine %s is destroyed", m.ID)
		},
	}
	addApp(cmd, &app)
	follow.add(cmd)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it if it runs")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newMachineWaitCommand(c *cli) *cobra.Command {
	var app, state string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "wait ID",
		Short:   "Wait until a machine is in a state",
		Example: "  drover machine wait 3d8d9c2b7e0a15\n  drover machine wait 3d8d9c2b7e0a15 --state stopped --timeout 1m",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			found, err := client.WaitMachine(ctx, m.App, m.ID, drover.MachineState(state), "")
			if err != nil && ctx.Err() != nil && cmd.Context().Err() == nil {
				return drover.Errorf(drover.Unavailable, "machine %s is not %s after %s", m.ID, state, durationText(timeout)).
					WithHint("'drover machine show %s' shows what it is", m.ID)
			}
			if err != nil {
				return err
			}
			return c.printMachine(found, "machine %s is %s", found.ID, found.State)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().StringVar(&state, "state", string(drover.StateStarted), "state to wait for, or settled")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

func newMachineSignalCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "signal ID SIGNAL",
		Short:   "Send a machine's main process a signal",
		Example: "  drover machine signal 3d8d9c2b7e0a15 SIGHUP",
		Args:    exactly("ID", "SIGNAL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := client.Signal(cmd.Context(), m.App, m.ID, args[1]); err != nil {
				return err
			}
			return c.printMachine(m, "machine %s was sent %s", m.ID, args[1])
		},
	}
	addApp(cmd, &app)
	return cmd
}
