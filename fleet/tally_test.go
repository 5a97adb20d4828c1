package fleet

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"drover"
	"drover/migrate"
	"drover/waterfall"
)

// keptLong puts records of migrations into the store that ended so long ago that they are cleared away.
func keptLong(t *testing.T, n *node, count int) {
	t.Helper()
	ended := time.Now().UTC().Add(-DefaultTiming().KeepMigrations - time.Hour)
	for range count {
		m := drover.Migration{ID: drover.NewMigrationID(), Machine: "m", App: "shop", Source: "h1", Target: "h2", Outcome: drover.Succeeded, Phase: drover.PhaseDone,
			StoppedAt: ended.Add(-3 * time.Second), RunningAt: ended.Add(-time.Second), CreatedAt: ended.Add(-4 * time.Second), UpdatedAt: ended,
			Steps: []drover.Step{{Phase: drover.PhaseReserve, StartedAt: ended.Add(-4 * time.Second), EndedAt: ended, Bytes: 7, Tries: 1}}}
		if _, err := n.state.migrations.create(t.Context(), string(m.ID), m); err != nil {
			t.Fatal(err)
		}
	}
}

// swept reports whether no migration is left, and nothing in the tally that belongs to one.
func swept(n *node) bool {
	t, all := n.tallied()
	return len(all) == 0 && len(t.Folded) == 0
}

func counted(t *testing.T, n *node) uint64 {
	t.Helper()
	got, err := n.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got.Tally.Migrations[drover.Succeeded]
}

// TestCountsOutliveTheirRecords: while records are cleared away, every control host counts each migration once at every moment.
func TestCountsOutliveTheirRecords(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	w.tune = func(timing *Timing, _ *migrate.Rules) {
		timing.Stale, timing.Repair = 100*time.Millisecond, 20*time.Millisecond
	}
	const count = 20
	one, other := w.control("c2", nil), w.control("c3", nil)
	w.eventually("both are ready", func() bool { return one.await(t.Context()) == nil && other.await(t.Context()) == nil })
	keptLong(t, one, count)
	w.eventually("both have heard of all", func() bool { return counted(t, one) == count && counted(t, other) == count })
	w.eventually("all is cleared away", func() bool {
		for _, n := range []*node{one, other} {
			if got := counted(t, n); got != count {
				t.Fatalf("%d migrations are counted on %s, want %d", got, n.cfg.Host, count)
			}
		}
		return swept(one) && swept(other)
	})
	got, err := other.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Tally.Bytes != 7*count || got.Tally.Interruptions[waterfall.ModeCold].Count() != count ||
		got.Tally.Phases[drover.PhaseReserve][drover.Succeeded].SumMS != 4000*count || len(got.Hosts) != 3 {
		t.Errorf("%+v", got.Tally)
	}
}

// TestTallyCrashWalk kills who clears away at each step, and at each of the first times; the next one counts the same.
func TestTallyCrashWalk(t *testing.T) {
	t.Parallel()
	for _, point := range TallyFaultPoints() {
		for hit := range 2 {
			t.Run(fmt.Sprintf("%s/%d", point, hit), func(t *testing.T) {
				w, n := newWorld(t)
				const count = 4
				n.kill()
				w.tune = func(timing *Timing, _ *migrate.Rules) {
					timing.Stale, timing.Repair = 20*time.Millisecond, 10*time.Millisecond
					timing.LeaseTTL, timing.LeaseRenew = 300*time.Millisecond, 50*time.Millisecond
				}
				left := hit
				dying := w.control("c2", func(p string) bool {
					if p != point {
						return false
					}
					left--
					return left < 0
				})
				w.eventually("it is ready", func() bool { return dying.await(t.Context()) == nil })
				keptLong(t, dying, 1)
				w.eventually("it is dead, or done with the first", func() bool { return isClosed(dying.dead) || swept(dying) })
				next := w.control("c3", nil)
				w.eventually("the next is ready", func() bool { return next.await(t.Context()) == nil })
				keptLong(t, next, count-1)
				w.eventually("all is cleared away", func() bool { return swept(next) })
				if got := counted(t, next); got != count {
					t.Errorf("%d migrations are counted, want %d", got, count)
				}
			})
		}
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestRunningMigrationsAreCountedByPhase(t *testing.T) {
	t.Parallel()
	_, n := newWorld(t)
	now := time.Now().UTC()
	m := migrate.Begin(drover.Migration{ID: "mig_1", Machine: "m", Source: "h1", Target: "h9"}, now.Add(-time.Hour))
	n.state.migrations.set("mig_1", m, 1, false) // in memory alone: nobody drives it
	got, err := n.Metrics(t.Context())
	if err != nil || got.Running[drover.PhaseReserve] != 1 || got.Oldest[drover.PhaseReserve] < time.Hour || len(got.Tally.Migrations) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if names := []drover.HostID{got.Hosts[0].ID, got.Hosts[1].ID, got.Hosts[2].ID}; !slices.IsSorted(names) {
		t.Errorf("%v", names)
	}
}

// TestALaterTallyIsLeftAlone: what a newer version wrote is neither changed nor taken for something else, and no record is removed.
func TestALaterTallyIsLeftAlone(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	later := tally{Tally: waterfall.Tally{Version: waterfall.TallyVersion + 1}}
	if _, err := n.state.tallies.create(t.Context(), tallyKey, later); err != nil {
		t.Fatal(err)
	}
	keptLong(t, n, 1)
	if _, err := n.Metrics(t.Context()); !drover.Is(err, drover.Internal) {
		t.Error(err)
	}
	n.sweepMigrations(t.Context())
	if _, all := n.tallied(); len(all) != 1 {
		t.Errorf("%d records are left", len(all))
	}
	_ = w
}
