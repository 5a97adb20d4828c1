package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"drover"
	"drover/internal/testkit"
)

// rest mends everything and waits until the fleet has come to rest; then it compares, moves once more, compares again and looks for leftovers.
// What does not come to rest in time is a leftover, not an error: the report must tell of it.
func (r *run) rest(ctx context.Context) error {
	if err := r.mend(ctx); err != nil {
		return err
	}
	for _, wait := range []struct {
		what string
		open func(ctx context.Context) []string
	}{
		{"every host answers", r.silentHosts},
		{"drains have ended", r.runningDrains},
		{"migrations have ended", r.runningMigrations},
		{"hosts are open", r.closedHosts},
		{"machines run", r.stoppedMachines},
	} {
		if !r.comesTo(ctx, wait.what, wait.open) {
			return nil
		}
	}
	for n, m := range r.machines {
		if err := r.goesOn(ctx, n, m); err != nil {
			return err
		}
		if err := r.verify(ctx, n, m); err != nil {
			return err
		}
	}
	if err := r.lastMoves(ctx); err != nil {
		return err
	}
	if err := errors.Join(r.countMoves(ctx), r.countDrains(ctx)); err != nil {
		return err
	}
	return r.findLeftovers(ctx)
}

// comesTo waits until nothing is open; what is open when the bound is over are leftovers.
func (r *run) comesTo(ctx context.Context, what string, open func(context.Context) []string) bool {
	var last []string
	var told string
	err := testkit.Eventually(ctx, boundRest, what, func() (bool, error) {
		last = open(ctx)
		if now := fmt.Sprint(last); len(last) > 0 && now != told {
			r.say("waiting until %s: %v", what, last)
			told = now
		}
		if len(last) > 0 && !sleep(ctx, placeEvery) {
			return false, context.Cause(ctx)
		}
		return len(last) == 0, nil
	})
	if err == nil {
		r.say("%s", what)
		return true
	}
	r.left("not within "+boundRest.String()+": "+what, last)
	return false
}

// left counts and tells leftovers.
func (r *run) left(when string, what []string) {
	for _, w := range what {
		r.say("BROKEN: %s: %s", when, w)
	}
	r.count(func(rep *Report) { rep.Leftovers += len(what) })
}

func (r *run) silentHosts(ctx context.Context) []string {
	hosts, err := r.hosts(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var open []string
	for _, id := range r.workers {
		i := slices.IndexFunc(hosts, func(h drover.HostInfo) bool { return h.ID == id })
		if i < 0 || hosts[i].Status != drover.HostOK {
			open = append(open, fmt.Sprintf("host %s is not there", id))
			continue
		}
		if err := r.ask(ctx, &[]drover.LayerStatus{}, "host", "layers", string(id)); err != nil {
			open = append(open, err.Error())
		}
	}
	return open
}

func (r *run) hosts(ctx context.Context) ([]drover.HostInfo, error) {
	var hosts []drover.HostInfo
	err := r.ask(ctx, &hosts, "host", "list")
	return hosts, err
}

func (r *run) migrations(ctx context.Context) ([]drover.Migration, error) {
	var all []drover.Migration
	err := r.ask(ctx, &all, "migration", "list")
	return all, err
}

func (r *run) runningMigrations(ctx context.Context) []string {
	all, err := r.migrations(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var open []string
	for _, m := range all {
		if !m.Ended() {
			text := fmt.Sprintf("migration %s is %s in phase %s", m.ID, m.Outcome, m.Phase)
			if m.Problem != nil {
				text += ": " + m.Problem.Text
			}
			open = append(open, text)
		}
	}
	return open
}

// stoppedMachines lists the machines that do not run, though they should. One that failed and says why has kept the promises; it is started, as a
// user would.
func (r *run) stoppedMachines(ctx context.Context) []string {
	var open []string
	for n, m := range r.machines {
		s, err := r.show(ctx, m)
		switch {
		case err != nil:
			open = append(open, err.Error())
		case s.State == drover.StateFailed && s.Reason != "":
			r.say("machine %d has failed, and says why (%s): it is started", n, s.Reason)
			if _, err := r.within(ctx, boundCommand, "machine", "start", string(m.id), "--app", app); err != nil {
				r.say("machine %d is not started: %v", n, err)
			}
			open = append(open, fmt.Sprintf("machine %d is %s", n, s.State))
		case s.State != drover.StateStarted:
			open = append(open, fmt.Sprintf("machine %d is %s on %s: %s", n, s.State, s.Host, s.Reason))
		}
	}
	return open
}

// goesOn waits until the machine acknowledges something that it had not.
func (r *run) goesOn(ctx context.Context, n int, m *machine) error {
	before := m.Now().Acked
	return testkit.Eventually(ctx, boundBoot, fmt.Sprintf("another record of machine %d (%s)", n, m.id), func() (bool, error) {
		now := m.Now()
		return now.Acked > before, now.Err
	})
}

// lastMoves moves every machine once more: nothing may be left that keeps it where it is. Then it must hold what it held, and be called what it
// was called.
func (r *run) lastMoves(ctx context.Context) error {
	for n, m := range r.machines {
		to := r.next(m.lastHost(), 1)
		if _, err := r.within(ctx, boundRest, "machine", "move", string(m.id), "--to", string(to)); err != nil {
			r.left(fmt.Sprintf("machine %d cannot be moved to %s", n, to), []string{err.Error()})
			continue
		}
		if err := r.goesOn(ctx, n, m); err != nil {
			return err
		}
		if err := r.verify(ctx, n, m); err != nil {
			return err
		}
		s, err := r.show(ctx, m)
		if err != nil {
			return err
		}
		if now := s.names(); now != m.names {
			r.say("BROKEN: machine %d is another one than at the beginning:\n  %s\n  %s", n, m.names, now)
			r.count(func(rep *Report) { rep.Corrupt++ })
		}
	}
	return nil
}

// countMoves puts the migrations that succeeded into the report.
func (r *run) countMoves(ctx context.Context) error {
	all, err := r.migrations(ctx)
	if err != nil {
		return err
	}
	moved, aborted := 0, 0
	for _, m := range all {
		switch m.Outcome {
		case drover.Succeeded:
			moved++
		case drover.Aborted:
			aborted++
		}
	}
	r.say("%d migrations succeeded, %d were aborted", moved, aborted)
	r.count(func(rep *Report) { rep.Moves = moved })
	return nil
}
