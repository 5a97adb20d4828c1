package main

import (
	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newMachineSuspendCommand(c *cli) *cobra.Command {
	var app string
	var follow followFlags
	cmd := &cobra.Command{
		Use:   "suspend ID",
		Short: "Suspend a machine to disk, and wait until it is suspended",
		Long: `Suspend lets a machine stand still and keeps its memory on a disk of its host.
'drover machine start' lets it go on where it was, its processes and all. A
suspended machine uses no CPU and no memory, and moves with what it had in its
memory. A stop, a restart, or a new config gives the memory up.`,
		Example: "  drover machine suspend 3d8d9c2b7e0a15\n  drover machine start 3d8d9c2b7e0a15",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, before, err := c.machineOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := client.SuspendMachine(cmd.Context(), before.App, before.ID); err != nil {
				return err
			}
			if follow.detach {
				return c.printID(before.ID, before)
			}
			m, err := c.followMachine(cmd.Context(), client, before, follow.timeout, func(now apiv1.Machine) (bool, error) {
				return isSuspended(before, now)
			})
			if err != nil {
				return err
			}
			return c.printMachine(m, "machine %s is %s", m.ID, m.State)
		},
	}
	addApp(cmd, &app)
	follow.add(cmd)
	return cmd
}

// isSuspended reports whether a suspending has come to its end, and how when it is not the one that was asked for. What was so before says
// nothing.
func isSuspended(before, now apiv1.Machine) (bool, error) {
	failed := func(why string) (bool, error) {
		return false, drover.Errorf(drover.Precondition, "machine %s is not suspended, it is %s: %s", now.ID, now.State, why).
			WithHint("'drover machine events %s' tells more", now.ID)
	}
	switch {
	case now.State == drover.StateSuspended:
		return true, nil
	case newestEvent(now) == newestEvent(before):
		return false, nil
	case now.State == drover.StateStarted && now.Reason != "":
		return failed(now.Reason)
	case now.State == drover.StateStopped, now.State == drover.StateFailed, now.State == drover.StateDestroyed:
		return failed("it ended before its memory was kept")
	}
	return false, nil
}
