package fleet

import (
	"context"

	"drover"
	"drover/migrate"
	"drover/natsbus"
)

// ask gives one order of the migration and takes in the answer. It is given up when a user asks for an abort.
func (v *mover) ask(ctx context.Context, d migrate.Decision, point string) error {
	target := migrate.Target{Order: d.Order, Host: d.Host}
	began := v.now().UTC()
	take, err := v.give(ctx, d)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	v.facts.Answers[target] = v.facts.Answers[target].Next(drover.AsError(err), v.now().UTC())
	if err != nil {
		v.log.Debug("order of a migration failed", "order", d.Order, "host", d.Host, "err", err)
		if d.Order == drover.OrderMoveAbort && drover.Is(err, drover.Precondition) {
			v.facts.Placement, v.facts.PlacementGone = nil, false // the host says that the switch was made: look again
		}
		v.hitch.failures++
		return v.reload(ctx)
	}
	v.after(point, true)
	v.m = migrate.Answered(v.m, d.Order, d.Host, began, v.now().UTC()) // written with the next change
	next := v.m
	if take != nil {
		next = take(v.m)
	}
	switch {
	case v.hitch.last != nil:
		next = migrate.GoesOn(next, v.hitch.last, v.hitch.since, v.hitch.failures, v.now().UTC())
		v.hitch = hitch{}
	case take == nil && !v.unsaved:
		return nil
	case v.urgent(d.Order) || take != nil && !v.worthSaving(next):
		v.m, v.unsaved = next, true
		return nil
	}
	return v.save(ctx, next)
}

// urgent reports whether the machine stands still after an order, so that what it answered is written with what comes next.
func (v *mover) urgent(o drover.Order) bool {
	switch o {
	case drover.OrderMoveQuiesce, drover.OrderMoveFreeze:
		return true
	case drover.OrderMoveLive:
		return v.facts.Live != nil && v.facts.Live.Paused
	}
	return false
}

// reload takes over what others may change: an abort that a user asked for, and the word of a migration that takes this one back.
func (v *mover) reload(ctx context.Context) error {
	m, rev, ok := v.state.migrations.seen(v.key)
	if ok && rev > v.rev && v.turnedBy(m) {
		if err := v.load(ctx); err != nil {
			return err
		}
		v.unsaved = false
		v.forget()
	}
	return nil
}

// worthSaving keeps progress from being written more than about once a second, when it says nothing but a little more.
func (v *mover) worthSaving(next drover.Migration) bool {
	if !v.m.Phase.Committed() && (v.m.Phase == drover.PhaseConverge || v.m.Live) {
		return v.now().Sub(v.savedAt) >= v.rules.HydratePoll*9/10
	}
	if v.m.Hydration == nil || next.Hydration == nil || v.m.Outcome != next.Outcome || v.m.WriteOff != next.WriteOff {
		return true
	}
	a, b := *v.m.Hydration, *next.Hydration
	if a.Done != b.Done || a.Waiting != b.Waiting || v.m.RunningAt != next.RunningAt || v.m.Failed != next.Failed {
		return true
	}
	return (a.Copied != b.Copied || a.BytesPerSecond != b.BytesPerSecond) && v.now().Sub(v.savedAt) >= v.rules.HydratePoll*9/10
}

// taking makes the next record from an answer.
type taking func(drover.Migration) drover.Migration

// give builds the order's request, gives the order, and returns what the answer means for the record.
func (v *mover) give(ctx context.Context, d migrate.Decision) (taking, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !d.Until.IsZero() {
		ctx, cancel = context.WithTimeout(ctx, d.Until.Sub(v.now()))
		defer cancel()
	}
	stop := v.cancelOnAbort(ctx, cancel)
	defer stop()
	move := drover.MoveRequest{Migration: v.m.ID, Machine: v.m.Machine}
	order := func(request, answer any) error { return natsbus.Order(ctx, v.conn, d.Host, d.Order, request, answer) }
	switch d.Order {
	case drover.OrderMoveReserve:
		req, err := v.reserveRequest(ctx, move)
		if err != nil {
			return nil, err
		}
		return nil, order(req, nil)
	case drover.OrderMoveExport:
		var exports drover.MoveExports
		err := order(drover.MoveExportRequest{MoveRequest: move, Target: v.m.Target, Undoes: v.m.Undoes}, &exports)
		v.incarnation = exports.Incarnation
		return func(m drover.Migration) drover.Migration { return migrate.Exported(m, exports.Exports) }, err
	case drover.OrderMoveClone:
		return nil, order(drover.MoveCloneRequest{MoveRequest: move, Exports: v.m.Exports}, nil)
	case drover.OrderMoveUndo:
		return nil, order(drover.MoveUndoRequest{MoveRequest: move, Undoes: v.m.Undoes}, nil)
	case drover.OrderMoveRound, drover.OrderMoveCopy:
		return v.giveRound(move, d.Order, order)
	case drover.OrderMoveIncoming, drover.OrderMoveLive:
		return v.giveLive(ctx, move, d.Order, order)
	case drover.OrderMoveQuiesce:
		var quiesced drover.MoveQuiesced
		err := order(move, &quiesced)
		return func(m drover.Migration) drover.Migration { m.StoppedAt = quiesced.StoppedAt; return m }, err
	case drover.OrderMoveFreeze:
		var frozen drover.MoveFrozen
		err := order(move, &frozen)
		return func(m drover.Migration) drover.Migration { return migrate.Frozen(m, frozen.Allocated) }, err
	case drover.OrderMoveActivate:
		req, err := v.activateRequest(ctx, move)
		if err != nil {
			return nil, err
		}
		return nil, order(req, nil)
	case drover.OrderMoveProgress:
		var progress drover.MoveProgress
		err := order(move, &progress)
		if err == nil {
			v.facts.Progress = &progress
		}
		return func(m drover.Migration) drover.Migration { return migrate.Progressed(m, progress, v.now().UTC()) }, err
	case drover.OrderMoveWriteOff:
		var progress drover.MoveProgress
		err := order(move, &progress)
		return v.wroteOff(progress), err
	case drover.OrderMoveAbort:
		return func(m drover.Migration) drover.Migration { return undone(m, d.Host) }, order(move, nil)
	default:
		return nil, order(move, nil)
	}
}

// cancelOnAbort cancels the order under way when a user asks for an abort. The returned function ends the watch.
func (v *mover) cancelOnAbort(ctx context.Context, cancel context.CancelFunc) (stop func()) {
	if v.m.Outcome != drover.Running || v.m.Committing || v.m.Phase.Committed() {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			changed := v.state.migrations.next(v.key)
			if m, _, ok := v.state.migrations.seen(v.key); ok && m.Outcome == drover.Aborting {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

// reserveRequest tells the target what is coming.
func (v *mover) reserveRequest(ctx context.Context, move drover.MoveRequest) (drover.MoveReserveRequest, error) {
	spec, volumes, status, err := v.machine(ctx)
	req := drover.MoveReserveRequest{MoveRequest: move, Spec: spec, Volumes: volumes, Status: status, Undoes: v.m.Undoes}
	for _, d := range v.m.Disks {
		if v.m.Undoes == "" {
			req.Disk += d.Allocated
		}
	}
	return req, err
}

// activateRequest hands the machine over as it should be now.
func (v *mover) activateRequest(ctx context.Context, move drover.MoveRequest) (drover.MoveActivateRequest, error) {
	spec, volumes, status, err := v.machine(ctx)
	for i := range volumes {
		volumes[i].Host, volumes[i].Epoch = v.m.Target, v.m.ToEpoch
	}
	return drover.MoveActivateRequest{
		MoveRequest: move,
		Apply:       drover.ApplyRequest{Machine: spec, Volumes: volumes, Epoch: v.m.ToEpoch},
		Exports:     v.ownedExports(),
		Status:      status,
		Undoes:      v.m.Undoes,
		Limit:       v.m.Options.Bandwidth,
		Live:        v.m.Live,
		Handover:    v.m.Handover,
	}, err
}

// machine reads from the store what the machine should be and was last.
func (v *mover) machine(ctx context.Context) (drover.Machine, []drover.Volume, drover.MachineStatus, error) {
	spec, _, err := v.state.machines.get(ctx, string(v.m.Machine))
	if err != nil {
		return spec, nil, drover.MachineStatus{}, err
	}
	volumes, err := v.volumesOf(ctx, spec)
	if err != nil {
		return spec, nil, drover.MachineStatus{}, err
	}
	status, _, err := v.state.status.get(ctx, string(v.m.Machine))
	if drover.Is(err, drover.NotFound) {
		return spec, volumes, drover.MachineStatus{Machine: spec.ID, State: drover.StateCreated}, nil
	}
	return spec, volumes, v.asBefore(status), err
}

// moved is closed at the next change of any migration.
func (s *state) moved() <-chan struct{} { return s.migrations.next(anyKey) }
