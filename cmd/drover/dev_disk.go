package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/dev"
)

// newDevFillCommand, newDevHangCommand and newDevClockCommand are faults that a host does not get by a crash: a disk without room, one that hangs, a clock that is wrong.
func newDevFillCommand(c *cli) *cobra.Command {
	var leave string
	var undo bool
	cmd := c.devAction(&cobra.Command{
		Use:   "fill HOST",
		Short: "Fill a host's disk up, or empty it again",
		Long: `Puts a ballast on the host's disk, so that only --leave is left free for its volumes and records; --undo takes it away. Hosts have disks
of their own where the fleet was brought up with 'drover dev up --disk'. It holds through power cuts.`,
		Example: "  drover dev fill h1\n  drover dev fill h1 --leave 20MiB\n  drover dev fill h1 --undo",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		if undo {
			return "the disk has room again", f.Unfill(ctx, id)
		}
		var free drover.Bytes
		if leave != "0" {
			var err error
			if free, err = parseSize(leave, 1); err != nil {
				return "", err
			}
		}
		return "the disk is full; free are " + sizeText(free), f.Fill(ctx, id, free)
	})
	cmd.Flags().StringVar(&leave, "leave", "0", "how much is left free, such as 20MiB")
	cmd.Flags().BoolVar(&undo, "undo", false, "take the ballast away")
	return cmd
}

func newDevHangCommand(c *cli) *cobra.Command {
	var undo bool
	cmd := c.devAction(&cobra.Command{
		Use:   "hang HOST",
		Short: "Let a host's disk hang, or go on",
		Long: `Freezes the file system of the host's disk: nothing that is written or flushed ends, and whoever waits for it cannot be killed. --undo lets it go on, as does
whatever else is done with the host's power or its disk. Hosts have disks of their own where the fleet was brought up with 'drover dev up --disk'.`,
		Example: "  drover dev hang h1\n  drover dev hang h1 --undo",
	}, func(ctx context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		if undo {
			return "the disk goes on", f.Unhang(ctx, id)
		}
		return "the disk hangs", f.Hang(ctx, id)
	})
	cmd.Flags().BoolVar(&undo, "undo", false, "let the disk go on")
	return cmd
}

func newDevClockCommand(c *cli) *cobra.Command {
	var off time.Duration
	cmd := c.devAction(&cobra.Command{
		Use:   "clock HOST",
		Short: "Make a host's clock wrong, or right again",
		Long: `Steps the clock that the host's agent and controller read, at once, by --off from what is right; 0s makes it right. The other processes of
the host, and the guests, keep the machine's clock: the kernel has no wall clock per host. It holds through power cuts.`,
		Example: "  drover dev clock h1 --off 90s\n  drover dev clock h1 --off -10m\n  drover dev clock h1 --off 0s",
	}, func(_ context.Context, f *dev.Fleet, id drover.HostID) (string, error) {
		return "the clock is " + off.String() + " off", f.SetClock(id, off)
	})
	cmd.Flags().DurationVar(&off, "off", 0, "by how much the clock is wrong, such as 90s or -10m")
	return cmd
}
