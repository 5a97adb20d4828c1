package main

import (
	"context"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newDrainCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "drain",
		Short: "Drains: everything off one host",
		Long: `A drain migrates everything off one host, by a plan, under limits. 'drover host
drain HOST' begins one. It goes on by itself, whatever is restarted meanwhile,
and its record is kept: who, why, how long, how much. docs/DRAIN.md has a
runbook.`,
	}, newDrainListCommand(c), newDrainShowCommand(c), newDrainPauseCommand(c), newDrainResumeCommand(c), newDrainAbortCommand(c), newDrainApproveCommand(c),
		newDrainReturnCommand(c))
}

func newDrainListCommand(c *cli) *cobra.Command {
	var host string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List drains, newest first",
		Example: "  drover drain list\n  drover drain list --host h1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			drains, err := client.Drains(cmd.Context(), drover.HostID(host))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(drains)
			}
			t := table{header: []string{"ID", "KIND", "HOST", "STATE", "MOVED", "BYTES", "TOOK", "BY", "REASON", "AGE"}, spare: []string{"BY", "BYTES", "KIND"}}
			for _, d := range drains {
				t.add(d.ID, d.Kind, d.Host, d.State, movedText(d), sizeText(d.Totals.Copied), tookText(d), d.Actor, d.Reason, c.age(d.CreatedAt))
			}
			return c.printTable(t, "No drains. 'drover host drain HOST' makes one.")
		},
	}
	cmd.Flags().StringVar(&host, "host", "", "only those of the host")
	return cmd
}

func newDrainShowCommand(c *cli) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a drain: what became of each machine",
		Example: "  drover drain show drn_6f1c0a53e9b2d784\n  drover drain show drn_6f1c0a53e9b2d784 -f",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if follow {
				return c.followDrain(cmd.Context(), client, drover.DrainID(args[0]))
			}
			d, err := client.Drain(cmd.Context(), drover.DrainID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(d)
			}
			return c.printDrain(d)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "follow it to its end, then show it")
	return cmd
}

// changedDrain prints what became of a drain that was changed.
func (c *cli) changedDrain(d apiv1.Drain, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(d)
	}
	return c.print("drain %s of host %s is %s: %s\n", d.ID, d.Host, d.State, countsText(d.Totals))
}

func newDrainPauseCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "pause ID",
		Short: "Begin nothing new in a drain",
		Long: `Pause keeps a drain from beginning anything new. What is under way goes on, and
the host stays closed. A paused drain has no end of its own but its deadline.`,
		Example: "  drover drain pause drn_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			return c.changedDrain(client.PauseDrain(cmd.Context(), drover.DrainID(args[0])))
		},
	}
}

func newDrainResumeCommand(c *cli) *cobra.Command {
	var class string
	cmd := &cobra.Command{
		Use:   "resume ID",
		Short: "Let a drain go on, or lift the halt of a class",
		Long: `Resume lets a paused drain go on, and tries again what failed or was stuck in it.
With --class it lifts the halt of a class instead, for all drains: the halt that
the first failed move of the class made. What failed of the class in this drain
is tried again; a paused drain stays paused.`,
		Example: "  drover drain resume drn_6f1c0a53e9b2d784\n  drover drain resume drn_6f1c0a53e9b2d784 --class ledger",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			return c.changedDrain(client.ResumeDrain(cmd.Context(), drover.DrainID(args[0]), class))
		},
	}
	cmd.Flags().StringVar(&class, "class", "", "lift the halt of this class")
	return cmd
}

func newDrainAbortCommand(c *cli) *cobra.Command {
	var running bool
	cmd := &cobra.Command{
		Use:   "abort ID",
		Short: "End a drain; what was moved stays where it is",
		Long: `Abort ends a drain. It is acknowledged at once: nothing new is begun any more.
What is under way comes to its end, or, with --abort-running, is aborted where
it has not reached its switch; those machines run on where they are. The host
stays closed: 'drover host uncordon' opens it.`,
		Example: "  drover drain abort drn_6f1c0a53e9b2d784\n  drover drain abort drn_6f1c0a53e9b2d784 --abort-running",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			return c.changedDrain(client.AbortDrain(cmd.Context(), drover.DrainID(args[0]), running))
		},
	}
	cmd.Flags().BoolVar(&running, "abort-running", false, "abort the moves that are under way, too")
	return cmd
}

func newDrainApproveCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "approve ID MACHINE",
		Short:   "Let a drain move a machine whose label asks for it",
		Example: "  drover drain approve drn_6f1c0a53e9b2d784 3d8d9c2b7e0a15",
		Args:    exactly("ID", "MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, m, err := c.machineOf(cmd.Context(), "", args[1])
			if err != nil {
				return err
			}
			return c.changedDrain(client.ApproveMove(cmd.Context(), drover.DrainID(args[0]), m.ID))
		},
	}
}

func newDrainReturnCommand(c *cli) *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "return ID --reason TEXT",
		Short: "Bring back what a drain moved",
		Long: `Return opens the host again and moves what the drain moved back to it, wherever
it is now, as a drain of its own with the same limits and the same record.`,
		Example: "  drover drain return drn_6f1c0a53e9b2d784 --reason 'kernel is in'",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			options, err := f.read()
			if err != nil {
				return err
			}
			return c.returnDrain(cmd.Context(), client, drover.DrainID(args[0]), f, options)
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) returnDrain(ctx context.Context, cl *client.Client, id drover.DrainID, f drainFlags, options drover.DrainOptions) error {
	d, err := cl.ReturnDrain(ctx, id, apiv1.ReturnRequest{Reason: f.reason, DryRun: f.dryRun, DrainOptions: options})
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.printPlan(d)
	}
	return c.followNewDrain(ctx, cl, d, f.detach)
}

// newestDrain finds the newest drain that emptied a host.
func (c *cli) newestDrain(ctx context.Context, cl *client.Client, host drover.HostID) (drover.DrainID, error) {
	drains, err := cl.Drains(ctx, host)
	if err != nil {
		return "", err
	}
	for _, d := range drains {
		if d.Kind == drover.DrainAway {
			return d.ID, nil
		}
	}
	return "", drover.Errorf(drover.NotFound, "host %s was never drained", host).WithHint("see 'drover drain list'")
}
