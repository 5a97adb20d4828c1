package apitest

import (
	"context"
	"slices"

	"drover"
	"drover/fleet"
)

// CreateVolume makes a volume.
func (b *Backend) CreateVolume(_ context.Context, req fleet.CreateVolume) (fleet.VolumeView, error) {
	if err := b.begin("CreateVolume"); err != nil {
		return fleet.VolumeView{}, err
	}
	defer b.mu.Unlock()
	host := drover.HostID("h1")
	if req.Host != "" {
		host = req.Host
	}
	info, err := b.hostLocked(host)
	if err != nil {
		return fleet.VolumeView{}, drover.AsError(err).WithField("host")
	}
	id := volumeID(b.nextLocked())
	v := fleet.VolumeView{HostStatus: drover.HostOK, Volume: drover.Volume{ID: id, App: req.App, Name: req.Name, Region: info.Region, Size: req.Size,
		State: drover.VolumeCreated, Host: host, CreatedAt: b.Now()}}
	b.volumes[id] = v
	return v, nil
}

// Volumes lists an app's volumes.
func (b *Backend) Volumes(_ context.Context, app drover.AppName) ([]fleet.VolumeView, error) {
	if err := b.begin("Volumes"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var views []fleet.VolumeView
	for _, v := range b.volumes {
		if v.Volume.App == app {
			views = append(views, v)
		}
	}
	return views, nil
}

// Volume returns a volume.
func (b *Backend) Volume(_ context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error) {
	if err := b.begin("Volume"); err != nil {
		return fleet.VolumeView{}, err
	}
	defer b.mu.Unlock()
	v, ok := b.volumes[id]
	if !ok || v.Volume.App != app {
		return fleet.VolumeView{}, drover.Errorf(drover.NotFound, "app %q has no volume %q", app, id)
	}
	return v, nil
}

// DestroyVolume removes a volume that no machine has.
func (b *Backend) DestroyVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error) {
	v, err := b.Volume(ctx, app, id)
	if err != nil {
		return v, err
	}
	if err := b.begin("DestroyVolume"); err != nil {
		return v, err
	}
	defer b.mu.Unlock()
	if v.Volume.Machine != "" {
		return v, drover.Errorf(drover.Precondition, "machine %q has volume %q", v.Volume.Machine, id).WithHint("destroy the machine first")
	}
	v.Volume.State = drover.VolumeDestroying
	delete(b.volumes, id)
	return v, nil
}

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
			layers = append(layers, drover.LayerStatus{ID: drover.LayerFor(v.Volume.ID.Disk(), ""), Disk: v.Volume.ID.Disk(), State: drover.LayerReady,
				Size: v.Volume.Size, Allocated: v.Volume.Size / 4, Writer: v.Volume.Epoch, Hydration: v.Hydration})
		}
	}
	return layers, nil
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
