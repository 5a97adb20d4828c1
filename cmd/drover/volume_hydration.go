package main

import (
	"github.com/spf13/cobra"

	"drover/apiv1"
)

func newVolumeHydrationCommand(c *cli) *cobra.Command {
	var app, limit string
	var pause, resume bool
	cmd := &cobra.Command{
		Use:   "hydration ID",
		Short: "Show, limit, pause or resume the background copy of a volume",
		Long: `A volume that was moved, forked or restored is usable at once, and its blocks
follow in the background: it hydrates. Without flags the command shows how far
that is. While it is paused, blocks that the machine reads are still fetched.`,
		Example: `  drover volume hydration data
  drover volume hydration data --limit 20MiB
  drover volume hydration data --pause
  drover volume hydration data --resume --limit none`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pause && resume {
				return usage(cmd, "--pause and --resume are both given")
			}
			var req apiv1.HydrationRequest
			if cmd.Flags().Changed("limit") {
				rate, err := parseRate(limit)
				if err != nil {
					return err
				}
				req.Limit = &rate
			}
			if pause || resume {
				req.Paused = &pause
			}
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if req != (apiv1.HydrationRequest{}) {
				if v, err = client.SetHydration(cmd.Context(), v.App, v.ID, req); err != nil {
					return err
				}
			}
			if v.Hydration == nil {
				return c.printVolume(v, "volume %s (%s): all of its blocks are on host %s", v.ID, v.Name, v.Host)
			}
			return c.printVolume(v, "volume %s (%s): %s", v.ID, v.Name, hydrationText(&v.Hydration.Hydration))
		},
	}
	addApp(cmd, &app)
	cmd.Flags().StringVar(&limit, "limit", "", "most bytes per second, such as 20MiB; none for no limit")
	cmd.Flags().BoolVar(&pause, "pause", false, "stop the background copy")
	cmd.Flags().BoolVar(&resume, "resume", false, "let it go on")
	return cmd
}
