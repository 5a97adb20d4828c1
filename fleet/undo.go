package fleet

import (
	"context"
	"time"

	"drover"
)

// UndoMigration takes a migration back: the machine returns to its source, to what its disks held at the switch. It is a migration of its own, and
// what is written since stays on the other host for its grace time. Without confirm it only tells what would be given up.
func (f *Fleet) UndoMigration(ctx context.Context, req Undo) (drover.MoveUndo, error) {
	if err := f.await(ctx); err != nil {
		return drover.MoveUndo{}, err
	}
	old, err := f.Migration(ctx, req.Migration)
	if err != nil {
		return drover.MoveUndo{}, err
	}
	if err := undoable(old); err != nil {
		return drover.MoveUndo{}, err
	}
	p, err := f.state.placementOf(ctx, old.Machine)
	if err != nil {
		return drover.MoveUndo{}, err
	}
	if p.Migration != old.ID {
		return drover.MoveUndo{}, drover.Errorf(drover.Precondition, "migration %q cannot be undone: machine %q has moved again since, to host %q", old.ID, old.Machine, p.Host).
			WithHint("undo the newest migration of the machine: drover migration list --machine %s", old.Machine)
	}
	move := Move{Machine: old.Machine, Target: old.Source, Actor: req.Actor, undoes: old.ID}
	c, err := f.preflight(ctx, move)
	if err != nil {
		return drover.MoveUndo{}, err
	}
	if e := c.refusal(); e != nil {
		return drover.MoveUndo{}, e
	}
	out := drover.MoveUndo{Undoes: old.ID, Machine: old.Machine, From: old.Target, To: old.Source, KeptUntil: c.keptUntil, SwitchedAt: switchedAt(old)}
	if out.Written, err = f.writtenSince(ctx, old); err != nil || !req.Confirm {
		return out, err
	}
	m := c.migration()
	if err := f.beginMove(ctx, m); err != nil {
		return drover.MoveUndo{}, err
	}
	f.log.Info("migration is taken back", "migration", m.ID, "undoes", old.ID, "machine", m.Machine, "from", m.Source, "to", m.Target, "actor", m.Actor)
	out.Migration = &m
	return out, nil
}

// undoable tells why a migration cannot be taken back; nil when its source may still have its copy.
func undoable(m drover.Migration) error {
	switch {
	case m.Outcome == drover.Aborted, m.Outcome == drover.Aborting:
		return drover.Errorf(drover.Precondition, "migration %q was aborted: machine %q never left host %q", m.ID, m.Machine, m.Source)
	case !m.Phase.Committed():
		return drover.Errorf(drover.Precondition, "migration %q has not switched yet: there is nothing to be undone", m.ID).
			WithHint("give it up: drover migration abort %s", m.ID)
	case m.Outcome == drover.Running:
		return drover.Errorf(drover.Conflict, "migration %q is still under way: its source serves what the target does not have yet", m.ID).
			WithHint("ask again when its hydration is done: drover migration show %s -f", m.ID)
	}
	return nil
}

// switchedAt is when the source's disks were written last.
func switchedAt(m drover.Migration) time.Time {
	if !m.StoppedAt.IsZero() {
		return m.StoppedAt
	}
	for _, s := range m.Steps {
		if s.Phase == drover.PhaseSwitch {
			return s.StartedAt
		}
	}
	return m.CreatedAt
}

// writtenSince sums what the target's layers hold that did not come from the source. What was overwritten in place is not seen.
func (f *Fleet) writtenSince(ctx context.Context, old drover.Migration) (sum drover.Bytes, err error) {
	var layers []drover.LayerStatus
	if err := f.order(ctx, f.timing.Apply, old.Target, drover.OrderLayers, drover.Empty{}, &layers); err != nil {
		return 0, err
	}
	for _, l := range layers {
		for _, d := range old.Disks {
			if l.ID != d.Target {
				continue
			}
			came := d.Allocated
			if h := l.Hydration; h != nil {
				sum += max(0, h.Copied-h.Verified) // fetched, and written over before it was compared
			}
			sum += max(0, l.Own-came)
		}
	}
	return sum, nil
}
