package host

import (
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/boltstore"
)

// moveReserve promises memory and disk, and answers when the image is here.
func (a *Agent) moveReserve(ctx context.Context, req drover.MoveReserveRequest) (drover.Empty, error) {
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return drover.Empty{}, err
	}
	for _, v := range req.Volumes {
		if err := v.Cipher.Check(); err != nil {
			return drover.Empty{}, drover.AsError(fmt.Errorf("host %q cannot take volume %q: %w", a.cfg.ID, v.ID, err))
		}
	}
	a.hit("host.reserve.before")
	if req.Undoes != "" {
		if err := a.ready(ctx, req); err != nil {
			return drover.Empty{}, err
		}
	}
	m, err := a.reserve(req)
	if err != nil {
		return drover.Empty{}, err
	}
	m.asked()
	a.hit("host.reserve.after")
	return drover.Empty{}, m.await(ctx, func(r *records) (bool, error) {
		mv := r.target()
		if mv == nil || mv.Migration != req.Migration || mv.Ending != "" {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		return mv.Image != nil, nil
	}, actImage)
}

func (a *Agent) reserve(req drover.MoveReserveRequest) (*machine, error) {
	a.capacity.Lock()
	defer a.capacity.Unlock()
	return a.ensureMachine(req.Machine, func(r *records, tx *boltstore.Tx) error {
		if err := checkEnded(tx, req.Migration); err != nil {
			return err
		}
		switch mv := r.Move; {
		case mv != nil && mv.Migration == req.Migration && mv.Role == roleTarget:
			return nil
		case mv != nil && mv.Migration == req.Undoes && mv.Role == roleSource:
			if err := a.checkRoom(req.Spec, req.Disk); err != nil {
				return err
			}
			return a.known(req.Machine).turnBack(r, tx, req)
		case mv != nil:
			return drover.Errorf(drover.Conflict, "machine %q is still part of migration %s on host %q", req.Machine, mv.Migration, a.cfg.ID).
				WithHint("wait until that one is done")
		case r.Desired != nil:
			return drover.Errorf(drover.Precondition, "machine %q is on host %q already", req.Machine, a.cfg.ID)
		}
		if err := a.checkRoom(req.Spec, req.Disk); err != nil {
			return err
		}
		r.Move = &moveRecord{Migration: req.Migration, Role: roleTarget, Reserve: &req}
		return nil
	})
}

// moveClone makes layers over the source's exports, and answers when each could be read.
func (a *Agent) moveClone(ctx context.Context, req drover.MoveCloneRequest) (drover.Empty, error) {
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return drover.Empty{}, err
	}
	if err := a.cfg.Store.View(func(tx *boltstore.Tx) error { return checkEnded(tx, req.Migration) }); err != nil {
		return drover.Empty{}, err
	}
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.Empty{}, err
	}
	m.asked()
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
		if mv.Reserve != nil {
			if err := checkCiphers(mv.Reserve.Volumes, req.Exports); err != nil {
				return err
			}
		}
		mv.WantClones, mv.Exports = true, slices.Clone(req.Exports)
		return nil
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

// moveActivate hands the machine over. It is durable when it returns; the boot is seen by moveProgress. It works without a
// reservation, too: after the switch there is only forward.
func (a *Agent) moveActivate(ctx context.Context, req drover.MoveActivateRequest) (drover.MachineStatus, error) {
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return drover.MachineStatus{}, err
	}
	if req.Apply.Machine.ID != req.Machine {
		return drover.MachineStatus{}, drover.Errorf(drover.Invalid, "the order for machine %q brings machine %q", req.Machine, req.Apply.Machine.ID)
	}
	if err := checkApply(req.Apply); err != nil {
		return drover.MachineStatus{}, err
	}
	if m, err := a.machine(req.Machine); err == nil {
		m.asked()
		if r := m.rec.Load(); r.Desired != nil && r.Desired.Epoch >= req.Apply.Epoch && r.target() != nil && r.Move.Migration == req.Migration {
			return m.status(), nil
		}
	}
	// A late order must not bring a machine back that has moved on: the placement itself is asked.
	placement, err := a.readPlacement(ctx, req.Machine)
	if err != nil {
		return drover.MachineStatus{}, err
	}
	if placement.Host != a.cfg.ID || placement.Epoch != req.Apply.Epoch {
		return drover.MachineStatus{}, drover.Errorf(drover.Conflict, "machine %q is placed on host %q at epoch %d, the order is for host %q at epoch %d",
			req.Machine, placement.Host, placement.Epoch, a.cfg.ID, req.Apply.Epoch)
	}
	m, err := a.adoptMachine(req)
	if err != nil {
		return drover.MachineStatus{}, err
	}
	return m.status(), nil
}

func (a *Agent) adoptMachine(req drover.MoveActivateRequest) (*machine, error) {
	var known *machine
	a.hit("host.activate.before")
	m, err := a.ensureMachine(req.Machine, func(r *records, tx *boltstore.Tx) error {
		mv := r.Move
		switch {
		case mv != nil && mv.Role == roleSource:
			return drover.Errorf(drover.Conflict, "machine %q is still part of migration %s on host %q", req.Machine, mv.Migration, a.cfg.ID)
		case mv != nil && mv.Migration == req.Migration && mv.adopted():
			return nil
		case r.Desired != nil && r.Desired.Epoch >= req.Apply.Epoch:
			return drover.Errorf(drover.Conflict, "machine %q: the order is of epoch %d, host %q knows epoch %d", req.Machine, req.Apply.Epoch,
				a.cfg.ID, r.Desired.Epoch)
		}
		known = a.known(req.Machine)
		return known.adopt(r, tx, req)
	})
	if err != nil {
		return nil, err
	}
	a.hit("host.activate.after")
	a.routes.touch(req.Machine)
	m.confirmed()
	return m, nil
}

// known returns the machine of an ID that is in the table for sure.
func (a *Agent) known(id drover.MachineID) *machine {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.machines[id]
}

// moveProgress tells how far start and hydration are.
func (a *Agent) moveProgress(ctx context.Context, req drover.MoveRequest) (drover.MoveProgress, error) {
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.MoveProgress{}, err
	}
	m.asked()
	r := m.rec.Load()
	mv := r.target()
	if mv == nil || mv.Migration != req.Migration || !mv.adopted() {
		return drover.MoveProgress{}, drover.Errorf(drover.Precondition, "machine %q was not handed over to host %q by migration %s", req.Machine, a.cfg.ID, req.Migration)
	}
	p := drover.MoveProgress{Status: r.Obs.Status, Hydration: map[drover.DiskID]drover.Hydration{}, Done: mv.Hydrated}
	if mv.Take != nil {
		p.ResumedAt, p.ColdReason = mv.Take.ResumedAt, mv.Take.ColdReason
	}
	return p, eachDisk(ctx, mv.clones(), true, func(ctx context.Context, d diskRecord) error {
		status, err := a.cfg.Storage.Layer(ctx, d.Layer)
		if err == nil && status.Hydration != nil {
			p.Hydration[d.Disk] = *status.Hydration
		}
		return err
	})
}

// moveAbort undoes what this host did for a migration. Precondition once the placement says that the machine moved.
func (a *Agent) moveAbort(ctx context.Context, req drover.MoveRequest) (drover.Empty, error) {
	if err := checkMoveRequest(req); err != nil {
		return drover.Empty{}, err
	}
	m, err := a.machine(req.Machine)
	if drover.Is(err, drover.NotFound) {
		// Nothing is here. A late order of the migration must not begin it.
		return drover.Empty{}, a.update(func(tx *boltstore.Tx) error {
			return endedBucket.Put(tx, string(req.Migration), endedMove{At: a.now(), Machine: string(req.Machine), Ending: endingAbort, Why: "it was aborted"})
		})
	}
	if err != nil {
		return drover.Empty{}, err
	}
	m.asked()
	mv := m.rec.Load().Move
	if mine := mv != nil && mv.Migration == req.Migration; mine && (mv.Frozen || mv.Role == roleTarget) && mv.Ending == "" {
		if err := m.mayAbort(ctx, mv); err != nil {
			return drover.Empty{}, err
		}
	}
	a.hit("host.abort.before")
	if err := m.order(func(r *records, tx *boltstore.Tx) error {
		mv := r.Move
		switch {
		case mv == nil || mv.Migration != req.Migration:
		case mv.Moved != 0 || mv.adopted():
			return drover.Errorf(drover.Precondition, "migration %s was committed: it only goes forward", req.Migration)
		case mv.Ending == "":
			mv.Ending = endingAbort
		}
		return m.remember(tx, req.Migration, endingAbort, "it was aborted")
	}); err != nil {
		return drover.Empty{}, err
	}
	a.hit("host.abort.after")
	return drover.Empty{}, m.await(ctx, func(r *records) (bool, error) {
		return r.Move == nil || r.Move.Migration != req.Migration, nil
	}, actAbortSource, actAbortTarget)
}

// mayAbort reads the placement where a switch could have been made. A placement that is gone was not switched.
func (m *machine) mayAbort(ctx context.Context, mv *moveRecord) error {
	placement, err := m.agent.readPlacement(ctx, m.id)
	here := placement.Host == m.agent.cfg.ID
	switch {
	case drover.Is(err, drover.NotFound):
		return nil
	case err != nil:
		return err
	case mv.Role == roleSource && !here, mv.Role == roleTarget && here && placement.Migration == mv.Migration:
		return drover.Errorf(drover.Precondition, "migration %s was committed: machine %q is placed on host %q", mv.Migration, m.id, placement.Host)
	}
	return nil
}
