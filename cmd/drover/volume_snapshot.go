package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newVolumeSnapshotCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "snapshot",
		Short: "Snapshots: what a volume held at one moment, kept in the object store",
		Long: `A snapshot is what a volume held at one moment. It is kept in the object store,
off the volume's host, and only what no earlier snapshot of the volume has is
stored anew. 'drover volume create --snapshot' makes a volume of it.`,
	}, newSnapshotCreateCommand(c), newSnapshotListCommand(c), newSnapshotShowCommand(c), newSnapshotDeleteCommand(c))
}

// atMost checks the arguments of a command that needs none of them.
func atMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usage(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

func newSnapshotListCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:   "list [VOLUME]",
		Short: "List the snapshots of a volume, or of all volumes, newest first",
		Long: `List shows the snapshots of a volume; without one, those of all volumes, also of
volumes that were destroyed.`,
		Example: "  drover volume snapshot list data\n  drover volume snapshot list --app ledger --json",
		Args:    atMost("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			snapshots, err := c.snapshotsOf(cmd.Context(), app, args)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(snapshots)
			}
			t := table{header: []string{"ID", "VOLUME", "NAME", "STATUS", "SIZE", "DATA", "STORED", "MADE BY", "AGE", "KEPT FOR"},
				spare: []string{"DATA", "MADE BY", "SIZE", "VOLUME"}}
			for _, s := range snapshots {
				t.add(s.ID, s.VolumeID, s.VolumeName, snapshotStateText(s), sizeText(s.VolumeSize), sizeText(s.Size), sizeText(s.Stored), makerText(s),
					c.age(s.TakenAt), c.until(s.ExpiresAt))
			}
			return c.printTable(t, "No snapshots. 'drover volume snapshot create VOLUME' makes one.")
		},
	}
	addApp(cmd, &app)
	return cmd
}

// snapshotsOf lists the snapshots of the volume that the arguments name, or of every one.
func (c *cli) snapshotsOf(ctx context.Context, app string, args []string) ([]apiv1.Snapshot, error) {
	return ofVolumes(ctx, c, app, args, (*client.Client).Snapshots)
}

// ofVolumes lists what the volume that the arguments name has of something, or what every one has.
func ofVolumes[T any](ctx context.Context, c *cli, app string, args []string,
	list func(*client.Client, context.Context, drover.AppName, drover.VolumeID) ([]T, error)) ([]T, error) {
	if len(args) == 1 {
		cl, v, err := c.volumeOf(ctx, app, args[0])
		if err != nil {
			return nil, err
		}
		return list(cl, ctx, v.App, v.ID)
	}
	cl, err := c.connect()
	if err != nil {
		return nil, err
	}
	apps, err := c.appsOr(ctx, cl, app)
	if err != nil {
		return nil, err
	}
	all := []T{}
	for _, app := range apps {
		more, err := list(cl, ctx, app, "")
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func makerText(s apiv1.Snapshot) string {
	if s.Scheduled {
		return "schedule"
	}
	return "user"
}

func snapshotStateText(s apiv1.Snapshot) string {
	if p := s.Progress; p != nil && s.Status == drover.SnapshotCreating {
		return fmt.Sprintf("%s %d %%", s.Status, part(p.Read, p.Total))
	}
	return string(s.Status)
}

// snapshotOf connects and finds the snapshot that an argument names.
func (c *cli) snapshotOf(ctx context.Context, app, id string) (*client.Client, apiv1.Snapshot, error) {
	client, err := c.connect()
	if err != nil {
		return nil, apiv1.Snapshot{}, err
	}
	s, err := client.FindSnapshot(ctx, drover.AppName(app), id)
	return client, s, err
}

func newSnapshotShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a snapshot",
		Example: "  drover volume snapshot show vs_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, s, err := c.snapshotOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(s)
			}
			return c.printFields(c.snapshotFields(s)...)
		},
	}
	addApp(cmd, &app)
	return cmd
}

func (c *cli) snapshotFields(s apiv1.Snapshot) [][2]string {
	state, problem, way := "what a power cut would leave", "", ""
	if s.Quiesced {
		state = "file systems clean"
	}
	if s.Problem != nil {
		problem = s.Problem.Text
	}
	if s.Status == drover.SnapshotCreating {
		way = uploadText(s, 0)
	}
	encrypted := "no"
	if s.Encrypted {
		encrypted = "yes, with the volume's key"
	}
	return [][2]string{{"ID", string(s.ID)}, {"Volume", fmt.Sprintf("%s (%s)", s.VolumeID, s.VolumeName)}, {"App", string(s.App)}, {"Status", snapshotStateText(s)},
		{"Progress", way}, {"Problem", problem}, {"Size", sizeText(s.VolumeSize)}, {"Data", fmt.Sprintf("%s, %s of it new to the store", sizeText(s.Size), sizeText(s.Stored))},
		{"Content", state}, {"Encrypted", encrypted}, {"Made by", makerText(s)}, {"Digest", s.Digest}, {"Taken", c.moment(s.TakenAt)}, {"Kept until", c.deadline(s.ExpiresAt)}}
}

func newSnapshotDeleteCommand(c *cli) *cobra.Command {
	var app string
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a snapshot",
		Long: `Delete removes a snapshot, and from the object store what only it needs. It
cannot be brought back.`,
		Example: "  drover volume snapshot delete vs_6f1c0a53e9b2d784\n  drover volume snapshot delete vs_6f1c0a53e9b2d784 --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, s, err := c.snapshotOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			what := fmt.Sprintf("delete snapshot %s of volume %s (%s), taken %s ago, for good", s.ID, s.VolumeID, s.VolumeName, c.age(s.TakenAt))
			if err := c.confirm(cmd.Context(), yes, what); err != nil {
				return err
			}
			if s, err = client.DeleteSnapshot(cmd.Context(), s.App, s.VolumeID, s.ID); err != nil {
				return err
			}
			return c.printSnapshot(s, "snapshot %s is being deleted", s.ID)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// printSnapshot prints the snapshot as JSON, or the sentence.
func (c *cli) printSnapshot(s apiv1.Snapshot, format string, args ...any) error {
	if c.json {
		return c.printJSON(s)
	}
	return c.print(format+"\n", args...)
}
