package apitest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover"
	"drover/fleet"
)

// CreateMachine makes a machine that is started at once.
func (b *Backend) CreateMachine(_ context.Context, req fleet.CreateMachine) (fleet.MachineView, error) {
	if err := b.begin("CreateMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	if made, err := b.madeLocked(req.Once); err != nil || made.Machine.ID != "" {
		return made, err
	}
	if strings.TrimSpace(req.Config.Image) == "" {
		return fleet.MachineView{}, drover.Errorf(drover.Invalid, "config.image is empty").WithField("config.image")
	}
	if strings.Contains(req.Config.Image, "missing") {
		return fleet.MachineView{}, drover.Errorf(drover.NotFound, "image %q does not exist", req.Config.Image).WithField("config.image")
	}
	if req.Config.Guest.MemoryMB > 4096 {
		return fleet.MachineView{}, drover.Errorf(drover.Exhausted, "no host has %d MB of memory free: h1 has 3072 MB, h2 has 3072 MB", req.Config.Guest.MemoryMB).
			WithField("config.guest.memory_mb").WithHint("ask for less memory")
	}
	host := drover.HostID("h1")
	if req.Host != "" {
		host = req.Host
	}
	info, err := b.hostLocked(host)
	if err != nil {
		return fleet.MachineView{}, drover.AsError(err).WithField("host")
	}
	n := b.nextLocked()
	name := req.Name
	if name == "" {
		name = fmt.Sprintf("calm-river-%d", n)
	}
	id, now := machineID(n), b.Now()
	v := fleet.MachineView{
		Machine: drover.Machine{ID: id, App: req.App, Name: name, Region: info.Region, Config: req.Config.WithDefaults(),
			Image:    drover.ImageRef{Registry: "docker.io", Repository: "library/" + req.Config.Image, Tag: "latest", Digest: "sha256:" + strings.Repeat("ab", 32)},
			Instance: drover.InstanceID(fmt.Sprintf("%026d", n)), Address: fmt.Sprintf("fdd0::%x", n), Goal: drover.GoalStarted, Run: 1, CreatedAt: now, UpdatedAt: now,
			Cordoned: req.Cordoned},
		Placement:  drover.Placement{Machine: id, Host: host, Epoch: drover.Epoch(n)},
		HostStatus: drover.HostOK,
		Status:     drover.MachineStatus{Machine: id, Host: host, Epoch: drover.Epoch(n), Run: 1, UpdatedAt: now},
	}
	if req.LeaseTTL > 0 {
		v.Nonce = b.leaseLocked(fleet.LeaseMachine{Machine: id, TTL: req.LeaseTTL, Owner: req.Owner}).Nonce
	}
	if req.SkipLaunch {
		v.Machine.Goal = drover.GoalStopped
		b.setLocked(&v, drover.StateStopped, "launch")
	} else {
		b.setLocked(&v, drover.StateStarted, "start")
	}
	for _, m := range req.Config.Mounts {
		vol, ok := b.volumes[m.Volume]
		if !ok {
			return fleet.MachineView{}, drover.Errorf(drover.NotFound, "volume %q does not exist", m.Volume).WithField("config.mounts[0].volume")
		}
		vol.Volume.Machine = id
		b.volumes[m.Volume] = vol
	}
	b.machines[id] = v
	if req.Once != nil {
		b.once[*req.Once] = id
	}
	b.notifyLocked()
	return v, nil
}

// setLocked gives the machine a state, with an event.
func (b *Backend) setLocked(v *fleet.MachineView, state drover.MachineState, event string) {
	now := b.Now()
	v.Status.State, v.Status.Instance, v.Status.Run, v.Status.UpdatedAt = state, v.Machine.Instance, v.Machine.Run, now
	if state == drover.StateStarted {
		v.Status.StartedAt = now
		v.Status.SecretsVersion = b.secrets[v.Machine.App].version
	}
	v.Status.Events = append(v.Status.Events, drover.Event{ID: fmt.Sprintf("ev%d", len(v.Status.Events)+1), Type: event, Status: state, Source: "user", At: now,
		Run: v.Machine.Run, Instance: v.Machine.Instance})
}

// changeLocked finds a machine, changes it and keeps it.
func (b *Backend) changeLocked(app drover.AppName, id drover.MachineID, change func(*fleet.MachineView) error) (fleet.MachineView, error) {
	v, ok := b.machines[id]
	if !ok || v.Machine.App != app {
		return fleet.MachineView{}, drover.Errorf(drover.NotFound, "no machine %q in app %q", id, app)
	}
	if err := change(&v); err != nil {
		return fleet.MachineView{}, err
	}
	b.machines[id] = v
	b.notifyLocked()
	return v, nil
}

// Machines lists an app's machines, oldest first.
func (b *Backend) Machines(_ context.Context, app drover.AppName) ([]fleet.MachineView, error) {
	if err := b.begin("Machines"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var views []fleet.MachineView
	for _, v := range b.machines {
		if v.Machine.App == app && v.Status.State != drover.StateDestroyed {
			views = append(views, v)
		}
	}
	slices.SortFunc(views, func(a, b fleet.MachineView) int {
		return cmp.Or(a.Machine.CreatedAt.Compare(b.Machine.CreatedAt), cmp.Compare(a.Machine.ID, b.Machine.ID))
	})
	return views, nil
}

// Machine returns a machine.
func (b *Backend) Machine(_ context.Context, app drover.AppName, id drover.MachineID) (fleet.MachineView, error) {
	if err := b.begin("Machine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	v, ok := b.machines[id]
	if !ok || (app != "" && v.Machine.App != app) {
		return fleet.MachineView{}, drover.Errorf(drover.NotFound, "no machine %q in app %q", id, app)
	}
	return v, nil
}

// UpdateMachine replaces the config.
func (b *Backend) UpdateMachine(_ context.Context, req fleet.UpdateMachine) (fleet.MachineView, error) {
	if err := b.begin("UpdateMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	return b.changeLocked(req.App, req.Machine, func(v *fleet.MachineView) error {
		if req.CurrentVersion != "" && req.CurrentVersion != v.Machine.Instance {
			return drover.Errorf(drover.Conflict, "machine %q is at version %q, not %q", req.Machine, v.Machine.Instance, req.CurrentVersion)
		}
		b.versions[req.Machine] = append(b.versions[req.Machine], drover.MachineVersion{Machine: req.Machine, Instance: v.Machine.Instance, Config: v.Machine.Config,
			Image: v.Machine.Image, CreatedAt: v.Machine.CreatedAt, ReplacedAt: b.Now()})
		v.Machine.Config, v.Machine.Cordoned = req.Config.WithDefaults(), v.Machine.Cordoned || req.Cordon
		v.Machine.Instance = drover.InstanceID(fmt.Sprintf("%026d", b.nextLocked()))
		if !req.SkipLaunch {
			v.Machine.Goal, v.Machine.Run = drover.GoalStarted, v.Machine.Run+1
			b.setLocked(v, drover.StateStarted, "update")
		}
		return nil
	})
}

// StartMachine starts at once.
func (b *Backend) StartMachine(_ context.Context, app drover.AppName, id drover.MachineID) (fleet.MachineView, error) {
	if err := b.begin("StartMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	return b.changeLocked(app, id, func(v *fleet.MachineView) error {
		v.Machine.Goal = drover.GoalStarted
		b.setLocked(v, drover.StateStarted, "start")
		return nil
	})
}

// StopMachine stops at once, with exit code 0.
func (b *Backend) StopMachine(_ context.Context, app drover.AppName, id drover.MachineID, stop drover.StopConfig) (fleet.MachineView, error) {
	if err := b.begin("StopMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	return b.changeLocked(app, id, func(v *fleet.MachineView) error {
		v.Machine.Goal, v.Machine.Stop, v.Status.ExitCode, v.Status.StoppedAt = drover.GoalStopped, stop, new(int), b.Now()
		b.setLocked(v, drover.StateStopped, "stop")
		return nil
	})
}

// RestartMachine restarts at once.
func (b *Backend) RestartMachine(_ context.Context, app drover.AppName, id drover.MachineID, stop drover.StopConfig) (fleet.MachineView, error) {
	if err := b.begin("RestartMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	return b.changeLocked(app, id, func(v *fleet.MachineView) error {
		v.Machine.Run++
		v.Machine.Goal, v.Machine.Stop = drover.GoalStarted, stop
		b.setLocked(v, drover.StateStarted, "restart")
		return nil
	})
}

// DestroyMachine leaves the record in StateDestroyed.
func (b *Backend) DestroyMachine(_ context.Context, app drover.AppName, id drover.MachineID, force bool) error {
	if err := b.begin("DestroyMachine"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	_, err := b.changeLocked(app, id, func(v *fleet.MachineView) error {
		if v.Status.State == drover.StateStarted && !force {
			return drover.Errorf(drover.Precondition, "machine %q is started", id).WithHint("stop it first, or force")
		}
		v.Machine.Goal = drover.GoalDestroyed
		b.setLocked(v, drover.StateDestroyed, "destroy")
		return nil
	})
	return err
}

// WaitMachine is WaitFor with one state.
func (b *Backend) WaitMachine(ctx context.Context, app drover.AppName, id drover.MachineID, state drover.MachineState, instance drover.InstanceID) (fleet.MachineView, error) {
	return b.WaitFor(ctx, fleet.Wait{App: app, Machine: id, States: []drover.MachineState{state}, Instance: instance})
}

// ExecMachine asks Exec.
func (b *Backend) ExecMachine(_ context.Context, _ drover.AppName, req drover.ExecRequest) (drover.ExecResult, error) {
	if err := b.begin("ExecMachine"); err != nil {
		return drover.ExecResult{}, err
	}
	exec := b.Exec
	b.mu.Unlock()
	if exec == nil {
		return drover.ExecResult{Stdout: []byte(strings.Join(req.Command, " ") + "\n")}, nil
	}
	return exec(req)
}

// SignalMachine remembers the signal.
func (b *Backend) SignalMachine(_ context.Context, _ drover.AppName, req drover.SignalRequest) error {
	if err := b.begin("SignalMachine"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	b.signals = append(b.signals, req)
	return nil
}

// MachineLogs reads the lines of Log; an offset is a line's number.
func (b *Backend) MachineLogs(ctx context.Context, _ drover.AppName, req drover.LogsRequest) (drover.LogsAnswer, error) {
	wait, cancel := context.WithTimeout(ctx, max(req.Wait, time.Nanosecond))
	defer cancel()
	for {
		if err := b.begin("MachineLogs"); err != nil {
			return drover.LogsAnswer{}, err
		}
		from := int(req.Offset)
		if from < 0 {
			from = max(0, len(b.logs)-req.Tail)
		}
		lines := append([]drover.LogLine{}, b.logs[min(from, len(b.logs)):]...)
		answer := drover.LogsAnswer{Lines: lines, Next: int64(len(b.logs))}
		changed := b.changed
		b.mu.Unlock()
		if len(lines) > 0 || wait.Err() != nil {
			return answer, nil
		}
		select {
		case <-changed:
		case <-wait.Done():
			if req.Wait == 0 || ctx.Err() != nil {
				return answer, nil
			}
		}
	}
}
