package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newAppCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:        "app",
		SuggestFor: []string{"status"},
		Short:      "Apps: named groups of machines and volumes",
		Long: `An app is a named group of machines and volumes of one organization. Machines
and volumes belong to one app for life.`,
	}, newAppCreateCommand(c), newAppListCommand(c), newAppShowCommand(c), newAppDeleteCommand(c), newAppLabelCommand(c), newAppRecoveryCommand(c), newAppRestartCommand(c))
}

func newAppCreateCommand(c *cli) *cobra.Command {
	var req apiv1.CreateAppRequest
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create an app",
		Example: "  drover app create ledger\n  drover app create ledger --org acme",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			req.Name = args[0]
			app, err := client.CreateApp(cmd.Context(), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(app)
			}
			return c.print("app %s created in organization %s\n", app.Name, app.Organization.Slug)
		},
	}
	cmd.Flags().StringVar(&req.OrgSlug, "org", "", "organization that owns the app (default that of the token)")
	cmd.Flags().StringVar(&req.Network, "network", "", "name of the app's private network")
	return cmd
}

func newAppListCommand(c *cli) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List apps",
		Example: "  drover app list\n  drover app list --org acme --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			apps, err := client.Apps(cmd.Context(), org)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(apps)
			}
			t := table{header: []string{"NAME", "ORGANIZATION", "MACHINES", "VOLUMES", "AGE"}}
			for _, a := range apps {
				t.add(a.Name, a.Organization.Slug, a.MachineCount, a.VolumeCount, c.age(a.CreatedAt))
			}
			return c.printTable(t, "No apps. 'drover app create NAME' makes one.")
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "only those of the organization")
	return cmd
}

func newAppShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show an app",
		Example: "  drover app show ledger",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			app, err := client.App(cmd.Context(), drover.AppName(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(app)
			}
			return c.printFields([2]string{"Name", string(app.Name)}, [2]string{"Organization", app.Organization.Slug},
				[2]string{"Network", app.Network}, [2]string{"Status", app.Status}, [2]string{"Machines", fmt.Sprint(app.MachineCount)},
				[2]string{"Volumes", fmt.Sprint(app.VolumeCount)}, [2]string{"Created", c.moment(app.CreatedAt)})
		},
	}
}

func newAppDeleteCommand(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"destroy"},
		Short:   "Delete an app that has no machines and no volumes",
		Example: "  drover app delete ledger\n  drover app delete ledger --yes",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, "delete the app "+args[0]); err != nil {
				return err
			}
			if err := client.DeleteApp(cmd.Context(), drover.AppName(args[0])); err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"name": args[0], "deleted": true})
			}
			return c.print("app %s deleted\n", args[0])
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
