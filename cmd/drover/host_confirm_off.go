package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

func newHostConfirmOffCommand(c *cli) *cobra.Command {
	return c.fencing(&cobra.Command{
		Use:   "confirm-off HOST",
		Short: "Say that a host is off and stays so, so that its machines may be started elsewhere",
		Long: `Confirm-off fences a host by your word: it is off, and does not come back
without its connection to the fleet. It is refused while the host is heard, or
any other host reaches it. From then on 'drover recovery start' may start its
machines elsewhere, and those of apps that agreed to it start by themselves.

A host that is wrongly said to be off, and runs where nobody sees it, runs its
machines a second time. Pull its plug, or switch it off by its power controller,
first. The fence ends when the host is heard of again.`,
		Example: "  drover host confirm-off h1 --reason 'power supply burnt, unplugged'",
	}, "how it is known that the host is off", "confirm that host %s is off and stays off", (*client.Client).ConfirmOff)
}

func newHostFenceCommand(c *cli) *cobra.Command {
	return c.fencing(&cobra.Command{
		Use:   "fence HOST",
		Short: "Switch a host off that nobody reaches, so that its machines may be started elsewhere",
		Long: `Fence lets the control side switch a host off by the power command of its
configuration (power_off_command in host.json), and fences it when that has
succeeded. It is refused while the host is heard, or any other host reaches it,
unless the host says that its disk hangs (condition disk-stalled): its machines,
which wait for that disk, end with it then, and what they had not flushed is
lost. It is fenced once the command says that it is off and nobody hears or
reaches it any more.

From then on 'drover recovery start' may start its machines elsewhere, and those
of apps that agreed to it start by themselves.`,
		Example: "  drover host fence h1 --reason 'does not answer since 03:10'",
	}, "why the host is switched off", "switch host %s off", (*client.Client).SwitchOff)
}

// fencing is a command that fences a host.
func (c *cli) fencing(cmd *cobra.Command, why, what string, fence func(*client.Client, context.Context, drover.HostID, string) (drover.HostFence, error)) *cobra.Command {
	var reason string
	var yes bool
	cmd.Args = exactly("HOST")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := c.connect()
		if err != nil {
			return err
		}
		host := drover.HostID(args[0])
		plan, err := api.RecoveryPlan(cmd.Context(), host)
		if err != nil {
			return err
		}
		if !yes {
			automatic := 0
			for _, m := range plan.Machines {
				if m.Automatic && m.Problem == "" {
					automatic++
				}
			}
			if !c.json {
				if err := c.printRecoveryPlan(plan); err != nil {
					return err
				}
			}
			question := fmt.Sprintf(what+" (%d of its machines start elsewhere at once)", host, automatic)
			if err := c.confirm(cmd.Context(), false, question); err != nil {
				return err
			}
		}
		done, err := fence(api, cmd.Context(), host, reason)
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(done)
		}
		return c.print("host %s is fenced\n'drover recovery start %s' starts its machines elsewhere.\n", host, host)
	}
	cmd.Flags().StringVar(&reason, "reason", "", why+" (required)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newHostKeptCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "kept HOST",
		Short: "List what a host keeps aside of machines that went on elsewhere without it",
		Long: `Kept lists the layers that a host which came back keeps of machines that were
started elsewhere meanwhile: until when, and how much the newest copy does not
have, as far as the host can tell. They are fenced: nothing writes them.`,
		Example: "  drover host kept h1",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			kept, err := client.HostKept(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(kept)
			}
			if len(kept) == 0 {
				fmt.Fprintln(c.stderr, "The host keeps nothing aside.")
			}
			return c.printKept(kept, "")
		},
	}
}
