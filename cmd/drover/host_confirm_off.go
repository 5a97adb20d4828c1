package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
)

func newHostConfirmOffCommand(c *cli) *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
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
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			host := drover.HostID(args[0])
			plan, err := client.RecoveryPlan(cmd.Context(), host)
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
				what := fmt.Sprintf("confirm that host %s is off and stays off (%d of its machines start elsewhere at once)", host, automatic)
				if err := c.confirm(cmd.Context(), false, what); err != nil {
					return err
				}
			}
			fence, err := client.ConfirmOff(cmd.Context(), host, reason)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(fence)
			}
			return c.print("host %s is fenced\n'drover recovery start %s' starts its machines elsewhere.\n", host, host)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "how it is known that the host is off (required)")
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
