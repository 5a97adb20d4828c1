package waterfall

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
	"drover/apiv1"
)

func TestPhasesSumUp(t *testing.T) {
	aborted := moved()
	aborted.ID, aborted.App, aborted.Target, aborted.Outcome = "mig_4", "shop", "h3", drover.Aborted
	aborted.Steps, aborted.RunningAt = []drover.Step{{Phase: drover.PhaseReserve, StartedAt: at(0), EndedAt: at(900_000), Tries: 3}}, time.Time{}
	all := append(drained(), aborted)
	got := Phases(all, Filter{}, at(920_000))
	if got.Migrations != 4 || got.Running != 1 || got.Aborted != 1 || got.Slowest != drover.PhaseStart || !got.Since.IsZero() {
		t.Errorf("%+v", got)
	}
	var names []drover.Phase
	byPhase := map[drover.Phase]apiv1.PhaseSummary{}
	for _, p := range got.Phases {
		names = append(names, p.Phase)
		byPhase[p.Phase] = p
	}
	if diff := cmp.Diff([]drover.Phase{"reserve", "export", "quiesce", "switch", "start", "hydrate"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(apiv1.PhaseSummary{Phase: "reserve", Count: 4, P50MS: 310, P95MS: 900_000, MaxMS: 900_000, TotalMS: 900_930, SharePercent: 49, Retried: 1,
		SlowestMigration: "mig_4"}, byPhase["reserve"]); diff != "" {
		t.Error(diff)
	}
	if p := byPhase["start"]; p.Running != 1 || p.SlowestMigration != "mig_3" || p.MaxMS != 909_298 || p.Bytes != 69*drover.MiB {
		t.Errorf("what goes on is not counted with its length so far: %+v", p)
	}
	if i := got.Interruption; i.Count != 2 || i.P50MS != 4215 {
		t.Errorf("%+v", i)
	}
	for f, want := range map[Filter]int{{App: "shop"}: 1, {Host: "h3"}: 1, {Host: "h1"}: 4, {Host: "h9"}: 0, {Since: time.Minute}: 2, {Since: time.Hour}: 4} {
		if got := Phases(all, f, at(920_000)); got.Migrations != want {
			t.Errorf("%+v finds %d, want %d", f, got.Migrations, want)
		}
	}
}

func TestNoMigrationsHaveNoPhases(t *testing.T) {
	if diff := cmp.Diff(apiv1.PhaseReport{AsOf: at(0), Phases: []apiv1.PhaseSummary{}}, Phases(nil, Filter{}, at(0))); diff != "" {
		t.Error(diff)
	}
}

func TestRankIsALengthThatThereWas(t *testing.T) {
	var lengths []time.Duration
	for i := range 100 {
		lengths = append(lengths, time.Duration(i+1))
	}
	if rank(lengths, .5) != 50 || rank(lengths, .95) != 95 || rank(lengths[:1], .95) != 1 || rank(lengths[:2], .5) != 1 || rank(nil, .5) != 0 {
		t.Error(rank(lengths, .5), rank(lengths, .95))
	}
}

func TestSlowest(t *testing.T) {
	if s, ok := Slowest(moved(), at(0)); !ok || s.Phase != drover.PhaseHydrate {
		t.Error(s, ok)
	}
	if s, ok := Slowest(drover.Migration{}, at(0)); ok {
		t.Error(s)
	}
}
