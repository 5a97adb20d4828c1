package migrate

import (
	"slices"
	"time"

	"drover"
)

// Next decides what is to be done now for the migration.
func (r Rules) Next(m drover.Migration, f Facts, now time.Time) Decision {
	if m.Ended() {
		return Decision{Kind: Nothing}
	}
	if m.UndoneBy != "" {
		return Decision{Kind: Wait, Until: now.Add(r.RetryMost), Problem: drover.Errorf(drover.Conflict, "it is being taken back by migration %s", m.UndoneBy)}
	}
	if !m.Phase.Committed() {
		// Whatever the record says, the placement tells whether the switch was made.
		if f.Placement == nil && !f.PlacementGone {
			return r.store(f, now, Decision{Kind: ReadPlacement})
		}
		if f.Placement != nil && f.Placement.Migration == m.ID {
			return Decision{Kind: Enter, Phase: drover.PhaseStart}
		}
	}
	if m.Outcome == drover.Aborting {
		return r.undo(m, f, now)
	}
	if !m.Phase.Committed() && (f.PlacementGone || f.Placement.Epoch != m.FromEpoch) {
		if f.FenceErr != nil {
			return Decision{Kind: Abort, Problem: f.FenceErr}
		}
		return Decision{Kind: Abort, Problem: drover.Errorf(drover.Conflict,
			"machine %q was placed anew while migration %q was under way", m.Machine, m.ID)}
	}
	if why := r.late(m, now); why != nil {
		return Decision{Kind: Abort, Problem: why}
	}
	if f.Destroyed && !m.Committing && !m.Phase.Committed() {
		return Decision{Kind: Abort, Problem: drover.Errorf(drover.Canceled, "machine %q was destroyed", m.Machine)}
	}
	switch m.Phase {
	case drover.PhaseReserve:
		if m.Interrupts && !f.Aside {
			return r.standAside(f, now)
		}
		return r.inOrder(m, f, now, r.Reserve, drover.PhaseExport, Target{drover.OrderMoveReserve, m.Target})
	case drover.PhaseExport:
		return r.export(m, f, now)
	case drover.PhaseConverge:
		return r.converge(m, f, now)
	case drover.PhaseQuiesce:
		if m.Live {
			return r.live(m, f, now)
		}
		if m.SourceOff {
			return Decision{Kind: Enter, Phase: drover.PhaseSwitch}
		}
		return r.inOrder(m, f, now, f.StopTimeout+r.Quiesce, drover.PhaseSwitch, Target{drover.OrderMoveQuiesce, m.Source})
	case drover.PhaseSwitch:
		return r.change(m, f, now)
	case drover.PhaseStart:
		return r.start(m, f, now)
	case drover.PhaseHydrate:
		return r.hydrate(m, f, now)
	case drover.PhaseDone:
		return Decision{Kind: End, Outcome: drover.Succeeded}
	}
	return Decision{Kind: Wait, Until: now.Add(r.RetryMost), Problem: drover.Errorf(drover.Internal,
		"phase %q of migration %q is unknown to this version: it goes on when a newer one takes over", m.Phase, m.ID)}
}

// late tells why a migration is given up whose time is over; nil while it is not, and after the commit.
func (r Rules) late(m drover.Migration, now time.Time) *drover.Error {
	d := time.Duration(m.Options.Deadline)
	if d == 0 || m.Committing || m.Phase.Committed() || now.Before(m.CreatedAt.Add(d)) {
		return nil
	}
	return drover.Errorf(drover.Unavailable, "the switch was not made within the deadline of %v: phase %s was under way", d, m.Phase).
		WithHint("ask again with a longer deadline, or with an early switch")
}

// export lets the target read. For an early switch, and for an undo, it also makes the layers that the target will own.
func (r Rules) export(m drover.Migration, f Facts, now time.Time) Decision {
	export := Target{drover.OrderMoveExport, m.Source}
	switch {
	case m.SourceOff:
		return r.inOrder(m, f, now, r.Export, drover.PhaseQuiesce, Target{drover.OrderMoveUndo, m.Target})
	case m.Undoes != "":
		return r.inOrder(m, f, now, r.Export, drover.PhaseQuiesce, export, Target{drover.OrderMoveUndo, m.Target})
	case m.Late:
		return r.inOrder(m, f, now, r.Export, drover.PhaseConverge, export)
	}
	return r.inOrder(m, f, now, r.Export, drover.PhaseQuiesce, export, Target{drover.OrderMoveClone, m.Target})
}

// inOrder asks each target in turn and then enters the next phase: the shape of every phase before the switch.
func (r Rules) inOrder(m drover.Migration, f Facts, now time.Time, bound time.Duration, next drover.Phase, targets ...Target) Decision {
	for _, t := range targets {
		if !f.answered(t.Order, t.Host) {
			return r.askBounded(m, f, now, bound, t)
		}
	}
	return Decision{Kind: Enter, Phase: next}
}

// askBounded asks before the switch: within the phase's bound, and aborts on what will not become better.
func (r Rules) askBounded(m drover.Migration, f Facts, now time.Time, bound time.Duration, t Target) Decision {
	return r.askUntil(m, f, now, phaseStart(m).Add(bound), bound, t)
}

// askUntil is askBounded with an end; zero for none but that of the host's silence.
func (r Rules) askUntil(m drover.Migration, f Facts, now, end time.Time, bound time.Duration, t Target) Decision {
	a, asked := f.answer(t.Order, t.Host)
	if asked && a.Err != nil {
		if !retryable(a.Err.Code) {
			return Decision{Kind: Abort, Problem: a.Err}
		}
		if now.Sub(a.FailingSince) >= r.Silence {
			return Decision{Kind: Abort, Problem: drover.Errorf(a.Err.Code, "host %q did not do %s for %v: %w",
				t.Host, t.Order, now.Sub(a.FailingSince).Round(time.Second), a.Err)}
		}
	}
	if !end.IsZero() && !now.Before(end) {
		problem := drover.Errorf(drover.Unavailable, "phase %s took longer than %v: host %q was at work on %s", m.Phase, bound, t.Host, t.Order)
		if asked && a.Err != nil {
			problem = drover.Errorf(a.Err.Code, "phase %s took longer than %v: %w", m.Phase, bound, a.Err)
		}
		return Decision{Kind: Abort, Problem: problem}
	}
	if wait, ok := r.pause(a, now); ok {
		return wait
	}
	return Decision{Kind: Ask, Order: t.Order, Host: t.Host, Until: end}
}

// retryable reports whether asking again may help.
func retryable(c drover.Code) bool {
	return c == drover.Unavailable || c == drover.Conflict || c == drover.Canceled
}

// pause makes the time between a failed try and the next.
func (r Rules) pause(a Answer, now time.Time) (Decision, bool) {
	if a.Err == nil {
		return Decision{}, false
	}
	next := a.At.Add(min(r.Retry<<min(a.Failures-1, 10), r.RetryMost))
	// A try that lies ahead was made before the clock was put back: how long ago that was nobody knows.
	if !now.Before(next) || a.At.After(now) {
		return Decision{}, false
	}
	return Decision{Kind: Wait, Until: next, Problem: a.Err}, true
}

// store does something with the placement, again and again.
func (r Rules) store(f Facts, now time.Time, do Decision) Decision {
	if wait, ok := r.pause(f.Store, now); ok {
		return wait
	}
	return do
}

// askForEver asks until it is done: after the switch, and for what an abort must undo.
func (r Rules) askForEver(f Facts, now time.Time, t Target) Decision {
	a, _ := f.answer(t.Order, t.Host)
	if wait, ok := r.pause(a, now); ok {
		return wait
	}
	return Decision{Kind: Ask, Order: t.Order, Host: t.Host}
}

// standAside has the migration that is taken back do nothing meanwhile. What is against that will not pass.
func (r Rules) standAside(f Facts, now time.Time) Decision {
	if e := f.Store.Err; e != nil && !retryable(e.Code) {
		return Decision{Kind: Abort, Problem: e}
	}
	return r.store(f, now, Decision{Kind: StandAside})
}

// change is the switch.
func (r Rules) change(m drover.Migration, f Facts, now time.Time) Decision {
	if m.SourceOff {
		return r.changeWithout(m, f, now)
	}
	if m.Committing {
		return r.store(f, now, Decision{Kind: Switch})
	}
	freeze := Target{drover.OrderMoveFreeze, m.Source}
	if !f.answered(freeze.Order, freeze.Host) {
		return r.askBounded(m, f, now, r.Freeze, freeze)
	}
	return r.commit(m, f)
}

// changeWithout is the switch away from a source that is off, instead of frozen. Each time before the placement is changed it is seen to that the
// source is off still. If it is not, and a change may be under way, that is made to fail, which ends in an abort.
func (r Rules) changeWithout(m drover.Migration, f Facts, now time.Time) Decision {
	switch {
	case f.Fence == FenceUnknown:
		return r.store(f, now, Decision{Kind: CheckFence})
	case f.Fence == FenceGone && m.Committing:
		return r.store(f, now, Decision{Kind: Withhold})
	case f.Fence == FenceGone:
		return Decision{Kind: Abort, Problem: f.FenceErr}
	case m.Committing:
		return r.store(f, now, Decision{Kind: Switch})
	}
	return r.commit(m, f)
}

// commit makes the switch certain, once the source has frozen everything.
func (r Rules) commit(m drover.Migration, f Facts) Decision {
	if f.TargetSilent > r.Down {
		return Decision{Kind: Abort, Problem: drover.Errorf(drover.Unavailable,
			"host %q has not been heard of for %v, just before the switch", m.Target, f.TargetSilent.Round(time.Second))}
	}
	return Decision{Kind: Commit}
}

// start hands the machine over and waits until it runs.
func (r Rules) start(m drover.Migration, f Facts, now time.Time) Decision {
	if f.Cleared {
		return Decision{Kind: Enter, Phase: drover.PhaseHydrate}
	}
	activate := Target{drover.OrderMoveActivate, m.Target}
	if !f.answered(activate.Order, activate.Host) {
		return r.askForEver(f, now, activate)
	}
	if !f.VolumesWritten {
		return r.store(f, now, Decision{Kind: WriteVolumes})
	}
	if pendingWriteOff(m) { // the boot may wait for what does not come
		return r.askForEver(f, now, Target{drover.OrderMoveWriteOff, m.Target})
	}
	if p := f.Progress; p != nil && (p.Done || !m.WasRunning || settled(*p, m)) {
		return Decision{Kind: Enter, Phase: drover.PhaseHydrate}
	}
	return r.poll(f, now, m.Target, r.StartPoll)
}

// settled reports whether the machine has come to run on the target, or will not. "Stopped" alone tells nothing: that is what it is when
// it arrives.
func settled(p drover.MoveProgress, m drover.Migration) bool {
	s := p.Status
	if s.Epoch != m.ToEpoch {
		return false
	}
	switch s.State {
	case drover.StateFailed, drover.StateDestroying, drover.StateDestroyed:
		return true
	}
	if m.Live && p.ColdReason == "" {
		return !p.ResumedAt.IsZero() // it counts as started from the moment in which it arrives
	}
	return ranAgain(s, m)
}

// ranAgain reports whether the main process was started on the target, even if it has ended again. The status must be the target's. One that
// has ended is told by the times of two hosts' clocks; if they differ too much, the end of the hydration ends the phase.
func ranAgain(s drover.MachineStatus, m drover.Migration) bool {
	if s.StartedAt.IsZero() {
		return false
	}
	return s.State == drover.StateStarted || (s.StartedAt.After(m.StoppedAt) && !m.StoppedAt.IsZero())
}

// hydrate waits for the last block, then lets the source go.
func (r Rules) hydrate(m drover.Migration, f Facts, now time.Time) Decision {
	if pendingWriteOff(m) && !f.Cleared {
		return r.askForEver(f, now, Target{drover.OrderMoveWriteOff, m.Target})
	}
	if (m.Hydration == nil || !m.Hydration.Done) && !f.Cleared {
		// A copy is looked at the more seldom the longer it takes: the next move of a drain waits for a small one.
		return r.poll(f, now, m.Target, min(r.HydratePoll, max(r.CopyPoll, now.Sub(phaseStart(m))/4)))
	}
	if !f.VolumesWritten {
		return r.store(f, now, Decision{Kind: WriteVolumes})
	}
	release := Target{drover.OrderMoveRelease, m.Source}
	if !m.SourceOff && !f.answered(release.Order, release.Host) {
		return r.askForEver(f, now, release)
	}
	return Decision{Kind: Enter, Phase: drover.PhaseDone}
}

// poll asks the target how far it is, with a pause after each answer.
func (r Rules) poll(f Facts, now time.Time, host drover.HostID, every time.Duration) Decision {
	progress := Target{drover.OrderMoveProgress, host}
	a, asked := f.answer(progress.Order, progress.Host)
	if asked && a.Err == nil && now.Before(a.At.Add(every)) && !a.At.After(now) {
		return Decision{Kind: Wait, Until: a.At.Add(every)}
	}
	return r.askForEver(f, now, progress)
}

// undo makes both hosts forget the migration. The source must; the target is waited for within the bound of silence.
func (r Rules) undo(m drover.Migration, f Facts, now time.Time) Decision {
	var wait Decision
	for _, host := range []drover.HostID{m.Source, m.Target} {
		if slices.Contains(m.Undone, host) || host == m.Source && m.SourceOff {
			continue
		}
		d := r.askForEver(f, now, Target{drover.OrderMoveAbort, host})
		if d.Kind == Ask {
			return d
		}
		if wait.Kind == "" || d.Until.Before(wait.Until) {
			wait = d
		}
	}
	if wait.Kind == "" {
		return Decision{Kind: End, Outcome: drover.Aborted}
	}
	a, _ := f.answer(drover.OrderMoveAbort, m.Target)
	if (m.SourceOff || slices.Contains(m.Undone, m.Source)) && now.Sub(a.FailingSince) >= r.Silence {
		return Decision{Kind: End, Outcome: drover.Aborted}
	}
	return wait
}
