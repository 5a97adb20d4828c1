package chaos

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"drover"
	"drover/internal/testkit"
)

// drainHost drains a host, at most as long as the event holds: what has not ended by then is aborted. The host stays closed until the drain has
// ended, and is opened then.
func (r *run) drainHost(ctx context.Context, e Event) {
	args := append([]string{"host", "drain", string(e.Host), "--reason", "chaos", "--allow-partial", "--detach"}, strings.Fields(e.Flags)...)
	out, err := r.within(context.WithoutCancel(ctx), boundCommand, args...)
	if err != nil {
		r.say("%s is refused: %v", e, err)
		return
	}
	id := strings.TrimSpace(out)
	r.say("%s: %s", e, id)
	err = testkit.Eventually(ctx, e.For, "the end of a drain", func() (bool, error) {
		d, err := r.drainNow(ctx, id)
		if err == nil && d.Ended() {
			r.say("drain of %s is %s", e.Host, d.State)
			return true, nil
		}
		if !sleep(ctx, placeEvery) {
			return false, context.Cause(ctx)
		}
		return false, nil // who cannot be asked now is asked again
	})
	if err == nil {
		r.open(context.WithoutCancel(ctx), e.Host)
		return
	}
	if _, err := r.within(context.WithoutCancel(ctx), boundCommand, "drain", "abort", id); err != nil {
		r.say("the drain of %s is not aborted: %v", e.Host, err)
	}
}

func (r *run) drainNow(ctx context.Context, id string) (drover.Drain, error) {
	var d drover.Drain
	return d, r.ask(ctx, &d, "drain", "show", id)
}

// open takes a host's mark away.
func (r *run) open(ctx context.Context, host drover.HostID) {
	if _, err := r.within(ctx, boundCommand, "host", "uncordon", string(host)); err != nil {
		r.say("host %s is not opened: %v", host, err)
	}
}

func (r *run) drains(ctx context.Context) ([]drover.Drain, error) {
	var all []drover.Drain
	err := r.ask(ctx, &all, "drain", "list")
	return all, err
}

// runningDrains aborts the drains that have not ended, and lists them. They might wait for ever for what the faults have made of a machine.
func (r *run) runningDrains(ctx context.Context) []string {
	all, err := r.drains(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var open []string
	for _, d := range all {
		if d.Ended() {
			continue
		}
		open = append(open, string(d.ID)+" is "+string(d.State))
		if d.State == drover.DrainAborting {
			continue
		}
		if _, err := r.within(ctx, boundCommand, "drain", "abort", string(d.ID)); err != nil {
			open = append(open, err.Error())
		}
	}
	return open
}

// closedHosts opens every host, lifts every halt of a class, and lists what is closed still.
func (r *run) closedHosts(ctx context.Context) []string {
	hosts, err := r.hosts(ctx)
	drains, drainsErr := r.drains(ctx)
	if err := errors.Join(err, drainsErr); err != nil {
		return []string{err.Error()}
	}
	var closed, halted []string
	for _, h := range hosts {
		if h.Mark != nil {
			closed = append(closed, "host "+string(h.ID)+" is closed")
			r.open(ctx, h.ID)
		}
		for _, c := range h.Conditions {
			if c.Code == drover.ClassHalted && !slices.Contains(halted, c.Subject) {
				halted = append(halted, c.Subject)
			}
		}
	}
	for _, class := range halted {
		closed = append(closed, "class "+class+" is halted")
		if len(drains) == 0 {
			continue
		}
		if _, err := r.within(ctx, boundCommand, "drain", "resume", string(drains[0].ID), "--class", class); err != nil {
			closed = append(closed, err.Error())
		}
	}
	return closed
}

// countDrains counts those that were not given up by this run.
func (r *run) countDrains(ctx context.Context) error {
	all, err := r.drains(ctx)
	if err != nil {
		return err
	}
	ended, moved, took := 0, 0, time.Duration(0)
	for _, d := range all {
		moved += d.Totals.Moved
		took = max(took, d.EndedAt.Sub(d.CreatedAt))
		if d.State == drover.DrainDone || d.State == drover.DrainFailed {
			ended++
		}
	}
	r.say("%d of %d drains ended by themselves, the others were aborted; %d machines were moved; the longest took %s", ended, len(all), moved, took.Round(time.Second))
	r.count(func(rep *Report) { rep.Drains = ended })
	return nil
}
