package host

import (
	"context"

	"drover"
	"drover/boltstore"
)

// checkEnded refuses an order of a migration that this host is done with.
func checkEnded(tx *boltstore.Tx, id drover.MigrationID) error {
	ended, ok, err := endedBucket.Get(tx, string(id))
	if err != nil || !ok {
		return err
	}
	return drover.Errorf(drover.Canceled, "migration %s has ended on this host: %s", id, ended.Why).
		WithHint("ask for a new move if the machine is to move")
}

// checkMoveRequest refuses a request that names nothing.
func checkMoveRequest(req drover.MoveRequest) error {
	if req.Migration == "" || req.Machine == "" {
		return drover.Errorf(drover.Invalid, "the order names no migration or no machine").WithField("migration")
	}
	return nil
}

// sourceOrder stores what an order of a migration wishes of its source. Canceled when the host is done with the migration.
func (a *Agent) sourceOrder(req drover.MoveRequest, fn func(r *records, tx *boltstore.Tx, mv *moveRecord) error) (*machine, error) {
	if err := checkMoveRequest(req); err != nil {
		return nil, err
	}
	if err := a.cfg.Store.View(func(tx *boltstore.Tx) error { return checkEnded(tx, req.Migration) }); err != nil {
		return nil, err
	}
	m, err := a.machine(req.Machine)
	if err != nil {
		return nil, err
	}
	m.asked()
	return m, m.order(func(r *records, tx *boltstore.Tx) error {
		if err := checkEnded(tx, req.Migration); err != nil {
			return err
		}
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration {
			return drover.Errorf(drover.Precondition, "machine %q: host %q is not the source of migration %s", req.Machine, a.cfg.ID, req.Migration).
				WithHint("the order to export comes first")
		}
		if mv.Ending != "" {
			return drover.Errorf(drover.Canceled, "migration %s is being ended on host %q", req.Migration, a.cfg.ID)
		}
		return fn(r, tx, mv)
	})
}

// moveExport lets the target read the machine's layers.
func (a *Agent) moveExport(ctx context.Context, req drover.MoveExportRequest) (drover.MoveExports, error) {
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return drover.MoveExports{}, err
	}
	if req.Target == "" || req.Target == a.cfg.ID {
		return drover.MoveExports{}, drover.Errorf(drover.Invalid, "machine %q cannot move from host %q to host %q", req.Machine, a.cfg.ID, req.Target).
			WithField("target")
	}
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.MoveExports{}, err
	}
	m.asked()
	err = m.order(func(r *records, tx *boltstore.Tx) error {
		if err := checkEnded(tx, req.Migration); err != nil {
			return err
		}
		if err := checkFilled(tx, r); err != nil {
			return err
		}
		return beginSource(r, req, a.cfg.ID)
	})
	if err != nil {
		return drover.MoveExports{}, err
	}
	var answer drover.MoveExports
	err = m.await(ctx, func(r *records) (bool, error) {
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration || mv.Ending != "" {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		answer.Exports, answer.Incarnation = mv.Exports, m.incarnation(r)
		return mv.Exported, nil
	}, actExport)
	return answer, err
}

// checkFilled refuses to move a machine with a volume that is still being filled: its source may be a host that the target cannot reach,
// or may itself be moving.
func checkFilled(tx *boltstore.Tx, r *records) error {
	if r.Desired == nil {
		return nil
	}
	for _, mount := range r.Desired.Machine.Config.Mounts {
		disk, ok, err := diskBucket.Get(tx, string(mount.Volume.Disk()))
		if err != nil {
			return err
		}
		if ok && disk.filling() {
			return drover.Errorf(drover.Conflict, "volume %q of machine %q is still being filled", mount.Volume, r.Desired.Machine.ID).
				WithHint("ask again when its hydration is done: drover volume show %s", mount.Volume)
		}
	}
	return nil
}

// beginSource makes the machine the source of a migration, unless it is part of another.
func beginSource(r *records, req drover.MoveExportRequest, host drover.HostID) error {
	switch mv := r.Move; {
	case r.Desired == nil || r.Obs.Lost != nil:
		return drover.Errorf(drover.Precondition, "machine %q is not owned by host %q", req.Machine, host)
	case mv != nil && mv.Migration == req.Migration && mv.Role == roleSource:
		if mv.Target != req.Target {
			return drover.Errorf(drover.Conflict, "migration %s goes to host %q, not to host %q", req.Migration, mv.Target, req.Target)
		}
		return nil
	case mv != nil && mv.Migration == req.Undoes && mv.adopted() && r.goal() != drover.GoalDestroyed:
		return turnAway(r, req)
	case mv != nil && !mv.finished():
		return drover.Errorf(drover.Conflict, "machine %q is still part of migration %s", req.Machine, mv.Migration).
			WithHint("wait until that one is done")
	case r.goal() == drover.GoalDestroyed:
		return drover.Errorf(drover.Precondition, "machine %q is being destroyed", req.Machine)
	}
	r.Move = &moveRecord{Migration: req.Migration, Role: roleSource, Target: req.Target}
	return nil
}

// moveQuiesce stops the machine and keeps it stopped. It answers when the VM is gone.
func (a *Agent) moveQuiesce(ctx context.Context, req drover.MoveRequest) (drover.MoveQuiesced, error) {
	a.hit("host.quiesce.before")
	m, err := a.sourceOrder(req, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Hold = true
		return nil
	})
	if err != nil {
		return drover.MoveQuiesced{}, err
	}
	a.hit("host.quiesce.after-mark")
	var answer drover.MoveQuiesced
	err = m.await(ctx, func(r *records) (bool, error) {
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration || mv.Ending != "" {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		answer.StoppedAt = mv.StoppedAt
		return !r.Obs.VM.Live && mv.Exported, nil
	}, actExport, actKill)
	return answer, err
}

// moveFreeze freezes the layers. The mark is stored before the first layer is touched: from then on only the placement, or an abort,
// says whether the machine may run here again.
func (a *Agent) moveFreeze(ctx context.Context, req drover.MoveRequest) (drover.MoveFrozen, error) {
	a.hit("host.freeze.before-mark")
	m, err := a.sourceOrder(req, func(r *records, _ *boltstore.Tx, mv *moveRecord) error {
		if !mv.Hold || r.Obs.VM.Live {
			return drover.Errorf(drover.Precondition, "machine %q still runs: the order to quiesce comes first", req.Machine)
		}
		mv.Frozen = true
		return nil
	})
	if err != nil {
		return drover.MoveFrozen{}, err
	}
	a.hit("host.freeze.after-mark")
	var answer drover.MoveFrozen
	err = m.await(ctx, func(r *records) (bool, error) {
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration || mv.Ending == endingAbort {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		answer.Allocated = mv.Allocated
		return mv.Allocated != nil, nil
	}, actFreeze, actExport)
	return answer, err
}

// moveRelease ends the source's part, after the target has every block. The copy is kept for the grace period.
func (a *Agent) moveRelease(ctx context.Context, req drover.MoveRequest) (drover.Empty, error) {
	if err := checkMoveRequest(req); err != nil {
		return drover.Empty{}, err
	}
	m, err := a.machine(req.Machine)
	if drover.Is(err, drover.NotFound) {
		return drover.Empty{}, nil // done before, or nothing was ever here
	}
	if err != nil {
		return drover.Empty{}, err
	}
	m.asked()
	r := m.rec.Load()
	if mv := r.target(); mv != nil && mv.Earlier != nil && mv.Earlier.Move.Migration == req.Migration {
		return drover.Empty{}, drover.Errorf(drover.Conflict, "migration %s is being taken back by migration %s: host %q does not let go of machine %q",
			req.Migration, mv.Migration, a.cfg.ID, req.Machine)
	}
	if mv := r.source(); mv == nil || mv.Migration != req.Migration {
		return drover.Empty{}, nil
	}
	// A copy is never given up on hearsay: the placement itself must name another host.
	placement, err := a.readPlacement(ctx, req.Machine)
	switch {
	case drover.Is(err, drover.NotFound): // destroyed on its target meanwhile
	case err != nil:
		return drover.Empty{}, err
	case placement.Host == a.cfg.ID:
		return drover.Empty{}, drover.Errorf(drover.Precondition, "machine %q is placed on host %q itself: its layers are not given up", req.Machine, a.cfg.ID)
	}
	err = m.order(func(r *records, _ *boltstore.Tx) error {
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration {
			return nil
		}
		if !mv.Frozen || mv.Ending == endingAbort {
			return drover.Errorf(drover.Precondition, "machine %q was not frozen for migration %s on host %q", req.Machine, req.Migration, a.cfg.ID)
		}
		mv.Ending = endingRelease
		if placement.Epoch > mv.Moved {
			mv.Moved = placement.Epoch
		}
		return nil
	})
	if err != nil {
		return drover.Empty{}, err
	}
	return drover.Empty{}, m.await(ctx, func(r *records) (bool, error) {
		return r.Move == nil || r.Move.Migration != req.Migration, nil
	}, actRelease, actFence)
}
