package host

import (
	"fmt"
	"time"

	"drover"
	"drover/guest"
)

// actionKind is one thing that the loop of a machine can do.
type actionKind string

const (
	// actWait: nothing is to be done before action.at, or until something wakes the loop.
	actWait actionKind = "wait"
	// actFind looks whether the machine's VM runs, and attaches to it.
	actFind actionKind = "find"
	// actSettle deals with the end of the VM.
	actSettle actionKind = "settle"
	// actKill ends the VM at once.
	actKill actionKind = "kill"
	// actStop begins, or goes on with, an orderly stop.
	actStop actionKind = "stop"
	// actStart starts a VM.
	actStart actionKind = "start"
	// actPrepare makes the root disk of a machine that was created to be started later.
	actPrepare actionKind = "prepare"
	// actClose closes the layers and removes the tap of a machine that does not run.
	actClose actionKind = "close"
	// actRest stores the state of a machine that is where it should be and does not run.
	actRest actionKind = "rest"
	// actDestroy removes what belongs to the machine; its volumes stay.
	actDestroy actionKind = "destroy"
	// actForget removes the records of a machine that is another host's, or nobody's, now.
	actForget actionKind = "forget"

	actExport      actionKind = "export"
	actHeld        actionKind = "held"
	actFreeze      actionKind = "freeze"
	actFence       actionKind = "fence"
	actRelease     actionKind = "release"
	actAbortSource actionKind = "abort-source"
	actImage       actionKind = "image"
	actClone       actionKind = "clone"
	actRound       actionKind = "round"
	actCopy        actionKind = "copy"
	actHydrate     actionKind = "hydrate"
	actAbortTarget actionKind = "abort-target"

	// actSend sends the memory of a VM, or looks how far that is, and hands it over; actTake starts a VM that waits for its memory; actResume
	// lets it execute; actTakeEnd gives it up.
	actSend    actionKind = "send"
	actTake    actionKind = "take"
	actResume  actionKind = "resume"
	actTakeEnd actionKind = "take-end"

	// actSuspend writes the memory of a VM to a disk; actUnsuspend lets the VM go on after all; actGoOn lets one execute that has taken its memory
	// from there, actGoOnAs makes one that runs what a start asked for, actClock sets its clock; actDropMemory gives the memory up and removes it.
	actSuspend    actionKind = "suspend"
	actUnsuspend  actionKind = "unsuspend"
	actGoOn       actionKind = "go-on"
	actGoOnAs     actionKind = "go-on-as"
	actClock      actionKind = "clock"
	actDropMemory actionKind = "drop-memory"
)

// action is what next decided, and why.
type action struct {
	kind actionKind
	why  string
	// at is when next is to be asked again at the latest; zero for no time.
	at time.Time
}

// vmFact is what is known of the VM in this moment.
type vmFact int

const (
	vmUnknown vmFact = iota
	vmNone
	vmLive
)

// view is everything that a decision is made from.
type view struct {
	rec *records
	vm  vmFact
	// stopping: a goroutine of this agent is at asking the guest to stop.
	stopping bool
	now      time.Time
	// bootTimeout bounds a boot. hydrateAt is when hydration is to be looked at again.
	bootTimeout time.Duration
	hydrateAt   time.Time
	// sendAt is when the sending of the memory is to be looked at again.
	sendAt time.Time
}

const (
	// maxTries bounds the boots in a row that hang or fail, and the starts in a row that fail before there is a VM.
	maxTries = 3
	// stopSlack is what a guest gets beyond its stop timeout, to unmount and power off.
	stopSlack = 10 * time.Second
	// hydrateAfter is how long hydration waits for the boot, whose reads come first.
	hydrateAfter = 20 * time.Second
)

// Reasons for which a VM is ended.
const (
	whyUser    = "user"
	whyRestart = "restart"
	whyMove    = "move"
	whyDestroy = "destroy"
	whyLost    = "lost"
	whyBoot    = "boot-timeout"
	whyStop    = "stop-timeout"
	whyStray   = "stray"
	whySuspend = "suspend"
)

// next decides what is to be done for a machine. It is the whole brain of the loop: pure, so that every case is a line in a table.
func next(v view) action {
	vm := v.rec.Obs.VM
	switch {
	case v.vm == vmUnknown:
		return action{kind: actFind}
	case v.rec.taking():
		return nextTake(v, v.rec.Move)
	case vm.Live && v.vm == vmNone:
		return action{kind: actSettle}
	case !vm.Live && v.vm == vmLive:
		return action{kind: actKill, why: whyStray}
	}
	if a := nextMemory(v); a.kind != actWait {
		return a
	}
	if a := nextMove(v); a.kind != actWait {
		return a
	}
	if vm.Live {
		return soonest(soonest(soonest(nextSend(v), nextRunning(v)), hydration(v)), afterwards(v))
	}
	return soonest(nextIdle(v), hydration(v))
}

// soonest returns the first of two that is to be done now, or the earlier of two waits.
func soonest(a, b action) action {
	switch {
	case a.kind != actWait:
		return a
	case b.kind != actWait:
		return b
	case a.at.IsZero(), !b.at.IsZero() && b.at.Before(a.at):
		return b
	}
	return a
}

// nextRunning decides for a machine with a VM.
func nextRunning(v view) action {
	vm := v.rec.Obs.VM
	if vm.Killed != "" {
		return action{kind: actKill, why: vm.Killed} // cut between the record and the kill
	}
	why := mustEnd(v.rec)
	switch why {
	case "":
		if !vm.StopAt.IsZero() {
			return goOnStopping(v, vm.StopWhy) // it was asked to stop and will; what comes then is decided then
		}
	case whyDestroy, whyLost:
		return action{kind: actKill, why: why}
	default:
		return goOnStopping(v, why)
	}
	switch {
	case suspendDue(v.rec):
		return action{kind: actSuspend}
	case v.rec.Desired.Machine.Run > vm.Run && continued(v.rec):
		return action{kind: actGoOnAs}
	case vm.MainStarted || vm.Exit != nil:
		return action{kind: actWait}
	}
	deadline := vm.At.Add(v.bootTimeout)
	if vm.Checking {
		deadline = deadline.Add(guest.CheckDeadline)
	}
	if !v.now.Before(deadline) {
		return action{kind: actKill, why: whyBoot}
	}
	return action{kind: actWait, at: deadline}
}

// goOnStopping stops a VM: first asked, then, when the time is over, killed.
func goOnStopping(v view, why string) action {
	vm := v.rec.Obs.VM
	if vm.StopAt.IsZero() {
		return action{kind: actStop, why: why}
	}
	_, timeout := stopOf(v.rec)
	deadline := vm.StopAt.Add(timeout + stopSlack)
	switch {
	case !v.now.Before(deadline):
		return action{kind: actKill, why: whyStop}
	case !v.stopping:
		return action{kind: actStop, why: vm.StopWhy}
	}
	return action{kind: actWait, at: deadline}
}

// mustEnd tells for what a VM that runs has to end; "" when it may run on.
func mustEnd(r *records) string {
	src := r.source()
	switch {
	case r.Obs.Lost != nil, r.Desired == nil:
		return whyLost
	case src != nil && src.Moved != 0:
		return whyLost
	case src.handedOver():
		return "" // it executes nothing; whether it ever will again is for the placement to tell, or for an abort
	case r.goal() == drover.GoalDestroyed:
		return whyDestroy
	case src != nil && src.Hold && src.Ending == "":
		return whyMove
	case r.goal() == drover.GoalStopped:
		return whyUser
	case r.Desired.Machine.Run > r.Obs.VM.Run && !continued(r):
		return whyRestart
	}
	return ""
}

// wantsVM reports whether the machine should have a VM, now or after a back-off.
func wantsVM(r *records) bool {
	src := r.source()
	switch {
	case r.Desired == nil, r.Obs.Lost != nil, r.goal() != drover.GoalStarted:
		return false
	case src != nil && (src.Hold || src.Frozen || src.Ending != ""):
		return false
	case r.Obs.Over && r.Desired.Machine.Run <= r.Obs.OverRun:
		return false
	}
	return true
}

// nextIdle decides for a machine without a VM.
func nextIdle(v view) action {
	r := v.rec
	if r.Desired == nil {
		return action{kind: actWait}
	}
	if wantsVM(r) {
		if t := r.target(); t != nil && !t.Cloned {
			return action{kind: actWait} // nextMove is at the clones
		}
		if r.Obs.Memory.whole() && r.source() != nil {
			return action{kind: actWait} // the migration was told of the memory: who owns the machine at its end goes on from it
		}
		// A start that a user asks for does not wait for the back-off of an older one.
		if v.before(r.Obs.RetryAt, retryMost) && r.Desired.Machine.Run <= r.Obs.Status.Run {
			return action{kind: actWait, at: r.Obs.RetryAt}
		}
		return action{kind: actStart}
	}
	if src := r.source(); src != nil && (src.Hold || src.Frozen) {
		return action{kind: actWait}
	}
	switch {
	case len(r.Obs.Open) > 0:
		return action{kind: actClose}
	case r.Obs.Lost != nil:
		if t := r.target(); t != nil && t.adopted() && !t.Hydrated && r.Obs.Lost.Host == "" {
			return action{kind: actWait} // the machine was destroyed, its volumes are still on their way here
		}
		return action{kind: actForget}
	case r.goal() == drover.GoalDestroyed:
		if r.Obs.Status.State == drover.StateDestroyed {
			return action{kind: actWait}
		}
		return action{kind: actDestroy}
	case r.unprepared():
		return action{kind: actPrepare}
	case !atRest(r):
		return action{kind: actRest}
	}
	return action{kind: actWait}
}

// unprepared reports whether a machine was created, is not to be started yet, and may not have a root disk. While it moves, its clone is that.
func (r *records) unprepared() bool {
	if r.goal() != drover.GoalStopped || r.Obs.Status.State != drover.StateCreated {
		return false
	}
	return r.Move == nil || r.Move.adopted() && r.Move.Cloned
}

// atRest reports whether the stored state of a machine that does not run is the one that it should have.
func atRest(r *records) bool {
	s := r.Obs.Status
	if r.keepsMemory() {
		return s.State == drover.StateSuspended
	}
	if r.goal() == drover.GoalStopped || r.goal() == drover.GoalSuspended {
		idle := s.State == drover.StateStopped || s.State == drover.StateCreated || s.State == drover.StateFailed
		idle = idle && (s.State != drover.StateCreated || s.Reason == "") // a start that was called off
		return idle && s.Instance == r.Desired.Machine.Instance && r.Obs.RetryAt.IsZero()
	}
	return s.State == drover.StateStopped || s.State == drover.StateFailed
}

// nextMove decides what a migration asks for. It answers actWait when other things may go on.
func nextMove(v view) action {
	if src := v.rec.source(); src != nil {
		return nextSource(v, src)
	}
	if t := v.rec.target(); t != nil {
		return nextTarget(v, t)
	}
	return action{kind: actWait}
}

func nextSource(v view, src *moveRecord) action {
	idle := !v.rec.Obs.VM.Live
	switch {
	case src.Ending == endingAbort:
		return action{kind: actAbortSource}
	case src.Moved != 0 && !src.Fenced:
		return action{kind: actFence}
	case src.Ending == endingRelease && idle:
		return action{kind: actRelease}
	case src.Ending != "" || src.Moved != 0:
		return action{kind: actWait}
	case !src.Exported && v.rec.suspending():
		return action{kind: actWait} // what it comes to is exported then
	case !src.Exported:
		return action{kind: actExport}
	case src.Round > src.Rounded && !src.Hold:
		return action{kind: actRound}
	case src.Frozen && src.Allocated == nil && idle:
		return action{kind: actFreeze}
	case src.Hold && idle && !heldShown(v.rec):
		return action{kind: actHeld}
	}
	return action{kind: actWait}
}

// heldReason is what a status says of a machine that is stopped for a migration.
func heldReason(m drover.MigrationID) string { return fmt.Sprintf("stopped for its migration %s", m) }

// heldShown reports whether the status tells of the hold, as far as there is something to tell.
func heldShown(r *records) bool {
	return restingState(r.Obs.Status.State) || r.Obs.Status.Reason != ""
}

// restingState reports whether a machine in the state runs nothing and does not mean to.
func restingState(s drover.MachineState) bool {
	switch s {
	case drover.StateStopped, drover.StateSuspended, drover.StateFailed, drover.StateCreated, drover.StateDestroyed:
		return true
	}
	return false
}

func nextTarget(v view, t *moveRecord) action {
	switch {
	case t.Ending == endingAbort:
		return action{kind: actAbortTarget}
	case t.Image == nil && (t.Reserve != nil || t.WantClones):
		return action{kind: actImage}
	case t.WantClones && !t.Cloned:
		return action{kind: actClone}
	}
	return action{kind: actWait}
}

// copies reports whether a round is to be copied here.
func (m *moveRecord) copies() bool {
	return m.Role == roleTarget && m.Round > m.Rounded && m.Image != nil && !m.WantClones && m.Ending == ""
}

// hydration decides about the background copy: of a round before the switch, and of a machine that was handed over to this host.
func hydration(v view) action {
	t := v.rec.target()
	if t != nil && t.copies() {
		if v.now.Before(v.hydrateAt) {
			return action{kind: actWait, at: v.hydrateAt}
		}
		return action{kind: actCopy}
	}
	if t == nil || !t.adopted() || !t.Cloned || t.Hydrated || t.Ending != "" {
		return action{kind: actWait}
	}
	from := t.AdoptedAt.Add(hydrateAfter)
	if v.rec.Obs.VM.MainStarted || !wantsVM(v.rec) {
		from = t.AdoptedAt
	}
	if v.before(v.hydrateAt, hydrateEvery) && from.Before(v.hydrateAt) {
		from = v.hydrateAt
	}
	if v.before(from, hydrateAfter) {
		return action{kind: actWait, at: from}
	}
	return action{kind: actHydrate}
}

// stopOf returns the signal and timeout of a stop: the order's own, else the config's, else the image's signal, else the defaults.
func stopOf(r *records) (signal string, timeout time.Duration) {
	if r.Desired == nil {
		return "SIGINT", 0
	}
	m := r.Desired.Machine
	// The override is for the stop, or the restart, that was asked for; not for one that a move makes later.
	if m.Goal != drover.GoalStarted || r.Obs.VM.Run < m.Run {
		signal, timeout = m.Stop.Signal, time.Duration(m.Stop.Timeout)
	}
	config := m.Config.WithDefaults().StopConfig
	if signal == "" {
		signal = config.Signal
	}
	if timeout == 0 {
		timeout = time.Duration(config.Timeout)
	}
	return signal, min(max(timeout, 0), maxStopTimeout)
}

// maxStopTimeout bounds how long a machine may take to stop.
const maxStopTimeout = 30 * time.Minute
