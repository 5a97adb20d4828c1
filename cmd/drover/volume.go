package main

import (
	"context"

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
by their name where only one has it.

Unless asked for otherwise a volume is encrypted on the host's disk, and a
snapshot of it is taken every day and kept for five.`,
	}, newVolumeCreateCommand(c), newVolumeForkCommand(c), newVolumeListCommand(c), newVolumeShowCommand(c), newVolumeUpdateCommand(c),
		newVolumeExtendCommand(c), newVolumeSnapshotCommand(c), newVolumeStandbyCommand(c), newVolumeVerifyCommand(c), newVolumeHydrationCommand(c),
		newVolumeDestroyCommand(c), newVolumeUndeleteCommand(c))
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

// printVolume prints the volume as JSON, or the sentence.
func (c *cli) printVolume(v apiv1.Volume, format string, args ...any) error {
	if c.json {
		return c.printJSON(v)
	}
	return c.print(format+"\n", args...)
}
