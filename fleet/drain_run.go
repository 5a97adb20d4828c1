package fleet

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/plan"
)

// drainer drives all drains, one step of each after another, so that none promises what another has promised. It belongs to one goroutine; what runs in
// guests meanwhile has its own.
type drainer struct {
	*Fleet
	// begins is what the last try to begin a machine's move said, until it is taken into account.
	begins map[drover.MachineID]*drover.Error
	// wroteAt is when each drain's record was written last.
	wroteAt map[drover.DrainID]time.Time

	hooks sync.WaitGroup
	mu    sync.Mutex
	// ran has the hooks that this controller has begun, and how they ended; nil while they run.
	ran map[hookKey]*plan.HookResult
}

type hookKey struct {
	drain   drover.DrainID
	machine drover.MachineID
	at      int64
}

// noteDrainEvery is how often a record is written when only its explanations change.
const noteDrainEvery = 2 * time.Second

// keepDrains drives every drain that has not ended, until ctx ends.
func (f *Fleet) keepDrains(ctx context.Context) {
	r := &drainer{Fleet: f, begins: map[drover.MachineID]*drover.Error{}, wroteAt: map[drover.DrainID]time.Time{}, ran: map[hookKey]*plan.HookResult{}}
	defer r.hooks.Wait()
	for {
		drains, moves, marks := f.state.drains.next(anyKey), f.state.moved(), f.state.marks.next(anyKey)
		active := f.activeDrains()
		for _, d := range active {
			if ctx.Err() != nil {
				return
			}
			if err := r.step(ctx, d.ID); err != nil && ctx.Err() == nil && !drover.Is(err, drover.Conflict) {
				f.log.Warn("drain is looked at again later", "drain", d.ID, "err", err)
			}
		}
		if len(active) == 0 {
			moves, marks = nil, nil
		}
		select {
		case <-ctx.Done():
			return
		case <-drains:
		case <-moves:
		case <-marks:
		case <-time.After(f.timing.Drain):
		}
	}
}

// step looks at one drain, writes down what has become of it and what is to be done, and does it.
func (r *drainer) step(ctx context.Context, id drover.DrainID) error {
	d, rev, err := r.state.drains.get(ctx, string(id))
	if err != nil {
		return err
	}
	facts := r.facts(ctx, d)
	now := r.now().UTC()
	next, halts, acts := plan.NextDrain(d, facts, now)
	for _, h := range halts {
		if err := r.halt(ctx, h); err != nil {
			return err
		}
	}
	if err := r.save(ctx, d, next, facts, rev, now); err != nil {
		return err
	}
	for _, i := range next.Items {
		if i.State != drover.ItemStarting {
			delete(r.begins, i.Machine) // it was taken into account
		}
	}
	for _, a := range acts {
		if err := r.do(ctx, next, a); err != nil {
			return err
		}
	}
	return nil
}

// facts puts together what is known. Hosts are asked for their room only when a machine may be begun.
func (r *drainer) facts(ctx context.Context, d drover.Drain) plan.DrainFacts {
	facts := r.drainFacts(d)
	for _, other := range r.activeDrains() {
		if other.ID == d.ID {
			break
		}
		if other.Host == d.Host && other.Kind == drover.DrainAway {
			facts.Rival = other.ID
		}
	}
	r.weighNew(ctx, d, facts)
	waits := func(i drover.DrainItem) bool {
		return i.State == drover.ItemWaiting || i.State == drover.ItemHook
	}
	if d.State == drover.DrainRunning && (slices.ContainsFunc(d.Items, waits) || len(facts.There) > 0) {
		facts.Rooms = r.askedRooms(ctx, d.Region, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range d.Items {
		m, ok := facts.Machines[i.Machine]
		if !ok {
			continue
		}
		m.Begin, m.Hook = r.begins[i.Machine], r.ran[hookKey{d.ID, i.Machine, i.HookAt.UnixNano()}]
		facts.Machines[i.Machine] = m
	}
	return facts
}

// weighNew asks the host what machines hold that the plan did not have. When it does not answer, they count as empty.
func (r *drainer) weighNew(ctx context.Context, d drover.Drain, facts plan.DrainFacts) {
	fresh := slices.ContainsFunc(facts.There, func(c plan.Candidate) bool { return d.Item(c.Machine) == nil })
	if !fresh {
		return
	}
	if err := r.weigh(ctx, d.Host, facts.There, d.Options.Suspect); err != nil {
		r.log.Debug("what machines hold is not known", "drain", d.ID, "err", err)
	}
}

// save writes the record if it is another one now. Explanations alone are written every few seconds.
func (r *drainer) save(ctx context.Context, d, next drover.Drain, facts plan.DrainFacts, rev uint64, now time.Time) error {
	if reflect.DeepEqual(d, next) {
		return nil
	}
	material := !reflect.DeepEqual(plainDrain(d), plainDrain(next))
	if !material && now.Sub(r.wroteAt[d.ID]) < noteDrainEvery {
		return nil
	}
	if material && !next.Ended() {
		next.ExpectedEnd = plan.Estimate(&next, facts, now)
	}
	next.UpdatedAt = now
	r.hit("fleet.drain.save.before")
	if _, err := r.state.drains.update(ctx, string(d.ID), next, rev); err != nil {
		return err
	}
	r.wroteAt[d.ID] = now
	if material {
		r.hit("fleet.drain.save.after")
	}
	if next.State != d.State {
		r.log.Info("drain goes on", "drain", d.ID, "host", d.Host, "from", d.State, "to", next.State, "err", next.Problem)
	}
	if next.Ended() {
		delete(r.wroteAt, d.ID)
		r.hit("fleet.drain.end.after")
	}
	return nil
}

// plainDrain is a record without its explanations and expectations.
func plainDrain(d drover.Drain) drover.Drain {
	d.Waits, d.ExpectedEnd, d.UpdatedAt = "", time.Time{}, time.Time{}
	d.Items = slices.Clone(d.Items)
	for k := range d.Items {
		i := &d.Items[k]
		i.Reason, i.Phase, i.ExpectedStart, i.ExpectedEnd, i.ExpectedInterruption = "", "", time.Time{}, time.Time{}, 0
	}
	return d
}

// halt writes down that a class is not to be moved; the first reason counts.
func (r *drainer) halt(ctx context.Context, h drover.ClassHalt) error {
	_, err := r.state.halts.create(ctx, h.Class, h)
	if drover.Is(err, drover.Exists) {
		return nil
	}
	if err == nil {
		r.log.Error("class is halted", "class", h.Class, "drain", h.Drain, "migration", h.Migration, "machine", h.Machine, "err", h.Reason)
		r.hit("fleet.drain.halt.after")
	}
	return err
}

// do does one act. What fails is done again at the next look, or told to it.
func (r *drainer) do(ctx context.Context, d drover.Drain, a plan.DrainAct) error {
	point := "fleet.drain." + string(a.Kind)
	r.hit(point + ".before")
	var err error
	switch a.Kind {
	case plan.ActMark:
		if d.Kind == drover.DrainReturn {
			err = r.removeMark(ctx, d.Host, &d.Returns)
		} else {
			err = r.markDrained(ctx, d)
		}
	case plan.ActHook:
		r.runHook(ctx, d, a.Machine)
	case plan.ActBegin:
		_, berr := r.MoveMachine(ctx, Move{Machine: a.Machine, Target: a.Target, Actor: d.Actor, Options: a.Options, Drain: d.ID})
		if berr != nil && ctx.Err() == nil {
			r.begins[a.Machine] = drover.AsError(berr)
			r.log.Info("move of a drain is not begun now", "drain", d.ID, "machine", a.Machine, "to", a.Target, "err", berr)
			return nil
		}
		err = berr
	case plan.ActAbort:
		_, err = r.giveUp(ctx, a.Migration, drover.Errorf(drover.Canceled, "drain %s was aborted", d.ID))
		if drover.Is(err, drover.Precondition) {
			return nil // its switch came first
		}
	case plan.ActStop:
		_, err = r.StopMachine(ctx, "", a.Machine, drover.StopConfig{})
	}
	if err == nil {
		r.hit(point + ".after")
	}
	return err
}

// DrainFaultPoints names the places at which a fault can strike whoever makes or drives a drain: before and after each write and each act.
func DrainFaultPoints() []string {
	points := []string{"fleet.drain.record.after", "fleet.drain.save.before", "fleet.drain.save.after", "fleet.drain.end.after", "fleet.drain.halt.after"}
	for _, act := range []plan.DrainActKind{plan.ActMark, plan.ActHook, plan.ActBegin, plan.ActAbort, plan.ActStop} {
		points = append(points, "fleet.drain."+string(act)+".before", "fleet.drain."+string(act)+".after")
	}
	return points
}
