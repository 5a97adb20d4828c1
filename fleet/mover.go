package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"drover"
	"drover/migrate"
)

// mover drives one migration: it loads the record, asks migrate what is to be done, does that one thing, writes down what came of
// it, and begins again. It belongs to one goroutine.
type mover struct {
	*Fleet
	log *slog.Logger
	key string

	m     drover.Migration
	rev   uint64
	facts migrate.Facts
	// hitch is what the migration waits for now.
	hitch hitch
	// unsaved: m says more than the record does. While the machine stands still only what must be durable is written at once.
	unsaved bool
	// moved is how much was copied before the switch when that was looked at last, incarnation what the source told of the running VM.
	moved       drover.Bytes
	incarnation *drover.Incarnation
	// savedAt is when the record was written last.
	savedAt time.Time
}

// hitch is something that fails again and again.
type hitch struct {
	last     *drover.Error
	since    time.Time
	failures int
	noted    time.Time
}

// noteEvery is how often the record is told how long something has been waited for.
const noteEvery = 5 * time.Second

// errOther ends a mover that found another controller at work.
func errOther(id string) error {
	return drover.Errorf(drover.Conflict, "migration %q was changed by another controller", id)
}

// run drives the migration until it has ended (nil), ctx ends, or its record is not its own any more.
func (v *mover) run(ctx context.Context) error {
	if err := v.load(ctx); err != nil {
		return err
	}
	if v.m.Ended() {
		return nil
	}
	if err := v.save(ctx, migrate.TakeOver(v.m, v.now().UTC())); err != nil {
		return err
	}
	v.forget()
	for ctx.Err() == nil {
		v.look()
		now := v.now().UTC()
		d := v.rules.Next(v.m, v.facts, now)
		if d.Kind == migrate.Nothing {
			return nil
		}
		if err := v.act(ctx, d); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// load reads the record.
func (v *mover) load(ctx context.Context) error {
	m, rev, err := v.state.migrations.get(ctx, v.key)
	if err != nil {
		return err
	}
	v.m, v.rev = m, rev
	return nil
}

// look takes in what memory knows.
func (v *mover) look() {
	v.facts.TargetSilent = v.silent(v.m.Target)
	machine, _, ok := v.state.machines.seen(string(v.m.Machine))
	v.facts.StopTimeout = time.Duration(machine.Config.WithDefaults().StopConfig.Timeout)
	v.facts.Destroyed = ok && machine.Goal == drover.GoalDestroyed
	_, _, placed := v.state.placements.seen(string(v.m.Machine))
	v.facts.Cleared = !placed && (v.facts.Destroyed || !ok)
}

// forget drops what was answered: a phase, or a controller, begins.
func (v *mover) forget() {
	v.facts = migrate.Facts{Placement: v.facts.Placement, PlacementGone: v.facts.PlacementGone, Answers: map[migrate.Target]migrate.Answer{}}
	v.hitch, v.moved = hitch{}, 0
}

// save writes the record. When another wrote it meanwhile, an abort is taken over, and anything else ends the mover.
func (v *mover) save(ctx context.Context, next drover.Migration) error {
	for {
		rev, err := v.state.migrations.update(ctx, v.key, next, v.rev)
		if err == nil {
			v.m, v.rev, v.savedAt, v.unsaved = next, rev, v.now(), false
			return nil
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Unavailable) {
			return err
		}
		if drover.Is(err, drover.Unavailable) {
			v.log.Warn("record of a migration cannot be written now", "err", err)
			if !v.sleep(ctx, v.rules.RetryMost) {
				return ctx.Err()
			}
		}
		found, rev, gerr := v.state.migrations.get(ctx, v.key)
		switch {
		case gerr != nil && ctx.Err() != nil:
			return ctx.Err()
		case gerr != nil, rev == v.rev:
			continue // it may not have been written: once more with the same revision
		case sameRecord(found, next):
			v.m, v.rev, v.savedAt, v.unsaved = found, rev, v.now(), false
			return nil
		case v.turnedBy(found):
			v.log.Info("migration is to be aborted, or taken back, or its source written off", "phase", found.Phase, "undone_by", found.UndoneBy)
			v.m, v.rev, v.unsaved = found, rev, false
			v.forget()
			return nil
		}
		return errOther(v.key)
	}
}

// turnedBy reports whether others changed the record as they may: a user gave the migration up, or its source, or another takes it back, or has given that up.
func (v *mover) turnedBy(found drover.Migration) bool {
	return found.WriteOff != nil && v.m.WriteOff == nil || found.Outcome == drover.Aborting && v.m.Outcome == drover.Running || found.UndoneBy != v.m.UndoneBy || found.UndoneBy != "" && found.Ended() && !v.m.Ended()
}

// sameRecord compares what is stored with what was to be stored, as the store has it: a time that was stored has no monotonic part any more,
// and an error no cause.
func sameRecord(a, b drover.Migration) bool {
	inStore, err := json.Marshal(a)
	wanted, werr := json.Marshal(b)
	return err == nil && werr == nil && bytes.Equal(inStore, wanted)
}

func (v *mover) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// act does what was decided. Its errors end the mover.
func (v *mover) act(ctx context.Context, d migrate.Decision) error {
	point := pointOf(d)
	if point != "" {
		v.hit("fleet.move." + point + ".before")
	}
	now := v.now().UTC()
	switch d.Kind {
	case migrate.Ask:
		return v.ask(ctx, d, point)
	case migrate.ReadPlacement:
		v.store(v.readPlacement(ctx))
	case migrate.Switch:
		v.facts.Fence = migrate.FenceUnknown
		v.store(v.changePlacement(ctx))
		v.after(point, v.facts.Store.Err == nil)
	case migrate.StandAside, migrate.CheckFence, migrate.Withhold:
		return v.actOfUndo(ctx, d.Kind, point)
	case migrate.WriteVolumes:
		err := v.writeVolumes(ctx)
		v.store(err)
		v.facts.VolumesWritten = err == nil
		v.after(point, err == nil)
	case migrate.Commit:
		if err := v.save(ctx, migrate.Committed(v.m, now)); err != nil {
			return err
		}
		v.after(point, true)
	case migrate.BeginRound, migrate.EndRounds, migrate.GoCold:
		return v.turn(ctx, d, point, now)
	case migrate.Enter:
		return v.enter(ctx, d.Phase, now)
	case migrate.Abort:
		v.log.Warn("migration is given up", "phase", v.m.Phase, "err", d.Problem)
		if err := v.save(ctx, migrate.GiveUp(v.m, d.Problem, now)); err != nil {
			return err
		}
		v.forget()
	case migrate.End:
		return v.end(ctx, d.Outcome, point)
	case migrate.Wait:
		return v.wait(ctx, d)
	}
	return nil
}

func (v *mover) after(point string, done bool) {
	if done && point != "" {
		v.hit("fleet.move." + point + ".after")
	}
}

// store notes what came of reading or changing what the store has.
func (v *mover) store(err error) {
	v.facts.Store = v.facts.Store.Next(drover.AsError(err), v.now().UTC())
}

func (v *mover) enter(ctx context.Context, p drover.Phase, now time.Time) error {
	from := v.m.Phase
	next := migrate.EnterPhase(v.m, p, now)
	if p == drover.PhaseStart {
		next.ToEpoch = v.facts.Placement.Epoch
	}
	if p == drover.PhaseSwitch || p == drover.PhaseStart {
		// The machine stands still, and both phases are found out anew: the one by asking the source once more, the other by the placement.
		v.m, v.unsaved = next, true
	} else if err := v.save(ctx, next); err != nil {
		return err
	}
	v.forget()
	v.log.Info("migration goes on", "machine", v.m.Machine, "from", from, "to", v.m.Phase)
	return nil
}

// end gives the machine free and closes the record.
func (v *mover) end(ctx context.Context, outcome drover.Outcome, point string) error {
	if err := v.endUndone(ctx, outcome); err != nil {
		return err
	}
	if err := v.releaseMove(ctx, v.m.Machine, v.m.ID); err != nil {
		v.log.Warn("claim stays until it is old", "machine", v.m.Machine, "err", err)
	}
	if err := v.save(ctx, migrate.Finish(v.m, outcome, v.now().UTC())); err != nil {
		return err
	}
	v.log.Info("migration ended", "machine", v.m.Machine, "outcome", v.m.Outcome, "err", v.m.Problem)
	v.kicks.add(v.m.Machine)
	v.after(point, true)
	return nil
}

// wait waits, and notes in the record for what when it is not the normal course of things.
func (v *mover) wait(ctx context.Context, d migrate.Decision) error {
	now := v.now().UTC()
	if d.Problem != nil {
		if v.hitch.last == nil {
			v.hitch.since = now
		}
		first := v.hitch.last == nil || v.hitch.last.Text != d.Problem.Text
		v.hitch.last = d.Problem
		if first || now.Sub(v.hitch.noted) > noteEvery {
			v.hitch.noted = now
			if err := v.save(ctx, migrate.Waiting(v.m, d.Problem, v.hitch.since, now)); err != nil {
				return err
			}
		}
	}
	changed := v.state.migrations.next(v.key)
	if err := v.reload(ctx); err != nil {
		return err
	}
	// Not longer than any decision waits: the clock may be put right meanwhile.
	timer := time.NewTimer(min(d.Until.Sub(now), v.rules.RetryMost))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-changed:
	}
	return v.reload(ctx)
}

// readPlacement reads where the machine is.
func (v *mover) readPlacement(ctx context.Context) error {
	p, err := v.state.placementOf(ctx, v.m.Machine)
	v.facts.Placement, v.facts.PlacementGone = nil, false
	switch {
	case drover.Is(err, drover.NotFound):
		v.facts.PlacementGone = true
		return nil
	case err == nil:
		v.facts.Placement = &p
	}
	return err
}

// changePlacement is the switch: THE commit point. A conflict means that the placement has changed, perhaps by an earlier try of our own, and is
// read again; when the outcome is unknown it is tried again, never given up.
func (v *mover) changePlacement(ctx context.Context) error {
	p := drover.Placement{Machine: v.m.Machine, Host: v.m.Target, Migration: v.m.ID}
	rev, err := v.state.placements.update(ctx, string(v.m.Machine), p, uint64(v.m.FromEpoch))
	switch {
	case err == nil:
		p.Epoch = drover.Epoch(rev)
		v.facts.Placement = &p
		v.log.Info("placement changed", "machine", v.m.Machine, "from", v.m.Source, "to", v.m.Target, "epoch", p.Epoch)
	case drover.Is(err, drover.Conflict):
		v.facts.Placement = nil
		return nil
	}
	return err
}

// writeVolumes writes into the volumes' records where they are now. It never takes a record back from what came later.
func (v *mover) writeVolumes(ctx context.Context) error {
	for _, d := range v.m.Disks {
		if d.Volume == "" {
			continue
		}
		_, err := v.changeVolume(ctx, d.Volume, func(vol *drover.Volume) error {
			if vol.Epoch > v.m.ToEpoch || vol.Machine != v.m.Machine {
				return nil
			}
			vol.Host, vol.Epoch, vol.State = v.m.Target, v.m.ToEpoch, drover.VolumeHydrating
			if v.m.Hydration != nil && v.m.Hydration.Done {
				vol.State = drover.VolumeCreated
			}
			return nil
		})
		if err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	return nil
}

// undone notes that a host has undone its part.
func undone(m drover.Migration, host drover.HostID) drover.Migration {
	if !slices.Contains(m.Undone, host) {
		m.Undone = append(slices.Clone(m.Undone), host)
	}
	return m
}
