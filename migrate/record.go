package migrate

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"drover"
)

// The functions in this file make the next record from the present one. None changes its argument.

// Begin completes a new record: running, in the first phase.
func Begin(m drover.Migration, now time.Time) drover.Migration {
	m.Outcome, m.CreatedAt, m.UpdatedAt = drover.Running, now, now
	m.Steps = nil
	m = enter(m, drover.PhaseReserve, now)
	return withStep(m, func(s *drover.Step) { s.Tries = 0 }) // the first controller counts itself by TakeOver
}

// EnterPhase ends the present step and begins that of the phase. The end phase has no length of its own.
func EnterPhase(m drover.Migration, p drover.Phase, now time.Time) drover.Migration {
	m = closeStep(m, now)
	m.Problem = nil
	m.Outcome = drover.Running // an abort that came too late: the placement tells
	m = enter(m, p, now)
	if p == drover.PhaseDone {
		m = closeStep(m, now)
	}
	return m
}

func enter(m drover.Migration, p drover.Phase, now time.Time) drover.Migration {
	m.Phase, m.UpdatedAt = p, now
	if p == drover.PhaseHydrate {
		m.Handover = nil
	}
	m.Steps = append(slices.Clone(m.Steps), drover.Step{Phase: p, StartedAt: now, Tries: 1})
	return m
}

func closeStep(m drover.Migration, now time.Time) drover.Migration {
	return withStep(m, func(s *drover.Step) {
		if s.EndedAt.IsZero() {
			s.EndedAt = now
		}
	})
}

// withStep changes the present step.
func withStep(m drover.Migration, change func(*drover.Step)) drover.Migration {
	if len(m.Steps) == 0 {
		return m
	}
	m.Steps = slices.Clone(m.Steps)
	change(&m.Steps[len(m.Steps)-1])
	return m
}

func phaseStart(m drover.Migration) time.Time {
	if len(m.Steps) == 0 {
		return m.CreatedAt
	}
	return m.Steps[len(m.Steps)-1].StartedAt
}

// TakeOver notes that a controller begins the present step, perhaps again.
func TakeOver(m drover.Migration, now time.Time) drover.Migration {
	m.UpdatedAt = now
	return withStep(m, func(s *drover.Step) { s.Tries++ })
}

// GiveUp begins the abort.
func GiveUp(m drover.Migration, problem *drover.Error, now time.Time) drover.Migration {
	m = closeStep(m, now)
	m.Outcome, m.Problem, m.UpdatedAt = drover.Aborting, problem, now
	return m
}

// StandsAside notes that a migration whose data is still on the way is being taken back.
func StandsAside(m drover.Migration, by drover.MigrationID, now time.Time) drover.Migration {
	m.UndoneBy, m.UpdatedAt = by, now
	return m
}

// Undone notes what came of taking the migration back: it has ended, or goes on as if nothing had been asked.
func Undone(m drover.Migration, back drover.Outcome, now time.Time) drover.Migration {
	if back != drover.Succeeded {
		m.UndoneBy, m.Problem, m.UpdatedAt = "", nil, now
		return m
	}
	m = closeStep(m, now)
	m.Outcome, m.UpdatedAt, m.Handover = drover.Aborted, now, nil
	m.Problem = drover.Errorf(drover.Canceled, "it was taken back by migration %s while its data was still on the way", m.UndoneBy)
	return m
}

// Finish ends the migration.
func Finish(m drover.Migration, outcome drover.Outcome, now time.Time) drover.Migration {
	m = closeStep(m, now)
	m.Outcome, m.UpdatedAt = outcome, now
	if outcome == drover.Succeeded {
		m.Problem = nil
	}
	return m
}

// Waiting notes what the migration waits for, and since when, in the step and, unless it is being aborted for another reason, as its problem.
func Waiting(m drover.Migration, problem *drover.Error, since, now time.Time) drover.Migration {
	m.UpdatedAt = now
	if m.Outcome == drover.Running {
		m.Problem = problem
	}
	return withStep(m, func(s *drover.Step) {
		s.Waited = problem.Text
		if d := now.Sub(since).Round(time.Second); d > 0 {
			s.Waited = fmt.Sprintf("for %v: %s", d, problem.Text)
		}
		noteWait(s, problem.Text, since, now)
	})
}

// GoesOn notes that what the migration waited for is there, after that many failed tries.
func GoesOn(m drover.Migration, last *drover.Error, since time.Time, failures int, now time.Time) drover.Migration {
	m = Waiting(m, last, since, now)
	if m.Outcome == drover.Running {
		m.Problem = nil
	}
	return withStep(m, func(s *drover.Step) { s.Tries += failures })
}

// Frozen takes in what the layers hold at the freeze.
func Frozen(m drover.Migration, allocated map[drover.DiskID]drover.Bytes) drover.Migration {
	m.Disks = slices.Clone(m.Disks)
	for i, d := range m.Disks {
		if n, ok := allocated[d.Disk]; ok {
			m.Disks[i].Allocated = n
		}
	}
	return m
}

// Exported takes in what the source exports.
func Exported(m drover.Migration, exports []drover.Export) drover.Migration {
	m.Exports = slices.Clone(exports)
	m.Disks = nil
	for _, e := range exports {
		m.Disks = append(m.Disks, drover.DiskMove{
			Disk: e.Disk, Volume: e.Volume, Size: e.Size, Allocated: e.Allocated,
			Source: e.Layer, Target: drover.LayerFor(e.Disk, m.ID),
		})
	}
	return m
}

// Progressed takes in how far the target is.
func Progressed(m drover.Migration, p drover.MoveProgress, now time.Time) drover.Migration {
	m.UpdatedAt = now
	sum := sumHydration(p)
	m.Hydration = &sum
	if p.ColdReason != "" {
		m.Live, m.ColdReason = false, p.ColdReason
	}
	if m.Live && m.RunningAt.IsZero() && !p.ResumedAt.IsZero() {
		m.RunningAt = p.ResumedAt
		if m.Memory != nil {
			memory := *m.Memory
			memory.PausedFor = max(0, p.ResumedAt.Sub(m.StoppedAt))
			m.Memory = &memory
		}
	}
	if !m.Live && m.RunningAt.IsZero() && m.WasRunning && p.Status.Epoch == m.ToEpoch && ranAgain(p.Status, m) {
		m.RunningAt = p.Status.StartedAt
	}
	m.Failed = failedThere(p.Status, m)
	if m.Outcome == drover.Running {
		m.Problem = nil
		if sum.Waiting != "" && !sum.Done {
			m.Problem = drover.Errorf(drover.Unavailable, "hydration waits: %s", sum.Waiting)
		}
	}
	return withStep(m, func(s *drover.Step) {
		s.Bytes = sum.Copied - copiedBefore(m)
	})
}

// failedThere says why a machine that ran before has failed on the target; empty when it has not.
func failedThere(s drover.MachineStatus, m drover.Migration) string {
	switch {
	case s.Epoch != m.ToEpoch || !m.WasRunning || s.State != drover.StateFailed:
		return ""
	case s.Reason == "":
		return "it has failed"
	}
	return s.Reason
}

// copiedBefore sums what the steps since the switch copied, before the present one.
func copiedBefore(m drover.Migration) drover.Bytes {
	var sum drover.Bytes
	for _, s := range m.Steps[:max(len(m.Steps)-1, 0)] {
		if s.Phase.Committed() {
			sum += s.Bytes
		}
	}
	return sum
}

// sumHydration adds the disks up. Waiting and the times are those of the disk that is the furthest back.
func sumHydration(p drover.MoveProgress) drover.Hydration {
	sum := drover.Hydration{TotalKnown: true, Done: p.Done}
	for _, id := range slices.Sorted(maps.Keys(p.Hydration)) {
		h := p.Hydration[id]
		sum.Total += h.Total
		sum.Copied += h.Copied
		sum.Skipped += h.Skipped
		sum.Verified += h.Verified
		sum.Repaired += h.Repaired
		sum.Lost += h.Lost
		sum.BytesPerSecond += h.BytesPerSecond
		sum.TotalKnown = sum.TotalKnown && h.TotalKnown
		if sum.Waiting == "" {
			sum.Waiting = h.Waiting
		}
		if sum.StartedAt.IsZero() || (!h.StartedAt.IsZero() && h.StartedAt.Before(sum.StartedAt)) {
			sum.StartedAt = h.StartedAt
		}
		if h.DoneAt.After(sum.DoneAt) {
			sum.DoneAt = h.DoneAt
		}
	}
	if !sum.Done {
		sum.DoneAt = time.Time{}
	}
	return sum
}

// Holds reports whether the machine is still in the hands of the migration: no other may begin, and it cannot be destroyed. It ends
// when every block is on the target, or when the source has undone its part of an aborted one; what is left then does not concern the machine.
func Holds(m drover.Migration) bool {
	switch m.Outcome {
	case drover.Running:
		return m.UndoneBy == "" && (m.Hydration == nil || !m.Hydration.Done)
	case drover.Aborting:
		return !m.SourceOff && !slices.Contains(m.Undone, m.Source)
	}
	return false
}

// Blocks reports whether the machine's desired state may not be changed now: from the first phase until it has come to run on the target.
func Blocks(m drover.Migration) bool {
	return Holds(m) && m.Phase != drover.PhaseHydrate && m.Phase != drover.PhaseDone
}

// Abortable tells why a migration cannot be aborted any more; nil when it can, or is being aborted already.
func Abortable(m drover.Migration) *drover.Error {
	switch {
	case m.Outcome == drover.Succeeded:
		return drover.Errorf(drover.Precondition, "migration %q cannot be aborted: it has succeeded", m.ID).
			WithHint("take it back: drover migration undo %s", m.ID)
	case m.Outcome == drover.Running && (m.Committing || m.Phase.Committed()):
		return drover.Errorf(drover.Precondition, "migration %q cannot be aborted: the switch is made, and host %q owns machine %q", m.ID, m.Target, m.Machine).
			WithHint("take it back, to what the machine had at the switch: drover migration undo %s", m.ID)
	}
	return nil
}
