package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"drover"
)

// viewLocked puts together what is known of a machine.
func (f *Fleet) viewLocked(id string) (MachineView, bool) {
	s := f.state
	m, ok := s.machines.items[id]
	if !ok {
		return MachineView{}, false
	}
	v := MachineView{Machine: m.value, Status: drover.MachineStatus{Machine: m.value.ID, State: drover.StateCreated}}
	v.Revisions.Machine = m.rev
	p, placed := s.placements.items[id]
	if placed {
		v.Revisions.Placement = p.rev
		v.Placement = p.value
		v.Placement.Epoch = drover.Epoch(p.rev)
		v.HostStatus = f.hostStatusLocked(p.value.Host)
	}
	if st, ok := s.status.bestLocked(id); ok && (placed || m.value.Last == nil) {
		v.Status, v.Revisions.Status = st.value, st.rev
	} else if m.value.Last != nil {
		v.Status = *m.value.Last
	}
	v.HostSeenAt = f.seenAtLocked(v)
	if m.value.Goal == drover.GoalDestroyed {
		switch {
		case !placed:
			v.Status.State = drover.StateDestroyed
		case v.Status.State != drover.StateDestroyed:
			v.Status.State = drover.StateDestroying
		}
	}
	if mig := s.moveLocked(m.value.ID); mig != nil {
		v.Migration = mig
	}
	return v, true
}

// view returns a machine of an app; an empty app stands for any.
func (f *Fleet) view(app drover.AppName, id drover.MachineID) (MachineView, error) {
	f.state.mu.RLock()
	v, ok := f.viewLocked(string(id))
	f.state.mu.RUnlock()
	if !ok || (app != "" && v.Machine.App != app) {
		return MachineView{}, noMachine(app, id)
	}
	return v, nil
}

func noMachine(app drover.AppName, id drover.MachineID) *drover.Error {
	if app == "" {
		return drover.Errorf(drover.NotFound, "machine %q does not exist", id).WithHint("see `drover machine list`")
	}
	return drover.Errorf(drover.NotFound, "machine %q does not exist in app %q", id, app).WithHint("see `drover machine list --app %s`", app)
}

// machineViews returns the machines of an index, oldest first.
func (f *Fleet) machineViews(of func(*state) map[string]struct{}, destroyed bool) []MachineView {
	f.state.mu.RLock()
	ids := of(f.state)
	views := make([]MachineView, 0, len(ids))
	for id := range ids {
		if v, ok := f.viewLocked(id); ok && (destroyed || v.Status.State != drover.StateDestroyed) {
			views = append(views, v)
		}
	}
	f.state.mu.RUnlock()
	slices.SortFunc(views, func(a, b MachineView) int {
		return cmp.Or(a.Machine.CreatedAt.Compare(b.Machine.CreatedAt), cmp.Compare(a.Machine.ID, b.Machine.ID))
	})
	return views
}

// Machines lists the machines of an app, oldest first, without those that are destroyed.
func (f *Fleet) Machines(ctx context.Context, app drover.AppName) ([]MachineView, error) {
	if _, err := f.AnyApp(ctx, app); err != nil {
		return nil, err
	}
	return f.machineViews(func(s *state) map[string]struct{} { return s.machinesOf[app] }, false), nil
}

// AllMachines is Machines with those that were destroyed lately.
func (f *Fleet) AllMachines(ctx context.Context, app drover.AppName) ([]MachineView, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	return f.machineViews(func(s *state) map[string]struct{} { return s.machinesOf[app] }, true), nil
}

// Machine returns one machine. A destroyed one is found for a day, in the state destroyed.
func (f *Fleet) Machine(ctx context.Context, app drover.AppName, id drover.MachineID) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	return f.view(app, id)
}

// WaitMachine returns when the machine is in the state, of the instance if one is given. When ctx ends first: Unavailable.
func (f *Fleet) WaitMachine(ctx context.Context, app drover.AppName, id drover.MachineID, state drover.MachineState, instance drover.InstanceID) (MachineView, error) {
	return f.WaitFor(ctx, Wait{App: app, Machine: id, States: []drover.MachineState{state}, Instance: instance})
}

// seenAtLocked tells when a machine's host was last heard of.
func (f *Fleet) seenAtLocked(v MachineView) time.Time {
	if s, ok := f.state.heard[v.Placement.Host]; ok {
		return s.at
	}
	return v.Status.UpdatedAt
}

// reached reports whether the machine is in the state, of the instance if one is given. Started means by the run that was asked for
// last: what is left of the run before a restart does not count.
func (v MachineView) reached(state drover.MachineState, instance drover.InstanceID) bool {
	switch {
	case v.Status.State != state:
		return false
	case state == drover.StateDestroyed:
		return true
	case state == drover.StateStarted && v.Status.Run < v.Machine.Run:
		return false
	}
	return instance == "" || cmp.Or(v.Status.Instance, v.Machine.Instance) == instance
}

// hostOf returns where a machine's orders go.
func (f *Fleet) hostOf(ctx context.Context, app drover.AppName, id drover.MachineID) (drover.HostID, error) {
	if err := f.await(ctx); err != nil {
		return "", err
	}
	v, err := f.view(app, id)
	if err != nil {
		return "", err
	}
	if v.Machine.Goal == drover.GoalDestroyed {
		return "", drover.Errorf(drover.Precondition, "machine %q is %s", id, v.Status.State)
	}
	return v.Placement.Host, nil
}

// execMargin is what an order may take beyond the time that was asked of it.
const execMargin = 10 * time.Second

// Bounds of what users may ask a machine to do.
const (
	execDefault = 60 * time.Second
	execMost    = 10 * time.Minute
	logsMost    = 60 * time.Second
	signalWait  = 15 * time.Second
)

// ExecMachine runs a command in a machine.
func (f *Fleet) ExecMachine(ctx context.Context, app drover.AppName, req drover.ExecRequest) (drover.ExecResult, error) {
	if req.Timeout == 0 {
		req.Timeout = execDefault
	}
	switch {
	case len(req.Command) == 0 || req.Command[0] == "":
		return drover.ExecResult{}, drover.Errorf(drover.Invalid, "command is empty: a command has one word at least").WithField("command")
	case req.Timeout < 0 || req.Timeout > execMost:
		return drover.ExecResult{}, drover.Errorf(drover.Invalid, "timeout: %v is out of range: at most %v", req.Timeout, execMost).WithField("timeout")
	}
	host, err := f.hostOf(ctx, app, req.Machine)
	if err != nil {
		return drover.ExecResult{}, err
	}
	var result drover.ExecResult
	err = f.order(ctx, req.Timeout+execMargin, host, drover.OrderExec, req, &result)
	return result, err
}

// SignalMachine sends a signal to the main process of a machine.
func (f *Fleet) SignalMachine(ctx context.Context, app drover.AppName, req drover.SignalRequest) error {
	if !knownSignal(req.Signal) {
		return badSignal("signal", req.Signal)
	}
	host, err := f.hostOf(ctx, app, req.Machine)
	if err != nil {
		return err
	}
	return f.order(ctx, signalWait, host, drover.OrderSignal, req, nil)
}

// MachineLogs reads a machine's log.
func (f *Fleet) MachineLogs(ctx context.Context, app drover.AppName, req drover.LogsRequest) (drover.LogsAnswer, error) {
	if req.Wait < 0 || req.Wait > logsMost {
		return drover.LogsAnswer{}, drover.Errorf(drover.Invalid, "wait: %v is out of range: at most %v", req.Wait, logsMost).WithField("wait")
	}
	host, err := f.hostOf(ctx, app, req.Machine)
	if err != nil {
		return drover.LogsAnswer{}, err
	}
	if req.Host != "" && req.Host != host {
		if !f.wasOn(req.Machine, req.Host) {
			return drover.LogsAnswer{}, drover.Errorf(drover.NotFound, "host: machine %q is on host %q, and its last move was not from %q", req.Machine, host, req.Host).
				WithField("host")
		}
		host = req.Host
	}
	var answer drover.LogsAnswer
	err = f.order(ctx, req.Wait+execMargin, host, drover.OrderLogs, req, &answer)
	answer.Host = host
	return answer, err
}

// wasOn tells whether the machine's last move was from the host: whoever may read its log may read what it wrote there.
func (f *Fleet) wasOn(id drover.MachineID, host drover.HostID) bool {
	p, _, ok := f.state.placements.seen(string(id))
	if !ok || p.Migration == "" {
		return false
	}
	m, _, ok := f.state.migrations.seen(string(p.Migration))
	return ok && m.Source == host
}
