package migrate

import (
	"time"

	"drover"
)

// BeginsRound notes that a round begins.
func (r Rules) BeginsRound(m drover.Migration, round int, now time.Time) drover.Migration {
	c := drover.Convergence{Rounds: r.Rounds, Threshold: r.Threshold}
	if m.Convergence != nil {
		c = *m.Convergence
	}
	c.Round, c.At = round, now
	m.Convergence, m.UpdatedAt = &c, now
	return m
}

// EndsRounds notes that no further round comes, and why, when more than little is left.
func EndsRounds(m drover.Migration, reason string, now time.Time) drover.Migration {
	c := *m.Convergence
	c.Over = true
	m.Convergence, m.UpdatedAt = &c, now
	if reason != "" {
		if m.SwitchReason != "" {
			m.SwitchReason += "; "
		}
		m.SwitchReason += reason
	}
	return m
}

// RoundFrozen takes in that the source has frozen what the present round copies.
func RoundFrozen(m drover.Migration, exports []drover.Export, now time.Time) drover.Migration {
	c := *m.Convergence
	var sum drover.Bytes
	for _, e := range exports {
		sum += e.Allocated
	}
	c.Remaining, c.At = sum, now
	m.Convergence, m.UpdatedAt = &c, now
	return m
}

// RoundCopied takes in how far the present round is.
func RoundCopied(m drover.Migration, p drover.MoveCopied, now time.Time) drover.Migration {
	c := *m.Convergence
	h := sumHydration(drover.MoveProgress{Hydration: p.Hydration, Done: p.Done})
	c.Remaining = max(0, h.Total-h.Copied-h.Skipped)
	if took := now.Sub(c.At); p.Done && took > 0 && h.Copied >= drover.MiB {
		c.CopyRate = perSecond(h.Copied, took)
	} else if h.BytesPerSecond > 0 {
		c.CopyRate = h.BytesPerSecond
	}
	m.Convergence, m.UpdatedAt = &c, now
	if m.Outcome == drover.Running {
		m.Problem = nil
		if h.Waiting != "" && !p.Done {
			m.Problem = drover.Errorf(drover.Unavailable, "the copy of round %d waits: %s", c.Round, h.Waiting)
		}
	}
	if p.Done {
		m = withStep(m, func(s *drover.Step) { s.Bytes += h.Copied })
	}
	return m
}

// RoundMeasured takes in what was written since the present round was frozen: what would be left if the switch were made now.
func (r Rules) RoundMeasured(m drover.Migration, changed drover.Bytes, now time.Time) drover.Migration {
	c := *m.Convergence
	c.Remaining = changed
	if took := now.Sub(c.At); took > 0 {
		c.DirtyRate = perSecond(changed, took)
	}
	c.Threshold = max(r.Threshold, drover.Bytes(float64(c.CopyRate)*r.ThresholdTime.Seconds()))
	m.Convergence, m.UpdatedAt = &c, now
	return m
}

func perSecond(n drover.Bytes, took time.Duration) drover.Bytes {
	return drover.Bytes(float64(n) / took.Seconds())
}

// LiveMoved takes in how far the copying of the memory is, and what is frozen once the machine is paused.
func LiveMoved(m drover.Migration, l drover.MoveLive, now time.Time) drover.Migration {
	memory := l.Memory
	m.Memory, m.UpdatedAt = &memory, now
	m = withStep(m, func(s *drover.Step) { s.Bytes = memory.Transferred })
	if l.Paused {
		m.StoppedAt, m.Handover = l.StoppedAt, l.Handover
		m = Frozen(m, l.Allocated)
	}
	return m
}

// Committed notes the intention to switch, and enters the phase of the switch where the memory's phase led to it.
func Committed(m drover.Migration, now time.Time) drover.Migration {
	if m.Phase != drover.PhaseSwitch {
		m = EnterPhase(m, drover.PhaseSwitch, now)
	}
	m.Committing, m.UpdatedAt = true, now
	return m
}

// GoesCold notes that the memory stays behind.
func GoesCold(m drover.Migration, problem *drover.Error, now time.Time) drover.Migration {
	m.Live, m.ColdReason, m.Memory, m.UpdatedAt = false, problem.Text, nil, now
	m.Handover = nil
	return withStep(m, func(s *drover.Step) { s.Tries++; s.StartedAt = now })
}
