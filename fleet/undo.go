package fleet

import (
	"context"
	"time"

	"drover"
)

// UndoMigration takes a migration back: the machine returns to its source, to what its disks held at the switch. It is a migration of its own. What was
// written since stays on the other host for its grace time, unless not all of the machine's data had come there: then nothing of it is kept. Without
// confirm it only tells what would be given up.
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
	move := Move{Machine: old.Machine, Target: old.Source, Actor: req.Actor, undoes: &old}
	c, err := f.preflight(ctx, move)
	if err != nil {
		return drover.MoveUndo{}, err
	}
	if e := c.refusal(); e != nil {
		return drover.MoveUndo{}, e
	}
	out := drover.MoveUndo{Undoes: old.ID, Machine: old.Machine, From: old.Target, To: old.Source, KeptUntil: c.keptUntil, SwitchedAt: switchedAt(old),
		Unfinished: !hydrated(old), SourceOff: c.off}
	if !c.off {
		if out.Written, err = f.writtenSince(ctx, old); err != nil {
			return out, err
		}
	}
	if !req.Confirm {
		return out, nil
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
	case m.UndoneBy != "":
		e := drover.Errorf(drover.Conflict, "migration %q is being taken back already, by migration %q", m.ID, m.UndoneBy)
		if m.Ended() {
			e = drover.Errorf(drover.Precondition, "migration %q was taken back already, by migration %q", m.ID, m.UndoneBy)
		}
		return e.WithHint("see `drover migration show %s`", m.UndoneBy)
	case m.Outcome == drover.Aborted, m.Outcome == drover.Aborting:
		return drover.Errorf(drover.Precondition, "migration %q was aborted: machine %q never left host %q", m.ID, m.Machine, m.Source)
	case !m.Phase.Committed():
		return drover.Errorf(drover.Precondition, "migration %q has not switched yet: there is nothing to be undone", m.ID).
			WithHint("give it up: drover migration abort %s", m.ID)
	}
	return nil
}

// hydrated reports whether all of the machine's data has come to its target.
func hydrated(m drover.Migration) bool { return m.Ended() || m.Hydration != nil && m.Hydration.Done }

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
			if h := l.Hydration; h != nil && !h.Done {
				sum += max(0, l.Own-h.Copied)
				continue
			} else if h != nil {
				sum += max(0, h.Copied-h.Verified) // fetched, and written over before it was compared
			}
			sum += max(0, l.Own-came)
		}
	}
	return sum, nil
}
