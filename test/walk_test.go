package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
	fleetpkg "drover/fleet"
	"drover/internal/fault"
)

// blow is what happens to one party of a move while a process is held at a step: every step, every party, every kind. The bus is the control host's,
// in the same process as the controller.
type blow struct {
	point, party, strike string
}

// blows lists all, in an order made by lot.
func blows(r *rand.Rand) []blow {
	parties := map[string][]string{
		"source agent": {"crash", "power", "cut"}, "source storage": {"crash", "cut"},
		"target agent": {"crash", "power", "cut"}, "target storage": {"crash", "cut"},
		"controller and bus": {"crash", "power", "cut"},
	}
	var out []blow
	for _, point := range append(allPoints(), fleetpkg.AbortFaultPoints()...) {
		for party, strikes := range parties {
			for _, strike := range strikes {
				out = append(out, blow{point, party, strike})
			}
		}
	}
	slices.SortFunc(out, func(a, b blow) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// TestWalk moves a machine to and fro, and at each step of a move strikes each party in each way. All of it takes hours: it goes on until the time
// is over, or everything was walked. Steps that no move comes by are left out after one try.
func TestWalk(t *testing.T) {
	if *soak == 0 {
		t.Skip("takes long: 'make soak' runs it")
	}
	seed := *walkSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	r := rand.New(rand.NewPCG(seed, 0))
	all := blows(r)
	t.Logf("seed %d, %d combinations", seed, len(all))
	w := newWriter(t, newApp(t), "h1")
	unreached := map[string]bool{}
	walked := 0
	end := time.Now().Add(*soak)
	for _, b := range all {
		if time.Now().After(end) || t.Failed() {
			break
		}
		if unreached[b.point] {
			continue
		}
		if w.endures(t, b, time.Duration(1+r.IntN(30))*time.Second) {
			walked++
		} else {
			unreached[b.point] = true
		}
	}
	t.Logf("%d combinations were walked; no move comes by %d points", walked, len(unreached))
	if walked == 0 {
		t.Fatal("nothing was walked")
	}
	w.intact(t)
}

// endures moves the machine and strikes when a process comes by the point. It tells whether one did.
func (w *writer) endures(t *testing.T, b blow, lasts time.Duration) bool {
	before := machine(t, w.id)
	to := map[drover.HostID]drover.HostID{"h1": "h2", "h2": "h1"}[before.Host]
	hosts := []string{"h1", "h2", "c1"}
	for _, h := range hosts {
		run(t, "dev", "fault", h, b.point, "--kind", "hold")
	}
	id := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", string(to), "--detach").ID
	if strings.Contains(b.point, "abort") {
		// Too late is no harm: then nobody comes by.
		if err := fleet.cli.Run(t.Context(), nil, "migration", "abort", string(id)); err != nil {
			t.Logf("the abort of %s: %v", id, err)
		}
	}
	held := ""
	eventually(t, boundMove, b.point, func() bool {
		for _, h := range hosts {
			if fault.Held(faultDir(h), b.point) {
				held = h
				return true
			}
		}
		var m drover.Migration
		return fleet.cli.Ask(t.Context(), &m, "migration", "show", string(id)) == nil && m.Ended()
	})
	var mend [][]string
	if held != "" {
		mend = w.strike(t, b, string(before.Host), string(to))
	}
	for _, h := range hosts {
		if err := fault.Release(faultDir(h), b.point); err != nil {
			t.Fatal(err)
		}
	}
	if len(mend) > 0 {
		pause := time.NewTimer(lasts)
		defer pause.Stop()
		<-pause.C
	}
	for _, args := range mend {
		run(t, args...)
	}
	m := lastMigration(t, w.id)
	t.Logf("%v, held on %q for %s: migration %s ended as %s", b, held, lasts, m.ID, m.Outcome)
	w.isWhereItShouldBe(t, m)
	return held != ""
}

// strike hits the party, and returns the commands that mend it.
func (w *writer) strike(t *testing.T, b blow, source, target string) (mend [][]string) {
	host, service := source, "worker"
	switch {
	case strings.HasPrefix(b.party, "target"):
		host = target
	case strings.HasPrefix(b.party, "controller"):
		host, service = "c1", "control"
	}
	if strings.HasSuffix(b.party, "storage") {
		service = "storage"
	}
	switch b.strike {
	case "crash":
		run(t, "dev", "kill", host, "--service", service)
		return nil
	case "power":
		run(t, "dev", "kill", host)
		return [][]string{{"dev", "start", host}}
	}
	cut := []string{"dev", "cut", host}
	if service == "storage" {
		other := map[string]string{source: target, target: source}[host]
		cut = append(cut, "--from", other)
	}
	run(t, cut...)
	return [][]string{{"dev", "heal", host}}
}

// isWhereItShouldBe waits until the machine runs where the migration says, and looks at what must not be elsewhere.
func (w *writer) isWhereItShouldBe(t *testing.T, m drover.Migration) {
	t.Helper()
	want := m.Source
	if m.Outcome == drover.Succeeded {
		want = m.Target
	}
	acked := w.Now().Acked
	eventually(t, boundMove, "another acknowledgement", func() bool { return w.Now().Acked > acked })
	eventually(t, boundMove, "rest after migration "+string(m.ID), func() bool {
		for _, h := range []drover.HostID{"h1", "h2"} {
			var layers []drover.LayerStatus
			if fleet.cli.Ask(t.Context(), &layers, "host", "layers", string(h)) != nil {
				return false
			}
			open := 0
			for _, l := range layers {
				if len(l.Exports) > 0 {
					return false
				}
				if l.Writer != 0 {
					open++
				}
			}
			if h == want && open != 2 || h != want && open != 0 {
				return false
			}
		}
		return true
	})
	if now := machine(t, w.id); now.Host != want || now.State != drover.StateStarted {
		t.Errorf("migration %s %s, and the machine is %s on %s", m.ID, m.Outcome, now.State, now.Host)
	}
}
