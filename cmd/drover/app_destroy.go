package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newAppDestroyCommand(c *cli) *cobra.Command {
	var yes, now bool
	cmd := &cobra.Command{
		Use:   "destroy NAME",
		Short: "Destroy an app with its machines and volumes",
		Long: `Destroy gives an app up, with all that it has: machines, volumes, snapshots,
secrets. The machines of an app with volumes are stopped, and for a day, or as
long as the fleet's operator set, 'drover app undelete' brings all of it back;
the command says until when. Then it is wiped. An app without volumes, and any
with --now, is cleared away at once, and its name is free.`,
		Example: "  drover app destroy ledger\n  drover app destroy ledger --yes\n  drover app destroy ledger --now",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			app, err := appToDestroy(cmd.Context(), cl, drover.AppName(args[0]))
			if err != nil {
				return err
			}
			what := fmt.Sprintf("destroy app %s with %s and %s", app.Name, count(app.MachineCount, "machine"), count(app.VolumeCount, "volume"))
			if app.VolumeCount > 0 && !now {
				what += ", which can be brought back for a limited time only"
			} else {
				what += ", for good"
			}
			if err := c.confirm(cmd.Context(), yes, what); err != nil {
				return err
			}
			end, err := cl.DestroyApp(cmd.Context(), app.Name, now)
			switch {
			case err != nil:
				return err
			case c.json:
				return c.printJSON(end)
			case end.Gone:
				return c.print("app %s is destroyed and gone\n", end.Name)
			case end.WipeAt.After(c.now()):
				return c.print("app %s is destroyed\n'drover app undelete %s' brings it back until %s.\n", end.Name, end.Name, c.deadline(end.WipeAt))
			}
			return c.print("app %s is destroyed and is being wiped: 'drover app list --deleted' shows it until nothing is left of it\n", end.Name)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&now, "now", false, "wipe it at once, also one that was destroyed before: it cannot be brought back")
	return cmd
}

// appToDestroy finds the app, also one that was destroyed before.
func appToDestroy(ctx context.Context, cl *client.Client, name drover.AppName) (apiv1.App, error) {
	app, err := cl.App(ctx, name)
	if !drover.Is(err, drover.NotFound) {
		return app, err
	}
	destroyed, lerr := cl.DestroyedApps(ctx, "")
	i := slices.IndexFunc(destroyed, func(a apiv1.ListApp) bool { return a.Name == name })
	if lerr != nil || i < 0 {
		return app, err
	}
	a := destroyed[i]
	return apiv1.App{ID: a.ID, Name: a.Name, MachineCount: a.MachineCount, VolumeCount: a.VolumeCount, AppEnd: a.AppEnd}, nil
}

func newAppUndeleteCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "undelete NAME",
		Short: "Bring a destroyed app back",
		Long: `Undelete brings an app back as it was, with its machines, volumes and secrets,
as long as it is not being wiped. Machines that ran when it was destroyed are
started again. 'drover app list --deleted' shows which can be brought back.`,
		Example: "  drover app undelete ledger",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			app, err := cl.UndeleteApp(cmd.Context(), drover.AppName(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(app)
			}
			return c.print("app %s is back, with %s and %s\n", app.Name, count(app.MachineCount, "machine"), count(app.VolumeCount, "volume"))
		},
	}
	cmd.ValidArgsFunction = firstOnly(c.completion(destroyedAppNames))
	return cmd
}

func (c *cli) printDestroyedApps(apps []apiv1.ListApp) error {
	t := table{header: []string{"NAME", "ORGANIZATION", "MACHINES", "VOLUMES", "DESTROYED", "WIPED IN"}}
	for _, a := range apps {
		left := c.until(a.WipeAt)
		if a.Wiping {
			left = "is being wiped"
		}
		if len(a.WaitsFor) > 0 {
			left = fmt.Sprintf("waits for hosts %v", a.WaitsFor)
		}
		t.add(a.Name, a.Organization.Slug, a.MachineCount, a.VolumeCount, c.age(a.DestroyedAt)+" ago", left)
	}
	return c.printTable(t, "No destroyed apps.")
}
