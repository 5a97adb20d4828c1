package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover"
	"drover/apiv1"
	"drover/client"
	"drover/waterfall"
)

// fleetMoves selects migrations of the whole fleet.
type fleetMoves struct {
	since     durationFlag
	app, host string
}

// defaultSince is how far back the fleet's migrations are looked at.
const defaultSince = 24 * time.Hour

func (f *fleetMoves) addTo(flags *pflag.FlagSet) {
	f.since.d = drover.Duration(defaultSince)
	flags.Var(&f.since, "since", "how far back to look, by when migrations ended; 0s for all that are kept (default 24h)")
	flags.StringVar(&f.app, "app", "", "only machines of the app")
	flags.StringVar(&f.host, "host", "", "only moves from or to the host")
}

func (f *fleetMoves) query() client.PhasesQuery {
	return client.PhasesQuery{Since: time.Duration(f.since.d), App: drover.AppName(f.app), Host: drover.HostID(f.host)}
}

func newMigrationPhasesCommand(c *cli) *cobra.Command {
	var moves fleetMoves
	cmd := &cobra.Command{
		Use:   "phases",
		Short: "Show which phase of the fleet's moves takes the time",
		Long: `Phases sums up the phases of all migrations of the fleet, or of those of an app
or a host: how many there were, how long they took (median, 95th percentile and
longest), how much of the time of all phases each one took, and the migration
in which it took the longest. A phase that goes on counts with its length so
far. The last line names the slowest phase: 'drover migration show' of the
migration beside it says what it waited for.`,
		Example: "  drover migration phases\n  drover migration phases --since 168h --host h1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			report, err := client.Phases(cmd.Context(), moves.query())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(report)
			}
			return c.printPhases(report)
		},
	}
	moves.addTo(cmd.Flags())
	return cmd
}

func (c *cli) printPhases(r apiv1.PhaseReport) error {
	t := table{header: []string{"PHASE", "COUNT", "P50", "P95", "MAX", "TOTAL", "SHARE", "RETRIED", "BYTES", "SLOWEST MIGRATION"}}
	add := func(name string, s apiv1.PhaseSummary, share, retried string) {
		t.add(name, s.Count, msText(s.P50MS), msText(s.P95MS), msText(s.MaxMS), msText(s.TotalMS), share, retried, bytesOrNone(s.Bytes), s.SlowestMigration)
	}
	for _, s := range r.Phases {
		add(string(s.Phase), s, fmt.Sprintf("%d %%", s.SharePercent), fmt.Sprint(s.Retried))
	}
	if r.Interruption.Count > 0 {
		add("(interruption)", r.Interruption, "", "")
	}
	if err := c.printTable(t, "No migrations in this time. --since looks further back."); err != nil || len(r.Phases) == 0 {
		return err
	}
	text := fmt.Sprintf("\nOf %d migrations %d are running, %d were aborted.", r.Migrations, r.Running, r.Aborted)
	if i := slices.IndexFunc(r.Phases, func(s apiv1.PhaseSummary) bool { return s.Phase == r.Slowest }); i >= 0 {
		s := r.Phases[i]
		text += fmt.Sprintf(" The slowest phase is %s: %s, %d %% of the time; the longest was %s in %s.", s.Phase, msText(s.TotalMS), s.SharePercent, msText(s.MaxMS), s.SlowestMigration)
	}
	return c.print("%s\n", text)
}

func msText(ms int64) string { return durationText(time.Duration(ms) * time.Millisecond) }

func bytesOrNone(b drover.Bytes) string {
	if b <= 0 {
		return ""
	}
	return sizeText(b)
}

func newMigrationWaterfallCommand(c *cli) *cobra.Command {
	var moves fleetMoves
	var svg string
	cmd := &cobra.Command{
		Use:   "waterfall",
		Short: "Draw the migrations of the fleet on one time axis",
		Long: `Waterfall draws one row per migration, the oldest first, all on one time axis,
with a letter for each phase and capitals while the machine was interrupted:
what a drain did, and what waited for what. With --svg it writes a drawing for a
browser, with a pattern for each phase.`,
		Example: "  drover migration waterfall --since 1h\n  drover migration waterfall --host h1 --svg drain-of-h1.svg",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.connect()
			if err != nil {
				return err
			}
			migrations, err := client.Migrations(cmd.Context(), "")
			if err != nil {
				return err
			}
			now := c.now()
			if len(migrations) > 0 {
				now = migrations[0].AsOf
			}
			query := moves.query()
			list := waterfall.Select(records(migrations), waterfall.Filter{Since: query.Since, App: query.App, Host: query.Host}, now)
			slices.Reverse(list)
			if c.json {
				return c.printJSON(list)
			}
			return c.printChart(waterfall.OfMany(moves.title(), list, now), svg)
		},
	}
	moves.addTo(cmd.Flags())
	cmd.Flags().StringVar(&svg, "svg", "", "write the drawing as SVG into the file; - for stdout")
	return cmd
}

// title says what is drawn.
func (f *fleetMoves) title() string {
	title := "Migrations"
	if f.app != "" {
		title += " of app " + f.app
	}
	if f.host != "" {
		title += " from or to host " + f.host
	}
	if f.since.d > 0 {
		title += " in the last " + intervalText(f.since.d)
	}
	return title
}

// slowestText names the phase of a migration that took the longest.
func slowestText(m apiv1.Migration) string {
	s, ok := waterfall.Slowest(m.Migration, m.AsOf)
	if !ok {
		return ""
	}
	return string(s.Phase) + " " + durationText(waterfall.Length(s, m.AsOf))
}
