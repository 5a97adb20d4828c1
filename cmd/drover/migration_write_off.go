package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newMigrationWriteOffCommand(c *cli) *cobra.Command {
	var yes bool
	var reason string
	cmd := &cobra.Command{
		Use:   "write-off ID",
		Short: "Give up what never came from a source that is lost",
		Long: `Write-off ends the waiting for a source that died for good while the machine's
data was on its way. What had not come is lost: reads of it give the machine I/O
errors, never zeroes, until it is written again. It says how much that is and
which newer copies there are of the volumes, and asks. Afterwards it lists what
was lost, and 'drover migration show ID' and 'drover volume show VOLUME' do.

It is refused while the source is heard, or any other host reaches it: the copy
goes on by itself when the source is back. There is no way to take it back: what
the source has when it returns after all is kept there for its grace time only.`,
		Example: "  drover migration write-off mig_6f1c0a53e9b2d784 --reason 'h1 has burnt'\n  drover migration write-off mig_6f1c0a53e9b2d784 --reason 'h1 has burnt' --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			id := drover.MigrationID(args[0])
			lost, err := client.WriteOff(cmd.Context(), id, false, reason)
			if err != nil {
				return err
			}
			if lost.WriteOff == nil {
				for _, line := range c.lossLines(lost) {
					c.progress().line("%s", line)
				}
				if err := c.confirm(cmd.Context(), yes, fmt.Sprintf("give up what host %s has of machine %s", lost.Source, lost.Machine)); err != nil {
					return err
				}
				if _, err = client.WriteOff(cmd.Context(), id, true, reason); err != nil {
					return err
				}
			}
			done := errors.New("done")
			m, err := c.followMigration(cmd.Context(), client, id, func(m apiv1.Migration) error {
				if m.WriteOff != nil && !m.WriteOff.DoneAt.IsZero() {
					return done
				}
				return nil
			})
			if err != nil && !errors.Is(err, done) {
				return err
			}
			if c.json {
				return c.printJSON(m)
			}
			return c.printWriteOff(m)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "how it is known that the source is lost for good (required)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// lossLines says what would be lost, and what would save it.
func (c *cli) lossLines(lost drover.LostSource) []string {
	size := sizeText(lost.Missing)
	if !lost.MissingKnown {
		size = "at least " + size
	}
	lines := []string{fmt.Sprintf("machine %s runs on %s; %s of its data never came from %s, and would be lost: reads of it fail until it is written again",
		lost.Machine, lost.Target, size, lost.Source)}
	for _, s := range lost.Copies {
		from := "there is no other copy of volume " + string(s.Volume)
		switch s.Kind {
		case drover.FromSnapshot:
			from = fmt.Sprintf("snapshot %s has volume %s as of %s: drover volume create NAME --snapshot %s", s.Snapshot.Snapshot, s.Volume, c.moment(s.At),
				s.Snapshot.Snapshot)
		case drover.FromStandby:
			from = fmt.Sprintf("standby %s on host %s has volume %s as of %s: drover volume standby show %s", s.Standby, s.Host, s.Volume, c.moment(s.At), s.Standby)
		}
		lines = append(lines, from)
	}
	return lines
}

func (c *cli) printWriteOff(m apiv1.Migration) error {
	if m.WriteOff == nil || len(m.WriteOff.Disks) == 0 {
		return c.print("nothing was lost: all that host %s had of machine %s has come\n", m.Source, m.Machine)
	}
	t := table{header: []string{"DISK", "LOST", "AT", "LENGTH"}}
	for _, d := range m.WriteOff.Disks {
		for i, h := range d.Holes {
			name, lost := "", ""
			if i == 0 {
				name, lost = string(d.Disk), sizeText(d.Lost)
			}
			t.add(name, lost, h.Offset, sizeText(h.Length))
		}
	}
	return c.printTable(t, "")
}

// lossText says what was written off of a migration; empty for nothing.
func lossText(m apiv1.Migration) string {
	w := m.WriteOff
	switch {
	case w == nil:
		return ""
	case w.DoneAt.IsZero():
		return "its source is being written off by " + w.Actor
	}
	var parts []string
	for _, d := range w.Disks {
		parts = append(parts, fmt.Sprintf("%s of disk %s in %s", sizeText(d.Lost), d.Disk, count(len(d.Holes), "place")))
	}
	if len(parts) == 0 {
		parts = []string{"nothing was lost"}
	}
	return fmt.Sprintf("its source was written off by %s (%s): %s", w.Actor, w.Reason, strings.Join(parts, ", "))
}
