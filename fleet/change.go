package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/migrate"
)

// changeRecord changes a machine's record by compare-and-set, until it worked or change refuses.
func (f *Fleet) changeRecord(ctx context.Context, id drover.MachineID, change func(*drover.Machine) error) (drover.Machine, error) {
	for range casTries {
		m, rev, err := f.state.machines.get(ctx, string(id))
		if err != nil {
			return m, err
		}
		before := m.UpdatedAt
		if err := change(&m); err != nil {
			return m, err
		}
		// Hosts tell an overtaken order by it, so it grows even when the control hosts' clocks differ.
		if m.UpdatedAt = f.now().UTC(); !m.UpdatedAt.After(before) {
			m.UpdatedAt = before.Add(time.Nanosecond)
		}
		if _, err = f.state.machines.update(ctx, string(id), m, rev); !drover.Is(err, drover.Conflict) {
			return m, err
		}
	}
	return drover.Machine{}, tooBusy("machine", string(id))
}

// change is changeRecord for what users ask: the machine is one of the app, and neither it nor the app is destroyed. What it asks for anew counts more than
// what the end of its app has put off.
func (f *Fleet) change(ctx context.Context, app drover.AppName, id drover.MachineID, change func(*drover.Machine) error) error {
	return f.changeExisting(ctx, app, id, func(m *drover.Machine) error {
		if app, _, ok := f.state.apps.seen(string(m.App)); ok && app.Destroyed != nil {
			return noMachine(m.App, id)
		}
		run := m.Run
		err := change(m)
		if m.Run != run {
			m.GoalBefore = ""
		}
		return err
	})
}

// changeExisting is change in an app of any state.
func (f *Fleet) changeExisting(ctx context.Context, app drover.AppName, id drover.MachineID, change func(*drover.Machine) error) error {
	_, err := f.changeRecord(ctx, id, func(m *drover.Machine) error {
		if app != "" && m.App != app {
			return noMachine(app, id)
		}
		if m.Goal == drover.GoalDestroyed {
			return drover.Errorf(drover.NotFound, "machine %q was destroyed", id)
		}
		return change(m)
	})
	if drover.Is(err, drover.NotFound) {
		return noMachine(app, id)
	}
	return err
}

// holder returns the migration that a machine takes part in, nil if it takes part in none that holds it. It reads the store.
func (f *Fleet) holder(ctx context.Context, id drover.MachineID) (*drover.Migration, error) {
	c, _, err := f.state.claims.get(ctx, moveClaim(id))
	if drover.Is(err, drover.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, _, err := f.state.migrations.get(ctx, string(c.Migration))
	switch {
	case drover.Is(err, drover.NotFound):
		// It is being made just now, or what a crash left; the repair knows which.
		return &drover.Migration{ID: c.Migration, Machine: id, Outcome: drover.Running, Phase: drover.PhaseReserve}, nil
	case err != nil:
		return nil, err
	case !migrate.Holds(m):
		return nil, nil
	}
	return &m, nil
}

func moving(m *drover.Migration) *drover.Error {
	return drover.Errorf(drover.Conflict, "machine %q is being moved by migration %q, which is in phase %s", m.Machine, m.ID, m.Phase).
		WithHint("see `drover migration show %s`; abort it, or ask again when it is through", m.ID)
}

// still refuses while a migration needs the machine as it is.
func (f *Fleet) still(ctx context.Context, id drover.MachineID) error {
	m, err := f.holder(ctx, id)
	if err == nil && m != nil && migrate.Blocks(*m) {
		return moving(m)
	}
	return err
}

// UpdateMachine replaces a machine's config and, unless SkipLaunch says otherwise, starts the machine with it.
func (f *Fleet) UpdateMachine(ctx context.Context, req UpdateMachine) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	v, err := f.view(req.App, req.Machine)
	if err != nil {
		return MachineView{}, err
	}
	if err := checkTTL("lease_ttl", req.LeaseTTL); err != nil {
		return MachineView{}, err
	}
	req.Config = req.Config.WithDefaults()
	data, err := json.Marshal(req.Config)
	if err != nil {
		return MachineView{}, drover.Errorf(drover.Invalid, "config: %w", err).WithField("config")
	}
	if err := checkConfig(req.Config, len(data)); err != nil {
		return MachineView{}, err
	}
	if err := f.checkSize("config.guest", req.Config.Guest, &v.Machine.Config.Guest); err != nil {
		return MachineView{}, err
	}
	if err := f.still(ctx, req.Machine); err != nil {
		return MachineView{}, err
	}
	if err := f.fits(ctx, v, req.Config.Guest); err != nil {
		return MachineView{}, err
	}
	secrets, err := f.secretsFor(ctx, v.Machine.App, req.SecretsWish)
	if err != nil {
		return MachineView{}, err
	}
	ref, err := f.resolve(ctx, v.Placement.Host, req.Config.Image)
	if err != nil {
		return MachineView{}, err
	}
	req.Config.Mounts = f.namedMounts(req.Config.Mounts)
	err = f.change(ctx, req.App, req.Machine, func(m *drover.Machine) error {
		if req.CurrentVersion != "" && m.Instance != req.CurrentVersion {
			return drover.Errorf(drover.Conflict, "machine %q is at version %q by now, not at %q", m.ID, m.Instance, req.CurrentVersion).
				WithField("current_version").WithHint("read it again, and make the change on what it is now")
		}
		if !sameVolumes(m.Config.Mounts, req.Config.Mounts) {
			return drover.Errorf(drover.Invalid, "config.mounts: the volumes of a machine are chosen when it is created; only their paths can change").
				WithField("config.mounts").WithHint("destroy the machine and create one with the volumes it should have")
		}
		now := f.now().UTC()
		if err := f.keepVersion(ctx, *m, now); err != nil {
			return err
		}
		if m.Config.Schedule != req.Config.Schedule {
			m.ScheduledAt = now // what a new schedule would have asked for before is over
		}
		m.Config, m.Image, m.Instance, m.ConfiguredAt = req.Config, ref, drover.NewInstanceID(), now
		m.SkipSecrets, m.Cordoned = req.SkipSecrets, m.Cordoned || req.Cordon
		secrets.give(m)
		m.Resume = false // what a suspended machine has in its memory belongs to the config of before
		waits := len(m.Config.Standbys) > 0 && m.Goal == drover.GoalStopped
		switch {
		case !req.SkipLaunch && !waits:
			m.Goal, m.Stop = drover.GoalStarted, drover.StopConfig{}
			m.Run++
		case m.Goal == drover.GoalSuspended:
			m.Goal = drover.GoalStopped
		}
		return nil
	})
	v, err = f.told(ctx, req.App, req.Machine, err)
	if err != nil || req.LeaseTTL == 0 {
		return v, err
	}
	l, err := f.LeaseMachine(ctx, LeaseMachine{App: req.App, Machine: req.Machine, Nonce: req.Nonce, TTL: req.LeaseTTL, Owner: req.Owner})
	v.Nonce = l.Nonce
	return v, err
}

func sameVolumes(a, b []drover.Mount) bool {
	ids := func(mounts []drover.Mount) []drover.VolumeID {
		var out []drover.VolumeID
		for _, m := range mounts {
			out = append(out, m.Volume)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(ids(a), ids(b))
}

// fits asks the machine's host whether it has room for a larger one.
func (f *Fleet) fits(ctx context.Context, v MachineView, g drover.Guest) error {
	now := v.Machine.Config.Guest
	if g.MemoryMB <= now.MemoryMB && g.CPUs <= now.CPUs && g.CPUKind == now.CPUKind && g.HostDedicationID == now.HostDedicationID {
		return nil
	}
	var offer drover.Offer
	req := offerFor(v.Machine.ID, g)
	if err := f.order(ctx, f.timing.Offer, v.Placement.Host, drover.OrderOffer, req, &offer); err != nil {
		return err
	}
	if len(offer.Reasons) > 0 {
		return drover.Errorf(drover.Exhausted, "machine %q cannot grow on host %q: %s", v.Machine.ID, v.Placement.Host, offer.Reasons[0]).
			WithField("config.guest").WithHint("move it to a host with more room first: drover machine move %s", v.Machine.ID)
	}
	return nil
}

// told gives the changed machine to its host and returns the view. A host that does not answer learns of it when it is back.
func (f *Fleet) told(ctx context.Context, app drover.AppName, id drover.MachineID, err error) (MachineView, error) {
	if err != nil {
		return MachineView{}, err
	}
	v, verr := f.view(app, id)
	if v.HostStatus == drover.HostUnreachable {
		return v, verr // it learns of it when it is back: there is nothing to wait for
	}
	_, err = f.apply(ctx, id)
	v, verr = f.view(app, id)
	switch {
	case drover.Is(err, drover.Unavailable):
		v.HostStatus = drover.HostUnreachable
		return v, verr
	case err != nil:
		return v, drover.AsError(fmt.Errorf("machine %q is to be %s, but its host %q refuses: %w", id, v.Machine.Goal, v.Placement.Host, err))
	}
	return v, verr
}

// StartMachine starts a machine that is not running. One that runs, or is about to, is left alone. One that is suspended goes on.
func (f *Fleet) StartMachine(ctx context.Context, app drover.AppName, id drover.MachineID) (MachineView, error) {
	secrets := f.newestSecrets(ctx, app, id)
	return f.setGoal(ctx, app, id, func(m *drover.Machine) {
		st, _, known := f.state.status.seen(string(id))
		up := st.Run < m.Run || st.State == drover.StateCreated || st.State == drover.StateStarting || st.State == drover.StateStarted
		if m.Goal == drover.GoalStarted && (!known || up) {
			return
		}
		m.Resume = m.Goal == drover.GoalSuspended
		m.Goal, m.Stop = drover.GoalStarted, drover.StopConfig{}
		m.Run++
		secrets.give(m)
	})
}

// StopMachine stops a machine; one that is suspended loses its memory. stop overrides the config's way of stopping, field by field.
func (f *Fleet) StopMachine(ctx context.Context, app drover.AppName, id drover.MachineID, stop drover.StopConfig) (MachineView, error) {
	var p problems
	checkStop(&p, "stop", stop)
	if err := p.err(); err != nil {
		return MachineView{}, err
	}
	return f.setGoal(ctx, app, id, func(m *drover.Machine) { m.Goal, m.Stop, m.Resume = drover.GoalStopped, stop, false })
}

// RestartMachine stops a machine that runs, and starts it; one that is suspended boots. stop overrides the config's way of stopping, field by field.
func (f *Fleet) RestartMachine(ctx context.Context, app drover.AppName, id drover.MachineID, stop drover.StopConfig) (MachineView, error) {
	var p problems
	checkStop(&p, "stop", stop)
	if err := p.err(); err != nil {
		return MachineView{}, err
	}
	secrets := f.newestSecrets(ctx, app, id)
	return f.setGoal(ctx, app, id, func(m *drover.Machine) {
		m.Goal, m.Stop, m.Resume = drover.GoalStarted, stop, false
		m.Run++
		secrets.give(m)
	})
}

func (f *Fleet) setGoal(ctx context.Context, app drover.AppName, id drover.MachineID, set func(*drover.Machine)) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	if _, err := f.view(app, id); err != nil {
		return MachineView{}, err
	}
	if err := f.still(ctx, id); err != nil {
		return MachineView{}, err
	}
	err := f.change(ctx, app, id, func(m *drover.Machine) error {
		m.GoalBefore = ""
		set(m)
		return nil
	})
	return f.told(ctx, app, id, err)
}

// DestroyMachine destroys a machine; Precondition when it runs and is not forced. It is accepted while the host does not answer, and
// takes effect when the host is back; the name is free at once.
func (f *Fleet) DestroyMachine(ctx context.Context, app drover.AppName, id drover.MachineID, force bool) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	v, err := f.view(app, id)
	if err != nil {
		return err
	}
	if v.Machine.Goal == drover.GoalDestroyed {
		return nil // asked again
	}
	if m, err := f.holder(ctx, id); err != nil {
		return err
	} else if m != nil {
		return moving(m)
	}
	if !force && runs(v) {
		return drover.Errorf(drover.Precondition, "machine %q is %s", id, v.Status.State).
			WithHint("stop it first, or destroy it by force: drover machine destroy %s --force", id)
	}
	err = f.changeExisting(ctx, app, id, func(m *drover.Machine) error {
		m.Goal, m.Resume = drover.GoalDestroyed, false
		if saysMore(v.Status, m.Last) { // its host may know nothing of it any more when it is asked for the end
			m.Last = &v.Status
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.log.Info("machine is being destroyed", "machine", id, "app", v.Machine.App, "host", v.Placement.Host)
	// What follows is the repair's work, done at once so that the answer finds it done where possible.
	if err := f.freeName(ctx, v.Machine); err != nil {
		f.log.Warn("name is freed later", "machine", id, "err", err)
	}
	if v.HostStatus == drover.HostUnreachable {
		return nil // the repair sees it when the host is back
	}
	if err := f.repairMachine(ctx, id); err != nil && !drover.Is(err, drover.Unavailable) {
		f.log.Warn("machine is cleared away later", "machine", id, "err", err)
	}
	return nil
}

// runs reports whether a machine runs or is about to.
func runs(v MachineView) bool {
	switch v.Status.State {
	case drover.StateStarting, drover.StateStarted, drover.StateSuspending, drover.StateStopping:
		return true
	case drover.StateCreated:
		return v.Machine.Goal == drover.GoalStarted
	}
	return false
}

// apply makes the desired state of a machine known to its host.
func (f *Fleet) apply(ctx context.Context, id drover.MachineID) (drover.MachineStatus, error) {
	m, rev, err := f.state.machines.get(ctx, string(id))
	if err != nil {
		return drover.MachineStatus{}, err
	}
	p, err := f.state.placementOf(ctx, id)
	if err != nil {
		return drover.MachineStatus{}, err
	}
	return f.tell(ctx, m, rev, p)
}

// tell is apply for records that were just read or written: a host tells by the epoch and the time of the change whether it has newer ones.
func (f *Fleet) tell(ctx context.Context, m drover.Machine, rev uint64, p drover.Placement) (status drover.MachineStatus, err error) {
	volumes, err := f.volumesOf(ctx, m)
	if err != nil {
		return status, err
	}
	req := drover.ApplyRequest{Machine: m, Volumes: volumes, Epoch: p.Epoch, Recovery: f.recoveryNote(ctx, p)}
	err = f.order(ctx, f.timing.Apply, p.Host, drover.OrderApply, req, &status)
	if err == nil {
		f.tellings.note(m.ID, telling{machine: rev, placement: uint64(p.Epoch), at: f.now()})
	}
	return status, err
}

// volumesOf reads the volumes that a machine mounts and has, in the order of its mounts.
func (f *Fleet) volumesOf(ctx context.Context, m drover.Machine) ([]drover.Volume, error) {
	var volumes []drover.Volume
	for _, mount := range m.Config.Mounts {
		v, _, err := f.state.volumes.get(ctx, string(mount.Volume))
		if drover.Is(err, drover.NotFound) || (err == nil && v.Machine != m.ID) {
			if m.Goal == drover.GoalDestroyed {
				continue // freed already
			}
			return nil, drover.Errorf(drover.Internal, "machine %q mounts volume %q, which it does not have", m.ID, mount.Volume)
		}
		if err != nil {
			return nil, err
		}
		volumes = append(volumes, v)
	}
	return volumes, nil
}
