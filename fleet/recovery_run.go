package fleet

import (
	"context"
	"maps"
	"sync"
	"time"

	"drover"
	"drover/plan"
)

// rescuer is the lease holder's work on recoveries. Each has at most one goroutine at a time.
type rescuer struct {
	*Fleet
	group sync.WaitGroup

	mu   sync.Mutex
	busy map[drover.RecoveryID]bool
}

// keepRecoveries works until ctx ends; all that it began has ended then.
func (f *Fleet) keepRecoveries(ctx context.Context) {
	r := &rescuer{Fleet: f, busy: map[drover.RecoveryID]bool{}}
	defer r.group.Wait()
	for {
		changed := f.state.recoveries.next(anyKey)
		f.tendFences(ctx)
		r.tendPower(ctx)
		r.beginAutomatic(ctx)
		for _, i := range f.state.recoveries.all() {
			switch rec := i.value; {
			case !rec.State.Ended():
				r.drive(ctx, rec.ID)
			case f.now().Sub(rec.UpdatedAt) > f.timing.KeepMigrations:
				f.trouble(ctx, "recovery", string(rec.ID), f.state.recoveries.remove(ctx, string(rec.ID), i.rev))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(f.timing.Work):
		}
	}
}

// beginAutomatic begins the recoveries that apps agreed to beforehand, for hosts whose fence is certain.
func (r *rescuer) beginAutomatic(ctx context.Context) {
	for _, i := range r.state.fences.all() {
		if fence := i.value; fence.ReturnedAt.IsZero() && r.agreed(fence.Host) {
			plan, err := r.RecoveryPlan(ctx, fence.Host)
			if err == nil && plan.Fence != nil {
				_, err = r.startPlanned(ctx, plan, StartRecovery{Host: fence.Host, Actor: "automatic"}, true)
			}
			r.trouble(ctx, "automatic recovery of host", string(fence.Host), err)
		}
	}
}

// agreed reports whether a host has machines of apps that agreed to automatic recovery.
func (f *Fleet) agreed(host drover.HostID) bool {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for id := range f.state.placedOn[host] {
		m, ok := f.state.machines.items[id]
		app := f.state.apps.items[string(m.value.App)].value
		if ok && m.value.Goal != drover.GoalDestroyed && app.Recovery == drover.RecoverAutomatic && app.Destroyed == nil {
			return true
		}
	}
	return false
}

// drive goes on with a recovery in a goroutine of its own, until it has ended or must wait.
func (r *rescuer) drive(ctx context.Context, id drover.RecoveryID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[id] {
		return
	}
	r.busy[id] = true
	r.group.Go(func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.busy, id)
		}()
		for ctx.Err() == nil {
			again, err := r.step(ctx, id)
			if err != nil && ctx.Err() == nil {
				r.log.Warn("recovery is tried again", "recovery", id, "err", err)
				r.noteProblem(ctx, id, drover.AsError(err))
				return
			}
			if !again {
				return
			}
		}
	})
}

// noteProblem writes what a recovery waits for.
func (r *rescuer) noteProblem(ctx context.Context, id drover.RecoveryID, problem *drover.Error) {
	rec, rev, err := r.state.recoveries.get(ctx, string(id))
	if err != nil || rec.State.Ended() || rec.Problem != nil && rec.Problem.Text == problem.Text {
		return
	}
	rec.Problem, rec.UpdatedAt = problem, r.now().UTC()
	if _, err := r.state.recoveries.update(ctx, string(id), rec, rev); err != nil {
		r.log.Debug("what a recovery waits for is not written", "recovery", id, "err", err)
	}
}

// step does what is to be done next for a recovery. again says that more can be done at once.
func (r *rescuer) step(ctx context.Context, id drover.RecoveryID) (again bool, err error) {
	rec, rev, err := r.state.recoveries.get(ctx, string(id))
	if err != nil || rec.State.Ended() {
		return false, err
	}
	was := rec.State
	next, err := r.next(ctx, rec)
	if err != nil {
		return false, err
	}
	if next.State == was {
		return false, nil // it waits
	}
	next.UpdatedAt = r.now().UTC()
	if _, err := r.state.recoveries.update(ctx, string(id), next, rev); err != nil {
		return false, err // Conflict: another controller is at it
	}
	r.log.Info("recovery goes on", "recovery", id, "machine", next.Machine, "from", was, "to", next.State)
	r.hit("fleet.recovery." + string(next.State) + ".after")
	return !next.State.Ended(), nil
}

// next does the work of the state that a recovery is in, and returns what the record is to be then. Everything in it may be done twice.
func (r *rescuer) next(ctx context.Context, rec drover.Recovery) (drover.Recovery, error) {
	switch rec.State {
	case drover.RecoveryChoosing:
		return r.chooseTarget(ctx, rec)
	case drover.RecoveryMaking:
		return r.makeVolumes(ctx, rec)
	case drover.RecoverySwitching:
		return r.switchOver(ctx, rec)
	case drover.RecoveryStarting:
		return r.startThere(ctx, rec)
	case drover.RecoveryCanceling:
		return r.takeBack(ctx, rec)
	}
	return rec, drover.Errorf(drover.Internal, "state %q of recovery %q is unknown to this version: it goes on when a newer one takes over", rec.State, rec.ID)
}

// stillOff returns nil while the recovery may go on: the host is certainly off, and the machine is still its own and wanted. over is
// true when it never may again, with the reason.
func (r *rescuer) stillOff(ctx context.Context, rec drover.Recovery) (over bool, err error) {
	if m, _, err := r.state.machines.get(ctx, string(rec.Machine)); drover.Is(err, drover.NotFound) || err == nil && m.Goal == drover.GoalDestroyed {
		return true, drover.Errorf(drover.Canceled, "machine %q was destroyed", rec.Machine)
	} else if err != nil {
		return false, err
	}
	p, err := r.state.placementOf(ctx, rec.Machine)
	switch {
	case drover.Is(err, drover.NotFound):
		return true, drover.Errorf(drover.Canceled, "machine %q was destroyed", rec.Machine)
	case err != nil:
		return false, err
	case p.Epoch != rec.FromEpoch:
		return true, drover.Errorf(drover.Conflict, "machine %q was placed anew meanwhile, on host %q", rec.Machine, p.Host)
	}
	_, err = r.certain(ctx, rec.From)
	return drover.Is(err, drover.Precondition), err
}

// cancel gives a recovery up, with the reason.
func cancel(rec drover.Recovery, why error) drover.Recovery {
	rec.State, rec.Problem = drover.RecoveryCanceling, drover.AsError(why)
	return rec
}

// chooseTarget finds a host: the one with the standbys if there is one, else as for a new machine in its region.
func (r *rescuer) chooseTarget(ctx context.Context, rec drover.Recovery) (drover.Recovery, error) {
	if over, err := r.stillOff(ctx, rec); over {
		return cancel(rec, err), nil
	} else if err != nil {
		return rec, err
	}
	m, _, err := r.state.machines.get(ctx, string(rec.Machine))
	if err != nil {
		return rec, err
	}
	guest := m.Config.WithDefaults().Guest
	offer := offerFor(m.ID, guest)
	var only drover.HostID
	for _, s := range rec.Sources {
		if s.Kind == drover.FromStandby {
			only = s.Host
			continue
		}
		offer.Provision += s.Size
		if s.Snapshot != nil {
			offer.Disk += s.Snapshot.Data
		}
	}
	req := plan.Request{What: "machine " + string(m.ID), Region: m.Region}
	if only != "" {
		req.Region = "" // the standby was put there on purpose
	}
	exclude := maps.Clone(rec.Tried)
	if exclude == nil {
		exclude = map[drover.HostID]string{}
	}
	exclude[rec.From] = "is fenced"
	for _, h := range r.hostList() {
		if h.Mark != nil && h.ID != only {
			exclude[h.ID] = "is closed for new machines"
		}
	}
	host, err := r.choose(ctx, req, only, offer, plan.Options{Exclude: exclude, SameApp: r.spread(m.App)})
	if err != nil {
		return rec, err
	}
	rec.Target, rec.State, rec.Problem = host, drover.RecoveryMaking, nil
	return rec, nil
}

// makeVolumes makes the volumes on the target. Nobody can open them before the placement names it.
func (r *rescuer) makeVolumes(ctx context.Context, rec drover.Recovery) (drover.Recovery, error) {
	if over, err := r.stillOff(ctx, rec); over {
		return cancel(rec, err), nil
	} else if err != nil {
		return rec, err
	}
	for _, src := range rec.Sources {
		v, _, err := r.state.volumes.get(ctx, string(src.Volume))
		if err == nil {
			err = r.order(ctx, r.timing.Apply, rec.Target, drover.OrderRecoveryMake, drover.RecoveryMakeRequest{Recovery: rec.ID, Volume: v, Source: src}, nil)
		}
		switch {
		case drover.Is(err, drover.Exhausted), drover.Is(err, drover.Precondition), drover.Is(err, drover.NotFound):
			return r.elsewhere(ctx, rec, err)
		case err != nil:
			return rec, err
		}
		r.hit("fleet.recovery.made.after")
	}
	rec.State, rec.Problem = drover.RecoverySwitching, nil
	return rec, nil
}

// elsewhere lets another host be chosen, after what was made on this one is gone. Where the copy itself is on this host there is no other.
func (r *rescuer) elsewhere(ctx context.Context, rec drover.Recovery, why error) (drover.Recovery, error) {
	for _, s := range rec.Sources {
		if s.Kind == drover.FromStandby {
			return cancel(rec, why), nil
		}
	}
	if err := r.dropMade(ctx, rec); err != nil {
		return rec, err
	}
	tried := maps.Clone(rec.Tried)
	if tried == nil {
		tried = map[drover.HostID]string{}
	}
	tried[rec.Target] = drover.AsError(why).Text
	rec.State, rec.Target, rec.Tried, rec.Problem = drover.RecoveryChoosing, "", tried, drover.AsError(why)
	return rec, nil
}

// switchOver changes the placement: THE commit point. The state was stored before, so that whatever became of the change is found out. Giving up
// in this state first makes the placement one that the change does not fit any more.
func (r *rescuer) switchOver(ctx context.Context, rec drover.Recovery) (drover.Recovery, error) {
	p, err := r.state.placementOf(ctx, rec.Machine)
	if err == nil && p.Recovery == rec.ID {
		rec.State, rec.ToEpoch, rec.SwitchedAt, rec.Problem = drover.RecoveryStarting, p.Epoch, r.now().UTC(), nil
		return rec, nil
	}
	over, why := r.stillOff(ctx, rec)
	if why != nil && !over {
		return rec, why
	}
	next := drover.Placement{Machine: rec.Machine, Host: rec.Target, Recovery: rec.ID}
	if over {
		if err != nil || p.Epoch != rec.FromEpoch {
			return cancel(rec, why), nil
		}
		next = p // the same once more: its epoch rises, and a change that is still on its way fails
	}
	r.hit("fleet.recovery.switch.before")
	rev, err := r.state.placements.update(ctx, string(rec.Machine), next, uint64(rec.FromEpoch))
	switch {
	case drover.Is(err, drover.Conflict):
		return rec, drover.Errorf(drover.Conflict, "the placement of machine %q changed: it is read again", rec.Machine)
	case err != nil:
		return rec, err
	case over:
		return cancel(rec, why), nil
	}
	r.hit("fleet.recovery.switch.after")
	r.log.Warn("placement changed without the old host's consent", "machine", rec.Machine, "from", rec.From, "to", rec.Target, "epoch", rev)
	rec.State, rec.ToEpoch, rec.SwitchedAt, rec.Problem = drover.RecoveryStarting, drover.Epoch(rev), r.now().UTC(), nil
	return rec, nil
}

// startThere writes into the volumes' records where they are now, hands the machine over and waits until it runs.
func (r *rescuer) startThere(ctx context.Context, rec drover.Recovery) (drover.Recovery, error) {
	p, err := r.state.placementOf(ctx, rec.Machine)
	if drover.Is(err, drover.NotFound) || err == nil && p.Epoch != rec.ToEpoch {
		rec.State, rec.EndedAt, rec.Problem = drover.RecoveryDone, r.now().UTC(), nil // it was destroyed, or moved on
		return rec, nil
	}
	if err != nil {
		return rec, err
	}
	for _, src := range rec.Sources {
		if err := r.rehome(ctx, rec, src); err != nil && !drover.Is(err, drover.NotFound) {
			return rec, err
		}
	}
	r.hit("fleet.recovery.volumes.after")
	status, _, known := r.state.status.seen(string(rec.Machine))
	if !known || status.Epoch < rec.ToEpoch {
		if status, err = r.apply(ctx, rec.Machine); err != nil {
			return rec, err
		}
	}
	m, _, _ := r.state.machines.seen(string(rec.Machine))
	switch {
	case status.Epoch < rec.ToEpoch:
		return rec, nil
	case status.State == drover.StateStarted:
		rec.RunningAt = status.StartedAt
	case status.State == drover.StateFailed, status.State == drover.StateDestroyed, m.Goal != drover.GoalStarted, status.State == drover.StateStopped:
	default:
		return rec, nil
	}
	rec.State, rec.EndedAt, rec.Problem = drover.RecoveryDone, r.now().UTC(), nil
	return rec, nil
}

// rehome writes into a volume's record where it is and what it is filled from. It never takes a record back from what came later.
func (r *rescuer) rehome(ctx context.Context, rec drover.Recovery, src drover.RecoverySource) error {
	v, _, err := r.state.volumes.get(ctx, string(src.Volume))
	if err != nil {
		return err
	}
	if v.Epoch < rec.ToEpoch && forks(v) {
		// What it was forked from is needed no more: the copy has all of it.
		if err := r.releaseSource(ctx, v); err != nil {
			r.log.Warn("the source of a fork keeps a frozen layer that nobody needs", "volume", v.ID, "host", v.From.Host, "err", err)
		}
	}
	_, err = r.changeVolume(ctx, src.Volume, func(v *drover.Volume) error {
		if v.Epoch >= rec.ToEpoch || v.Machine != rec.Machine {
			return nil
		}
		v.Host, v.Epoch, v.State, v.LimitsPending = rec.Target, rec.ToEpoch, drover.VolumeCreated, true
		if src.Snapshot != nil {
			v.State, v.From = drover.VolumeHydrating, &drover.VolumeOrigin{Snapshot: src.Snapshot}
		} else if v.From != nil {
			from := *v.From
			from.Released = true
			v.From = &from
		}
		return nil
	})
	return err
}

// takeBack removes what was made on the target of a recovery that was given up. A target that
// does not answer is waited for: the record stays until nothing is left.
func (r *rescuer) takeBack(ctx context.Context, rec drover.Recovery) (drover.Recovery, error) {
	if err := r.dropMade(ctx, rec); err != nil {
		return rec, err
	}
	rec.State, rec.EndedAt = drover.RecoveryCanceled, r.now().UTC()
	return rec, nil
}

func (r *rescuer) dropMade(ctx context.Context, rec drover.Recovery) error {
	if rec.Target == "" {
		return nil
	}
	for _, src := range rec.Sources {
		v := drover.Volume{ID: src.Volume}
		err := r.order(ctx, r.timing.Apply, rec.Target, drover.OrderRecoveryDrop, drover.RecoveryMakeRequest{Recovery: rec.ID, Volume: v, Source: src}, nil)
		if err != nil {
			return err
		}
		r.hit("fleet.recovery.dropped.after")
	}
	return nil
}

// RecoveryFaultPoints names the places at which a fault can strike whoever drives a recovery.
func RecoveryFaultPoints() []string {
	return []string{"fleet.recovery.record.after", "fleet.recovery.making.after", "fleet.recovery.made.after", "fleet.recovery.switching.after",
		"fleet.recovery.switch.before", "fleet.recovery.switch.after", "fleet.recovery.starting.after", "fleet.recovery.volumes.after"}
}
