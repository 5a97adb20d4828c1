package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newSnapshotCreateCommand(c *cli) *cobra.Command {
	var app string
	var detach bool
	var days int
	var req apiv1.CreateSnapshotRequest
	cmd := &cobra.Command{
		Use:   "create VOLUME",
		Short: "Take a snapshot of a volume, and wait until it is in the object store",
		Long: `Create takes a snapshot of what a volume holds at this moment, without stopping
the machine that has it: what the machine has written and not flushed may or may
not be in it, as after a power cut. With --quiesce the guest's file systems are
frozen for that moment, and clean in the snapshot. With --full all of it is
stored again, not only what is new: chunks that are damaged in the object store
are whole afterwards, for older snapshots that share them too.

Then what is new in it goes into the object store. The command follows that to
its end; Ctrl-C ends the following, not the snapshot.`,
		Example: `  drover volume snapshot create data
  drover volume snapshot create data --quiesce --retention 30
  drover volume snapshot show $(drover volume snapshot create data --detach)`,
		Args: exactly("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("retention") {
				req.RetentionDays = &days
			}
			s, err := client.CreateSnapshot(cmd.Context(), v.App, v.ID, req)
			if err != nil {
				return err
			}
			if detach {
				return c.printID(s.ID, s)
			}
			if s, err = c.followSnapshot(cmd.Context(), client, s); err != nil {
				return err
			}
			return c.printSnapshot(s, "snapshot %s of volume %s (%s): %s, %s of it new to the store, kept until %s", s.ID, s.VolumeID, s.VolumeName,
				sizeText(s.Size), sizeText(s.Stored), c.deadline(s.ExpiresAt))
		},
	}
	addApp(cmd, &app)
	cmd.Flags().BoolVar(&req.Quiesce, "quiesce", false, "freeze the guest's file systems for the moment")
	cmd.Flags().BoolVar(&req.Full, "full", false, "store all of it again, also what the object store has: mends what is damaged there")
	cmd.Flags().IntVar(&days, "retention", 0, "days for which it is kept (default: the volume's)")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait; print the ID only")
	return cmd
}

// followSnapshot follows a snapshot on its way into the object store. One that has failed is an error.
func (c *cli) followSnapshot(ctx context.Context, cl *client.Client, s apiv1.Snapshot) (apiv1.Snapshot, error) {
	id := s.ID
	if s.Status == drover.SnapshotCreating {
		p := c.progress()
		defer p.clear()
		p.line("snapshot %s of volume %s (%s) is taken; its blocks go to the object store", s.ID, s.VolumeID, s.VolumeName)
		var m meter
		var err error
		s, err = cl.FollowSnapshot(ctx, s.App, s.VolumeID, s.ID, func(now apiv1.Snapshot) error {
			if now.Status == drover.SnapshotCreating {
				text, key := c.uploadProgress(now, &m)
				p.state(key, "  %s", text)
			}
			return nil
		})
		if drover.Is(err, drover.Canceled) {
			return s, drover.Errorf(drover.Canceled, "stopped following snapshot %s; it goes on", id).
				WithHint("'drover volume snapshot show %s' shows how far it is", id)
		}
		if err != nil {
			return s, err
		}
	}
	if s.Status == drover.SnapshotCreated {
		return s, nil
	}
	code, why, hint := drover.Conflict, "it is "+string(s.Status), ""
	if s.Problem != nil {
		code, why, hint = s.Problem.Code, s.Problem.Text, s.Problem.Hint
	}
	return s, drover.Errorf(code, "snapshot %s was not finished: %s", id, why).WithHint("%s", hint)
}

// uploadProgress describes the way into the store, and when that is worth a line of its own.
func (c *cli) uploadProgress(s apiv1.Snapshot, m *meter) (text, key string) {
	const tell = 25 // percent
	var rate drover.Bytes
	if p := s.Progress; p != nil {
		rate = m.rate(c.now(), p.Read)
		key = fmt.Sprint(part(p.Read, p.Total)/tell, p.Waiting)
	}
	if s.Problem != nil {
		key += s.Problem.Text
	}
	return uploadText(s, rate), key
}

// uploadText says how far a snapshot is on its way into the store. A rate of 0 is not known.
func uploadText(s apiv1.Snapshot, rate drover.Bytes) string {
	text := "waiting for the host"
	if p := s.Progress; p != nil && p.Total == 0 && p.Waiting == "" {
		text = "finding out what it holds"
	} else if p != nil {
		text = fmt.Sprintf("%d %%, %s, %s new to the store", part(p.Read, p.Total), seenText(p.Read, p.Total, rate), sizeText(p.Stored))
		if p.Waiting != "" {
			text += ", waiting: " + p.Waiting
		}
	}
	if s.Problem != nil {
		text += ": " + s.Problem.Text
	}
	return text
}
