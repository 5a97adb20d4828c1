package migrate

import (
	"fmt"
	"time"

	"drover"
)

// converge copies in rounds while the machine runs, until little is left, or the rounds are used up. Each is noted in the record before it is
// asked for, so that whoever takes over asks for the same one.
func (r Rules) converge(m drover.Migration, f Facts, now time.Time) Decision {
	c := m.Convergence
	if c == nil {
		return Decision{Kind: BeginRound, Round: 1}
	}
	if c.Over {
		clone := Target{drover.OrderMoveClone, m.Target}
		if !f.answered(clone.Order, clone.Host) {
			return r.askUntil(m, f, now, time.Time{}, 0, clone)
		}
		return Decision{Kind: Enter, Phase: drover.PhaseQuiesce}
	}
	round := Target{drover.OrderMoveRound, m.Source}
	switch {
	case f.Round == nil:
		return r.askUntil(m, f, now, time.Time{}, 0, round)
	case f.Copied == nil || !f.Copied.Done:
		return r.follow(m, f, now, Target{drover.OrderMoveCopy, m.Target})
	case !f.Measured:
		return r.askUntil(m, f, now, time.Time{}, 0, round)
	case c.Remaining <= c.Threshold:
		return Decision{Kind: EndRounds}
	case c.Round >= c.Rounds:
		return Decision{Kind: EndRounds, Reason: fmt.Sprintf("after %d rounds %d KiB were still left: the machine writes %d KiB/s, and %d KiB/s were copied",
			c.Round, c.Remaining/drover.KiB, c.DirtyRate/drover.KiB, c.CopyRate/drover.KiB)}
	}
	return Decision{Kind: BeginRound, Round: c.Round + 1}
}

// follow asks how far the copying is, which the order begins, and gives up when it does not go on.
func (r Rules) follow(m drover.Migration, f Facts, now time.Time, t Target) Decision {
	bound := time.Duration(m.Options.NoProgress)
	if bound == 0 {
		bound = r.NoProgress
	}
	moved := f.MovedAt
	if moved.IsZero() {
		moved = phaseStart(m)
	}
	a, asked := f.answer(t.Order, t.Host)
	if asked && now.Sub(moved) >= bound && !f.MovedAt.IsZero() {
		return Decision{Kind: Abort, Problem: drover.Errorf(drover.Unavailable, "nothing was copied for %v in phase %s%s", bound, m.Phase, waitingFor(f)).
			WithHint("see what keeps the hosts from each other, or ask again with a longer --no-progress")}
	}
	if asked && a.Err == nil && now.Before(a.At.Add(r.CopyPoll)) {
		return Decision{Kind: Wait, Until: a.At.Add(r.CopyPoll)}
	}
	return r.askUntil(m, f, now, time.Time{}, 0, t)
}

// waitingFor is what the target says of a copy that stands.
func waitingFor(f Facts) string {
	if f.Copied == nil {
		return ""
	}
	for _, h := range f.Copied.Hydration {
		if h.Waiting != "" {
			return ": " + h.Waiting
		}
	}
	return ""
}

// live moves the memory while the machine runs. What fails before the machine is paused for good ends as if nothing had been, or in a cold move,
// as it was asked for. From the answer that says Paused on, everything is frozen, and the switch is next.
func (r Rules) live(m drover.Migration, f Facts, now time.Time) Decision {
	incoming := Target{drover.OrderMoveIncoming, m.Target}
	d := Decision{}
	switch {
	case f.Live != nil && f.Live.Paused:
		return r.commit(m, f)
	case f.Address == "":
		d = r.askBounded(m, f, now, r.Export, incoming)
	default:
		d = r.follow(m, f, now, Target{drover.OrderMoveLive, m.Source})
	}
	if d.Kind == Abort && m.Options.LiveOrCold {
		return Decision{Kind: GoCold, Problem: d.Problem}
	}
	return d
}

// ChooseSwitch says whether the switch is to be made late, and why. suspect is why the source is not to be trusted; empty when it is.
func (r Rules) ChooseSwitch(mode drover.SwitchMode, suspect string, toCopy drover.Bytes) (late bool, reason string) {
	switch mode {
	case drover.SwitchEarly:
		return false, "it was asked for"
	case drover.SwitchLate:
		return true, "it was asked for"
	}
	switch {
	case suspect != "":
		return false, "the source is not trusted: " + suspect
	case toCopy > r.LateOver:
		return true, fmt.Sprintf("the source is healthy, and %d MiB are to be copied", toCopy/drover.MiB)
	}
	return false, fmt.Sprintf("only %d MiB are to be copied", toCopy/drover.MiB)
}
