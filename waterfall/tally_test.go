package waterfall

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
)

func TestTallyCountsEachOnce(t *testing.T) {
	aborted := moved()
	aborted.Outcome, aborted.RunningAt, aborted.Steps = drover.Aborted, time.Time{}, aborted.Steps[:1]
	live := moved()
	live.Traced = drover.TraceExported
	live.Live = true
	var empty Tally
	one := empty.With(moved())
	all := one.With(aborted).With(live)
	if len(empty.Migrations) != 0 || one.Migrations[drover.Succeeded] != 1 || one.Phases[drover.PhaseStart][drover.Succeeded].Count() != 1 {
		t.Error("an earlier tally was changed")
	}
	if all.Migrations[drover.Succeeded] != 2 || all.Migrations[drover.Aborted] != 1 || all.Bytes != 2*635*drover.MiB || all.Traced[drover.TraceExported] != 1 {
		t.Errorf("%+v", all)
	}
	if all.Interruptions[ModeCold].Count() != 1 || all.Interruptions[ModeLive].SumMS != 4215 {
		t.Errorf("%+v", all.Interruptions)
	}
	start := all.Phases[drover.PhaseStart][drover.Succeeded]
	if c := start.Cumulative(); c[2500*time.Millisecond] != 0 || c[5*time.Second] != 2 || c[4*time.Hour] != 2 || start.SumMS != 2*2968 {
		t.Errorf("%+v", start)
	}
	if _, ok := all.Phases[drover.PhaseDone]; ok || all.Phases[drover.PhaseReserve][drover.Aborted].Count() != 1 {
		t.Errorf("%+v", all.Phases)
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var again Tally
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, again); diff != "" {
		t.Error(diff)
	}
}

func TestBucketsHaveTheirBounds(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{0, 50 * time.Millisecond, 51 * time.Millisecond, 4 * time.Hour, 5 * time.Hour} {
		h = h.with(d)
	}
	c := h.Cumulative()
	if c[50*time.Millisecond] != 2 || c[100*time.Millisecond] != 3 || c[4*time.Hour] != 4 || h.Count() != 5 || len(c) != len(Bounds()) {
		t.Errorf("%+v %v", h, c)
	}
}
