package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/migrate"
	"drover/plan"
)

// MoveMachine begins a migration and answers when its record is written: from then on it ends by itself, whoever dies. Everything that can be
// known to be against it is found out before, and refused in one answer.
func (f *Fleet) MoveMachine(ctx context.Context, req Move) (drover.Migration, error) {
	c, err := f.preflight(ctx, req)
	if err != nil {
		return drover.Migration{}, err
	}
	if e := c.refusal(); e != nil {
		return drover.Migration{}, e
	}
	m := c.migration()
	if err := f.beginMove(ctx, m); err != nil {
		return drover.Migration{}, err
	}
	f.log.Info("migration begun", "migration", m.ID, "machine", m.Machine, "from", m.Source, "to", m.Target, "actor", m.Actor)
	return m, nil
}

// whole refuses to move a machine with a volume that is still being filled.
func (f *Fleet) whole(ctx context.Context, m drover.Machine) error {
	volumes, err := f.volumesOf(ctx, m)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.Filling() {
			return drover.Errorf(drover.Conflict, "machine %q cannot be moved now: its volume %q is still being filled", m.ID, v.ID).
				WithHint("ask again when its hydration is done: drover volume show %s", v.ID)
		}
	}
	return nil
}

// disksOf asks the source what the machine's disks hold, and what of it is known to be damaged.
func (f *Fleet) disksOf(ctx context.Context, m drover.Machine, source drover.HostID) (disks []drover.DiskMove, damage string, err error) {
	var layers []drover.LayerStatus
	if err := f.order(ctx, f.timing.Apply, source, drover.OrderLayers, drover.Empty{}, &layers); err != nil {
		if drover.Is(err, drover.Unavailable) {
			return nil, "", drover.Errorf(drover.Unavailable, "machine %q cannot be moved now: %w", m.ID, err).
				WithHint("the disks of machine %q are on host %q: they can be moved when it is back%s", m.ID, source, f.ailing(source))
		}
		return nil, "", err
	}
	wanted := map[drover.DiskID]drover.VolumeID{drover.RootDisk(m.ID): "", drover.MemoryDisk(m.ID): ""}
	for _, mount := range m.Config.Mounts {
		wanted[mount.Volume.Disk()] = mount.Volume
	}
	for _, l := range layers {
		// The copy that an earlier migration left is frozen; the layer in use is not.
		if volume, ok := wanted[l.Disk]; ok && l.State == drover.LayerReady {
			disks = append(disks, drover.DiskMove{Disk: l.Disk, Volume: volume, Size: l.Size, Allocated: l.Allocated, Source: l.ID})
			damage = cmp.Or(damage, damagedDisk(l))
		}
	}
	slices.SortFunc(disks, func(a, b drover.DiskMove) int { return cmp.Compare(a.Disk, b.Disk) })
	return disks, damage, nil
}

// targetFor checks the target, or chooses one: in the machine's region if a host there has room, else anywhere.
func (f *Fleet) targetFor(ctx context.Context, req Move, v MachineView, source drover.HostID, disks []drover.DiskMove) (drover.HostID, error) {
	if req.Target == source {
		return "", drover.Errorf(drover.Invalid, "target: machine %q is on host %q already", req.Machine, source).WithField("target")
	}
	offer := offerFor(v.Machine.ID, v.Machine.Config.Guest)
	for _, d := range disks {
		if req.undoes == nil { // the target of an undo has what it needs
			offer.Disk += d.Allocated
		}
	}
	ask := plan.Request{What: fmt.Sprintf("machine %q", req.Machine)}
	opts := plan.Options{SameApp: f.spread(v.Machine.App), Exclude: map[drover.HostID]string{source: "the machine is there now"}}
	if req.Target == "" {
		ask.Region = f.regionOf(source)
		host, err := f.choose(ctx, ask, "", offer, opts)
		if err != nil && ctx.Err() == nil {
			ask.Region = ""
			return f.choose(ctx, ask, "", offer, opts)
		}
		return host, err
	}
	f.state.mu.RLock()
	info, ok := f.hostLocked(req.Target)
	f.state.mu.RUnlock()
	switch {
	case !ok || !slices.Contains(info.Roles, drover.RoleWorker):
		return "", f.noHost(req.Target, "target")
	case info.Status == drover.HostUnreachable:
		return "", drover.Errorf(drover.Unavailable, "target: host %q does not answer", req.Target).WithField("target").
			WithHint("choose another host, or none, and the fleet chooses")
	}
	if why := f.closed(req.Target); why != "" {
		return "", drover.Errorf(drover.Precondition, "target: host %q %s", req.Target, why).WithField("target").
			WithHint("choose another host, or none, and the fleet chooses; `drover host uncordon %s` opens it", req.Target)
	}
	host, err := f.choose(ctx, ask, req.Target, offer, opts)
	if err != nil {
		return "", drover.AsError(err).WithField("target")
	}
	return host, nil
}

func (f *Fleet) regionOf(id drover.HostID) drover.Region {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	info, _ := f.hostLocked(id)
	return info.Region
}

// beginMove writes the record. The claim before it makes sure that a machine has one migration at a time; the record makes the
// migration exist.
func (f *Fleet) beginMove(ctx context.Context, m drover.Migration) error {
	if err := f.claimMove(ctx, m); err != nil {
		return err
	}
	f.hit("fleet.begin.claim.after")
	// What was changed since the checks, before the claim was there, decides now.
	p, err := f.state.placementOf(ctx, m.Machine)
	if err == nil && p.Epoch != m.FromEpoch {
		err = drover.Errorf(drover.Conflict, "machine %q was moved to host %q just now", m.Machine, p.Host)
	}
	var machine drover.Machine
	if err == nil {
		machine, _, err = f.state.machines.get(ctx, string(m.Machine))
	}
	if err == nil && machine.Goal == drover.GoalDestroyed {
		err = drover.Errorf(drover.NotFound, "machine %q was destroyed just now", m.Machine)
	}
	if err == nil {
		_, err = f.state.migrations.create(ctx, string(m.ID), m)
	}
	if err == nil {
		return nil
	}
	ctx, cancel := lastWord(ctx)
	defer cancel()
	if uerr := f.fenceMove(ctx, m.Machine, m.ID); uerr != nil {
		f.log.Warn("claim stays until it is old", "migration", m.ID, "machine", m.Machine, "err", uerr)
		return err
	}
	if uerr := f.releaseMove(ctx, m.Machine, m.ID); uerr != nil {
		f.log.Warn("claim stays until it is old", "migration", m.ID, "machine", m.Machine, "err", uerr)
	}
	return err
}

// claimMove takes the machine for a migration; a claim whose migration does not hold the machine any more is taken over.
func (f *Fleet) claimMove(ctx context.Context, m drover.Migration) error {
	key := moveClaim(m.Machine)
	mine := claim{Machine: m.Machine, Migration: m.ID, At: f.now()}
	if m.Interrupts {
		mine.Undoes = m.Undoes
	}
	_, err := f.state.claims.create(ctx, key, mine)
	if !drover.Is(err, drover.Exists) {
		return err
	}
	other, rev, err := f.state.claims.get(ctx, key)
	if drover.Is(err, drover.NotFound) {
		_, err = f.state.claims.create(ctx, key, mine)
		return err
	}
	if err != nil {
		return err
	}
	if holder, err := f.holder(ctx, m.Machine); err != nil {
		return err
	} else if holder != nil && !(m.Interrupts && holder.ID == m.Undoes) {
		return moving(holder)
	}
	if _, err = f.state.claims.update(ctx, key, mine, rev); drover.Is(err, drover.Conflict) {
		return drover.Errorf(drover.Conflict, "machine %q is being moved by somebody else just now, by a migration after %q", m.Machine, other.Migration)
	}
	return err
}

// fenceMove makes sure that a migration that was claimed for is never begun: its record exists, and has ended.
func (f *Fleet) fenceMove(ctx context.Context, machine drover.MachineID, id drover.MigrationID) error {
	now := f.now().UTC()
	m := drover.Migration{ID: id, Machine: machine, Outcome: drover.Aborted, Phase: drover.PhaseReserve, CreatedAt: now, UpdatedAt: now,
		Problem: drover.Errorf(drover.Canceled, "migration %q was never begun", id)}
	_, err := f.state.migrations.create(ctx, string(id), m)
	if !drover.Is(err, drover.Exists) {
		return err
	}
	_, err = f.giveUp(ctx, id, drover.Errorf(drover.Canceled, "migration %q was given up as it began", id))
	return err
}

// releaseMove gives the machine free.
func (f *Fleet) releaseMove(ctx context.Context, machine drover.MachineID, id drover.MigrationID) error {
	key := moveClaim(machine)
	c, rev, err := f.state.claims.get(ctx, key)
	if drover.Is(err, drover.NotFound) || (err == nil && c.Migration != id) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.dropClaim(ctx, key, c, rev); !drover.Is(err, drover.Conflict) {
		return err
	}
	return nil
}

// dropClaim gives up the claim of a migration that has ended, or never began. One that was to be taken back by it and is under way still has it again.
func (f *Fleet) dropClaim(ctx context.Context, key string, c claim, rev uint64) error {
	if c.Undoes != "" {
		m, _, err := f.state.migrations.get(ctx, string(c.Undoes))
		if err == nil && (migrate.Holds(m) || !m.Ended() && m.UndoneBy == c.Migration) {
			_, err = f.state.claims.update(ctx, key, claim{Machine: c.Machine, Migration: c.Undoes, At: f.now()}, rev)
			return err
		}
		if err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	return f.state.claims.remove(ctx, key, rev)
}

// Migrations lists the migrations, newest first.
func (f *Fleet) Migrations(ctx context.Context) ([]drover.Migration, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	list := []drover.Migration{}
	for _, i := range f.state.migrations.all() {
		if i.value.Source != "" { // not one that was never begun
			list = append(list, i.value)
		}
	}
	slices.SortFunc(list, func(a, b drover.Migration) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Migration returns one migration.
func (f *Fleet) Migration(ctx context.Context, id drover.MigrationID) (drover.Migration, error) {
	if err := f.await(ctx); err != nil {
		return drover.Migration{}, err
	}
	if m, _, ok := f.state.migrations.seen(string(id)); ok {
		return m, nil
	}
	return drover.Migration{}, noMigration(id)
}

func noMigration(id drover.MigrationID) *drover.Error {
	return drover.Errorf(drover.NotFound, "migration %q does not exist", id).WithHint("see `drover migration list`")
}

// AbortMigration asks for an abort; the migration's end is awaited by looking at it. Precondition after the switch.
func (f *Fleet) AbortMigration(ctx context.Context, id drover.MigrationID) (drover.Migration, error) {
	if err := f.await(ctx); err != nil {
		return drover.Migration{}, err
	}
	return f.giveUp(ctx, id, drover.Errorf(drover.Canceled, "it was aborted by a user"))
}

// giveUp begins the abort by compare-and-set on the record, which is what the controller changes before it may switch.
func (f *Fleet) giveUp(ctx context.Context, id drover.MigrationID, why *drover.Error) (drover.Migration, error) {
	for range casTries {
		m, rev, err := f.state.migrations.get(ctx, string(id))
		if drover.Is(err, drover.NotFound) {
			return m, noMigration(id)
		}
		if err != nil {
			return m, err
		}
		if e := migrate.Abortable(m); e != nil {
			return m, e
		}
		if m.Outcome != drover.Running {
			return m, nil // asked before
		}
		m = migrate.GiveUp(m, why, f.now().UTC())
		if _, err = f.state.migrations.update(ctx, string(id), m, rev); !drover.Is(err, drover.Conflict) {
			return m, err
		}
	}
	return drover.Migration{}, tooBusy("migration", string(id))
}
