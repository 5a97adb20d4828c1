package fleet

import (
	"context"
	"slices"
	"time"

	"drover"
	"drover/migrate"
)

// turn writes down a change of course within a phase.
func (v *mover) turn(ctx context.Context, d migrate.Decision, point string, now time.Time) error {
	next := v.m
	switch d.Kind {
	case migrate.BeginRound:
		next = v.rules.BeginsRound(v.m, d.Round, now)
	case migrate.EndRounds:
		next = migrate.EndsRounds(v.m, d.Reason, now)
	case migrate.GoCold:
		v.log.Warn("the memory stays behind", "machine", v.m.Machine, "err", d.Problem)
		next = migrate.GoesCold(v.m, d.Problem, now)
	}
	if err := v.save(ctx, next); err != nil {
		return err
	}
	v.forget()
	v.after(point, true)
	return nil
}

// giving gives an order to the host that was decided on.
type giving func(request, answer any) error

// giveRound gives an order of the rounds of a late switch.
func (v *mover) giveRound(move drover.MoveRequest, o drover.Order, order giving) (taking, error) {
	round := v.m.Convergence.Round
	if o == drover.OrderMoveCopy {
		var copied drover.MoveCopied
		err := order(drover.MoveCopyRequest{MoveRequest: move, Round: round, Exports: v.facts.Round, Limit: v.m.Options.Bandwidth}, &copied)
		if err != nil {
			return nil, err
		}
		v.facts.Copied = &copied
		var sum drover.Bytes
		for _, h := range copied.Hydration {
			sum += h.Copied + h.Skipped
		}
		v.hasMoved(sum, copied.Done)
		return func(m drover.Migration) drover.Migration { return migrate.RoundCopied(m, copied, v.now().UTC()) }, nil
	}
	var frozen drover.MoveExports
	if err := order(drover.MoveRoundRequest{MoveRequest: move, Round: round}, &frozen); err != nil {
		return nil, err
	}
	if v.facts.Copied != nil && v.facts.Copied.Done {
		v.facts.Measured = true
		return func(m drover.Migration) drover.Migration {
			return v.rules.RoundMeasured(m, frozen.Changed, v.now().UTC())
		}, nil
	}
	v.facts.Round = frozen.Exports
	v.hasMoved(0, true)
	return func(m drover.Migration) drover.Migration {
		return migrate.RoundFrozen(m, frozen.Exports, v.now().UTC())
	}, nil
}

// hasMoved notes when something was copied last.
func (v *mover) hasMoved(sum drover.Bytes, done bool) {
	if sum != v.moved || done || v.facts.MovedAt.IsZero() {
		v.moved, v.facts.MovedAt = sum, v.now().UTC()
	}
}

// giveLive gives an order of moving the memory.
func (v *mover) giveLive(ctx context.Context, move drover.MoveRequest, o drover.Order, order giving) (taking, error) {
	if o == drover.OrderMoveIncoming {
		if err := v.findIncarnation(ctx, move); err != nil {
			return nil, err
		}
		var incoming drover.MoveIncoming
		err := order(drover.MoveIncomingRequest{MoveRequest: move, Exports: v.ownedExports(), Source: v.m.Source, Incarnation: *v.incarnation}, &incoming)
		v.facts.Address = incoming.Address
		return nil, err
	}
	var live drover.MoveLive
	err := order(drover.MoveLiveRequest{MoveRequest: move, Address: v.facts.Address, Target: v.m.Target, Bandwidth: v.m.Options.Bandwidth}, &live)
	if err != nil {
		return nil, err
	}
	v.facts.Live = &live
	v.hasMoved(live.Memory.Transferred, live.Paused)
	return func(m drover.Migration) drover.Migration { return migrate.LiveMoved(m, live, v.now().UTC()) }, nil
}

// findIncarnation asks the source what runs there, unless it has told: a controller that takes over does not know.
func (v *mover) findIncarnation(ctx context.Context, move drover.MoveRequest) error {
	if v.incarnation != nil {
		return nil
	}
	var exports drover.MoveExports
	err := v.order(ctx, v.timing.Apply, v.m.Source, drover.OrderMoveExport, drover.MoveExportRequest{MoveRequest: move, Target: v.m.Target}, &exports)
	if err == nil && exports.Incarnation == nil {
		err = drover.Errorf(drover.Precondition, "machine %q does not run on host %q: there is no memory to be moved", v.m.Machine, v.m.Source)
	}
	v.incarnation = exports.Incarnation
	return err
}

// ownedExports are the layers that the target makes its own from; none for an undo, whose target has them.
func (v *mover) ownedExports() []drover.Export {
	if v.m.Undoes != "" {
		return nil
	}
	return slices.Clone(v.m.Exports)
}
