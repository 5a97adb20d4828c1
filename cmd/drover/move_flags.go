package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// moveFlags are the flags of a move, and of its check.
type moveFlags struct {
	to, mode, bandwidth  string
	live, liveOrCold     bool
	damaged              bool
	deadline, noProgress time.Duration
}

func (f *moveFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "host to move to (default: chosen by the fleet)")
	flags.BoolVar(&f.live, "live", false, "move the memory too: the machine is paused for a fraction of a second, and not restarted")
	flags.BoolVar(&f.liveOrCold, "live-or-cold", false, "as --live, and a cold move where that cannot be")
	flags.BoolVar(&f.damaged, "damaged", false, "move it although blocks of its disks are known to be damaged: all but those are copied, after an early switch")
	flags.StringVar(&f.mode, "switch", "", "when to switch: early, late or auto (default auto)")
	flags.StringVar(&f.bandwidth, "bandwidth", "", "bound of the copying of disks and memory per second, such as 50MiB (default: none)")
	flags.DurationVar(&f.deadline, "deadline", 0, "give it up when the switch was not made after this time (default: never)")
	flags.DurationVar(&f.noProgress, "no-progress", 0, "give it up when nothing was copied for this time before the switch (default 2m)")
}

// request makes the request, without the machine.
func (f *moveFlags) request() (apiv1.MoveRequest, error) {
	req := apiv1.MoveRequest{Target: f.to, MoveOptions: drover.MoveOptions{Live: f.live || f.liveOrCold, LiveOrCold: f.liveOrCold, Damaged: f.damaged,
		Switch: drover.SwitchMode(f.mode), Deadline: drover.Duration(f.deadline), NoProgress: drover.Duration(f.noProgress)}}
	if f.bandwidth != "" {
		n, err := parseSize(f.bandwidth, drover.MiB)
		if err != nil {
			return req, fmt.Errorf("--bandwidth: %w", err)
		}
		req.Bandwidth = n
	}
	return req, nil
}

// moveOf connects, finds the machine that an argument names, and makes the request to move it.
func (c *cli) moveOf(ctx context.Context, app, machine string, flags moveFlags) (*client.Client, apiv1.MoveRequest, error) {
	req, err := flags.request()
	if err != nil {
		return nil, req, err
	}
	cl, m, err := c.machineOf(ctx, app, machine)
	req.Machine = string(m.ID)
	return cl, req, err
}

func newMachineCheckMoveCommand(c *cli) *cobra.Command {
	var app string
	var flags moveFlags
	cmd := &cobra.Command{
		Use:   "check-move ID",
		Short: "Tell whether a machine can be moved, and what is against it",
		Long: `Check-move looks at everything that 'drover machine move' looks at before it
touches the machine, and changes nothing: blocks that are known to be damaged,
room, image, processor and VMM, block sizes, encryption and keys, the network
between the hosts in both directions, certificates and clocks. It lists all of
it, and ends with an exit code other than 0 when the machine cannot be moved as
asked for.`,
		Example: "  drover machine check-move 3d8d9c2b7e0a15\n  drover machine check-move 3d8d9c2b7e0a15 --to h2 --live",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, req, err := c.moveOf(cmd.Context(), app, args[0], flags)
			if err != nil {
				return err
			}
			check, err := client.CheckMove(cmd.Context(), req)
			if err != nil {
				return err
			}
			if c.json {
				err = c.printJSON(check)
			} else {
				err = c.printCheck(check)
			}
			if err == nil && !check.Possible {
				return &exitError{code: exitCode(drover.Precondition)}
			}
			return err
		},
	}
	addApp(cmd, &app)
	flags.add(cmd)
	return cmd
}

// printCheck prints what was found, and what it comes to.
func (c *cli) printCheck(check drover.MoveCheck) error {
	t := table{header: []string{"CHECK", "HOST", "RESULT", "WHAT"}}
	for _, f := range check.Findings {
		result := "ok"
		switch {
		case !f.OK && f.LiveOnly:
			result = "not live"
		case !f.OK:
			result = "NO"
		}
		text := f.Text
		if f.Hint != "" && !f.OK {
			text += " (" + f.Hint + ")"
		}
		t.add(f.Check, f.Host, result, text)
	}
	if err := c.printTable(t, "Nothing was looked at."); err != nil {
		return err
	}
	if !check.Possible {
		return c.print("\nmachine %s cannot be moved as asked for\n", check.Machine)
	}
	how, when := "cold", "an early"
	if check.Live {
		how = "live"
	}
	if check.ColdReason != "" {
		how += " (" + check.ColdReason + ")"
	}
	if check.Late {
		when = "a late"
	}
	return c.print("\nmachine %s can be moved from %s to %s, %s, with %s switch: %s\n", check.Machine, check.Source, check.Target, how, when, check.SwitchReason)
}

func newMigrationUndoCommand(c *cli) *cobra.Command {
	var yes, detach bool
	cmd := &cobra.Command{
		Use:   "undo ID",
		Short: "Take a migration back to the copy that its source kept",
		Long: `Undo moves the machine back to the host that it came from, to what its disks
held at the switch, and starts it there. What was written since is given up. It
says since when, how much that is at least, and asks. The data need not be
copied, so it takes no longer than a stop and a start. It works while the
machine's data is still on its way, and afterwards as long as the source keeps
its copy, when the machine has not moved since.

What is given up stays on the other host for that host's grace time, if all of
the machine's data had come there; else nothing of it is kept. A host that does
not answer must be fenced first ('drover host confirm-off', 'drover host
fence'): it might still run the machine.`,
		Example: "  drover migration undo mig_6f1c0a53e9b2d784\n  drover migration undo mig_6f1c0a53e9b2d784 --yes",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			id := drover.MigrationID(args[0])
			undo, err := client.UndoMigration(cmd.Context(), id, false)
			if err != nil {
				return err
			}
			c.progress().line("%s", givenUpText(undo, c.now()))
			if err := c.confirm(cmd.Context(), yes, "take migration "+args[0]+" back"); err != nil {
				return err
			}
			if undo, err = client.UndoMigration(cmd.Context(), id, true); err != nil {
				return err
			}
			if detach {
				return c.printID(undo.Migration.ID, undo)
			}
			m, err := c.followMigration(cmd.Context(), client, undo.Migration.ID, failedError)
			if err != nil {
				return err
			}
			return c.printMoved(m)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not follow; print the new migration's ID only")
	return cmd
}

// givenUpText says what taking a migration back gives up.
func givenUpText(u apiv1.Undo, now time.Time) string {
	text := fmt.Sprintf("machine %s goes back from %s to %s, to what its disks held at %s, %s ago; ", u.Machine, u.From, u.To, u.SwitchedAt.UTC().Format(time.RFC3339),
		durationText(max(0, now.Sub(u.SwitchedAt))))
	switch {
	case u.SourceOff:
		text += fmt.Sprintf("what was written since is given up; how much that is only host %s could tell, which is off", u.From)
	case u.Unfinished:
		text += fmt.Sprintf("at least %s were written since, and are given up for good, since not all of its data has come to %s", sizeText(u.Written), u.From)
	default:
		text += fmt.Sprintf("at least %s were written since, and are given up", sizeText(u.Written))
	}
	return text
}

// copyingText describes what is copied before the switch; empty when nothing is.
func copyingText(m apiv1.Migration) string {
	c := m.Convergence
	switch {
	case m.Phase == drover.PhaseConverge && c != nil:
		text := fmt.Sprintf("round %d/%d, %s left, %s may be", c.Round, c.Rounds, sizeText(c.Remaining), sizeText(c.Threshold))
		if c.CopyRate > 0 {
			text += fmt.Sprintf(", %s/s copied", sizeText(c.CopyRate))
		}
		if c.DirtyRate > 0 {
			text += fmt.Sprintf(", %s/s written", sizeText(c.DirtyRate))
		}
		return text
	case m.Phase == drover.PhaseQuiesce && m.Memory != nil:
		return fmt.Sprintf("memory: %s of %s sent, %s left, %s/s", sizeText(m.Memory.Transferred), sizeText(m.Memory.Total), sizeText(m.Memory.Remaining),
			sizeText(m.Memory.Rate))
	}
	return ""
}

// courseText says how a migration is, or was, made.
func courseText(m apiv1.Migration) []string {
	var lines []string
	if m.Undoes != "" {
		lines = append(lines, "takes "+string(m.Undoes)+" back")
	}
	if m.UndoneBy != "" {
		lines = append(lines, "to be taken back by "+string(m.UndoneBy))
	}
	if text := lossText(m); text != "" {
		lines = append(lines, text)
	}
	if m.Failed != "" {
		lines = append(lines, "the machine has failed on "+string(m.Target)+": "+m.Failed)
	}
	how := "cold"
	if m.Live {
		how = "live"
	}
	if m.ColdReason != "" {
		how += " (" + m.ColdReason + ")"
	}
	when := "early"
	if m.Late {
		when = "late"
	}
	if m.SwitchReason != "" {
		when += ": " + m.SwitchReason
	}
	lines = append(lines, how+", switch "+when)
	if c := m.Convergence; c != nil {
		lines = append(lines, fmt.Sprintf("%d rounds, %s left of %s allowed, %s/s written, %s/s copied", c.Round, sizeText(c.Remaining), sizeText(c.Threshold),
			sizeText(c.DirtyRate), sizeText(c.CopyRate)))
	}
	if mem := m.Memory; mem != nil {
		text := fmt.Sprintf("memory: %s of %s sent in %d rounds", sizeText(mem.Transferred), sizeText(mem.Total), mem.Rounds)
		if mem.PausedFor > 0 {
			text += ", paused for " + durationText(mem.PausedFor)
		}
		lines = append(lines, text)
	}
	return lines
}
