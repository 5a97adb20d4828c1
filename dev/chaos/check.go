package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"drover/internal/testkit"
)

// How often the run looks at its machines, asks where they are, and tells how far it is.
const (
	lookEvery  = 500 * time.Millisecond
	placeEvery = 3 * time.Second
	tellEvery  = 10 * time.Second
)

// watch looks at the machines until ctx ends: broken promises are told at once, with the moment.
func (r *run) watch(ctx context.Context) {
	var placed, told time.Time
	for sleep(ctx, lookEvery) {
		for n, m := range r.machines {
			r.compare(n, m)
		}
		if time.Since(placed) >= placeEvery {
			r.place(ctx)
			placed = time.Now()
		}
		if time.Since(told) >= tellEvery {
			r.tell()
			told = time.Now()
		}
	}
}

// place asks where the machines are. While the control host is down the old answer has to do.
func (r *run) place(ctx context.Context) {
	var all []shown
	if r.ask(ctx, &all, "machine", "list", "--app", app) != nil {
		return
	}
	for _, s := range all {
		for _, m := range r.machines {
			if s.ID == string(m.id) && s.Host != "" {
				m.host.Store(&s.Host)
			}
		}
	}
}

// compare tells what a watch has seen that must not be, once.
func (r *run) compare(n int, m *machine) {
	seen := m.Now()
	r.mu.Lock()
	before := r.told[m]
	r.told[m] = seen
	r.rep.TwoRunners += seen.TwoRunners - before.TwoRunners
	r.rep.Lost += seen.Lost - before.Lost
	r.rep.Corrupt += uint64(len(seen.Corrupt) - len(before.Corrupt))
	r.mu.Unlock()
	if seen.TwoRunners > before.TwoRunners {
		r.say("BROKEN: machine %d (%s) ran in two places", n, m.id)
	}
	if seen.Lost > before.Lost {
		r.say("BROKEN: machine %d (%s) does not find %d records that it had acknowledged", n, m.id, seen.Lost-before.Lost)
	}
	for _, what := range seen.Corrupt[len(before.Corrupt):] {
		r.say("BROKEN: machine %d (%s) says %s", n, m.id, what)
	}
	if seen.Err != nil && before.Err == nil {
		r.say("machine %d (%s) cannot be watched: %v", n, m.id, seen.Err)
	}
}

// tell shows how far the machines are.
func (r *run) tell() {
	var words []string
	for n, m := range r.machines {
		seen := m.Now()
		words = append(words, fmt.Sprintf("%d on %s %d", n, m.lastHost(), seen.Acked))
		if quiet := time.Since(seen.LastAck); quiet > tellEvery {
			words[n] += fmt.Sprintf(" (quiet for %.0f s)", quiet.Seconds())
		}
	}
	r.say("acknowledged: %s", strings.Join(words, ", "))
}

// countAcks puts the acknowledged records into the report, when the watches have ended.
func (r *run) countAcks() {
	for n, m := range r.machines {
		r.compare(n, m)
		r.count(func(rep *Report) { rep.Acked += m.Now().Acked })
	}
}

// verify reads everything back inside a machine and compares it with what was acknowledged outside before.
func (r *run) verify(ctx context.Context, n int, m *machine) error {
	outside := m.Now()
	var inside struct {
		Records    uint64 `json:"records"`
		BadRecords uint64 `json:"bad_records"`
		Blocks     uint64 `json:"blocks"`
		BadBlocks  uint64 `json:"bad_blocks"`
	}
	err := testkit.Eventually(ctx, boundBoot, fmt.Sprintf("the comparison inside machine %d", n), func() (bool, error) {
		var printed struct {
			Stdout string `json:"stdout"`
		}
		if err := r.ask(ctx, &printed, "machine", "exec", string(m.id), "--app", app, "--timeout", "50s", "--", "/writer", "verify"); err != nil {
			r.say("machine %d cannot be compared yet: %v", n, err)
			return false, nil
		}
		return true, json.Unmarshal([]byte(strings.TrimSpace(printed.Stdout)), &inside)
	})
	if err != nil {
		return err
	}
	lost := max(outside.Acked, inside.Records) - inside.Records + max(outside.Filled, inside.Blocks) - inside.Blocks
	bad := inside.BadRecords + inside.BadBlocks
	r.say("machine %d: outside %d records and %d blocks were acknowledged; inside are %d and %d, %d of them bad", n, outside.Acked, outside.Filled,
		inside.Records, inside.Blocks, bad)
	if lost+bad > 0 {
		r.say("BROKEN: machine %d (%s): %d lost, %d corrupt", n, m.id, lost, bad)
	}
	r.count(func(rep *Report) { rep.Lost, rep.Corrupt = rep.Lost+lost, rep.Corrupt+bad })
	return nil
}
