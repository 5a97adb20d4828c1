package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

func newVolumeVerifyCommand(c *cli) *cobra.Command {
	var app, snapshot string
	var detach bool
	cmd := &cobra.Command{
		Use:   "verify ID",
		Short: "Compare a volume with its checksums, or with a snapshot",
		Long: `Verify reads all that a volume holds on its host's disk and compares it with the
checksums that were kept when it was written, or with a snapshot of it or the
one that it was made of: what was written since cannot be compared then, and is
counted as unknown. It runs on the host while the disk is idle; Ctrl-C ends the
following, not the verification.

What is damaged is listed, and the exit code is 1 then. A damaged block is never
passed on as good: reads of it fail, and so does a move. What holds it good is
a snapshot from before: see 'drover volume create --snapshot'.`,
		Example: "  drover volume verify data\n  drover volume verify data --snapshot vs_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			result, err := client.VerifyVolume(cmd.Context(), v.App, v.ID, drover.SnapshotID(snapshot))
			if err != nil {
				return err
			}
			if detach {
				return c.printID(v.ID, result)
			}
			if result, err = c.followVerification(cmd.Context(), client, v, result); err != nil {
				return err
			}
			return c.printVerification(v, result)
		},
	}
	addApp(cmd, &app)
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "ID of the snapshot to compare with")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait; print the volume's ID only")
	return cmd
}

func (c *cli) followVerification(ctx context.Context, cl *client.Client, v apiv1.Volume, begun drover.Verification) (drover.Verification, error) {
	if begun.Done {
		return begun, nil
	}
	p := c.progress()
	defer p.clear()
	var m meter
	result, err := cl.FollowVerification(ctx, v.App, v.ID, begun, func(now drover.Verification) error {
		const tell = 25 // percent
		rate := m.rate(c.now(), now.Checked)
		p.state(fmt.Sprint(part(now.Checked, now.Total)/tell), "volume %s against %s: %d %%, %s", v.ID, now.Against, part(now.Checked, now.Total),
			seenText(now.Checked, now.Total, rate))
		return nil
	})
	if drover.Is(err, drover.Canceled) {
		return result, drover.Errorf(drover.Canceled, "stopped following the verification of volume %s; it goes on", v.ID).
			WithHint("'drover volume verify %s' follows it again; 'drover volume show %s' shows its result", v.ID, v.ID)
	}
	return result, err
}

// part is how much of a whole was done, in percent.
func part(have, total drover.Bytes) int {
	if total <= 0 {
		return 0
	}
	return int(min(100, 100*float64(have)/float64(total)))
}

// printVerification prints the result. What is damaged, and what could not be finished, is an error.
func (c *cli) printVerification(v apiv1.Volume, result drover.Verification) error {
	if c.json {
		if err := c.printJSON(result); err != nil {
			return err
		}
	} else if err := c.describeVerification(v, result); err != nil {
		return err
	}
	switch {
	case len(result.Damaged) > 0:
		return drover.Errorf(drover.Internal, "volume %s is %s", v.ID, damageText(result)).
			WithHint("'drover volume snapshot list %s' shows what it can be restored from", v.ID)
	case result.Problem != "":
		return drover.Errorf(drover.Unavailable, "the verification of volume %s was not finished: %s", v.ID, result.Problem).
			WithHint("'drover volume verify %s' begins it again", v.ID)
	}
	return nil
}

func (c *cli) describeVerification(v apiv1.Volume, result drover.Verification) error {
	var unknown, repaired string
	if result.Unknown > 0 {
		unknown = sizeText(result.Unknown) + ", written since"
	}
	if result.Repaired > 0 {
		repaired = sizeText(result.Repaired)
	}
	err := c.printFields([2]string{"Volume", fmt.Sprintf("%s (%s)", v.ID, v.Name)}, [2]string{"Against", result.Against},
		[2]string{"Checked", fmt.Sprintf("%s of %s", sizeText(result.Checked), sizeText(result.Total))},
		[2]string{"Unknown", unknown}, [2]string{"Repaired", repaired}, [2]string{"Damaged", count(len(result.Damaged), "place")})
	if err != nil || len(result.Damaged) == 0 {
		return err
	}
	t := table{header: []string{"OFFSET", "LENGTH"}}
	for _, r := range result.Damaged {
		t.add(int64(r.Offset), int64(r.Length))
	}
	if err := c.print("\n"); err != nil {
		return err
	}
	return c.printTable(t, "")
}
