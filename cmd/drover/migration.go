package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newMigrationCommand(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "migration",
		Short: "Migrations: moves of machines between hosts",
		Long: `A migration moves one machine with its disks to another host. It has phases:
reserve, export, converge (for a late switch), quiesce, switch, start,
hydrate. Before the switch it can be aborted; after it, it goes on by itself
until it is done, whatever is restarted meanwhile, and can be taken back while
its source keeps its copy.`,
	}, newMigrationListCommand(c), newMigrationShowCommand(c), newMigrationAbortCommand(c), newMigrationUndoCommand(c), newMigrationWriteOffCommand(c),
		newMigrationPhasesCommand(c), newMigrationWaterfallCommand(c))
}

func newMigrationListCommand(c *cli) *cobra.Command {
	var machine string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List migrations, newest first",
		Example: "  drover migration list\n  drover migration list --machine 3d8d9c2b7e0a15",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			migrations, err := client.Migrations(cmd.Context(), drover.MachineID(machine))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(migrations)
			}
			t := table{header: []string{"ID", "MACHINE", "APP", "FROM", "TO", "PHASE", "OUTCOME", "INTERRUPTION", "SLOWEST", "AGE"},
				spare: []string{"SLOWEST", "APP", "PHASE"}}
			for _, m := range migrations {
				t.add(m.ID, m.Machine, m.App, m.Source, m.Target, m.Phase, m.Outcome, interruptionText(m), slowestText(m), c.age(m.CreatedAt))
			}
			return c.printTable(t, "No migrations. 'drover machine move ID' makes one.")
		},
	}
	cmd.Flags().StringVar(&machine, "machine", "", "only those of the machine, by its ID")
	return cmd
}

func interruptionText(m apiv1.Migration) string {
	if m.InterruptionMS == nil {
		return ""
	}
	return durationText(time.Duration(*m.InterruptionMS) * time.Millisecond)
}

func newMigrationShowCommand(c *cli) *cobra.Command {
	var follow bool
	var svg string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a migration: what took how long",
		Long: `Show draws the migration's waterfall: one row per phase with its start, its
length and its bytes, and a bar on a common time axis. Below a row stands what
it waited for, and how often it was tried when that is more than once. With -f
it follows the migration to its end first. With --svg the waterfall is
written as a drawing for a browser.`,
		Example: "  drover migration show mig_6f1c0a53e9b2d784\n  drover migration show mig_6f1c0a53e9b2d784 -f --svg move.svg",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			var m apiv1.Migration
			var ended error
			if follow {
				m, ended = c.followMigration(cmd.Context(), client, drover.MigrationID(args[0]), toTheEnd)
				if m.Outcome != drover.Aborted && ended != nil {
					return ended
				}
			} else if m, err = client.Migration(cmd.Context(), drover.MigrationID(args[0])); err != nil {
				return err
			}
			if c.json {
				err = c.printJSON(m)
			} else {
				err = c.printChart(chartOf(m), svg)
				if err == nil && svg == "" {
					err = c.print("Made %s.\n", strings.Join(courseText(m), ";\n  "))
				}
			}
			if err != nil {
				return err
			}
			return ended
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "follow it to its end, then show it")
	cmd.Flags().StringVar(&svg, "svg", "", "write the drawing as SVG into the file; - for stdout")
	return cmd
}

func newMigrationAbortCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "abort ID",
		Short: "Abort a migration that has not reached its switch",
		Long: `Abort gives a migration up; the machine stays on its host, and is started
there again if it was stopped for the move.`,
		Example: "  drover migration abort mig_6f1c0a53e9b2d784",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			m, err := client.AbortMigration(cmd.Context(), drover.MigrationID(args[0]))
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(m)
			}
			return c.print("migration %s is %s; machine %s stays on host %s\n", m.ID, m.Outcome, m.Machine, m.Source)
		},
	}
}
