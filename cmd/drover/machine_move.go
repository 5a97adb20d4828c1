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

func newMachineMoveCommand(c *cli) *cobra.Command {
	var app string
	var flags moveFlags
	var detach bool
	cmd := &cobra.Command{
		Use:   "move ID",
		Short: "Move a machine with its disks to another host",
		Long: `Move makes a migration: the machine is stopped on its host and started on the
other within seconds; with --live it goes on there with its memory, its
processes and its connections, and stands still for a fraction of a second.
Its ID, address, volumes and config stay what they are. Before anything is
touched, everything that could stop it is checked ('drover machine check-move'
does only that).

With an early switch the machine changes its host at once and its data
follows. With a late one the data is copied first, in rounds while the machine
runs, until little is left: a host that fails before that costs nothing. Left
to Drover, the switch is early for a host that is not trusted and for little
data, else late.

The command follows the migration to its end; Ctrl-C ends the following, not
the migration. Until the switch a migration can be aborted; then the machine
is on its old host as if nothing had been asked. Afterwards, also while its
data follows, it can be taken back with 'drover migration undo' as long as the
old host keeps its copy. When the machine fails on its new host, the command
says so at once, and ends with an exit code other than 0.`,
		Example: `  drover machine move 3d8d9c2b7e0a15
  drover machine move 3d8d9c2b7e0a15 --to h2 --live
  drover machine move 3d8d9c2b7e0a15 --switch late --bandwidth 50MiB --deadline 10m
  drover migration show $(drover machine move 3d8d9c2b7e0a15 --detach)`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, req, err := c.moveOf(cmd.Context(), app, args[0], flags)
			if err != nil {
				return err
			}
			migration, err := client.Move(cmd.Context(), req)
			if err != nil {
				return err
			}
			if detach {
				return c.printID(migration.ID, migration)
			}
			migration, err = c.followMigration(cmd.Context(), client, migration.ID, failedError)
			if err != nil {
				return err
			}
			return c.printMoved(migration)
		},
	}
	addApp(cmd, &app)
	flags.add(cmd)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not follow; print the migration's ID only")
	return cmd
}

// printMoved prints what came of a migration that has ended well.
func (c *cli) printMoved(m apiv1.Migration) error {
	if c.json {
		return c.printJSON(m)
	}
	text := fmt.Sprintf("machine %s is on host %s", m.Machine, m.Target)
	if m.InterruptionMS != nil {
		text += ", interrupted for " + durationText(time.Duration(*m.InterruptionMS)*time.Millisecond)
	}
	if m.Hydration != nil {
		text += fmt.Sprintf(", %s copied", sizeText(m.Bytes()))
	}
	return c.print("%s (%s)\n", text, m.ID)
}

// followMigration shows a migration's phases as they happen, until it has ended, or until says so. An aborted one is an error.
func (c *cli) followMigration(ctx context.Context, cl *client.Client, id drover.MigrationID, until func(apiv1.Migration) error) (apiv1.Migration, error) {
	f := migrationFollower{p: c.progress(), told: map[drover.Phase]bool{}}
	m, err := cl.FollowMigration(ctx, id, func(m apiv1.Migration) error {
		f.show(m)
		return until(m)
	})
	f.p.clear()
	if drover.Is(err, drover.Canceled) {
		return m, drover.Errorf(drover.Canceled, "stopped following migration %s; it goes on", id).
			WithHint("'drover migration show %s -f' follows it again; 'drover migration abort %s' gives it up before its switch", id, id)
	}
	if err != nil {
		return m, err
	}
	if m.Outcome == drover.Aborted {
		return m, abortedError(m)
	}
	return m, nil
}

// toTheEnd follows a migration whatever comes.
func toTheEnd(apiv1.Migration) error { return nil }

// failedError tells of a machine that has failed on its target, as soon as that is known; nil while it has not. Its data still follows.
func failedError(m apiv1.Migration) error {
	if m.Failed == "" || m.Outcome == drover.Aborted {
		return nil
	}
	goesOn := ""
	if !m.Ended() {
		goesOn = "; its data still follows"
	}
	e := drover.Errorf(drover.Precondition, "machine %s is on host %s since migration %s, and has failed there: %s%s", m.Machine, m.Target, m.ID, m.Failed, goesOn)
	if m.Interrupts || m.SourceOff {
		return e.WithHint("'drover machine logs %s' may tell why", m.Machine)
	}
	return e.WithHint("'drover machine logs %s' may tell why; 'drover migration undo %s' takes it back to host %s, to what it had at the switch", m.Machine, m.ID, m.Source)
}

func abortedError(m apiv1.Migration) error {
	// Conflict, unless the fleet knows better: for who asked for the move, somebody else's abort is one.
	code, why, hint := drover.Conflict, "", "'drover migration show "+string(m.ID)+"' shows how far it came"
	if m.UndoneBy != "" {
		hint = "'drover migration show " + string(m.UndoneBy) + "' shows what took it back"
	}
	if p := m.Problem; p != nil {
		why = ": " + p.Text
		if p.Code != drover.Canceled {
			code = p.Code
		}
		if p.Hint != "" {
			hint = p.Hint
		}
	}
	return drover.Errorf(code, "migration %s was aborted; machine %s is on host %s%s", m.ID, m.Machine, m.Source, why).WithHint("%s", hint)
}

// migrationFollower tells what changed since it last looked.
type migrationFollower struct {
	p          *progress
	introduced bool
	told       map[drover.Phase]bool
	running    bool
}

func (f *migrationFollower) show(m apiv1.Migration) {
	if !f.introduced {
		f.p.line("migration %s moves machine %s from %s to %s", m.ID, m.Machine, m.Source, m.Target)
		f.introduced = true
	}
	for _, s := range m.Steps {
		if !s.EndedAt.IsZero() && !f.told[s.Phase] {
			f.told[s.Phase] = true
			f.p.line("  %-8s %9s%s", s.Phase, durationText(s.EndedAt.Sub(s.StartedAt)), stepNotes(s))
		}
	}
	if !f.running && m.InterruptionMS != nil {
		f.running = true
		f.p.line("  the machine runs on %s; it was interrupted for %s", m.Target, durationText(time.Duration(*m.InterruptionMS)*time.Millisecond))
	}
	if m.Ended() {
		return
	}
	text, key := f.present(m)
	f.p.state(key, "  %-8s %s", m.Phase, text)
}

// present describes the phase that goes on, and when that is worth a line of its own.
func (f *migrationFollower) present(m apiv1.Migration) (text, key string) {
	key = string(m.Phase) + string(m.Outcome)
	if m.Outcome == drover.Aborting {
		text = "is being aborted"
	}
	if text := copyingText(m); text != "" && m.Outcome == drover.Running {
		if c := m.Convergence; c != nil {
			key += fmt.Sprint(c.Round)
		}
		if p := m.Problem; p != nil {
			text, key = text+": "+p.Text, key+p.Text
		}
		return text, key
	}
	if h := m.Hydration; h != nil && m.Phase == drover.PhaseHydrate {
		const tell = 25 // percent
		return hydrationText(h), fmt.Sprintf("%s %d %s", key, percent(h)/tell, h.Waiting)
	}
	if n := len(m.Steps); n > 0 && text == "" {
		s := m.Steps[n-1]
		text, key = durationText(m.AsOf.Sub(s.StartedAt))+stepNotes(s), key+s.Waited
		if !f.p.redraw {
			text = "begins" + stepNotes(s)
		}
	}
	if p := m.Problem; p != nil {
		text, key = text+": "+p.Text, key+p.Text
	}
	return text, key
}

// stepNotes says how much a step moved and what was out of the ordinary.
func stepNotes(s drover.Step) string {
	text := ""
	if s.Bytes > 0 {
		text += ", " + sizeText(s.Bytes)
	}
	if s.Tries > 1 {
		text += fmt.Sprintf(", %d tries", s.Tries)
	}
	if s.Waited != "" {
		text += ", waited: " + s.Waited
	}
	return text
}
