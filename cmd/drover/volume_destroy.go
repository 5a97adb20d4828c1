package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newVolumeDestroyCommand(c *cli) *cobra.Command {
	var app string
	var yes bool
	cmd := &cobra.Command{
		Use:   "destroy ID",
		Short: "Destroy a volume that no machine has",
		Long: `Destroy gives a volume up. For a day, or as long as the fleet's operator set,
'drover volume undelete' brings it back; the command says until when. Then its
data is overwritten and removed. Its snapshots stay for as long as they are
kept.`,
		Example: "  drover volume destroy vol_6f1c0a53e9b2d784\n  drover volume destroy vol_6f1c0a53e9b2d784 --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			what := fmt.Sprintf("destroy volume %s (%s, %s) of app %s, which can be brought back for a limited time only", v.ID, v.Name, sizeText(v.Size), v.App)
			if err := c.confirm(cmd.Context(), yes, what); err != nil {
				return err
			}
			v, err = client.DestroyVolume(cmd.Context(), v.App, v.ID)
			if err != nil {
				return err
			}
			if v.WipeAt.IsZero() {
				return c.printVolume(v, "volume %s is destroyed", v.ID)
			}
			return c.printVolume(v, "volume %s is destroyed\n'drover volume undelete %s' brings it back until %s.", v.ID, v.ID, c.deadline(v.WipeAt))
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func newVolumeUndeleteCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:   "undelete ID",
		Short: "Bring a destroyed volume back",
		Long: `Undelete brings a volume back as it was, with its ID, as long as it has not been
wiped. 'drover volume list --deleted' shows which these are.`,
		Example: "  drover volume undelete vol_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			var v apiv1.Volume
			if v, err = client.FindDestroyedVolume(cmd.Context(), drover.AppName(app), args[0]); err != nil {
				return err
			}
			if v, err = client.UndeleteVolume(cmd.Context(), v.App, v.ID); err != nil {
				return err
			}
			return c.printVolume(v, "volume %s (%s) of %s is back on host %s", v.ID, v.Name, sizeText(v.Size), v.Host)
		},
	}
	addApp(cmd, &app)
	return cmd
}
