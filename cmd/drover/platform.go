package main

import (
	"github.com/spf13/cobra"
)

func newPlatformCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "platform",
		Short: "Platform: what the fleet offers",
		Long:  "These commands tell what the fleet offers to every user of it.",
	}, newPlatformRegionsCommand(c))
}

func newPlatformRegionsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "regions",
		Short: "List the regions, and how much room they have",
		Long: `Regions lists the regions that have worker hosts. The room is about how many
machines of 256 MB would fit, by what the hosts said last.`,
		Example: "  drover platform regions\n  drover platform regions --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			list, err := client.Regions(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(list)
			}
			t := table{header: []string{"CODE", "NAME", "ROOM", "NEAREST"}}
			for _, r := range list.Regions {
				near := ""
				if r.Code == list.Nearest {
					near = "yes"
				}
				t.add(r.Code, r.Name, r.Capacity, near)
			}
			return c.printTable(t, "No regions: no worker host has joined the fleet.")
		},
	}
}
