package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newRecoveryCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "recovery",
		Short: "Recoveries: machines of a dead host, started elsewhere",
		Long: `A recovery starts a machine of a dead host on another one, from the newest copy
of its volumes: a standby or a snapshot. What was written after that copy was
taken is lost, or on the dead host alone; each command says how old the copy is.

Nothing is started elsewhere before it is certain that the host is off: see
'drover host confirm-off'. These commands need an operator's token.`,
	}, newRecoveryPlanCommand(c), newRecoveryStartCommand(c), newRecoveryListCommand(c), newRecoveryShowCommand(c))
}

func newRecoveryPlanCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "plan HOST",
		Short: "Show what can be done for the machines of a host",
		Long: `Plan shows each machine of a host with the copies of its volumes that there are
elsewhere, and how old these are. It changes nothing.`,
		Example: "  drover recovery plan h1",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			plan, err := client.RecoveryPlan(cmd.Context(), drover.HostID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(plan)
			}
			return c.printRecoveryPlan(plan)
		},
	}
}

func (c *cli) printRecoveryPlan(plan drover.RecoveryPlan) error {
	fence := "none: nothing is started elsewhere before 'drover host confirm-off " + string(plan.Host) + "'"
	if f := plan.Fence; f != nil {
		fence = fmt.Sprintf("by %s (%s), %s ago: %s", f.By, f.Actor, c.age(f.At), f.Reason)
	}
	if err := c.printFields([2]string{"Host", string(plan.Host)}, [2]string{"Reach", string(plan.Reach)}, [2]string{"Because", plan.Text},
		[2]string{"Fence", fence}); err != nil {
		return err
	}
	if err := c.print("\n"); err != nil {
		return err
	}
	t := table{header: []string{"MACHINE", "NAME", "APP", "DATA FROM", "WITHOUT A COPY, OR IN THE WAY"}}
	for _, m := range plan.Machines {
		problem := m.Problem
		if m.Recovery != "" {
			problem = "being recovered by " + string(m.Recovery)
		}
		t.add(m.Machine, m.Name, m.App, sourcesText(m.Sources, plan.AsOf), problem)
	}
	if err := c.printTable(t, "No machines are on the host."); err != nil || len(plan.Volumes) == 0 {
		return err
	}
	v := table{header: []string{"VOLUME WITHOUT A MACHINE", "NAME", "NEWEST COPY"}}
	for _, s := range plan.Volumes {
		v.add(s.Volume, s.Name, sourcesText([]drover.RecoverySource{s}, plan.AsOf))
	}
	if err := c.print("\n"); err != nil {
		return err
	}
	return c.printTable(v, "")
}

// sourcesText says where the data of a machine comes from, and how old it is at a time.
func sourcesText(sources []drover.RecoverySource, at time.Time) string {
	if len(sources) == 0 {
		return "no volumes"
	}
	var parts []string
	for _, s := range sources {
		switch s.Kind {
		case drover.FromNothing:
			parts = append(parts, string(s.Volume)+": nothing")
		case drover.FromStandby:
			parts = append(parts, fmt.Sprintf("%s: standby on %s, %s old", s.Volume, s.Host, max(at.Sub(s.At), 0).Round(time.Second)))
		default:
			parts = append(parts, fmt.Sprintf("%s: %s, %s old", s.Volume, s.Kind, max(at.Sub(s.At), 0).Round(time.Second)))
		}
	}
	return strings.Join(parts, "; ")
}

func newRecoveryStartCommand(c *cli) *cobra.Command {
	var yes, detach bool
	var age time.Duration
	cmd := &cobra.Command{
		Use:   "start HOST|MACHINE",
		Short: "Start the machines of a fenced host, or one of them, elsewhere",
		Long: `Start shows the plan, asks, and starts the machines elsewhere. A machine with a
volume that has no copy, or only one older than --accept-age, is left, with the
reason. What is begun ends by itself, whoever dies.`,
		Example: "  drover recovery start h1\n  drover recovery start 148e306a4d1c89 --accept-age 1h --yes",
		Args:    exactly("HOST|MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			req := apiv1.RecoveryRequest{Host: args[0], AcceptAge: drover.Duration(age)}
			if _, err := cl.Host(cmd.Context(), drover.HostID(args[0])); drover.Is(err, drover.NotFound) {
				m, merr := cl.FindMachine(cmd.Context(), "", args[0])
				if merr != nil {
					return merr
				}
				req = apiv1.RecoveryRequest{Machine: string(m.ID), AcceptAge: drover.Duration(age)}
			} else if err != nil {
				return err
			}
			if err := c.askRecovery(cmd, cl, req, yes); err != nil {
				return err
			}
			started, err := cl.StartRecovery(cmd.Context(), req)
			if err != nil {
				return err
			}
			if !detach {
				for i, r := range started.Recoveries {
					if started.Recoveries[i], err = c.followRecovery(cmd, cl, r); err != nil {
						return err
					}
				}
			}
			return c.printRecoveries(started)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until the machines run")
	cmd.Flags().DurationVar(&age, "accept-age", 0, "how old the copies may be (default 24h)")
	return cmd
}

// askRecovery shows the plan of a host and asks.
func (c *cli) askRecovery(cmd *cobra.Command, cl *client.Client, req apiv1.RecoveryRequest, yes bool) error {
	if yes {
		return nil
	}
	what := "start machine " + req.Machine + " elsewhere, from a copy of its volumes"
	if req.Host != "" {
		plan, err := cl.RecoveryPlan(cmd.Context(), drover.HostID(req.Host))
		if err != nil {
			return err
		}
		if !c.json {
			if err := c.printRecoveryPlan(plan); err != nil {
				return err
			}
		}
		what = fmt.Sprintf("start the machines of host %s elsewhere, from copies of their volumes", req.Host)
	}
	return c.confirm(cmd.Context(), false, what)
}

func (c *cli) followRecovery(cmd *cobra.Command, cl *client.Client, r drover.Recovery) (drover.Recovery, error) {
	p := c.progress()
	defer p.clear()
	return cl.FollowRecovery(cmd.Context(), r.ID, func(now drover.Recovery) error {
		text := fmt.Sprintf("machine %s: %s", now.Machine, now.State)
		if now.Target != "" {
			text += " on " + string(now.Target)
		}
		if now.Problem != nil {
			text += ", " + now.Problem.Text
		}
		p.state(text, "%s", text)
		return nil
	})
}

// printRecoveries prints what became of recoveries. A machine that was left, or given up, makes the command fail.
func (c *cli) printRecoveries(started apiv1.RecoveryStarted) error {
	if c.json {
		if err := c.printJSON(started); err != nil {
			return err
		}
	} else {
		t := table{header: []string{"RECOVERY", "MACHINE", "STATE", "NOW ON", "DATA FROM"}}
		for _, r := range started.Recoveries {
			t.add(r.ID, r.Machine, r.State, r.Target, sourcesText(r.Sources, recoveredAt(r)))
		}
		if err := c.printTable(t, "No machine is recovered."); err != nil {
			return err
		}
		for _, p := range started.Left {
			fmt.Fprintf(c.stderr, "machine %s (%s) is left: %s\n", p.Machine, p.Name, p.Problem)
		}
	}
	for _, r := range started.Recoveries {
		if r.State == drover.RecoveryCanceled {
			return drover.Errorf(drover.Precondition, "the recovery of machine %q was given up: %s", r.Machine, drover.AsError(r.Problem).Text)
		}
	}
	if len(started.Left) > 0 {
		return drover.Errorf(drover.Precondition, "%d machine(s) cannot be recovered", len(started.Left))
	}
	return nil
}

// recoveredAt is the time at which the age of a recovery's data counts.
func recoveredAt(r drover.Recovery) time.Time {
	if r.SwitchedAt.IsZero() {
		return r.CreatedAt
	}
	return r.SwitchedAt
}

func newRecoveryListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List recoveries, newest first",
		Example: "  drover recovery list --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			list, err := cl.Recoveries(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(list)
			}
			t := table{header: []string{"ID", "MACHINE", "APP", "FROM", "TO", "STATE", "DATA FROM", "BY", "AGE"}, spare: []string{"BY", "APP"}}
			for _, r := range list {
				t.add(r.ID, r.Machine, r.App, r.From, r.Target, r.State, sourcesText(r.Sources, recoveredAt(r)), r.Actor, c.age(r.CreatedAt))
			}
			return c.printTable(t, "No recoveries.")
		},
	}
}

func newRecoveryShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a recovery, and what the old host has kept aside",
		Long: `Show shows a recovery. When the old host is back it also shows what that keeps
aside of the machine, for how long, and how much of it the recovered machine
does not have, as far as the host can tell.`,
		Example: "  drover recovery show rec_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			r, err := cl.Recovery(cmd.Context(), drover.RecoveryID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(r)
			}
			problem := ""
			if r.Problem != nil {
				problem = r.Problem.Text
			}
			if err := c.printFields([2]string{"ID", string(r.ID)}, [2]string{"Machine", string(r.Machine)}, [2]string{"App", string(r.App)},
				[2]string{"From", string(r.From)}, [2]string{"To", string(r.Target)}, [2]string{"State", string(r.State)},
				[2]string{"Data", sourcesText(r.Sources, recoveredAt(r))},
				[2]string{"Fence", fmt.Sprintf("by %s (%s): %s", r.Fence.By, r.Fence.Actor, r.Fence.Reason)}, [2]string{"Begun by", r.Actor},
				[2]string{"Begun", c.moment(r.CreatedAt)}, [2]string{"Switched", c.moment(r.SwitchedAt)}, [2]string{"Runs since", c.moment(r.RunningAt)},
				[2]string{"Problem", problem}); err != nil {
				return err
			}
			kept, err := cl.HostKept(cmd.Context(), r.From)
			if drover.Is(err, drover.Unavailable) {
				return c.print("\nHost %s does not answer: what it keeps aside is shown when it is back.\n", r.From)
			}
			if err != nil {
				return err
			}
			return c.printKept(kept, r.Machine)
		},
	}
}

// printKept lists what a host keeps aside of a machine; of all when it is empty.
func (c *cli) printKept(kept []drover.KeptLayer, machine drover.MachineID) error {
	t := table{header: []string{"KEPT LAYER", "VOLUME", "HOLDS", "LATER THAN THE COPY", "UNTIL"}}
	for _, k := range kept {
		if machine != "" && k.Machine != machine {
			continue
		}
		later := "at most " + sizeText(k.Allocated)
		if k.LaterKnown {
			later = sizeText(k.Later)
		}
		t.add(k.Layer, k.Volume, sizeText(k.Allocated), later, c.deadline(k.DeleteAfter))
	}
	if len(t.rows) == 0 {
		return nil
	}
	if err := c.print("\n"); err != nil {
		return err
	}
	return c.printTable(t, "")
}
