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
	}, newAppCreateCommand(c), newAppListCommand(c), newAppShowCommand(c), newAppDestroyCommand(c), newAppUndeleteCommand(c), newAppLabelCommand(c), newAppRecoveryCommand(c), newAppRestartCommand(c))
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
	var deleted bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List apps",
		Example: "  drover app list\n  drover app list --org acme --json\n  drover app list --deleted",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			list := client.Apps
			if deleted {
				list = client.DestroyedApps
			}
			apps, err := list(cmd.Context(), org)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(apps)
			}
			if deleted {
				return c.printDestroyedApps(apps)
			}
			t := table{header: []string{"NAME", "ORGANIZATION", "MACHINES", "VOLUMES", "AGE"}}
			for _, a := range apps {
				t.add(a.Name, a.Organization.Slug, a.MachineCount, a.VolumeCount, c.age(a.CreatedAt))
			}
			return c.printTable(t, "No apps. 'drover app create NAME' makes one.")
		},
	}
	cmd.Flags().StringVar(&org, "org", "", "only those of the organization")
	cmd.Flags().BoolVar(&deleted, "deleted", false, "list those that were destroyed and are not gone, instead")
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
