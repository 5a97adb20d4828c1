package fleet

import (
	"context"
	"slices"
	"strings"

	"drover"
	"drover/migrate"
)

// sweep clears away what crashes left, and what has been kept long enough. It looks at memory first: what it finds there is old, or it
// is left for the next time.
func (r *repairer) sweep(ctx context.Context) {
	r.sweepClaims(ctx)
	r.sweepOrphans(ctx)
	r.sweepRecords(ctx)
	r.sweepMoves(ctx)
	r.sweepStatuses(ctx)
	r.sweepLeases(ctx)
	r.sweepRequests(ctx)
}

// trouble logs what the next sweep tries again.
func (f *Fleet) trouble(ctx context.Context, what, id string, err error) {
	if err != nil && ctx.Err() == nil && !drover.Is(err, drover.Conflict) {
		f.log.Warn("clearing away is tried again later", "what", what, "id", id, "err", err)
	}
}

// sweepClaims looks for old claims of IDs that have no record.
func (f *Fleet) sweepClaims(ctx context.Context) {
	f.state.mu.RLock()
	old := map[string]item[claim]{}
	for key, c := range f.state.claims.items {
		if f.now().Sub(c.value.At) > f.timing.Stale {
			old[key] = c
		}
	}
	f.state.mu.RUnlock()
	for key, c := range old {
		var err error
		switch {
		case strings.HasPrefix(key, "store."):
			err = f.sweepStoreClaim(ctx, key, c)
		case strings.HasPrefix(key, "move."):
			err = f.sweepMoveClaim(ctx, key, c)
		case strings.HasPrefix(key, "name."):
			app, name, _ := strings.Cut(strings.TrimPrefix(key, "name."), ".")
			err = f.sweepMachine(ctx, drover.Machine{ID: c.value.Machine, App: drover.AppName(app), Name: name})
		}
		f.trouble(ctx, "claim", key, err)
	}
}

// sweepMachine makes the destroyed record of a machine that was never made, and clears it away.
func (f *Fleet) sweepMachine(ctx context.Context, m drover.Machine) error {
	if known, _, ok := f.state.machines.seen(string(m.ID)); ok && known.Goal != drover.GoalDestroyed {
		return nil
	}
	m.CreatedAt = f.now().UTC()
	found, _, err := f.state.machines.get(ctx, string(m.ID))
	switch {
	case drover.Is(err, drover.NotFound):
		if err := f.fence(ctx, m); err != nil {
			return err
		}
		f.log.Info("machine that was never made is cleared away", "machine", m.ID, "app", m.App)
		return f.repairMachine(ctx, m.ID)
	case err != nil:
		return err
	case found.Goal == drover.GoalDestroyed:
		return f.freeName(ctx, found)
	}
	return nil
}

// sweepMoveClaim gives up the claim of a migration that ended, or was never made.
func (f *Fleet) sweepMoveClaim(ctx context.Context, key string, c item[claim]) error {
	m, _, err := f.state.migrations.get(ctx, string(c.value.Migration))
	if drover.Is(err, drover.NotFound) {
		err = f.fenceMove(ctx, drover.MachineID(strings.TrimPrefix(key, "move.")), c.value.Migration)
	} else if err == nil && migrate.Holds(m) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.dropClaim(ctx, key, c.value, c.rev)
}

// sweepOrphans looks for placements, volumes and statuses of machines without a record. They have no time of their own, so they
// are judged by how long they have been seen so.
func (r *repairer) sweepOrphans(ctx context.Context) {
	orphans, stray := r.orphans()
	now := r.now()
	for id := range r.suspects {
		if !orphans[id] {
			delete(r.suspects, id)
		}
	}
	for id := range orphans {
		since, suspected := r.suspects[id]
		if !suspected {
			r.suspects[id] = now
		} else if now.Sub(since) > r.timing.Stale {
			r.trouble(ctx, "machine", string(id), r.sweepMachine(ctx, drover.Machine{ID: id}))
		}
	}
	for _, id := range stray {
		if _, _, err := r.state.placements.get(ctx, id); drover.Is(err, drover.NotFound) {
			r.trouble(ctx, "status", id, r.state.status.remove(ctx, id))
		}
	}
}

// sweepStatuses removes what hosts say of machines that have left them.
func (f *Fleet) sweepStatuses(ctx context.Context) {
	for _, key := range f.state.status.former() {
		f.trouble(ctx, "status", key, f.state.status.table.remove(ctx, key, 0))
	}
}

// orphans finds in memory the machines that have something but no record, and the statuses of machines without a placement.
func (f *Fleet) orphans() (orphans map[drover.MachineID]bool, stray []string) {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	orphans = map[drover.MachineID]bool{}
	look := func(id string) {
		if _, ok := f.state.machines.items[id]; !ok {
			orphans[drover.MachineID(id)] = true
		}
	}
	for id := range f.state.placements.items {
		look(id)
	}
	for id := range f.state.volumesOn {
		look(string(id))
	}
	for id := range f.state.status.of {
		if _, placed := f.state.placements.items[id]; !placed {
			stray = append(stray, id)
		}
	}
	return orphans, stray
}

// sweepRecords removes records that were kept long enough.
func (f *Fleet) sweepRecords(ctx context.Context) {
	now := f.now()
	for _, i := range f.state.machines.all() {
		if m := i.value; f.gone(m) && now.Sub(m.UpdatedAt) > f.timing.KeepDestroyed {
			_, err := f.state.versions.Delete(ctx, string(m.ID), 0)
			if err == nil {
				err = f.state.machines.remove(ctx, string(m.ID), i.rev)
			}
			f.trouble(ctx, "machine", string(m.ID), err)
		}
	}
	f.sweepMigrations(ctx)
	f.sweepDrains(ctx)
	f.sweepTokens(ctx)
}

// sweepMoves makes targets forget migrations that were aborted while they did not answer.
func (f *Fleet) sweepMoves(ctx context.Context) {
	for _, i := range f.state.migrations.all() {
		m := i.value
		if m.Outcome != drover.Aborted || m.UndoneBy != "" || slices.Contains(m.Undone, m.Target) || !f.reachable(m.Target) {
			continue
		}
		err := f.order(ctx, f.timing.Apply, m.Target, drover.OrderMoveAbort, drover.MoveRequest{Migration: m.ID, Machine: m.Machine}, nil)
		if err == nil {
			m.Undone = append(slices.Clone(m.Undone), m.Target)
			_, err = f.state.migrations.update(ctx, string(m.ID), m, i.rev)
		}
		f.trouble(ctx, "migration", string(m.ID), err)
	}
}
