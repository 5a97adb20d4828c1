package host

import (
	"context"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// moveRound freezes what changed since the last round and lets the target read it; asked again it tells what has changed since.
func (a *Agent) moveRound(ctx context.Context, req drover.MoveRoundRequest) (drover.MoveExports, error) {
	if req.Round < 1 {
		return drover.MoveExports{}, drover.Errorf(drover.Invalid, "machine %q: rounds are numbered from 1, not %d", req.Machine, req.Round).WithField("round")
	}
	m, err := a.sourceOrder(req.MoveRequest, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		switch {
		case req.Round == mv.Round:
			return nil
		case req.Round != mv.Rounded+1 || mv.Round != mv.Rounded:
			return drover.Errorf(drover.Precondition, "machine %q: round %d does not come after round %d", req.Machine, req.Round, mv.Round)
		case mv.Hold || mv.Frozen:
			return drover.Errorf(drover.Precondition, "machine %q is stopped for migration %s: no round comes any more", req.Machine, req.Migration)
		}
		mv.Round = req.Round
		return nil
	})
	if err != nil {
		return drover.MoveExports{}, err
	}
	var answer drover.MoveExports
	var done *moveRecord
	err = m.await(ctx, func(r *records) (bool, error) {
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration || mv.Ending != "" {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		answer.Exports, answer.At, done = mv.RoundExports, mv.RoundAt, mv
		return mv.Rounded == req.Round, nil
	}, actRound, actExport)
	if err != nil {
		return drover.MoveExports{}, err
	}
	answer.Changed, err = m.changedSince(ctx, done)
	return answer, err
}

// copyWait is how long an order to copy waits for the end of a round before it tells how far that is. It is what keeps short rounds short.
const copyWait = 250 * time.Millisecond

// moveCopy copies a round, and tells how far that is.
func (a *Agent) moveCopy(ctx context.Context, req drover.MoveCopyRequest) (drover.MoveCopied, error) {
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return drover.MoveCopied{}, err
	}
	if req.Round < 1 || len(req.Exports) == 0 || req.Limit < 0 {
		return drover.MoveCopied{}, drover.Errorf(drover.Invalid, "machine %q: the order to copy round %d of %d disks at %d bytes per second cannot be right",
			req.Machine, req.Round, len(req.Exports), req.Limit).WithField("round")
	}
	if err := a.cfg.Store.View(func(tx *boltstore.Tx) error { return checkEnded(tx, req.Migration) }); err != nil {
		return drover.MoveCopied{}, err
	}
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.MoveCopied{}, err
	}
	m.asked()
	// Asked again it changes nothing: an order that is stored gives what failed a new chance at once, and this one comes often.
	if mv := m.rec.Load().target(); mv == nil || mv.Migration != req.Migration || mv.Round != req.Round || mv.Limit != req.Limit ||
		mv.Ending != "" || !sameExports(mv.RoundExports, req.Exports) {
		if err := m.order(func(r *records, tx *boltstore.Tx) error { return beginCopy(r, tx, req, a.cfg.ID) }); err != nil {
			return drover.MoveCopied{}, err
		}
	}
	return m.copied(ctx, req)
}

func sameExports(a, b []drover.Export) bool {
	return slices.EqualFunc(a, b, func(a, b drover.Export) bool { return a.Layer == b.Layer && a.Address == b.Address && a.Name == b.Name })
}

// beginCopy takes the order over into the records, or says why not.
func beginCopy(r *records, tx *boltstore.Tx, req drover.MoveCopyRequest, host drover.HostID) error {
	if err := checkEnded(tx, req.Migration); err != nil {
		return err
	}
	mv := r.target()
	switch {
	case mv == nil || mv.Migration != req.Migration:
		return drover.Errorf(drover.Precondition, "machine %q: host %q has no reservation for migration %s", req.Machine, host, req.Migration).
			WithHint("the order to reserve comes first")
	case mv.Ending != "":
		return drover.Errorf(drover.Canceled, "migration %s is being ended on host %q", req.Migration, host)
	case req.Round == mv.Rounded:
		return nil
	case mv.WantClones || req.Round != mv.Rounded+1:
		return drover.Errorf(drover.Precondition, "machine %q: round %d does not come after round %d", req.Machine, req.Round, mv.Round)
	}
	if mv.Reserve != nil {
		if err := checkCiphers(mv.Reserve.Volumes, req.Exports); err != nil {
			return err
		}
	}
	mv.Round, mv.RoundExports, mv.Limit = req.Round, slices.Clone(req.Exports), req.Limit
	return nil
}

// copied waits a moment for the end of the round, and tells how far it is.
func (m *machine) copied(ctx context.Context, req drover.MoveCopyRequest) (drover.MoveCopied, error) {
	out := drover.MoveCopied{Hydration: map[drover.DiskID]drover.Hydration{}}
	wait, cancel := context.WithTimeout(ctx, copyWait)
	defer cancel()
	err := m.await(wait, func(r *records) (bool, error) {
		mv := r.target()
		if mv == nil || mv.Migration != req.Migration || mv.Ending != "" {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, m.agent.cfg.ID)
		}
		out.Done = mv.Rounded >= req.Round
		return out.Done, nil
	})
	if err != nil && wait.Err() == nil {
		return out, err
	}
	if err := m.failure(actCopy, actImage); err != nil && !out.Done {
		return out, err
	}
	for _, e := range req.Exports {
		status, err := m.agent.cfg.Storage.Layer(ctx, drover.RoundLayer(e.Disk, req.Migration, req.Round))
		if drover.Is(err, drover.NotFound) {
			continue // it is just being made
		}
		if err != nil {
			return out, err
		}
		if status.Hydration != nil {
			out.Hydration[e.Disk] = *status.Hydration
		}
	}
	return out, nil
}

// failure returns the error of an action that failed last time and is tried again.
func (m *machine) failure(kinds ...actionKind) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, kind := range kinds {
		if f, ok := m.failed[kind]; ok {
			return f.err
		}
	}
	return nil
}
