package plan

import (
	"fmt"
	"slices"
	"time"

	"drover"
)

// follow brings one item up to what has become of its machine.
func (n *drainStep) follow(i *drover.DrainItem) {
	if i.State.Over() {
		return
	}
	m, known := n.f.Machines[i.Machine]
	if !known || m.Doomed {
		n.close(i, drover.ItemGone, "it was destroyed")
		return
	}
	move := newest(m, i)
	switch i.State {
	case drover.ItemWaiting:
		describe(i, m.Candidate)
		i.Bytes = max(i.Bytes, m.Candidate.Bytes)
		if m.Host != i.Source {
			n.close(i, drover.ItemGone, fmt.Sprintf("it went to host %s by itself", m.Host))
		}
	case drover.ItemHook:
		n.hook(i, m)
	case drover.ItemStarting:
		n.starting(i, m, move)
	case drover.ItemMoving, drover.ItemSettling, drover.ItemHydrating:
		if move == nil {
			n.close(i, drover.ItemFailed, fmt.Sprintf("the record of its migration %s is gone", i.Migration))
			return
		}
		n.moving(i, m, *move)
	case drover.ItemStopping:
		if m.Stopped {
			n.close(i, drover.ItemStopped, i.Reason)
			return
		}
		n.act(DrainAct{Kind: ActStop, Machine: i.Machine})
	}
}

// newest returns the drain's newest migration of the machine that has not been taken into account as a failed one.
func newest(m MachineFacts, i *drover.DrainItem) *MoveFacts {
	for _, move := range slices.Backward(m.Moves) {
		if move.Migration.ID == i.Migration || !slices.Contains(i.Tried, move.Migration.ID) {
			return &move
		}
	}
	return nil
}

// hook follows the command in the guest, and then the role that it should have given away.
func (n *drainStep) hook(i *drover.DrainItem, m MachineFacts) {
	switch {
	case m.Host != i.Source:
		n.close(i, drover.ItemGone, fmt.Sprintf("it went to host %s by itself", m.Host))
	case i.HookDoneAt.IsZero() && m.Hook == nil:
		n.act(DrainAct{Kind: ActHook, Machine: i.Machine})
	case i.HookDoneAt.IsZero() && m.Hook.Err != nil:
		n.close(i, drover.ItemFailed, fmt.Sprintf("its %s command failed: %s", drover.LabelPreMove, m.Hook.Err.Text))
	default:
		if i.HookDoneAt.IsZero() {
			i.HookDoneAt = n.now
		}
		if i.WasPrimary && m.Candidate.Labels.Role == drover.RolePrimary {
			i.Reason = "its command has ended, and it is the primary still"
			if n.now.Sub(i.HookDoneAt) >= roleBound {
				n.close(i, drover.ItemFailed, fmt.Sprintf("its %s command ended well %v ago, and it is the primary still", drover.LabelPreMove, roleBound))
			}
			return
		}
		i.State, i.Reason = drover.ItemWaiting, "" // its turn has come: it is the first of those that wait
	}
}

// starting makes sure that there is a migration.
func (n *drainStep) starting(i *drover.DrainItem, m MachineFacts, move *MoveFacts) {
	switch {
	case move != nil:
		i.State, i.Migration, i.Reason, i.Target = drover.ItemMoving, move.Migration.ID, "", move.Migration.Target
		n.moving(i, m, *move)
	case m.Host != i.Source:
		n.close(i, drover.ItemGone, fmt.Sprintf("it went to host %s by itself", m.Host))
	case m.Begin != nil:
		n.notBegun(i, m.Candidate, m.Begin)
	default:
		n.act(DrainAct{Kind: ActBegin, Machine: i.Machine, Target: i.Target, Options: MoveOptions(n.d, *i, m.Candidate)})
	}
}

// notBegun takes in that a migration was refused.
func (n *drainStep) notBegun(i *drover.DrainItem, c Candidate, why *drover.Error) {
	i.State, i.Reason, i.RetryAt, i.StartedAt = drover.ItemWaiting, why.Text, n.now.Add(beginPause), time.Time{}
	if why.Field == "live" && n.mayGoCold(*i, c) {
		i.Cold, i.RetryAt = true, time.Time{}
		return
	}
	if why.Code == drover.Conflict || why.Code == drover.Unavailable {
		return // somebody else has it in hand, or somebody does not answer: that passes
	}
	if why.Code == drover.NotFound {
		n.close(i, drover.ItemGone, "it was destroyed")
		return
	}
	i.Tries++
	if why.Code == drover.Precondition || why.Code == drover.Exhausted {
		i.Avoid = append(slices.Clone(i.Avoid), i.Target)
	}
	if i.Tries >= beginTries {
		n.close(i, drover.ItemFailed, fmt.Sprintf("its move was refused %d times, at last: %s", i.Tries, why.Text))
	}
}

// mayGoCold reports whether a machine that was to be moved live, and so without its command, may be moved cold instead, after it.
func (n *drainStep) mayGoCold(i drover.DrainItem, c Candidate) bool {
	return liveFirst(n.d, i, c) && !n.d.Options.Live
}

// moving follows a migration.
func (n *drainStep) moving(i *drover.DrainItem, m MachineFacts, move MoveFacts) {
	mig := move.Migration
	i.Phase = mig.Phase
	if mig.Outcome == drover.Aborted {
		n.failed(i, m.Candidate, move)
		return
	}
	if !mig.StoppedAt.IsZero() && mig.RunningAt.After(mig.StoppedAt) {
		i.Interruption = drover.Duration(mig.RunningAt.Sub(mig.StoppedAt))
	}
	i.Live = mig.Live
	if mig.Outcome == drover.Succeeded {
		i.Copied = mig.DiskBytes()
	}
	if mig.Phase != drover.PhaseHydrate && mig.Phase != drover.PhaseDone {
		return
	}
	if i.State == drover.ItemMoving {
		i.State, i.ArrivedAt = drover.ItemSettling, n.now
	}
	if i.State == drover.ItemSettling {
		n.settle(i, m, mig)
	}
	if i.State == drover.ItemHydrating && mig.Outcome == drover.Succeeded {
		n.close(i, drover.ItemMoved, i.Reason)
	}
}

// settle waits until a machine that was moved has been healthy for long enough.
func (n *drainStep) settle(i *drover.DrainItem, m MachineFacts, mig drover.Migration) {
	o := n.d.Options.WithDefaults()
	ill := m.Ill
	switch {
	case !mig.WasRunning || m.Stopped:
		i.State, i.Reason = drover.ItemHydrating, ""
		return
	case ill == "":
		if i.HealthySince.IsZero() {
			i.HealthySince = n.now
		}
		i.Reason = ""
		switch {
		case n.now.Sub(i.HealthySince) < time.Duration(o.MinHealthy):
		case m.Candidate.Labels.Hydrated && mig.Outcome != drover.Succeeded:
			i.Reason = "its data is not all there"
			return // that has no bound of its own: a slow copy is no failure
		default:
			i.State = drover.ItemHydrating
		}
		return
	}
	i.HealthySince, i.Reason = time.Time{}, ill
	if n.now.Sub(i.ArrivedAt) >= time.Duration(o.HealthyDeadline) {
		i.State, i.Reason = drover.ItemHydrating, fmt.Sprintf("not healthy on host %s after %v: %s", i.Target, time.Duration(o.HealthyDeadline), ill)
		n.halt(i, i.Reason)
	}
}

// failed takes in that a migration was given up: by a person, for a host, or by a fault of its own, which halts the class.
func (n *drainStep) failed(i *drover.DrainItem, c Candidate, move MoveFacts) {
	mig := move.Migration
	text, code := "it was given up", drover.Internal
	if mig.Problem != nil {
		text, code = mig.Problem.Text, mig.Problem.Code
	}
	again := func() {
		i.Tried = append(slices.Clone(i.Tried), mig.ID)
		i.Tries++
		if i.Tries >= beginTries {
			n.close(i, drover.ItemFailed, fmt.Sprintf("its move failed %d times, at last: %s", i.Tries, text))
			return
		}
		i.State, i.Migration, i.Reason, i.RetryAt, i.Phase, i.StartedAt = drover.ItemWaiting, "", text, n.now.Add(beginPause), "", time.Time{}
	}
	switch {
	case n.d.State == drover.DrainAborting:
		n.close(i, drover.ItemLeft, "the drain was aborted")
	case code == drover.Canceled:
		n.close(i, drover.ItemFailed, fmt.Sprintf("migration %s was aborted: %s", mig.ID, text))
	case move.TargetDown, code == drover.Exhausted:
		i.Avoid = append(slices.Clone(i.Avoid), mig.Target)
		again()
	case move.SourceDown, code == drover.Conflict:
		again()
	case n.mayGoCold(*i, c):
		i.Cold = true
		again()
	default:
		n.close(i, drover.ItemFailed, fmt.Sprintf("migration %s failed: %s", mig.ID, text))
		n.halt(i, i.Reason)
	}
}

// halt stops the moves of a class.
func (n *drainStep) halt(i *drover.DrainItem, reason string) {
	if n.halted(i.Class) != "" {
		return
	}
	n.halts = append(n.halts, drover.ClassHalt{Class: i.Class, Drain: n.d.ID, Migration: i.Migration, Machine: i.Machine, Host: i.Source, Reason: reason, At: n.now})
}
