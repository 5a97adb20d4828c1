package main

import (
	"github.com/spf13/cobra"

	"drover"
)

func newAppRecoveryCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "recovery NAME ask|automatic",
		Short: "Say whether an app's machines are started elsewhere without asking, once their host is fenced",
		Long: `With 'automatic' a machine of the app is started elsewhere by itself as soon as
it is certain that its host is off, from the newest copy of its volumes, which
may be up to a day old. With 'ask', the default, an operator begins it.`,
		Example: "  drover app recovery ledger automatic",
		Args:    exactly("NAME", "ask|automatic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			app, err := client.SetRecovery(cmd.Context(), drover.AppName(args[0]), drover.RecoveryPolicy(args[1]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(app)
			}
			return c.print("app %s: recovery is %s\n", app.Name, app.Recovery)
		},
	}
}
