package chaos

import (
	"context"
	"slices"

	"drover"
)

// do does one thing to the fleet, waits as long as it holds, and takes it back. A command that is refused is part of the game: a VM that is not
// there cannot be killed, and a host without power has no services.
func (r *run) do(ctx context.Context, e Event) {
	switch {
	case e.Move:
		r.move(ctx, e)
		return
	case e.Drain:
		r.drainHost(ctx, e)
		return
	}
	begin, undo := r.commands(e)
	if begin == nil {
		return
	}
	if _, err := r.within(context.WithoutCancel(ctx), boundCommand, begin...); err != nil {
		r.say("%s: %v", e, err)
	} else {
		r.say("%s", e)
		r.count(func(rep *Report) { rep.Faults++ })
	}
	if undo == nil {
		return
	}
	sleep(ctx, e.For)
	for _, args := range undo {
		if _, err := r.within(context.WithoutCancel(ctx), boundCommand, args...); err != nil {
			r.say("end of %s: %v", e, err)
		}
	}
}

// commands are those that make a fault, and that take it back.
func (r *run) commands(e Event) (begin []string, undo [][]string) {
	host := string(e.Host)
	heal := [][]string{{"dev", "heal", host}}
	switch e.Fault {
	case Kill:
		if e.Service == "vm" {
			m := r.machines[e.Machine]
			return []string{"dev", "kill", string(m.lastHost()), "--machine", string(m.id)}, nil
		}
		return []string{"dev", "kill", host, "--service", e.Service}, nil
	case Power:
		return []string{"dev", "kill", host}, [][]string{{"dev", "start", host}}
	case Cut:
		return []string{"dev", "cut", host}, heal
	case OneWay:
		return []string{"dev", "cut", host, "--only", e.Only}, heal
	case Pair:
		return []string{"dev", "cut", host, "--from", string(e.Other)}, heal
	case Slow:
		return []string{"dev", "slow", host, "--rate", bytesText(e.Rate), "--delay", e.Delay.String()}, heal
	case Full:
		return []string{"dev", "fill", host, "--leave", bytesText(e.Leave)}, [][]string{{"dev", "fill", host, "--undo"}}
	case Hang:
		return []string{"dev", "hang", host}, [][]string{{"dev", "hang", host, "--undo"}}
	case Clock:
		return []string{"dev", "clock", host, "--off", e.Off.String()}, [][]string{{"dev", "clock", host, "--off", "0s"}}
	case Point:
		// Whether it strikes depends on who comes by; a host that lost its power by it is started again.
		return []string{"dev", "fault", host, e.Point, "--kind", e.Strike},
			[][]string{{"dev", "fault", host, e.Point, "--release"}, {"dev", "start", host}}
	}
	return nil, nil
}

// mend takes back whatever may still hold, on every host.
func (r *run) mend(ctx context.Context) error {
	for _, host := range append(slices.Clone(r.workers), control) {
		id := string(host)
		for _, args := range [][]string{{"dev", "hang", id, "--undo"}, {"dev", "heal", id}, {"dev", "clock", id, "--off", "0s"}, {"dev", "start", id}} {
			if _, err := r.within(ctx, boundCommand, args...); err != nil {
				return err
			}
		}
		if r.has(Full) && host != control {
			if _, err := r.within(ctx, boundCommand, "dev", "fill", id, "--undo"); err != nil {
				return err
			}
		}
	}
	return nil
}

// move begins a migration, and aborts it if the plan says so.
func (r *run) move(ctx context.Context, e Event) {
	m := r.machines[e.Machine]
	to := r.next(m.lastHost(), e.Step)
	args := []string{"machine", "move", string(m.id), "--to", string(to), "--detach"}
	if e.Flags != "" {
		args = append(args, e.Flags)
	}
	var mig drover.Migration
	if err := r.ask(ctx, &mig, args...); err != nil {
		if ctx.Err() == nil {
			r.say("%s to %s is refused: %v", e, to, err)
		}
		return
	}
	r.say("%s: %s to %s", e, mig.ID, to)
	if e.AbortAfter < 0 || !sleep(ctx, e.AbortAfter) {
		return
	}
	if _, err := r.within(ctx, boundCommand, "migration", "abort", string(mig.ID)); err != nil && ctx.Err() == nil {
		r.say("abort of %s is refused: %v", mig.ID, err)
	}
}

// next is the worker that is so many steps after another.
func (r *run) next(host drover.HostID, steps int) drover.HostID {
	i := slices.Index(r.workers, host)
	to := r.workers[(max(i, 0)+steps)%len(r.workers)]
	if to == host {
		return r.workers[(i+1)%len(r.workers)]
	}
	return to
}
