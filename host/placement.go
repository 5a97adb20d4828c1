package host

import (
	"context"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

const (
	// busWait bounds one question to the fleet's store.
	busWait = 2 * time.Second
	// placementTick is how often the loop looks whose placement is to be read; the intervals say how often each is.
	placementTick = 500 * time.Millisecond
	// placementEvery is for a machine that nothing is going on with, placementMoving for one whose owner may change any moment.
	placementEvery  = 10 * time.Second
	placementMoving = 3 * time.Second
	// controllerSilent is how long a source that has frozen nothing waits for a controller that says nothing.
	controllerSilent = 60 * time.Second
	// moveForgotten is how long nobody must have asked about a migration until the host itself asks what became of it.
	moveForgotten = 15 * time.Second
)

// readPlacement reads a placement, bounded.
func (a *Agent) readPlacement(ctx context.Context, id drover.MachineID) (drover.Placement, error) {
	ctx, cancel := context.WithTimeout(ctx, busWait)
	defer cancel()
	return a.cfg.Bus.Placement(ctx, id)
}

// placementLoop reads placements from time to time, and at once when the bus is back: it is how a host finds out by itself what
// it may still run. It is one goroutine, so that a bus that is down is asked by one, not by each machine.
func (a *Agent) placementLoop(ctx context.Context) {
	connected := a.cfg.Bus.Connected()
	down := 0
	for ctx.Err() == nil {
		silent := false
		for _, m := range a.toAsk(ctx) {
			if silent || ctx.Err() != nil {
				m.askAnew()
				continue
			}
			if err := m.askPlacement(ctx); err != nil {
				silent = drover.Is(err, drover.Unavailable)
				m.sayWaiting(err)
				if !silent {
					a.cfg.Log.Warn("cannot act on a placement", "machine", string(m.id), "err", err)
				}
			}
		}
		wait := placementTick
		if silent {
			down++
			wait = min(backoff(down), placementEvery)
		} else {
			down = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-connected:
			connected = a.cfg.Bus.Connected()
			a.look()
		}
		timer.Stop()
	}
}

// toAsk lists the machines whose placement is to be read now. Those that nothing is going on with are asked about together, and are read only where a control
// host doubts that they are this host's: to read each of them every few seconds is what a large fleet's store would do most of its time.
func (a *Agent) toAsk(ctx context.Context) (ask []*machine) {
	quiet, has := []*machine{}, map[drover.MachineID]drover.Epoch{}
	for _, m := range a.list() {
		m.giveUpIfForgotten()
		switch r, due, anew := m.placementDue(); {
		case !due:
		case anew || r.Desired == nil || r.Move != nil:
			ask = append(ask, m)
		default:
			quiet, has[m.id] = append(quiet, m), r.Desired.Epoch
		}
	}
	if len(quiet) == 0 || ctx.Err() != nil {
		return ask
	}
	ctx, cancel := context.WithTimeout(ctx, busWait)
	defer cancel()
	doubted, err := a.cfg.Bus.Doubted(ctx, has)
	if err != nil { // no control host says anything: the store does, if it is there
		return append(ask, quiet...)
	}
	for _, m := range quiet {
		if slices.Contains(doubted, m.id) {
			ask = append(ask, m)
		}
	}
	return ask
}

// look makes every placement due, and every status: the bus was away, and much may have changed.
func (a *Agent) look() {
	for _, m := range a.list() {
		m.askAnew()
		a.publishLater(m.id)
	}
}

// askAnew makes the placement due at once, from the store.
func (m *machine) askAnew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.placedAt = time.Time{}
}

// placementDue reports whether the placement is to be read again; anew says that it must be the store's word, since something may have been missed.
func (m *machine) placementDue() (r *records, due, anew bool) {
	r = m.rec.Load()
	if r.empty() || r.Obs.Lost != nil {
		return r, false, false
	}
	every := placementEvery
	if mv := r.Move; mv != nil && mv.Ending == "" && !mv.adopted() && mv.Moved == 0 {
		every = placementMoving
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.agent.now()
	if now.Sub(m.placedAt) < every {
		return r, false, false
	}
	anew = m.placedAt.IsZero()
	m.placedAt = now
	return r, true, anew
}

// sayWaiting tells in the status of a frozen source what it waits for.
func (m *machine) sayWaiting(cause error) {
	src := m.rec.Load().source()
	if src == nil || !src.Frozen || src.Moved != 0 || src.Ending != "" {
		return
	}
	text := heldReason(src.Migration) + "; it waits for the placement to tell whether the machine is still this host's: " + cause.Error()
	if m.rec.Load().Obs.Status.Reason == text {
		return
	}
	if err := m.changeMove(src.Migration, func(r *records, _ *boltstore.Tx, mv *moveRecord) error {
		if mv.Frozen && mv.Moved == 0 && mv.Ending == "" {
			r.Obs.Status.Reason = text
		}
		return nil
	}); err != nil {
		m.log.Warn("cannot store what the machine waits for", "err", err)
	}
}

// askPlacement reads the machine's placement and takes over what it says.
func (m *machine) askPlacement(ctx context.Context) error {
	p, err := m.agent.readPlacement(ctx, m.id)
	gone := drover.Is(err, drover.NotFound)
	if err != nil && !gone {
		return err
	}
	r := m.rec.Load()
	switch {
	case r.empty():
		return nil
	case r.source() != nil:
		return m.placementOfSource(ctx, p, gone)
	case r.Desired == nil:
		return m.placementOfTarget(ctx, p, gone)
	}
	return m.placementOfOwner(p, gone)
}

// placementOfOwner is for a machine that this host has, and did not freeze.
func (m *machine) placementOfOwner(p drover.Placement, gone bool) error {
	desired := m.rec.Load().Desired
	switch {
	case !gone && p.Host == m.agent.cfg.ID:
		m.confirmed()
		if p.Epoch <= desired.Epoch {
			return nil
		}
		return m.order(func(r *records, _ *boltstore.Tx) error {
			if r.Desired != nil && p.Epoch > r.Desired.Epoch {
				r.Desired.Epoch = p.Epoch // for the next start; a VM that runs keeps the one that it has
				r.Obs.Status.Epoch = p.Epoch
			}
			return nil
		})
	case !gone && p.Epoch <= desired.Epoch:
		return drover.Errorf(drover.Internal, "machine %q: the placement names host %q at epoch %d, older than epoch %d that this host has",
			m.id, p.Host, p.Epoch, desired.Epoch)
	}
	return m.order(func(r *records, _ *boltstore.Tx) error {
		if r.Desired == nil || r.Desired.Epoch != desired.Epoch || r.source() != nil {
			return nil // something newer came meanwhile
		}
		m.log.Warn("the machine is not this host's any more", "owner", string(p.Host), "gen", uint64(p.Epoch))
		r.Obs.Lost = &lost{Host: p.Host, Epoch: p.Epoch}
		return nil
	})
}

// placementOfSource is for a machine that is being moved away.
func (m *machine) placementOfSource(ctx context.Context, p drover.Placement, gone bool) error {
	src := m.rec.Load().source()
	if src == nil || src.Ending != "" || src.Moved != 0 {
		return nil
	}
	if gone {
		if err := m.endMove(src.Migration, "the machine was destroyed"); err != nil {
			return err
		}
		return m.placementOfOwner(p, gone)
	}
	if p.Host != m.agent.cfg.ID {
		if !src.Frozen {
			return m.placementOfOwner(p, gone)
		}
		m.log.Info("the machine has moved", "migration", string(src.Migration), "owner", string(p.Host), "gen", uint64(p.Epoch))
		return m.order(func(r *records, _ *boltstore.Tx) error {
			if mv := r.source(); mv != nil && mv.Migration == src.Migration && mv.Frozen && mv.Ending != endingAbort {
				mv.Moved = p.Epoch
			}
			return nil
		})
	}
	m.confirmed()
	return m.endIfAborted(ctx, src)
}

// endIfAborted asks what became of a migration that nobody asks about any more, or whose source waits for an answer.
func (m *machine) endIfAborted(ctx context.Context, mv *moveRecord) error {
	if !m.silentFor(moveForgotten) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, busWait)
	defer cancel()
	record, err := m.agent.cfg.Bus.Migration(ctx, mv.Migration)
	switch {
	case drover.Is(err, drover.NotFound):
		return m.endMove(mv.Migration, "its record is gone")
	case err != nil:
		return err
	case record.Outcome == drover.Aborted || record.Outcome == drover.Aborting:
		return m.endMove(mv.Migration, "it was aborted")
	}
	return nil // a controller is at it, or will be
}

// endMove aborts this host's part of a migration.
func (m *machine) endMove(id drover.MigrationID, why string) error {
	return m.order(func(r *records, tx *boltstore.Tx) error {
		mv := r.Move
		if mv == nil || mv.Migration != id || mv.Ending != "" || mv.adopted() || mv.Moved != 0 {
			return nil
		}
		m.log.Info("ending this host's part of a migration", "migration", string(id), "why", why)
		mv.Ending = endingAbort
		return m.remember(tx, id, endingAbort, why)
	})
}

// placementOfTarget is for a machine that is on its way here: when the placement names this host, the machine is its, whether
// anybody comes to say so or not.
func (m *machine) placementOfTarget(ctx context.Context, p drover.Placement, gone bool) error {
	mv := m.rec.Load().target()
	if mv == nil || mv.Ending != "" {
		return nil
	}
	if gone {
		return m.endMove(mv.Migration, "the machine was destroyed")
	}
	if p.Host != m.agent.cfg.ID || p.Migration != mv.Migration {
		return m.endIfAborted(ctx, mv)
	}
	if mv.Reserve == nil || !mv.WantClones {
		return nil // the exports are not known here: the controller brings them
	}
	ctx, cancel := context.WithTimeout(ctx, busWait)
	defer cancel()
	spec, err := m.agent.cfg.Bus.Machine(ctx, m.id)
	if err != nil {
		return err
	}
	m.log.Info("the placement names this host: the machine is taken over", "migration", string(mv.Migration), "gen", uint64(p.Epoch))
	_, err = m.agent.adoptMachine(drover.MoveActivateRequest{
		MoveRequest: drover.MoveRequest{Migration: mv.Migration, Machine: m.id},
		Apply:       drover.ApplyRequest{Machine: spec, Volumes: mv.Reserve.Volumes, Epoch: p.Epoch},
		Exports:     mv.Exports, Status: mv.Reserve.Status, Live: mv.Take != nil,
	})
	return err
}

// silentFor reports whether no order about the migration came for a time.
func (m *machine) silentFor(d time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.agent.now().Sub(m.askedAt) >= d
}

// giveUpIfForgotten lets a source that holds its machine, but has frozen nothing, run it again when no controller has asked for a
// while. It needs no bus: nothing can have been switched without the freeze, and a later freeze is refused.
func (m *machine) giveUpIfForgotten() {
	src := m.rec.Load().source()
	if src == nil || !src.Hold && src.Send == nil || src.Frozen || src.Ending != "" || !m.silentFor(controllerSilent) {
		return
	}
	if err := m.order(func(r *records, tx *boltstore.Tx) error {
		if mv := r.source(); mv == nil || mv.Migration != src.Migration || mv.Ending != "" {
			return nil
		}
		return m.giveUp(r, tx, "no controller asked about it for "+controllerSilent.String())
	}); err != nil {
		m.log.Warn("cannot give a migration up", "migration", string(src.Migration), "err", err)
	}
}
