package apitest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/fleet"
)

// MachineKeys lists the keys of the machines of an app, oldest first.
func (b *Backend) MachineKeys(ctx context.Context, app drover.AppName) ([]*fleet.MachineKey, error) {
	views, err := b.Machines(ctx, app)
	keys := make([]*fleet.MachineKey, 0, len(views))
	for _, v := range views {
		k := v.Key()
		keys = append(keys, &k)
	}
	slices.SortFunc(keys, (*fleet.MachineKey).Compare)
	return keys, err
}

// AllMachines is Machines with those that are destroyed.
func (b *Backend) AllMachines(_ context.Context, app drover.AppName) ([]fleet.MachineView, error) {
	if err := b.begin("AllMachines"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var views []fleet.MachineView
	for _, v := range b.machines {
		if v.Machine.App == app {
			views = append(views, v)
		}
	}
	return views, nil
}

// WaitFor waits for a change by the test or by another call.
func (b *Backend) WaitFor(ctx context.Context, w fleet.Wait) (fleet.MachineView, error) {
	for {
		if err := b.begin("WaitMachine"); err != nil {
			return fleet.MachineView{}, err
		}
		v, ok := b.machines[w.Machine]
		changed := b.changed
		b.mu.Unlock()
		if !ok || v.Machine.App != w.App {
			return fleet.MachineView{}, drover.Errorf(drover.NotFound, "no machine %q in app %q", w.Machine, w.App)
		}
		if w.Reached(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, drover.Errorf(drover.Unavailable, "machine %q is %s", w.Machine, v.Status.State)
		}
	}
}

// liveLocked returns the lease of a machine that holds now.
func (b *Backend) liveLocked(id drover.MachineID) (drover.MachineLease, bool) {
	l := b.leases[id]
	l.Version = b.machines[id].Machine.Instance
	return l, l.Live(b.Now())
}

func leased(l drover.MachineLease) error {
	return drover.Errorf(drover.Conflict, "machine ID %s lease currently held by %s, expires at %s", l.Machine, l.Owner, l.ExpiresAt.Format(time.RFC3339))
}

func (b *Backend) leaseLocked(req fleet.LeaseMachine) drover.MachineLease {
	l, ok := b.liveLocked(req.Machine)
	if !ok {
		l = drover.MachineLease{Machine: req.Machine, Nonce: fmt.Sprintf("nonce%d", b.nextLocked()), Owner: req.Owner, Description: req.Description,
			TakenAt: b.Now(), Version: b.machines[req.Machine].Machine.Instance}
	}
	l.ExpiresAt = b.Now().Add(max(req.TTL, time.Second))
	b.leases[req.Machine] = l
	return l
}

// MachineLease returns the lease that holds now.
func (b *Backend) MachineLease(_ context.Context, _ drover.AppName, id drover.MachineID) (drover.MachineLease, error) {
	if err := b.begin("MachineLease"); err != nil {
		return drover.MachineLease{}, err
	}
	defer b.mu.Unlock()
	l, ok := b.liveLocked(id)
	if !ok {
		return l, drover.Errorf(drover.NotFound, "machine ID %s lease not found", id)
	}
	return l, nil
}

// LeaseMachine takes the lease or prolongs it.
func (b *Backend) LeaseMachine(_ context.Context, req fleet.LeaseMachine) (drover.MachineLease, error) {
	if err := b.begin("LeaseMachine"); err != nil {
		return drover.MachineLease{}, err
	}
	defer b.mu.Unlock()
	if l, ok := b.liveLocked(req.Machine); ok && l.Nonce != req.Nonce {
		return l, leased(l)
	}
	return b.leaseLocked(req), nil
}

// ReleaseMachine gives the lease up.
func (b *Backend) ReleaseMachine(_ context.Context, _ drover.AppName, id drover.MachineID, nonce string) error {
	if err := b.begin("ReleaseMachine"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	l, ok := b.liveLocked(id)
	switch {
	case !ok:
		return drover.Errorf(drover.NotFound, "machine ID %s lease not found", id)
	case l.Nonce != nonce:
		return leased(l)
	}
	delete(b.leases, id)
	return nil
}

// GuardMachine refuses whoever does not have the lease.
func (b *Backend) GuardMachine(_ context.Context, app drover.AppName, id drover.MachineID, nonce string) error {
	if err := b.begin("GuardMachine"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if v, ok := b.machines[id]; !ok || v.Machine.App != app {
		return drover.Errorf(drover.NotFound, "no machine %q in app %q", id, app)
	}
	if l, ok := b.liveLocked(id); ok && l.Nonce != nonce {
		return leased(l)
	}
	return nil
}

// Versions lists the configs, newest first.
func (b *Backend) Versions(_ context.Context, _ drover.AppName, id drover.MachineID) ([]drover.MachineVersion, error) {
	if err := b.begin("Versions"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	m := b.machines[id].Machine
	list := append(slices.Clone(b.versions[id]), drover.MachineVersion{Machine: id, Instance: m.Instance, Config: m.Config, Image: m.Image, CreatedAt: m.CreatedAt})
	slices.Reverse(list)
	return list, nil
}

// CordonMachine marks the machine.
func (b *Backend) CordonMachine(_ context.Context, app drover.AppName, id drover.MachineID, cordoned bool) (fleet.MachineView, error) {
	if err := b.begin("CordonMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	return b.changeLocked(app, id, func(v *fleet.MachineView) error { v.Machine.Cordoned = cordoned; return nil })
}

// Processes lists two processes.
func (b *Backend) Processes(_ context.Context, _ drover.AppName, id drover.MachineID) ([]drover.Process, error) {
	if err := b.begin("Processes"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if b.machines[id].Status.State != drover.StateStarted {
		return nil, drover.Errorf(drover.Precondition, "machine %q does not run", id)
	}
	return []drover.Process{{PID: 1, Command: "/init", Directory: "/", RSS: 2 * drover.MiB, CPU: 30, RTime: 9},
		{PID: 300, Command: "nginx -g 'daemon off;'", Directory: "/srv", RSS: 9 * drover.MiB, CPU: 20, RTime: 8, STime: 7,
			ListenSockets: []drover.ListenSocket{{Proto: "tcp", Address: "[::]:80"}}}}, nil
}

// madeLocked finds what an earlier request with the key has made.
func (b *Backend) madeLocked(once *fleet.Once) (fleet.MachineView, error) {
	if once == nil {
		return fleet.MachineView{}, nil
	}
	for o, id := range b.once {
		switch {
		case o == *once:
			return b.machines[id], nil
		case o.Scope == once.Scope && o.Key == once.Key:
			return fleet.MachineView{}, drover.Errorf(drover.Invalid, "the key was used for another request").WithField("Idempotency-Key")
		}
	}
	return fleet.MachineView{}, nil
}
