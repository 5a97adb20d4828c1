package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// newMachineName makes a name for a machine of a process group.
func newMachineName(group string) string {
	return group + "-" + strings.ToLower(rand.Text()[:6])
}

// deployOf finds the deploy that an argument names; without one the newest of the app.
func (c *cli) deployOf(ctx context.Context, app string, args []string) (*client.Client, apiv1.Deploy, error) {
	cl, name, err := c.inApp(app)
	if err != nil {
		return nil, apiv1.Deploy{}, err
	}
	if len(args) > 0 {
		d, err := cl.Deploy(ctx, name, drover.DeployID(args[0]))
		return cl, d, err
	}
	all, err := cl.Deploys(ctx, name)
	if err == nil && len(all) == 0 {
		err = drover.Errorf(drover.NotFound, "app %q was never deployed", name).WithHint("'drover deploy' does it")
	}
	if err != nil {
		return nil, apiv1.Deploy{}, err
	}
	return cl, all[0], nil
}

func newDeployListCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "list", Short: "List the last deploys of an app", Example: "  drover deploy list -a ledger", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, name, err := c.inApp(app)
			if err != nil {
				return err
			}
			deploys, err := cl.Deploys(cmd.Context(), name)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(deploys)
			}
			t := table{header: []string{"ID", "STATE", "DONE", "FAILED", "LEFT", "AGE", "BY", "WHAT"}}
			for _, d := range deploys {
				t.add(d.ID, d.State, fmt.Sprintf("%d/%d", d.Count(drover.DeployItemDone), d.Machines()), d.Count(drover.DeployItemFailed), d.Count(drover.DeployItemLeft),
					c.age(d.CreatedAt), d.Actor, d.Text)
			}
			return c.printTable(t, "No deploys. 'drover deploy' makes one.")
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

func newDeployShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "show [ID]", Short: "Show a deploy, the newest without ID, with its machines", Example: "  drover deploy show -a ledger", Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, d, err := c.deployOf(cmd.Context(), app, args)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(d)
			}
			problem := ""
			if d.Problem != nil {
				problem = d.Problem.Text
			}
			err = c.printFields([2]string{"ID", string(d.ID)}, [2]string{"App", string(d.App)}, [2]string{"What", d.Text}, [2]string{"State", string(d.State)},
				[2]string{"Problem", problem}, [2]string{"Waits", d.Waits}, [2]string{"Strategy", fmt.Sprintf("%s, %d at a time", d.Options.Strategy, d.Options.MaxUnavailable)},
				[2]string{"By", d.Actor}, [2]string{"Begun", c.moment(d.CreatedAt)}, [2]string{"Ended", c.moment(d.EndedAt)})
			if err != nil {
				return err
			}
			t := table{header: []string{"ACTION", "MACHINE", "NAME", "GROUP", "STATE", "WHY"}}
			for _, i := range d.Items {
				t.add(i.Action, i.Machine, i.Name, i.Group, i.State, i.Reason)
			}
			if err := c.printTable(t, "No machines."); err != nil {
				return err
			}
			return c.printCommandLogs(d.Deploy)
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

// printCommandLogs prints the last that the command of a deploy wrote.
func (c *cli) printCommandLogs(d drover.Deploy) error {
	for _, i := range d.Items {
		if len(i.Log) == 0 {
			continue
		}
		if err := c.print("\nThe last that %q wrote:\n", releaseCommand(i)); err != nil {
			return err
		}
		for _, line := range i.Log {
			if err := c.print("%s\n", line.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

func newDeployFollowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use: "follow [ID]", Short: "Follow a deploy to its end, the newest without ID", Example: "  drover deploy follow -a ledger", Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, d, err := c.deployOf(cmd.Context(), app, args)
			if err != nil {
				return err
			}
			return c.followDeploy(cmd.Context(), cl, d)
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

func newDeployAbortCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:   "abort [ID]",
		Short: "End a deploy, the newest without ID",
		Long: `Abort begins no further machine. Those that are under way come to their end,
and what was changed stays so. A release command that runs is ended.`,
		Example: "  drover deploy abort -a ledger", Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, d, err := c.deployOf(cmd.Context(), app, args)
			if err != nil {
				return err
			}
			if d, err = cl.AbortDeploy(cmd.Context(), d.App, d.ID); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(d)
			}
			return c.print("deploy %s is %s\n", d.ID, d.State)
		},
	}
	addDefaultApp(cmd, &app)
	return cmd
}

func newAppRestartCommand(c *cli) *cobra.Command {
	var most int
	var detach bool
	cmd := &cobra.Command{
		Use:   "restart NAME",
		Short: "Restart an app's machines one after another",
		Long: `Restart stops and starts each started machine of the app, the next only when
the one before is started and its checks pass. It is a deploy that changes
nothing: Ctrl-C ends the following, not the restart.`,
		Example: "  drover app restart ledger\n  drover app restart ledger --max-unavailable 3", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			app := drover.AppName(args[0])
			machines, err := cl.Machines(cmd.Context(), app)
			if err != nil {
				return err
			}
			req := apiv1.DeployRequest{Text: "restart", MaxUnavailable: most}
			for _, m := range machines {
				if m.Goal == drover.GoalStarted {
					req.Items = append(req.Items, apiv1.DeployItemRequest{Action: drover.DeployRestart, Machine: m.ID})
				}
			}
			if len(req.Items) == 0 {
				return drover.Errorf(drover.Precondition, "no machine of app %q is started", app)
			}
			d, err := cl.CreateDeploy(cmd.Context(), app, req)
			if err != nil {
				return err
			}
			if detach {
				return c.printID(d.ID, d)
			}
			return c.followDeploy(cmd.Context(), cl, d)
		},
	}
	cmd.Flags().IntVar(&most, "max-unavailable", 1, "how many machines are restarted at once")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not follow; print the deploy's ID only")
	return cmd
}
