package main

import (
	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newHostStorageCommand(c *cli) *cobra.Command {
	var limit string
	var stall durationFlag
	cmd := &cobra.Command{
		Use:   "storage HOST",
		Short: "Show or set what holds for a host's storage as a whole",
		Long: `Storage sets what holds for all volumes of a host together, while it runs and
from then on: how fast they may hydrate, and after which time without progress a
hydration is reported as stalled. What no flag names stays. Without flags it
shows what is set.`,
		Example: "  drover host storage h1\n  drover host storage h1 --hydration-limit 200MiB --stall-after 90s\n  drover host storage h1 --hydration-limit none",
		Args:    exactly("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			id := drover.HostID(args[0])
			var req apiv1.StorageRequest
			if cmd.Flags().Changed("hydration-limit") {
				rate, err := parseRate(limit)
				if err != nil {
					return err
				}
				req.HydrationLimit = &rate
			}
			if cmd.Flags().Changed("stall-after") {
				req.StallAfter = &stall.d
			}
			var settings drover.StorageSettings
			if req != (apiv1.StorageRequest{}) {
				settings, err = client.SetStorage(cmd.Context(), id, req)
			} else {
				var host drover.HostInfo
				host, err = client.Host(cmd.Context(), id)
				settings = host.Storage
			}
			if err != nil {
				return err
			}
			return c.printStorage(id, settings)
		},
	}
	cmd.Flags().StringVar(&limit, "hydration-limit", "", "most bytes per second of all hydrations together, such as 200MiB; none for no limit")
	cmd.Flags().Var(&stall, "stall-after", "time without progress after which a hydration is stalled; 0s for the default")
	return cmd
}

func (c *cli) printStorage(id drover.HostID, s drover.StorageSettings) error {
	if c.json {
		return c.printJSON(s)
	}
	limit, stall := "none", "60 s (default)"
	if s.HydrationLimit > 0 {
		limit = sizeText(s.HydrationLimit) + "/s"
	}
	if s.StallAfter > 0 {
		stall = intervalText(s.StallAfter)
	}
	return c.printFields([2]string{"Host", string(id)}, [2]string{"Hydration limit", limit}, [2]string{"Stalled after", stall})
}
