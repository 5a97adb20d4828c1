package apitest

import (
	"context"
	"slices"

	"drover"
	"drover/fleet"
)

// Hosts lists the hosts.
func (b *Backend) Hosts(context.Context) ([]drover.HostInfo, error) {
	if err := b.begin("Hosts"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	return slices.Clone(b.hosts), nil
}

// Host returns a host.
func (b *Backend) Host(_ context.Context, id drover.HostID) (drover.HostInfo, error) {
	if err := b.begin("Host"); err != nil {
		return drover.HostInfo{}, err
	}
	defer b.mu.Unlock()
	return b.hostLocked(id)
}

// HostLayers has one layer per volume on the host.
func (b *Backend) HostLayers(_ context.Context, id drover.HostID) ([]drover.LayerStatus, error) {
	if err := b.begin("HostLayers"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(id); err != nil {
		return nil, err
	}
	var layers []drover.LayerStatus
	for _, v := range b.volumes {
		if v.Volume.Host == id {
			layers = append(layers, b.layerLocked(v))
		}
	}
	return layers, nil
}

// SetStorage keeps the settings in the host's own description.
func (b *Backend) SetStorage(_ context.Context, id drover.HostID, settings drover.StorageSettings) (drover.StorageSettings, error) {
	if err := b.begin("SetStorage"); err != nil {
		return drover.StorageSettings{}, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(id); err != nil {
		return drover.StorageSettings{}, err
	}
	for i := range b.hosts {
		if b.hosts[i].ID == id {
			b.hosts[i].Storage = settings
		}
	}
	return settings, nil
}

// HostMachines lists the machines placed on a host.
func (b *Backend) HostMachines(_ context.Context, id drover.HostID) ([]fleet.MachineView, error) {
	if err := b.begin("HostMachines"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(id); err != nil {
		return nil, err
	}
	var views []fleet.MachineView
	for _, v := range b.machines {
		if v.Placement.Host == id {
			views = append(views, v)
		}
	}
	return views, nil
}

// CheckMove finds nothing against a move.
func (b *Backend) CheckMove(_ context.Context, req fleet.Move) (drover.MoveCheck, error) {
	if err := b.begin("CheckMove"); err != nil {
		return drover.MoveCheck{}, err
	}
	defer b.mu.Unlock()
	v, ok := b.machines[req.Machine]
	if !ok {
		return drover.MoveCheck{}, drover.Errorf(drover.NotFound, "no machine %q", req.Machine).WithField("machine")
	}
	return drover.MoveCheck{Machine: req.Machine, Source: v.Placement.Host, Target: req.Target, Possible: true, Live: req.Options.Live,
		Findings: []drover.MoveFinding{{Check: "network", Host: req.Target, OK: true, Text: "both hosts answer"}}}, nil
}

// UndoMigration makes a record as MoveMachine does, when it is confirmed.
func (b *Backend) UndoMigration(_ context.Context, req fleet.Undo) (drover.MoveUndo, error) {
	if err := b.begin("UndoMigration"); err != nil {
		return drover.MoveUndo{}, err
	}
	defer b.mu.Unlock()
	old, ok := b.migrations[req.Migration]
	if !ok {
		return drover.MoveUndo{}, drover.Errorf(drover.NotFound, "no migration %q", req.Migration)
	}
	out := drover.MoveUndo{Undoes: old.ID, Machine: old.Machine, From: old.Target, To: old.Source, SwitchedAt: old.CreatedAt, Written: drover.MiB}
	if req.Confirm {
		now := b.Now()
		m := drover.Migration{ID: migrationID(b.nextLocked()), Machine: old.Machine, App: old.App, Source: old.Target, Target: old.Source, Actor: req.Actor,
			Outcome: drover.Running, Phase: drover.PhaseReserve, Undoes: old.ID, CreatedAt: now, UpdatedAt: now}
		b.migrations[m.ID] = m
		out.Migration = &m
	}
	return out, nil
}

// WriteOffSource writes what it is told into the record, when it is confirmed.
func (b *Backend) WriteOffSource(_ context.Context, req fleet.WriteOff) (drover.LostSource, error) {
	if err := b.begin("WriteOffSource"); err != nil {
		return drover.LostSource{}, err
	}
	defer b.mu.Unlock()
	m, ok := b.migrations[req.Migration]
	if !ok {
		return drover.LostSource{}, drover.Errorf(drover.NotFound, "no migration %q", req.Migration)
	}
	out := drover.LostSource{Migration: m.ID, Machine: m.Machine, Source: m.Source, Target: m.Target, Missing: drover.MiB, MissingKnown: true, Copies: []drover.RecoverySource{}}
	if req.Confirm {
		now := b.Now()
		m.WriteOff = &drover.WriteOff{At: now, DoneAt: now, Actor: req.Actor, Reason: req.Reason, Disks: []drover.DiskLoss{{Disk: drover.RootDisk(m.Machine), Lost: drover.MiB,
			Holes: []drover.ByteRange{{Offset: 0, Length: drover.MiB}}}}}
		b.migrations[m.ID] = m
		out.WriteOff = m.WriteOff
	}
	return out, nil
}

// MoveMachine makes the record of a migration that has begun; the test carries it on with ChangeMigration.
func (b *Backend) MoveMachine(_ context.Context, req fleet.Move) (drover.Migration, error) {
	if err := b.begin("MoveMachine"); err != nil {
		return drover.Migration{}, err
	}
	defer b.mu.Unlock()
	v, ok := b.machines[req.Machine]
	if !ok {
		return drover.Migration{}, drover.Errorf(drover.NotFound, "no machine %q", req.Machine).WithField("machine")
	}
	target := req.Target
	if target == "" {
		target = "h2"
	}
	if _, err := b.hostLocked(target); err != nil {
		return drover.Migration{}, drover.AsError(err).WithField("target")
	}
	if target == v.Placement.Host {
		return drover.Migration{}, drover.Errorf(drover.Invalid, "machine %q is on host %q already", req.Machine, target).WithField("target")
	}
	if v.Migration != nil {
		return drover.Migration{}, drover.Errorf(drover.Conflict, "machine %q is moving already, by migration %s", req.Machine, v.Migration.ID).
			WithHint("'drover migration show %s' shows how far it is", v.Migration.ID)
	}
	now := b.Now()
	m := drover.Migration{ID: migrationID(b.nextLocked()), Machine: req.Machine, App: v.Machine.App, Source: v.Placement.Host, Target: target,
		Actor: req.Actor, Outcome: drover.Running, Phase: drover.PhaseReserve, FromEpoch: v.Placement.Epoch, WasRunning: true,
		Steps: []drover.Step{{Phase: drover.PhaseReserve, StartedAt: now, Tries: 1}}, CreatedAt: now, UpdatedAt: now}
	b.migrations[m.ID] = m
	v.Migration = &m
	b.machines[req.Machine] = v
	return m, nil
}

// Migrations lists the migrations.
func (b *Backend) Migrations(context.Context) ([]drover.Migration, error) {
	if err := b.begin("Migrations"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var all []drover.Migration
	for _, m := range b.migrations {
		all = append(all, m)
	}
	return all, nil
}

// Migration returns a migration.
func (b *Backend) Migration(_ context.Context, id drover.MigrationID) (drover.Migration, error) {
	if err := b.begin("Migration"); err != nil {
		return drover.Migration{}, err
	}
	defer b.mu.Unlock()
	m, ok := b.migrations[id]
	if !ok {
		return drover.Migration{}, drover.Errorf(drover.NotFound, "no migration %q", id)
	}
	return m, nil
}

// AbortMigration aborts at once.
func (b *Backend) AbortMigration(ctx context.Context, id drover.MigrationID) (drover.Migration, error) {
	m, err := b.Migration(ctx, id)
	if err != nil {
		return m, err
	}
	if err := b.begin("AbortMigration"); err != nil {
		return m, err
	}
	defer b.mu.Unlock()
	if m.Phase.Committed() {
		return m, drover.Errorf(drover.Precondition, "migration %s has passed its switch and can only go forward", id)
	}
	m.Outcome, m.UpdatedAt = drover.Aborted, b.Now()
	m.Problem = drover.Errorf(drover.Canceled, "aborted by a user")
	b.migrations[id] = m
	return m, nil
}
