package apitest

import (
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/fleet"
)

// ConfirmOff fences a host that the test has made unreachable.
func (b *Backend) ConfirmOff(_ context.Context, req fleet.ConfirmOff) (drover.HostFence, error) {
	return b.fence("ConfirmOff", drover.FenceByOperator, req)
}

// SwitchOff does the same by a power command.
func (b *Backend) SwitchOff(_ context.Context, req fleet.ConfirmOff) (drover.HostFence, error) {
	return b.fence("SwitchOff", drover.FenceByCommand, req)
}

func (b *Backend) fence(method string, by drover.FenceBy, req fleet.ConfirmOff) (drover.HostFence, error) {
	if err := b.begin(method); err != nil {
		return drover.HostFence{}, err
	}
	defer b.mu.Unlock()
	host, err := b.hostLocked(req.Host)
	if err != nil {
		return drover.HostFence{}, err
	}
	if req.Reason == "" {
		return drover.HostFence{}, drover.Errorf(drover.Invalid, "reason is missing").WithField("reason")
	}
	if host.Status != drover.HostUnreachable {
		return drover.HostFence{}, drover.Errorf(drover.Precondition, "host %q is not off: it is heard on the bus", req.Host)
	}
	fence := drover.HostFence{Host: req.Host, By: by, Actor: req.Actor, Reason: req.Reason, At: b.Now()}
	b.fences[req.Host] = fence
	return fence, nil
}

// ChangeHost changes a host.
func (b *Backend) ChangeHost(id drover.HostID, change func(*drover.HostInfo)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.hosts {
		if b.hosts[i].ID == id {
			change(&b.hosts[i])
		}
	}
}

func (b *Backend) recoveryPlanLocked(host drover.HostID) drover.RecoveryPlan {
	plan := drover.RecoveryPlan{Host: host, Reach: drover.ReachOK, Machines: []drover.PlannedRecovery{}, AsOf: b.Now()}
	if fence, ok := b.fences[host]; ok {
		plan.Fence, plan.Reach, plan.Text = &fence, drover.ReachNone, "it is not heard on the bus"
	}
	for _, v := range b.machines {
		if v.Placement.Host != host {
			continue
		}
		p := drover.PlannedRecovery{Machine: v.Machine.ID, Name: v.Machine.Name, App: v.Machine.App}
		for _, m := range v.Machine.Config.Mounts {
			p.Sources = append(p.Sources, drover.RecoverySource{Volume: m.Volume, Kind: drover.FromStandby, Standby: "sby_0000000000000001",
				Host: "h2", At: b.Now().Add(-5e9), Size: drover.GiB})
		}
		plan.Machines = append(plan.Machines, p)
	}
	slices.SortFunc(plan.Machines, func(a, b drover.PlannedRecovery) int {
		if a.Machine < b.Machine {
			return -1
		}
		return 1
	})
	return plan
}

// RecoveryPlan plans with a standby of each volume.
func (b *Backend) RecoveryPlan(_ context.Context, host drover.HostID) (drover.RecoveryPlan, error) {
	if err := b.begin("RecoveryPlan"); err != nil {
		return drover.RecoveryPlan{}, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(host); err != nil {
		return drover.RecoveryPlan{}, err
	}
	return b.recoveryPlanLocked(host), nil
}

// StartRecovery makes recoveries that are done.
func (b *Backend) StartRecovery(_ context.Context, req fleet.StartRecovery) (fleet.RecoveryStarted, error) {
	if err := b.begin("StartRecovery"); err != nil {
		return fleet.RecoveryStarted{}, err
	}
	defer b.mu.Unlock()
	host := req.Host
	if req.Machine != "" {
		host = b.machines[req.Machine].Placement.Host
	}
	if _, err := b.hostLocked(host); err != nil {
		return fleet.RecoveryStarted{}, err
	}
	plan := b.recoveryPlanLocked(host)
	if plan.Fence == nil {
		return fleet.RecoveryStarted{}, drover.Errorf(drover.Precondition, "it is not certain that host %q is off", host)
	}
	out := fleet.RecoveryStarted{Recoveries: []drover.Recovery{}, Left: []drover.PlannedRecovery{}}
	for _, p := range plan.Machines {
		r := drover.Recovery{ID: drover.RecoveryID(fmt.Sprintf("rec_%016x", b.nextLocked())), Machine: p.Machine, App: p.App, From: host, Target: "h2",
			State: drover.RecoveryDone, FromEpoch: 1, ToEpoch: 9, Sources: p.Sources, Fence: *plan.Fence, Actor: req.Actor, CreatedAt: b.Now(), UpdatedAt: b.Now(),
			SwitchedAt: b.Now(), RunningAt: b.Now(), EndedAt: b.Now()}
		b.recoveries[r.ID] = r
		out.Recoveries = append(out.Recoveries, r)
	}
	return out, nil
}

// Recoveries lists the recoveries.
func (b *Backend) Recoveries(context.Context) ([]drover.Recovery, error) {
	if err := b.begin("Recoveries"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	all := []drover.Recovery{}
	for _, r := range b.recoveries {
		all = append(all, r)
	}
	return all, nil
}

// Recovery returns a recovery.
func (b *Backend) Recovery(_ context.Context, id drover.RecoveryID) (drover.Recovery, error) {
	if err := b.begin("Recovery"); err != nil {
		return drover.Recovery{}, err
	}
	defer b.mu.Unlock()
	r, ok := b.recoveries[id]
	if !ok {
		return r, drover.Errorf(drover.NotFound, "no recovery %q", id)
	}
	return r, nil
}

// HostKept has one layer.
func (b *Backend) HostKept(_ context.Context, host drover.HostID) ([]drover.KeptLayer, error) {
	if err := b.begin("HostKept"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if _, err := b.hostLocked(host); err != nil {
		return nil, err
	}
	return []drover.KeptLayer{{Host: host, Layer: "vol_0000000000000001", Disk: "vol_0000000000000001", Volume: "vol_0000000000000001",
		Machine: "00000000000001", Owner: "h2", Epoch: 9, Allocated: drover.GiB, Later: drover.MiB, LaterKnown: true, KeptAt: b.Now(),
		DeleteAfter: b.Now().AddDate(0, 0, 7)}}, nil
}

// SetRecovery sets the policy of an app.
func (b *Backend) SetRecovery(_ context.Context, name drover.AppName, policy drover.RecoveryPolicy) (drover.App, error) {
	if err := b.begin("SetRecovery"); err != nil {
		return drover.App{}, err
	}
	defer b.mu.Unlock()
	app, ok := b.apps[name]
	if !ok {
		return app, drover.Errorf(drover.NotFound, "no app %q", name)
	}
	if policy != drover.RecoverAsk && policy != drover.RecoverAutomatic {
		return app, drover.Errorf(drover.Invalid, "recovery: %q is unknown: use ask or automatic", policy).WithField("recovery")
	}
	app.Recovery = policy
	b.apps[name] = app
	return app, nil
}

// CreateStandby makes a standby that has a whole step.
func (b *Backend) CreateStandby(_ context.Context, req fleet.CreateStandby) (drover.Standby, error) {
	if err := b.begin("CreateStandby"); err != nil {
		return drover.Standby{}, err
	}
	defer b.mu.Unlock()
	if _, ok := b.volumes[req.Volume]; !ok {
		return drover.Standby{}, drover.Errorf(drover.NotFound, "no volume %q", req.Volume)
	}
	host, every := req.Host, req.Every
	if host == "" {
		host = "h2"
	}
	if every == 0 {
		every = drover.DefaultStandbyEvery
	}
	s := drover.Standby{ID: drover.StandbyID(fmt.Sprintf("sby_%016x", b.nextLocked())), Volume: req.Volume, App: req.App, Host: host, Region: req.Region,
		Every: every, State: drover.StandbyFollowing, Step: 1, Complete: 1, CompleteAt: b.Now(), CompleteFrom: "h1", CompleteSize: drover.GiB,
		Copied: drover.MiB, LagSeconds: 5, CreatedAt: b.Now()}
	b.standbys[s.ID] = s
	return s, nil
}

// Standbys lists the standbys of an app's volume, or of all.
func (b *Backend) Standbys(_ context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Standby, error) {
	if err := b.begin("Standbys"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if _, ok := b.volumes[volume]; volume != "" && !ok {
		return nil, drover.Errorf(drover.NotFound, "no volume %q in app %q", volume, app)
	}
	all := []drover.Standby{}
	for _, s := range b.standbys {
		if s.App == app && (volume == "" || s.Volume == volume) {
			all = append(all, s)
		}
	}
	return all, nil
}

// Standby returns a standby.
func (b *Backend) Standby(_ context.Context, app drover.AppName, id drover.StandbyID) (drover.Standby, error) {
	if err := b.begin("Standby"); err != nil {
		return drover.Standby{}, err
	}
	defer b.mu.Unlock()
	s, ok := b.standbys[id]
	if !ok || s.App != app {
		return drover.Standby{}, drover.Errorf(drover.NotFound, "no standby %q", id)
	}
	return s, nil
}

// DeleteStandby removes a standby.
func (b *Backend) DeleteStandby(ctx context.Context, app drover.AppName, id drover.StandbyID) (drover.Standby, error) {
	s, err := b.Standby(ctx, app, id)
	if err != nil {
		return s, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.standbys, id)
	s.State = drover.StandbyDeleting
	return s, nil
}
