package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newVolumeListCommand(c *cli) *cobra.Command {
	var app string
	var deleted bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List volumes",
		Example: "  drover volume list\n  drover volume list --app ledger --json\n  drover volume list --deleted",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			apps, err := c.appsOr(cmd.Context(), client, app)
			if err != nil {
				return err
			}
			list := client.Volumes
			if deleted {
				list = client.DestroyedVolumes
			}
			volumes := []apiv1.Volume{}
			for _, app := range apps {
				more, err := list(cmd.Context(), app)
				if err != nil {
					return err
				}
				volumes = append(volumes, more...)
			}
			if c.json {
				return c.printJSON(volumes)
			}
			if deleted {
				return c.printDestroyed(volumes)
			}
			t := table{header: []string{"ID", "NAME", "APP", "STATE", "SIZE", "HOST", "REGION", "MACHINE", "AGE"}, spare: []string{"REGION"}}
			for _, v := range volumes {
				t.add(v.ID, v.Name, v.App, volumeStateText(v), sizeText(v.Size), v.Host, v.Region, v.AttachedMachineID, c.age(v.CreatedAt))
			}
			return c.printTable(t, "No volumes. 'drover volume create NAME --app APP' makes one.")
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVar(&deleted, "deleted", false, "list those that were destroyed and can be brought back, instead")
	return cmd
}

func (c *cli) printDestroyed(volumes []apiv1.Volume) error {
	t := table{header: []string{"ID", "NAME", "APP", "SIZE", "HOST", "DESTROYED", "WIPED IN"}}
	for _, v := range volumes {
		t.add(v.ID, v.Name, v.App, sizeText(v.Size), v.Host, c.age(v.DestroyedAt)+" ago", c.until(v.WipeAt))
	}
	return c.printTable(t, "No destroyed volumes that could be brought back.")
}

func volumeStateText(v apiv1.Volume) string {
	text := string(v.State)
	if h := v.Hydration; h != nil && !h.Done {
		text = fmt.Sprintf("%s %d %%", text, percent(&h.Hydration))
		switch {
		case h.Paused:
			text += " (paused)"
		case h.Stalled:
			text += " (stalled)"
		}
	}
	if v.Trouble != "" {
		text += "! (refused)"
	}
	if v.HostStatus != drover.HostOK {
		text += fmt.Sprintf("? (host %s)", v.HostStatus)
	}
	return text
}
