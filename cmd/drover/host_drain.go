package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

// drainFlags are the options of a drain as flags.
type drainFlags struct {
	options                         drover.DrainOptions
	reason, bandwidth               string
	deadline, healthy, bound, marks durationFlag
	atDeadline                      string
	dryRun, detach                  bool
}

func (f *drainFlags) add(cmd *cobra.Command) {
	flags, o := cmd.Flags(), &f.options
	flags.StringVar(&f.reason, "reason", "", "why; it is kept in the record")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show the plan, and do nothing")
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not follow; print the drain's ID only")
	flags.BoolVar(&o.Live, "live", false, "take live moves only (default: live where that can be, else cold)")
	flags.BoolVar(&o.Cold, "cold", false, "take cold moves only")
	flags.BoolVar(&o.AllowPartial, "allow-partial", false, "move what can be moved when something cannot")
	flags.IntVar(&o.PerSource, "max-parallel", 0, "most moves off one host at once (default 4)")
	flags.IntVar(&o.PerTarget, "max-per-target", 0, "most moves to one host at once (default 2)")
	flags.IntVar(&o.PerApp, "max-per-app", 0, "most machines of one app that are not healthy again at once (default 1)")
	flags.IntVar(&o.PerNetwork, "max-per-network", 0, "the same of one named private network (default 1)")
	flags.StringVar(&f.bandwidth, "bandwidth", "", "most bytes per second of all copying together, such as 200MiB")
	flags.Var(&f.deadline, "deadline", "time after which nothing new is begun, such as 2h")
	flags.StringVar(&f.atDeadline, "at-deadline", "", "what becomes of the machines that are not moved by then: leave (default) or stop")
	flags.StringVar(&o.Window, "window", "", "part of the day, in UTC, in which moves are begun, such as 01:00-05:00")
	flags.Var(&f.healthy, "min-healthy", "how long a machine must be healthy before the next of its app goes (default 10s)")
	flags.Var(&f.bound, "healthy-deadline", "time after which a machine that is not healthy counts as failed (default 5m)")
	flags.Var(&f.marks, "for", "after what time somebody is to look after the host's mark (default 24h)")
}

// read puts the flags together.
func (f *drainFlags) read() (drover.DrainOptions, error) {
	o := f.options
	if f.bandwidth != "" {
		rate, err := parseRate(f.bandwidth)
		if err != nil {
			return o, err
		}
		o.Bandwidth = rate
	}
	o.Deadline, o.MinHealthy, o.HealthyDeadline, o.MarkFor = f.deadline.d, f.healthy.d, f.bound.d, f.marks.d
	o.AtDeadline = drover.AtDeadline(f.atDeadline)
	return o, nil
}

func newHostDrainCommand(c *cli) *cobra.Command {
	var f drainFlags
	var back bool
	cmd := &cobra.Command{
		Use:   "drain HOST --reason TEXT",
		Short: "Migrate everything off a host",
		Long: `Drain closes the host for everything new and moves its machines away, each to a
host of the region that has room, under limits: so many at once off the host, to
each target, of each app and network; the next of an app only when the last one
is healthy again. What cannot be placed is refused before anything is begun,
with what is missing. The plan is made first; --dry-run shows it and does
nothing.

The command follows the drain to its end; Ctrl-C ends the following, not the
drain. The host stays closed afterwards, until it is uncordoned or the machines
are brought back: --return does that for the newest drain of the host.

A --suspect host is left by early switches, the most valuable machines first.`,
		Example: `  drover host drain h1 --reason 'new kernel' --dry-run
  drover host drain h1 --reason 'new kernel' --window 01:00-05:00 --bandwidth 200MiB
  drover host drain h1 --reason 'ECC errors' --suspect
  drover host drain h1 --reason 'kernel is in' --return`,
		Args: exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			options, err := f.read()
			if err != nil {
				return err
			}
			host := drover.HostID(args[0])
			if back {
				id, err := c.newestDrain(cmd.Context(), client, host)
				if err != nil {
					return err
				}
				return c.returnDrain(cmd.Context(), client, id, f, options)
			}
			req := apiv1.DrainRequest{Host: string(host), Reason: f.reason, DrainOptions: options}
			if f.dryRun {
				plan, err := client.PlanDrain(cmd.Context(), req)
				if err != nil {
					return err
				}
				return c.printPlan(plan)
			}
			d, err := client.CreateDrain(cmd.Context(), req)
			if err != nil {
				return err
			}
			return c.followNewDrain(cmd.Context(), client, d, f.detach)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.options.Suspect, "suspect", false, "the host is not trusted: early switches, the most valuable first")
	cmd.Flags().BoolVar(&back, "return", false, "bring back what the newest drain of the host moved")
	return cmd
}

// printPlan shows a plan. One that could not be carried out is an error, after it was shown.
func (c *cli) printPlan(plan apiv1.Drain) error {
	var err error
	if c.json {
		err = c.printJSON(plan)
	} else {
		err = c.printDrain(plan)
	}
	if err == nil && plan.Problem != nil && !plan.Options.AllowPartial {
		return plan.Problem
	}
	return err
}

// expectedText writes how long a plan is expected to take.
func expectedText(seconds float64) string { return fmt.Sprintf("about %s", roundSeconds(seconds)) }
