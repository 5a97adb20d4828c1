package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"drover"
	"drover/internal/testkit"
)

// drainPort is where writers answer.
const drainPort = "7777"

// drainPeers is what others say of emptying a host: text only, for there is nothing here to run it against.
const drainPeers = "Fly.io: \"a handful of minutes\" for a host of machines without volumes (2020); Incus: as many instances at a time as CPUs/16; " +
	"GCE: 60 s of notice before a VM is migrated live"

// measureDrain empties a host with writers on it, live or cold, and compares what that took with what the dry run had said. A drain before
// tells the plan what moves take on this machine. A client on a host that is not concerned asks every machine all the time.
func measureDrain(mode string) func(ctx context.Context, s setup) ([]result, error) {
	return func(ctx context.Context, s setup) (results []result, err error) {
		f, err := raiseFleet(ctx, s)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.close(ctx)) }()
		var writers []*writer
		defer func() {
			for _, w := range writers {
				w.stop()
			}
		}()
		for i := range s.machines {
			// Records at a pace that leaves emulated guests time for each other.
			w, err := f.startWriter(ctx, fmt.Sprintf("w%d", i), "h1", 1, s.fillMiB, "-pause", "100ms", "-serve", drainPort)
			if err != nil {
				return nil, err
			}
			writers = append(writers, w)
		}
		fmt.Fprintf(s.log, "peers, by their own words: %s\n", drainPeers)
		return f.measureDrains(ctx, s, mode, writers)
	}
}

// measureDrains drains in one way, s.runs times. Each time everything comes home by the same way.
func (f *fleet) measureDrains(ctx context.Context, s setup, mode string, writers []*writer) ([]result, error) {
	if err := f.primeDrain(ctx, s, mode, writers); err != nil {
		return nil, err
	}
	var took, planned, lost, acked, unanswered, asked []float64
	for run := range s.runs {
		one, err := f.drainOnce(ctx, s, mode, writers)
		if err != nil {
			return nil, err
		}
		took, planned = append(took, one.took), append(planned, one.planned)
		lost, acked = append(lost, float64(one.lost)), append(acked, float64(one.acked))
		unanswered, asked = append(unanswered, float64(one.requests.Lost)), append(asked, float64(one.requests.Asked))
		fmt.Fprintf(s.log, "run %d, %s: %d machines in %.1f s, the dry run said %.1f s; %d of %d acknowledged records lost; "+
			"%d of %d requests lost, the slowest answer took %.0f ms %s\n", run+1, mode, len(writers), one.took, one.planned, one.lost, one.acked,
			one.requests.Lost, one.requests.Asked, one.requests.LongestMS, one.requests.Problem)
	}
	results := []result{
		compare("drain."+mode+".total", "s", "near 1", "its own dry run", took, planned),
		compare("drain."+mode+".lost", "records", "lower", "acknowledged", lost, acked),
	}
	if mode == "live" { // a machine that moves cold answers nobody for a while, as anybody would expect
		results = append(results, compare("drain.live.requests", "lost requests", "lower", "requests", unanswered, asked))
	}
	return results, nil
}

// primeDrain drains the host and brings everything home, asked all the time, so that the plan is made of moves like those to come: guests that have just booted are busy for
// a while yet, in the way of the next ones.
func (f *fleet) primeDrain(ctx context.Context, s setup, mode string, writers []*writer) error {
	answers, err := f.askAll(ctx, writers)
	if err != nil {
		return err
	}
	flags := drainFlags(s, mode)
	var d, back drover.Drain
	if err = f.cli.Ask(ctx, &d, append([]string{"host", "drain", "h1"}, flags...)...); err == nil {
		err = f.cli.Ask(ctx, &back, append([]string{"drain", "return", string(d.ID)}, flags...)...)
	}
	_, aerr := answers()
	return errors.Join(err, aerr)
}

// drainFlags is how the host is drained, and how everything returns.
func drainFlags(s setup, mode string) []string {
	return []string{"--" + mode, "--reason", "bench", "--min-healthy", "1s", "--max-per-app", fmt.Sprint(s.parallel),
		"--max-parallel", fmt.Sprint(s.parallel), "--max-per-target", fmt.Sprint(s.parallel)}
}

// drained is one run.
type drained struct {
	took, planned float64
	lost, acked   uint64
	requests      requests
}

// drainOnce plans, drains, looks at every record, and brings everything home.
func (f *fleet) drainOnce(ctx context.Context, s setup, mode string, writers []*writer) (one drained, err error) {
	flags := drainFlags(s, mode)
	var plan, d, back drover.Drain
	if err := f.cli.Ask(ctx, &plan, append([]string{"host", "drain", "h1", "--dry-run"}, flags...)...); err != nil {
		return one, err
	}
	answers, err := f.askAll(ctx, writers)
	if err != nil {
		return one, err
	}
	err = f.cli.Ask(ctx, &d, append([]string{"host", "drain", "h1"}, flags...)...)
	requests, aerr := answers()
	if err := errors.Join(err, aerr); err != nil {
		return one, err
	}
	if d.State != drover.DrainDone {
		return one, fmt.Errorf("drain %s is %s: %v", d.ID, d.State, d.Problem)
	}
	for _, i := range d.Items {
		was := plan.Item(i.Machine)
		if was == nil {
			continue
		}
		var m drover.Migration
		if err := f.cli.Ask(ctx, &m, "migration", "show", string(i.Migration)); err != nil {
			return one, err
		}
		fmt.Fprintf(s.log, "%s: planned from %.1f s to %.1f s, went from %.1f s to %.1f s:%s\n", i.Name, was.ExpectedStart.Sub(plan.CreatedAt).Seconds(),
			was.ExpectedEnd.Sub(plan.CreatedAt).Seconds(), i.StartedAt.Sub(d.StartedAt).Seconds(), i.EndedAt.Sub(d.StartedAt).Seconds(), phasesOf(m))
	}
	one = drained{took: d.EndedAt.Sub(d.StartedAt).Seconds(), planned: plan.ExpectedSeconds, requests: requests}
	for _, w := range writers {
		lost, acked, err := w.count(ctx)
		if err != nil {
			return one, err
		}
		one.lost, one.acked = one.lost+lost, one.acked+acked
	}
	return one, f.cli.Ask(ctx, &back, append([]string{"drain", "return", string(d.ID)}, flags...)...)
}

// phasesOf tells what a move was made of.
func phasesOf(m drover.Migration) (text string) {
	for _, step := range m.Steps {
		if took := step.EndedAt.Sub(step.StartedAt); took > 100*time.Millisecond {
			text += fmt.Sprintf(" %s %.1f s", step.Phase, took.Seconds())
		}
	}
	return text
}

// count compares what a machine has with what it acknowledged.
func (w *writer) count(ctx context.Context) (lost, acked uint64, err error) {
	outside := w.watch.Now()
	var printed struct {
		Stdout string `json:"stdout"`
	}
	err = testkit.Eventually(ctx, time.Minute, "the check of machine "+w.id, func() (bool, error) {
		return w.fleet.cli.Ask(ctx, &printed, "machine", "exec", w.id, "--", "/writer", "verify") == nil, nil
	})
	if err != nil {
		return 0, 0, err
	}
	var there struct {
		Records    uint64 `json:"records"`
		BadRecords uint64 `json:"bad_records"`
	}
	if err := json.Unmarshal([]byte(printed.Stdout), &there); err != nil {
		return 0, 0, fmt.Errorf("verify of machine %s printed %q: %w", w.id, printed.Stdout, err)
	}
	if there.Records < outside.Acked {
		lost = outside.Acked - there.Records
	}
	return lost + there.BadRecords, outside.Acked, nil
}
