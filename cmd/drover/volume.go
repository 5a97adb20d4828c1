package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newVolumeCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "volume",
		Short: "Volumes: disks that machines mount",
		Long: `A volume is a block device of an app, on the disk of one host. One machine at a
time has it, and it moves with that machine. Volumes are named by their ID, or
by their name where only one has it.`,
	}, newVolumeCreateCommand(c), newVolumeListCommand(c), newVolumeShowCommand(c), newVolumeDestroyCommand(c))
}

func newVolumeCreateCommand(c *cli) *cobra.Command {
	var req apiv1.CreateVolumeRequest
	var app, size string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a blank volume",
		Long: `Create makes a blank volume. The first machine that mounts it makes a file
system on it. Space is taken as it is written.`,
		Example: "  drover volume create data --app ledger --size 2GiB\n  drover volume create data --app ledger --size 10GiB --region north",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			if app == "" {
				return usage(cmd, "--app is missing")
			}
			req.Name = args[0]
			if req.Size, err = parseSize(size, drover.GiB); err != nil {
				return err
			}
			v, err := client.CreateVolume(cmd.Context(), drover.AppName(app), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(v)
			}
			return c.print("volume %s (%s) of %s created on host %s\n", v.ID, v.Name, sizeText(v.Size), v.Host)
		},
	}
	cmd.Flags().StringVarP(&app, "app", "a", "", "app that the volume is to belong to")
	cmd.Flags().StringVarP(&size, "size", "s", "1GiB", "size, such as 512MiB or 2GiB; a bare number is in GiB")
	cmd.Flags().StringVarP(&req.Region, "region", "r", "", "region to be in (default: any)")
	cmd.Flags().StringVar(&req.Host, "host", "", "host to be on (default: chosen by the fleet)")
	return cmd
}

func newVolumeListCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List volumes",
		Example: "  drover volume list\n  drover volume list --app ledger --json",
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
			volumes := []apiv1.Volume{}
			for _, app := range apps {
				more, err := client.Volumes(cmd.Context(), app)
				if err != nil {
					return err
				}
				volumes = append(volumes, more...)
			}
			if c.json {
				return c.printJSON(volumes)
			}
			t := table{header: []string{"ID", "NAME", "APP", "STATE", "SIZE", "HOST", "REGION", "MACHINE", "AGE"}}
			for _, v := range volumes {
				t.add(v.ID, v.Name, v.App, volumeStateText(v), sizeText(v.Size), v.Host, v.Region, v.AttachedMachineID, c.age(v.CreatedAt))
			}
			return c.printTable(t, "No volumes. 'drover volume create NAME --app APP' makes one.")
		},
	}
	addApp(cmd, &app)
	return cmd
}

func volumeStateText(v apiv1.Volume) string {
	text := string(v.State)
	if v.Hydration != nil && !v.Hydration.Done {
		text = fmt.Sprintf("%s %d %%", text, percent(&v.Hydration.Hydration))
	}
	if v.HostStatus != drover.HostOK {
		text += fmt.Sprintf("? (host %s)", v.HostStatus)
	}
	return text
}

// volumeOf connects and finds the volume that an argument names.
func (c *cli) volumeOf(ctx context.Context, app, idOrName string) (*client.Client, apiv1.Volume, error) {
	client, err := c.connect()
	if err != nil {
		return nil, apiv1.Volume{}, err
	}
	v, err := client.FindVolume(ctx, drover.AppName(app), idOrName)
	return client, v, err
}

func newVolumeShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a volume",
		Example: "  drover volume show vol_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(v)
			}
			return c.printFields([2]string{"ID", string(v.ID)}, [2]string{"Name", v.Name}, [2]string{"App", string(v.App)},
				[2]string{"State", volumeStateText(v)}, [2]string{"Size", sizeText(v.Size)}, [2]string{"Host", string(v.Host)},
				[2]string{"Region", string(v.Region)}, [2]string{"Machine", string(v.AttachedMachineID)},
				[2]string{"Hydration", volumeHydrationText(v.Hydration)}, [2]string{"Created", c.moment(v.CreatedAt)})
		},
	}
	addApp(cmd, &app)
	return cmd
}

func newVolumeDestroyCommand(c *cli) *cobra.Command {
	var app string
	var yes bool
	cmd := &cobra.Command{
		Use:     "destroy ID",
		Aliases: []string{"delete"},
		Short:   "Destroy a volume that no machine has, and its data",
		Example: "  drover volume destroy vol_6f1c0a53e9b2d784\n  drover volume destroy vol_6f1c0a53e9b2d784 --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), yes, fmt.Sprintf("destroy volume %s (%s, %s) of app %s and its data", v.ID, v.Name, sizeText(v.Size), v.App)); err != nil {
				return err
			}
			v, err = client.DestroyVolume(cmd.Context(), v.App, v.ID)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(v)
			}
			return c.print("volume %s is destroyed\n", v.ID)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func volumeHydrationText(h *apiv1.VolumeHydration) string {
	if h == nil {
		return ""
	}
	return hydrationText(&h.Hydration)
}
