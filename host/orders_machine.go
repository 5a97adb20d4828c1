package host

import (
	"context"
	"time"

	"drover"
	"drover/boltstore"
)

// apply makes a machine's desired state known. It is durable when it returns, and does not wait for the machine to get there.
func (a *Agent) apply(_ context.Context, req drover.ApplyRequest) (drover.MachineStatus, error) {
	if err := checkApply(req); err != nil {
		return drover.MachineStatus{}, err
	}
	a.capacity.Lock()
	defer a.capacity.Unlock()
	m, err := a.ensureMachine(req.Machine.ID, func(r *records, tx *boltstore.Tx) error {
		return a.accept(r, tx, req)
	})
	if err != nil {
		return drover.MachineStatus{}, err
	}
	for _, id := range mountsOf(req.Machine) {
		delete(a.reserved, id)
	}
	m.confirmed()
	m.mu.Lock()
	if m.placedAt.IsZero() { // who orders it has just read the placement
		m.placedAt = m.ownedAt
	}
	m.mu.Unlock()
	return m.status(), nil
}

// checkApply refuses what can never be right.
func checkApply(req drover.ApplyRequest) error {
	m := req.Machine
	switch {
	case req.Epoch == 0:
		return drover.Errorf(drover.Invalid, "machine %q: the order has no epoch", m.ID).WithField("epoch")
	case m.Goal != drover.GoalStarted && m.Goal != drover.GoalStopped && m.Goal != drover.GoalSuspended && m.Goal != drover.GoalDestroyed:
		return drover.Errorf(drover.Invalid, "machine %q: goal %q is none of started, stopped, suspended, destroyed", m.ID, m.Goal).WithField("goal")
	}
	switch policy := m.Config.WithDefaults().Restart.Policy; policy {
	case drover.RestartNo, drover.RestartOnFailure, drover.RestartAlways:
	default:
		return drover.Errorf(drover.Invalid, "machine %q: restart policy %q is none of no, on-failure, always", m.ID, policy).
			WithField("config.restart.policy")
	}
	return nil
}

// accept takes an order over into the records, or says why not.
func (a *Agent) accept(r *records, tx *boltstore.Tx, req drover.ApplyRequest) error {
	id, now := req.Machine.ID, a.now()
	if r.Desired == nil {
		if r.Move != nil {
			return drover.Errorf(drover.Conflict, "machine %q is on its way to host %q with migration %s", id, a.cfg.ID, r.Move.Migration)
		}
		if req.Machine.Goal != drover.GoalDestroyed {
			if err := a.checkMachine(req.Machine); err != nil {
				return err
			}
		}
		if err := a.checkVolumes(tx, req); err != nil {
			return err
		}
		if err := a.takeReserved(tx, req.Machine); err != nil {
			return err
		}
		r.Desired = &req
		r.Obs = observed{Status: drover.MachineStatus{Machine: id, Host: a.cfg.ID, Epoch: req.Epoch, State: drover.StateCreated,
			Instance: req.Machine.Instance, Checks: firstChecks(req.Machine.Config, now, "the machine was not started yet")}}
		if req.Recovery != nil {
			r.recovered(*req.Recovery, req, now)
			return nil
		}
		r.event(now, event{kind: "launch", source: "user"})
		return nil
	}
	old := r.Desired
	if req.Epoch < old.Epoch {
		return drover.Errorf(drover.Conflict, "machine %q: the order is of epoch %d, host %q knows epoch %d", id, req.Epoch, a.cfg.ID, old.Epoch).
			WithHint("read the placement again")
	}
	if req.Machine.Run < old.Machine.Run || req.Machine.UpdatedAt.Before(old.Machine.UpdatedAt) {
		return nil // an order that was overtaken by a newer one: the answer is what has become of it
	}
	if src := r.source(); src != nil && src.Moved != 0 && req.Epoch <= src.Moved {
		return drover.Errorf(drover.Conflict, "machine %q was moved away with migration %s", id, src.Migration)
	}
	wants, was := req.Machine.Config.WithDefaults().Guest, old.Machine.Config.WithDefaults().Guest
	grows := wants.MemoryMB > was.MemoryMB || a.cfg.cpuNeed(wants) > a.cfg.cpuNeed(was) || wants.HostDedicationID != was.HostDedicationID
	// What a suspended machine gave back others may have; one that was stopped then comes back the same way.
	begins := old.Machine.Goal != drover.GoalStarted && !r.Obs.VM.Live
	if (grows || begins) && req.Machine.Goal == drover.GoalStarted {
		if err := a.checkMachine(req.Machine); err != nil {
			return err
		}
	}
	if err := a.checkVolumes(tx, req); err != nil {
		return err
	}
	if req.Machine.Instance != old.Machine.Instance {
		r.event(now, event{kind: "update", source: "user"})
		if req.Machine.Goal == drover.GoalStarted {
			r.event(now, event{kind: "launch", source: "user"}) // clients look for the start that follows it
		}
		if !r.Obs.VM.Live {
			r.Obs.Status.Checks = firstChecks(req.Machine.Config, now, "the machine is not running")
		}
	}
	r.Obs.Status.Epoch = req.Epoch
	r.Obs.Lost = nil // the control side says that it is ours
	r.Desired = &req
	return nil
}

// checkVolumes refuses a machine whose volumes are not on this host.
func (a *Agent) checkVolumes(tx *boltstore.Tx, req drover.ApplyRequest) error {
	if req.Machine.Goal == drover.GoalDestroyed {
		return nil
	}
	for _, mount := range req.Machine.Config.Mounts {
		_, ok, err := diskBucket.Get(tx, string(mount.Volume.Disk()))
		if err != nil {
			return err
		}
		if !ok {
			return drover.Errorf(drover.Precondition, "machine %q: its volume %q is not on host %q", req.Machine.ID, mount.Volume, a.cfg.ID).
				WithField("config.mounts")
		}
	}
	return nil
}

// status returns the machine's status as it is to be shown.
func (m *machine) status() drover.MachineStatus { return m.rec.Load().Obs.Status }

// started returns a machine whose main process runs. Precondition otherwise.
func (a *Agent) startedMachine(id drover.MachineID) (*machine, error) {
	m, err := a.machine(id)
	if err != nil {
		return nil, err
	}
	if state := m.status().State; state != drover.StateStarted && state != drover.StateStopping {
		return nil, drover.Errorf(drover.Precondition, "machine %q is %s, not started", id, state).WithHint("start the machine first")
	}
	return m, nil
}

// defaultExecTimeout bounds a command that says nothing of its time; guestSlack is what the answer may take beyond it.
const (
	defaultExecTimeout = 60 * time.Second
	guestSlack         = 5 * time.Second
)

func (a *Agent) exec(ctx context.Context, req drover.ExecRequest) (drover.ExecResult, error) {
	if len(req.Command) == 0 {
		return drover.ExecResult{}, drover.Errorf(drover.Invalid, "machine %q: there is no command to run", req.Machine).WithField("command")
	}
	m, err := a.startedMachine(req.Machine)
	if err != nil {
		return drover.ExecResult{}, err
	}
	if req.Timeout <= 0 {
		req.Timeout = defaultExecTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, req.Timeout+guestSlack)
	defer cancel()
	g, err := a.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return drover.ExecResult{}, err
	}
	defer g.Close() // the answer is here
	return g.Exec(ctx, req)
}

func (a *Agent) signal(ctx context.Context, req drover.SignalRequest) (drover.Empty, error) {
	m, err := a.startedMachine(req.Machine)
	if err != nil {
		return drover.Empty{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	g, err := a.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return drover.Empty{}, err
	}
	defer g.Close() // the answer is here
	return drover.Empty{}, g.Signal(ctx, req.Signal)
}

// Bounds of a logs request.
const (
	maxLogsWait = 30 * time.Second
	logsPoll    = 100 * time.Millisecond
)

// logs reads the log, and waits a while for a line when there is none.
func (a *Agent) logs(ctx context.Context, req drover.LogsRequest) (drover.LogsAnswer, error) {
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.LogsAnswer{}, err
	}
	deadline := a.now().Add(min(req.Wait, maxLogsWait))
	for {
		answer, err := a.cfg.files.ReadLog(m.logPath(), req)
		if err != nil || len(answer.Lines) > 0 || !a.now().Before(deadline) || ctx.Err() != nil {
			return answer, err
		}
		req.Offset, req.Tail = answer.Next, 0
		pause(ctx, logsPoll)
	}
}
