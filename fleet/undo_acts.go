package fleet

import (
	"context"

	"drover"
	"drover/migrate"
)

// What a migration that takes another one back does to that one's record, and to a placement whose host is off.

// actOfUndo does what only a migration does that takes another one back.
func (v *mover) actOfUndo(ctx context.Context, kind migrate.Kind, point string) error {
	var err error
	switch kind {
	case migrate.StandAside:
		err = v.setAside(ctx)
		v.facts.Aside = err == nil
	case migrate.CheckFence:
		err = v.checkFenceHolds(ctx)
	case migrate.Withhold:
		err = v.withhold(ctx)
	}
	v.store(err)
	v.after(point, err == nil)
	return nil
}

// setAside has the migration that is taken back do nothing while this one is under way. One that has ended meanwhile needs no word.
func (v *mover) setAside(ctx context.Context) error {
	return v.changeUndone(ctx, func(old drover.Migration) (drover.Migration, error) {
		switch {
		case old.Ended(), old.UndoneBy == v.m.ID:
			return old, nil
		case old.UndoneBy != "":
			return old, drover.Errorf(drover.Precondition, "migration %q is being taken back by migration %q already", old.ID, old.UndoneBy)
		case old.Outcome != drover.Running:
			return old, drover.Errorf(drover.Precondition, "migration %q is %s: there is nothing to be taken back", old.ID, old.Outcome)
		}
		return migrate.StandsAside(old, v.m.ID, v.now().UTC()), nil
	})
}

// endUndone tells the migration that was taken back what came of it: it has ended with this one, or goes on.
func (v *mover) endUndone(ctx context.Context, outcome drover.Outcome) error {
	if !v.m.Interrupts {
		return nil
	}
	v.hit("fleet.move.end-undone.before")
	err := v.changeUndone(ctx, func(old drover.Migration) (drover.Migration, error) {
		if old.Ended() || old.UndoneBy != v.m.ID {
			return old, nil
		}
		return migrate.Undone(old, outcome, v.now().UTC()), nil
	})
	if err == nil {
		v.hit("fleet.move.end-undone.after")
	}
	return err
}

// changeUndone changes the record of the migration that is taken back. Its own controller, and users, may change it at the same time.
func (v *mover) changeUndone(ctx context.Context, change func(drover.Migration) (drover.Migration, error)) error {
	for range casTries {
		old, rev, err := v.state.migrations.get(ctx, string(v.m.Undoes))
		if drover.Is(err, drover.NotFound) {
			return nil // it ended long ago
		}
		if err != nil {
			return err
		}
		next, err := change(old)
		if err != nil || sameRecord(old, next) {
			return err
		}
		if _, err = v.state.migrations.update(ctx, string(old.ID), next, rev); !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return tooBusy("migration", string(v.m.Undoes))
}

// checkFenceHolds sees whether the source, of which nothing is asked, is still certainly off.
func (v *mover) checkFenceHolds(ctx context.Context) error {
	_, err := v.certain(ctx, v.m.Source)
	switch {
	case err == nil:
		v.facts.Fence = migrate.FenceHolds
	case drover.Is(err, drover.Precondition):
		v.facts.Fence, v.facts.FenceErr = migrate.FenceGone, drover.AsError(err)
	default:
		return err
	}
	return nil
}

// withhold leaves the machine where it is, at a new epoch: a change of its placement that is still under way fits no more.
func (v *mover) withhold(ctx context.Context) error {
	p, err := v.state.placementOf(ctx, v.m.Machine)
	if drover.Is(err, drover.NotFound) {
		v.facts.Placement, v.facts.PlacementGone = nil, true
		return nil
	}
	if err != nil {
		return err
	}
	if p.Epoch != v.m.FromEpoch {
		v.facts.Placement = &p
		return nil
	}
	rev, err := v.state.placements.update(ctx, string(v.m.Machine), p, uint64(p.Epoch))
	switch {
	case err == nil:
		p.Epoch = drover.Epoch(rev)
		v.facts.Placement = &p
		v.log.Warn("the source is back: the machine stays there", "machine", v.m.Machine, "host", p.Host, "epoch", p.Epoch)
	case drover.Is(err, drover.Conflict):
		v.facts.Placement = nil
		return nil
	}
	return err
}

// asBefore makes of the machine's last status what it was at the moment to which its disks go back: a machine that ran then runs again, whatever it
// came to since.
func (v *mover) asBefore(s drover.MachineStatus) drover.MachineStatus {
	if v.m.Undoes != "" && v.m.WasRunning && (s.State == drover.StateFailed || s.State == drover.StateStopped) {
		s.State, s.Reason = drover.StateStarted, ""
	}
	return s
}
