package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// A migration is taken back by making the layers that its source kept the bases of new ones. They stay frozen, so an abort only removes what
// lies over them; once the machine is here the new layers take them in.

// moveUndo makes layers over what this host kept of an earlier migration, and answers when they are there.
func (a *Agent) moveUndo(ctx context.Context, req drover.MoveUndoRequest) (drover.Empty, error) {
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return drover.Empty{}, err
	}
	if req.Undoes == "" || req.Undoes == req.Migration {
		return drover.Empty{}, drover.Errorf(drover.Invalid, "migration %s cannot take migration %q back", req.Migration, req.Undoes).WithField("undoes")
	}
	if err := a.cfg.Store.View(func(tx *boltstore.Tx) error { return checkEnded(tx, req.Migration) }); err != nil {
		return drover.Empty{}, err
	}
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.Empty{}, err
	}
	m.asked()
	a.hit("host.undo.before")
	err = m.order(func(r *records, tx *boltstore.Tx) error {
		if err := checkEnded(tx, req.Migration); err != nil {
			return err
		}
		mv := r.target()
		switch {
		case mv == nil || mv.Migration != req.Migration:
			return drover.Errorf(drover.Precondition, "machine %q: host %q has no reservation for migration %s", req.Machine, a.cfg.ID, req.Migration).
				WithHint("the order to reserve comes first")
		case mv.Ending != "":
			return drover.Errorf(drover.Canceled, "migration %s is being ended on host %q", req.Migration, a.cfg.ID)
		case mv.WantClones:
			return nil
		}
		mv.WantClones = true
		return m.keepFor(tx, mv, req.Undoes)
	})
	if err != nil {
		return drover.Empty{}, err
	}
	return drover.Empty{}, m.await(ctx, func(r *records) (bool, error) {
		mv := r.target()
		if mv == nil || mv.Migration != req.Migration || mv.Ending != "" {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		return mv.Cloned, nil
	}, actClone, actImage)
}

// keepFor holds what was kept of a migration for the one that takes it back. Precondition when not every disk is there.
func (m *machine) keepFor(tx *boltstore.Tx, mv *moveRecord, undoes drover.MigrationID) error {
	if undoes == "" || mv.Undoes != "" {
		return nil
	}
	kept, err := m.agent.keptOf(tx, m.id, undoes)
	if err != nil {
		return err
	}
	if mv.Reserve != nil {
		for _, v := range mv.Reserve.Volumes {
			if !slices.ContainsFunc(kept, func(k retiredRecord) bool { return k.Disk == v.ID.Disk() }) {
				return drover.Errorf(drover.Precondition, "host %q keeps no copy of volume %q from migration %s any more", m.agent.cfg.ID, v.ID, undoes)
			}
		}
	}
	mv.Undoes, mv.Kept = undoes, nil
	for _, k := range kept {
		k.Held = mv.Migration
		if err := retiredBucket.Put(tx, string(k.Layer), k); err != nil {
			return err
		}
		mv.Kept = append(mv.Kept, *k.Was)
	}
	return nil
}

// keptOf returns what the host kept of a migration of a machine. Precondition when it is nothing, or without the root disk.
func (a *Agent) keptOf(tx *boltstore.Tx, id drover.MachineID, undoes drover.MigrationID) (kept []retiredRecord, err error) {
	root := false
	err = retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
		// The memory that came with the disks was taken elsewhere since: it is not gone on from a second time.
		if err == nil && r.Migration == undoes && r.Was != nil && !r.Disk.HoldsMemory() {
			kept = append(kept, r)
			root = root || r.Disk == drover.RootDisk(id)
		}
		return err
	})
	if err == nil && !root {
		err = drover.Errorf(drover.Precondition, "host %q keeps no copy of machine %q from migration %s any more", a.cfg.ID, id, undoes).
			WithHint("move the machine instead: its data comes with it")
	}
	return kept, err
}

// restored returns the disks that an undo makes here.
func (mv *moveRecord) restored() []diskRecord {
	disks := make([]diskRecord, 0, len(mv.Kept))
	for _, was := range mv.Kept {
		d := was
		d.Layer, d.Migration, d.Made = drover.LayerFor(was.Disk, mv.Migration), mv.Migration, true
		d.Parent, d.Snapshot, d.HydrateLimit, d.HydratePaused = nil, nil, nil, false
		disks = append(disks, d)
	}
	return disks
}

// restoreLayers makes a layer over each that was kept.
func (m *machine) restoreLayers(ctx context.Context) error {
	cfg, mv := m.agent.cfg, m.rec.Load().Move
	if err := m.clearEarlier(ctx, mv); err != nil {
		return err
	}
	for i, disk := range mv.restored() {
		spec := LayerSpec{ID: disk.Layer, Disk: disk.Disk, Size: disk.Size, Base: mv.Kept[i].Layer, Cipher: disk.Cipher, Limits: m.limitsOf(disk.Volume)}
		if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return cfg.Storage.CreateLayer(ctx, spec) }); err != nil {
			return fmt.Errorf("cannot make the disk %q from what was kept: %w", disk.Disk, err)
		}
		m.agent.hit("host.undo.after-create")
		if disk.Cipher == nil || mv.adopted() {
			continue
		}
		if err := m.agent.bringKey(ctx, disk.Cipher.Key); err != nil {
			return drover.Errorf(drover.Unavailable, "cannot get the key of the disk %q: %w", disk.Disk, err)
		}
	}
	m.agent.hit("host.undo.after")
	return m.changeMove(mv.Migration, func(r *records, tx *boltstore.Tx, now *moveRecord) error {
		now.Cloned = true
		return m.takeDisks(tx, r)
	})
}

// dropKept gives up what was kept, once the machine is here: what lies over it takes it in.
func (m *machine) dropKept(ctx context.Context, mv *moveRecord) error {
	for _, was := range mv.Kept {
		m.agent.hit("host.undo.before-delete")
		if err := m.deleteLayer(ctx, was.Layer); err != nil {
			return err
		}
	}
	return nil
}

// forgetKept forgets them, and lets go of what else was held of the earlier migration.
func (a *Agent) forgetKept(tx *boltstore.Tx, mv *moveRecord) error {
	for _, was := range mv.Kept {
		if err := retiredBucket.Delete(tx, string(was.Layer)); err != nil {
			return err
		}
	}
	return a.unhold(tx, mv.Migration)
}

// unhold keeps for another grace time what a migration had held.
func (a *Agent) unhold(tx *boltstore.Tx, by drover.MigrationID) error {
	held, err := heldBy(tx, by)
	for _, r := range held {
		r.Held, r.DeleteAfter = "", a.now().Add(a.cfg.Grace)
		if err := retiredBucket.Put(tx, string(r.Layer), r); err != nil {
			return err
		}
	}
	return err
}

// heldBy lists the layers that a migration holds.
func heldBy(tx *boltstore.Tx, by drover.MigrationID) (held []retiredRecord, err error) {
	err = retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
		if err == nil && r.Held == by {
			held = append(held, r)
		}
		return err
	})
	return held, err
}

// frozenFor reports whether the target is still the source of the migration that would be taken back: it has everything, then.
func (c *check) frozenFor(id drover.MigrationID) bool {
	m, err := c.a.machine(c.req.Machine)
	if err != nil {
		return false
	}
	mv := m.rec.Load().source()
	return mv != nil && mv.Migration == id && mv.Frozen && mv.Ending == ""
}

// kept checks that the target has what an undo needs, and says until when.
func (c *check) kept() (until time.Time) {
	if c.frozenFor(c.req.Undoes) {
		c.add("kept", nil, "what the machine had at the switch is frozen here, and is kept as long as it is needed")
		return time.Time{}
	}
	var kept []retiredRecord
	err := c.a.cfg.Store.View(func(tx *boltstore.Tx) (err error) {
		kept, err = c.a.keptOf(tx, c.req.Machine, c.req.Undoes)
		return err
	})
	has := map[drover.DiskID]bool{}
	for _, k := range kept {
		has[k.Disk] = true
		if until.IsZero() || k.DeleteAfter.Before(until) {
			until = k.DeleteAfter
		}
	}
	for _, v := range c.req.Volumes {
		if err == nil && !has[v.ID.Disk()] {
			err = drover.Errorf(drover.Precondition, "host %q keeps no copy of volume %q from migration %s any more", c.a.cfg.ID, v.ID, c.req.Undoes).
				WithHint("move the machine instead: its data comes with it")
		}
	}
	c.add("kept", err, "%d disks are kept until %s", len(kept), until.UTC().Format(time.RFC3339))
	return until
}
