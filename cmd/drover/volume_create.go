package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// volumeFlags are those of a new volume, whatever it is made of.
type volumeFlags struct {
	size, region, host, bandwidth string
	iops, retention               int
	interval                      durationFlag
	noBackup                      bool
	vmMemory, vmKind, dedication  string
	vmCPUs                        int
}

func (f *volumeFlags) add(cmd *cobra.Command, defaultSize string) {
	flags := cmd.Flags()
	flags.StringVarP(&f.size, "size", "s", "", "size, such as 2GiB; a bare number is in GiB (default "+defaultSize+")")
	flags.StringVarP(&f.region, "region", "r", "", "region to be in, or several with commas between them, in the order in which they are tried")
	flags.StringVar(&f.host, "host", "", "host to be on (default: chosen by the fleet)")
	flags.IntVar(&f.iops, "iops", 0, "most operations per second (default: no limit)")
	flags.StringVar(&f.bandwidth, "bandwidth", "", "most bytes per second, such as 50MiB (default: no limit)")
	flags.IntVar(&f.retention, "snapshot-retention", 0, "days for which its snapshots are kept (default 5)")
	flags.Var(&f.interval, "snapshot-interval", "time between two snapshots of its schedule (default 24h)")
	flags.StringVar(&f.vmMemory, "vm-memory", "", "hold room for a machine with this memory beside the volume, such as 1GiB, for an hour")
	flags.IntVar(&f.vmCPUs, "vm-cpus", 0, "number of CPUs of that machine")
	flags.StringVar(&f.vmKind, "vm-cpu-kind", "", "kind of CPUs of that machine: shared or performance")
	flags.StringVar(&f.dedication, "host-dedication-id", "", "be on hosts that are dedicated to this only")
	flags.BoolVar(&f.noBackup, "no-auto-backup", false, "take no snapshots by a schedule")
}

// request turns the flags that were given into a request.
func (f *volumeFlags) request(cmd *cobra.Command) (apiv1.CreateVolumeRequest, error) {
	req := apiv1.CreateVolumeRequest{Region: f.region, Host: f.host}
	var err error
	if f.size != "" {
		if req.Size, err = parseSize(f.size, drover.GiB); err != nil {
			return req, err
		}
	}
	if req.Limits, err = limitsRequest(cmd, f.iops, f.bandwidth); err != nil {
		return req, err
	}
	if req.Compute, err = f.compute(); err != nil {
		return req, err
	}
	if cmd.Flags().Changed("snapshot-retention") {
		req.SnapshotRetention = &f.retention
	}
	if cmd.Flags().Changed("snapshot-interval") {
		req.SnapshotInterval = &f.interval.d
	}
	if f.noBackup {
		backup := false
		req.AutoBackupEnabled = &backup
	}
	return req, nil
}

// compute is the machine that room is to be held for; nil for none.
func (f *volumeFlags) compute() (map[string]any, error) {
	fields := map[string]any{}
	if f.vmMemory != "" {
		size, err := parseSize(f.vmMemory, drover.MiB)
		if err != nil {
			return nil, err
		}
		fields["memory_mb"] = int((size + drover.MiB - 1) / drover.MiB)
	}
	if f.vmCPUs != 0 {
		fields["cpus"] = f.vmCPUs
	}
	if f.vmKind != "" {
		fields["cpu_kind"] = f.vmKind
	}
	if f.dedication != "" {
		fields["host_dedication_id"] = f.dedication
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return fields, nil
}

// limitsRequest has the limits whose flags were given; nil when neither was.
func limitsRequest(cmd *cobra.Command, iops int, bandwidth string) (*apiv1.LimitsRequest, error) {
	var req apiv1.LimitsRequest
	if cmd.Flags().Changed("iops") {
		req.IOPS = &iops
	}
	if cmd.Flags().Changed("bandwidth") {
		rate, err := parseRate(bandwidth)
		if err != nil {
			return nil, err
		}
		req.BytesPerSecond = &rate
	}
	if req == (apiv1.LimitsRequest{}) {
		return nil, nil
	}
	return &req, nil
}

func newVolumeCreateCommand(c *cli) *cobra.Command {
	var flags volumeFlags
	var app, snapshot string
	var plain bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a volume: a blank one, or one restored from a snapshot",
		Long: `Create makes a volume. The first machine that mounts a blank one makes a file
system on it. Space is taken as it is written.

With --snapshot the volume has what another one held when the snapshot was
taken. It is usable at once: its blocks follow in the background, those that
are read first. It may be larger than the snapshot, never smaller.`,
		Example: `  drover volume create data --app ledger --size 2GiB
  drover volume create data --app ledger --size 10GiB --region north --iops 500 --bandwidth 50MiB
  drover volume create data --app ledger --snapshot vs_6f1c0a53e9b2d784`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			req, err := flags.request(cmd)
			if err != nil {
				return err
			}
			req.Name, req.SnapshotID = args[0], snapshot
			if req.Size == 0 && snapshot == "" {
				req.Size = drover.GiB
			}
			if plain {
				encrypted := false
				req.Encrypted = &encrypted
			}
			v, err := client.CreateVolume(cmd.Context(), drover.AppName(app), req)
			if err != nil {
				return err
			}
			return c.printCreated(cmd.Context(), client, v)
		},
	}
	c.needApp(cmd, &app, "app that the volume is to belong to")
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "ID of the snapshot that it is restored from")
	cmd.Flags().BoolVar(&plain, "no-encryption", false, "do not encrypt it on the host's disk")
	flags.add(cmd, "1GiB, or the snapshot's")
	return cmd
}

// printCreated tells what was made, of what, and how old that is.
func (c *cli) printCreated(ctx context.Context, client *client.Client, v apiv1.Volume) error {
	what := "created"
	switch {
	case c.json:
	case v.SnapshotID != "":
		s, err := client.FindSnapshot(ctx, v.App, string(v.SnapshotID))
		if err != nil {
			return err
		}
		what = fmt.Sprintf("restored from snapshot %s, taken %s,", s.ID, c.moment(s.TakenAt))
	case v.SourceVolumeID != "":
		what = fmt.Sprintf("forked from volume %s", v.SourceVolumeID)
	}
	text := fmt.Sprintf("volume %s (%s) of %s %s on host %s", v.ID, v.Name, sizeText(v.Size), what, v.Host)
	if v.Hydration != nil && !v.Hydration.Done {
		text += "\nIt can be used now; its blocks follow: 'drover volume hydration " + string(v.ID) + "' shows how far they are."
	}
	return c.printVolume(v, "%s", text)
}

func newVolumeForkCommand(c *cli) *cobra.Command {
	var flags volumeFlags
	var app, name string
	cmd := &cobra.Command{
		Use:   "fork ID",
		Short: "Make a new volume of what another one holds now",
		Long: `Fork makes a volume with the content that another one has at this moment; from
then on each goes its own way. The other one is not stopped, and may be in use:
what its guest has not written yet is not in the fork. The fork is usable at
once, also on another host: its blocks follow in the background.`,
		Example: "  drover volume fork data --app ledger\n  drover volume fork vol_6f1c0a53e9b2d784 --name trial --host h2 --size 20GiB",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, source, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			req, err := flags.request(cmd)
			if err != nil {
				return err
			}
			req.Name, req.SourceVolumeID = name, string(source.ID)
			v, err := client.CreateVolume(cmd.Context(), source.App, req)
			if err != nil {
				return err
			}
			return c.printCreated(cmd.Context(), client, v)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().StringVar(&name, "name", "", "name of the fork (default: the volume's)")
	flags.add(cmd, "that of the volume")
	return cmd
}
