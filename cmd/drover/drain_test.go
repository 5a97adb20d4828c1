package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/api/apitest"
)

// drainFleet is a fleet with one machine on h1.
func drainFleet(t *testing.T) (*apitest.Backend, runner) {
	t.Helper()
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	for _, line := range [][]string{{"app", "create", "ledger"}, {"machine", "create", "debian", "--app", "ledger", "--name", "one", "--detach"}} {
		if got := r.run(t.Context(), line...); got.code != 0 {
			t.Fatal(got)
		}
	}
	return backend, r
}

func TestADrainIsFollowedToItsEnd(t *testing.T) {
	backend, r := drainFleet(t)
	backend.DrainsEnd = true
	got := r.run(t.Context(), "host", "drain", "h1", "--reason", "kernel")
	if got.code != 0 || !strings.Contains(got.stdout, "1 of 1 moved") || !strings.Contains(got.stdout, "1.50 s") || !strings.Contains(got.stderr, "about 1m30s") {
		t.Fatalf("%+v", got)
	}
}

func TestADrainThatFailedIsAnErrorThatNamesWhatStays(t *testing.T) {
	backend, r := drainFleet(t)
	id := drover.DrainID(strings.TrimSpace(r.run(t.Context(), "host", "drain", "h1", "--reason", "kernel", "-d").stdout))
	backend.ChangeDrain(id, func(d *drover.Drain) {
		d.Items[0].State, d.Items[0].Reason = drover.ItemFailed, "migration mig_1 failed: no"
		d.State, d.EndedAt, d.Problem = drover.DrainFailed, d.StartedAt.Add(time.Minute), drover.Errorf(drover.Precondition, "1 of 1 machine were not moved")
		d.Totals = d.Sum()
	})
	got := r.run(t.Context(), "drain", "show", string(id), "-f")
	if got.code != 5 || !strings.Contains(got.stdout, "migration mig_1 failed: no") || !strings.Contains(got.stderr, "were not moved") {
		t.Fatalf("%+v", got)
	}
}

func TestCtrlCStopsFollowingADrainOnly(t *testing.T) {
	backend, r := drainFleet(t)
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	backend.Fail = func(method string) error {
		if method == "Drain" {
			if asked++; asked == 3 {
				cancel()
			}
		}
		return nil
	}
	got := r.run(ctx, "host", "drain", "h1", "--reason", "kernel")
	if got.code != 130 || !strings.Contains(got.stderr, "it goes on by itself") || !strings.Contains(got.stderr, "drover drain show drn_0000000000000002 -f") {
		t.Fatalf("%+v", got)
	}
	backend.Fail = nil
	if d, err := backend.Drain(t.Context(), "drn_0000000000000002"); err != nil || d.State != drover.DrainRunning {
		t.Fatalf("%+v, %v", d, err)
	}
}
