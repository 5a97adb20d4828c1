package main

import (
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newVolumeExtendCommand(c *cli) *cobra.Command {
	var app, size string
	cmd := &cobra.Command{
		Use:   "extend ID",
		Short: "Make a volume larger, while its machine runs",
		Long: `Extend makes a volume larger. A machine that has it sees the new size, and
enlarges the file system on it, without a restart where it can; the command says
so where it cannot. A volume never shrinks.`,
		Example: "  drover volume extend data --size 20GiB\n  drover volume extend vol_6f1c0a53e9b2d784 --size +5GiB",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if size == "" {
				return usage(cmd, "--size is missing")
			}
			more, add := strings.CutPrefix(size, "+")
			wanted, err := parseSize(more, drover.GiB)
			if err != nil {
				return err
			}
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if add {
				wanted += v.Size
			}
			done, err := client.ExtendVolume(cmd.Context(), v.App, v.ID, wanted)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(done)
			}
			v = done.Volume
			note := ""
			if done.NeedsRestart {
				note = "; machine " + string(v.AttachedMachineID) + " sees it after 'drover machine restart " + string(v.AttachedMachineID) + "'"
			}
			return c.print("volume %s (%s) has %s%s\n", v.ID, v.Name, sizeText(v.Size), note)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().StringVarP(&size, "size", "s", "", "new size, such as 20GiB; with a + before it, how much to add")
	return cmd
}

func newVolumeUpdateCommand(c *cli) *cobra.Command {
	var app, bandwidth string
	var iops, retention int
	var interval durationFlag
	var backup bool
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change a volume's snapshots or limits",
		Long: `Update changes what its flags name and leaves the rest. Limits hold at once, for
a machine that runs too.`,
		Example: `  drover volume update data --snapshot-retention 14
  drover volume update data --auto-backup=false
  drover volume update data --iops 500 --bandwidth none`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := cmd.Flags().Changed
			var req apiv1.UpdateVolumeRequest
			var err error
			if req.Limits, err = limitsRequest(cmd, iops, bandwidth); err != nil {
				return err
			}
			if changed("snapshot-retention") {
				req.SnapshotRetention = &retention
			}
			if changed("snapshot-interval") {
				req.SnapshotInterval = &interval.d
			}
			if changed("auto-backup") {
				req.AutoBackupEnabled = &backup
			}
			if req == (apiv1.UpdateVolumeRequest{}) {
				return usage(cmd, "there is nothing to change: no flag is given")
			}
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if v, err = client.UpdateVolume(cmd.Context(), v.App, v.ID, req); err != nil {
				return err
			}
			limits := limitsText(v.Limits)
			if limits == "" {
				limits = "none"
			}
			return c.printVolume(v, "volume %s (%s): snapshots %s; limits %s", v.ID, v.Name, scheduleText(v), limits)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().IntVar(&retention, "snapshot-retention", 0, "days for which its snapshots are kept")
	cmd.Flags().Var(&interval, "snapshot-interval", "time between two snapshots of its schedule")
	cmd.Flags().BoolVar(&backup, "auto-backup", true, "take snapshots by the schedule")
	cmd.Flags().IntVar(&iops, "iops", 0, "most operations per second; 0 for no limit")
	cmd.Flags().StringVar(&bandwidth, "bandwidth", "", "most bytes per second, such as 50MiB; none for no limit")
	return cmd
}
