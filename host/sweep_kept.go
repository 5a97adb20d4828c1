package host

import (
	"context"
	"errors"

	"drover"
	"drover/boltstore"
)

// A source keeps its copy after a migration so that this can be taken back. Once the machine has moved on from where that migration brought it, it cannot
// be any more (fleet.UndoMigration), and the copy is only in the way: a machine that goes to and fro would leave one each time until its grace time.

// outdateKept ends the grace time of copies that nothing can want any more: their machine's placement names another migration than theirs, and that has succeeded.
// The store is asked, never a record of this host's own. Of copies that were made before they named their machine nothing is known: they have their time.
func (a *Agent) outdateKept(ctx context.Context) error {
	kept, err := a.keptMoves()
	for machine, migrations := range kept {
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		newest, nerr := a.succeededSince(ctx, machine)
		if drover.Is(nerr, drover.Unavailable) {
			return err // the next sweep asks again
		}
		if nerr != nil {
			err = errors.Join(err, nerr)
			continue
		}
		for _, id := range migrations {
			if newest != "" && id != newest {
				err = errors.Join(err, a.outdate(machine, id, newest))
			}
		}
	}
	return err
}

// keptMoves lists of which migrations of which machines there are copies.
func (a *Agent) keptMoves() (map[drover.MachineID][]drover.MigrationID, error) {
	kept := map[drover.MachineID][]drover.MigrationID{}
	seen := map[drover.MigrationID]bool{}
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
			if err == nil && r.outdatable(a) && !seen[r.Migration] {
				seen[r.Migration] = true
				kept[r.Machine] = append(kept[r.Machine], r.Migration)
			}
			return err
		})
	})
	return kept, err
}

// outdatable reports whether it is a migration's copy that nobody holds and whose time is not over yet.
func (r retiredRecord) outdatable(a *Agent) bool {
	return r.Machine != "" && r.Migration != "" && r.Was != nil && r.Held == "" && r.Kept == nil && a.now().Before(r.DeleteAfter)
}

// succeededSince returns the migration that brought the machine where it is, if that has succeeded; empty otherwise. One whose record is gone has: a placement that
// names a migration is never taken back but by another one.
func (a *Agent) succeededSince(ctx context.Context, id drover.MachineID) (drover.MigrationID, error) {
	p, err := a.readPlacement(ctx, id)
	if drover.Is(err, drover.NotFound) || err == nil && p.Migration == "" {
		return "", nil // it was destroyed, or recovered without a migration: what is kept may be all that there is of it
	}
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, busWait)
	defer cancel()
	switch m, err := a.cfg.Bus.Migration(ctx, p.Migration); {
	case drover.Is(err, drover.NotFound):
		return p.Migration, nil
	case err != nil:
		return "", err
	case m.Outcome == drover.Succeeded:
		return p.Migration, nil
	}
	return "", nil
}

// outdate lets the next sweep delete what is kept of a migration. What an undo has come to hold meanwhile stays.
func (a *Agent) outdate(machine drover.MachineID, id, newest drover.MigrationID) error {
	a.hit("host.sweep.before-outdate")
	ended := 0
	err := a.update(func(tx *boltstore.Tx) error {
		var old []retiredRecord
		err := retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
			if err == nil && r.Migration == id && r.outdatable(a) {
				old = append(old, r)
			}
			return err
		})
		for _, r := range old {
			r.DeleteAfter = a.now()
			if perr := retiredBucket.Put(tx, string(r.Layer), r); perr != nil {
				return perr
			}
		}
		ended = len(old)
		return err
	})
	if err == nil && ended > 0 {
		a.cfg.Log.Info("a kept copy is of no use any more", "machine", string(machine), "migration", string(id), "newer", string(newest), "layers", ended)
	}
	return err
}
