package host

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

const (
	// backoffMin and backoffMax bound the wait before a restart by the policy; it doubles in between.
	backoffMin = time.Second
	backoffMax = 30 * time.Second
	// stableAfter is how long a main process must run for earlier ends not to count any more.
	stableAfter = time.Minute
)

// backoff is the wait before the n-th try in a row; the first is 1.
func backoff(n int) time.Duration {
	d := backoffMin
	for ; n > 1 && d < backoffMax; n-- {
		d *= 2
	}
	return min(d, backoffMax)
}

// end is how a VM ended, as far as anybody saw it.
type end struct {
	at     time.Time
	reason string
	// watched: this agent was attached to the VM when it ended. If not, the host may have lost its power.
	watched bool
	// short is what this host has too little of, or what ails its disk, in words; empty when it does well.
	short string
}

// settle deals with the end of a VM: it writes the observed record as it is afterwards, and the events that tell of it. Nothing is
// left to the moment but the arguments. It changes r.
func settle(r *records, e end, now time.Time) {
	o := &r.Obs
	vm := o.VM
	o.VM.Live = false
	if r.settleMemory(e, now) {
		return
	}
	if !vm.Launched && vm.Exit == nil && !vm.MainStarted {
		return // there never was a VM: the start is made again, and not counted
	}
	o.Status.StoppedAt = e.at
	if r.Desired != nil {
		o.Status.Checks = firstChecks(r.Desired.Machine.Config, e.at, "the machine is not running")
	}
	if vm.Exit != nil {
		code := vm.Exit.Code
		o.Status.ExitCode = &code
		if o.Status.StoppedAt.IsZero() {
			o.Status.StoppedAt = vm.Exit.At
		}
	}
	if src := r.source(); src != nil && src.Hold && src.Ending == "" && src.StoppedAt.IsZero() {
		src.StoppedAt = o.Status.StoppedAt
	}
	requested := !vm.StopAt.IsZero() || vm.Killed != "" && vm.Killed != whyBoot
	switch {
	case requested:
		r.settleRequested(e, now)
	case vm.Killed == whyBoot:
		r.bootFailed(e, "boot-timeout", fmt.Sprintf("the main process did not start within %s", e.at.Sub(vm.At).Round(time.Second)), now)
	case vm.Exit != nil:
		r.settleExit(now)
	case !e.watched && vm.BootError == "":
		// A power cut, or everything on the host was killed: not the machine's own doing, so no policy is asked.
		o.Status.State = drover.StateStarting
		o.RetryAt = time.Time{}
		r.event(now, event{kind: "restart", source: "drover", text: "the VM was gone when the host came back"})
	case !vm.MainStarted && vm.BootError != "":
		r.bootFailed(e, "exit", vm.BootError, now)
	case !vm.MainStarted:
		r.bootFailed(e, "exit", "the VM ended during the boot: "+e.reason, now)
	default:
		r.settleLostVM(e, now)
	}
}

// settleRequested is the end of a VM that was to end. What comes next is decided from the goal.
func (r *records) settleRequested(e end, now time.Time) {
	o := &r.Obs
	o.Status.State = drover.StateStopping
	if r.Desired != nil && r.goal() == drover.GoalStopped {
		o.Status.State = drover.StateStopped
	}
	o.RetryAt, o.Retries, o.BootTries = time.Time{}, 0, 0
	text := ""
	if o.VM.Killed == whyStop {
		text = "it did not end in time and was killed"
	}
	if o.VM.Exit != nil && o.VM.Exit.OOM {
		r.event(now, event{kind: "oom", source: "guest", text: "the guest ran out of memory"})
	}
	r.event(now, event{kind: "exit", source: "guest", text: text, request: r.exitRequest(exitInfo{requested: true, restarting: o.VM.StopWhy == whyRestart, at: e.at})})
	// One that was to be there only as long as it runs is not kept for a start that nobody wants.
	o.Destroy = o.Status.State == drover.StateStopped && o.VM.StopWhy == whyUser && r.Desired.Machine.Config.AutoDestroy
}

// settleExit is the end of a main process by itself: the restart policy says what comes next.
func (r *records) settleExit(now time.Time) {
	o := &r.Obs
	exit := *o.VM.Exit
	if o.VM.MainStarted && exit.At.Sub(o.Status.StartedAt) >= stableAfter {
		o.Retries = 0
	}
	if exit.OOM {
		r.event(now, event{kind: "oom", source: "guest", text: "the guest ran out of memory"})
	}
	why := fmt.Sprintf("the main process ended with code %d", exit.Code)
	if exit.Text != "" {
		why += ": " + exit.Text
	}
	r.applyPolicy(exit.Code != 0, why, exit.At, now)
}

// settleLostVM is the end of a VM that nobody asked for and that told nothing.
func (r *records) settleLostVM(e end, now time.Time) {
	o := &r.Obs
	if e.at.Sub(o.Status.StartedAt) >= stableAfter {
		o.Retries = 0
	}
	o.Status.ExitCode = nil
	r.applyPolicy(true, "the VM ended without a word of the main process's end: "+e.reason, e.at, now)
}

// applyPolicy decides between another start and the end of the run. failed says whether it counts as a failure, at is when it ended.
func (r *records) applyPolicy(failed bool, why string, at, now time.Time) {
	o := &r.Obs
	policy := r.Desired.Machine.Config.WithDefaults().Restart
	again := policy.Policy == drover.RestartAlways || policy.Policy == drover.RestartOnFailure && failed
	usedUp := again && policy.Policy == drover.RestartOnFailure && o.Retries >= policy.MaxRetries
	if !again || usedUp {
		o.Over, o.OverRun = true, o.VM.Run
		o.RetryAt, o.Retries = time.Time{}, 0
		o.Status.State, o.Status.Reason = drover.StateStopped, ""
		switch {
		case usedUp:
			o.Status.State = drover.StateFailed
			o.Status.Reason = fmt.Sprintf("%s; %d restarts in a row did not help", why, policy.MaxRetries)
		case failed && o.VM.Exit == nil:
			o.Status.State, o.Status.Reason = drover.StateFailed, why
		}
		o.Destroy = r.Desired.Machine.Config.AutoDestroy
		r.event(now, event{kind: "exit", source: "guest", text: why, request: r.exitRequest(exitInfo{at: at})})
		return
	}
	o.Retries++
	o.Status.Restarts++
	wait := backoff(o.Retries)
	o.RetryAt = now.Add(wait)
	o.Status.State = drover.StateStarting
	o.Status.Reason = fmt.Sprintf("%s; restart %d in %s", why, o.Retries, wait)
	r.event(now, event{kind: "exit", source: "guest", text: why, request: r.exitRequest(exitInfo{restarting: true, at: at})})
	r.event(now, event{kind: "restart", source: "drover", text: fmt.Sprintf("restart %d by the policy %q in %s", o.Retries, policy.Policy, wait)})
}

// bootFailed counts a boot that did not get to its main process. One on a host that is short of something is made again for as long as that is so, and
// not counted: that the guest could not mount its disks or swap is no wonder then.
func (r *records) bootFailed(e end, kind, why string, now time.Time) {
	o := &r.Obs
	if e.short != "" {
		r.startFailed(drover.Errorf(drover.Unavailable, "the boot failed (%s) while %s", why, e.short), now)
		r.event(now, event{kind: kind, source: "drover", text: why + ", while " + e.short, request: r.exitRequest(exitInfo{restarting: true, at: e.at})})
		return
	}
	o.BootTries++
	o.Status.State = drover.StateStarting
	o.Status.Reason = fmt.Sprintf("boot %d of %d failed: %s", o.BootTries, maxTries, why)
	o.RetryAt = time.Time{}
	if o.BootTries >= maxTries {
		r.fail(fmt.Sprintf("%d boots in a row failed; the last: %s", o.BootTries, why))
	}
	r.event(now, event{kind: kind, source: "drover", text: why, request: r.exitRequest(exitInfo{restarting: !o.Over, at: e.at})})
}

// startFailed counts a start that failed before there was a VM. A cause that stays is the end of the run; one that is somebody
// else's to mend is waited for, as long as it takes.
func (r *records) startFailed(err error, now time.Time) {
	o := &r.Obs
	o.StartTries++
	permanent := drover.Is(err, drover.Invalid) || drover.Is(err, drover.NotFound) || drover.Is(err, drover.Denied)
	waits := drover.Is(err, drover.Unavailable) || drover.Is(err, drover.Conflict) || drover.Is(err, drover.Canceled) || scarce(err)
	if permanent || !waits && o.StartTries >= maxTries {
		r.fail("cannot start: " + err.Error())
		r.event(now, event{kind: "start-failed", source: "drover", text: "the start failed: " + err.Error()})
		return
	}
	wait := backoff(o.StartTries)
	o.RetryAt = now.Add(wait)
	o.Status.Run = r.Desired.Machine.Run
	o.Status.State = drover.StateStarting
	o.Status.Reason = fmt.Sprintf("cannot start yet: %s; next try in %s", err, wait)
}

// scarce reports whether an error comes from what this host has too little of, or from its disk: that is mended sooner or later, or the machine is moved away, and a
// machine that had failed for good would not be started then.
func scarce(err error) bool {
	return drover.Is(err, drover.Exhausted) || slices.ContainsFunc([]unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EIO, unix.EROFS},
		func(e unix.Errno) bool { return errors.Is(err, e) })
}

// fail ends the run: the machine stays failed until a user starts it again.
func (r *records) fail(reason string) {
	o := &r.Obs
	o.Over, o.OverRun = true, r.Desired.Machine.Run
	o.RetryAt, o.Retries, o.BootTries, o.StartTries = time.Time{}, 0, 0, 0
	o.Status.Run = r.Desired.Machine.Run
	o.Status.State, o.Status.Reason = drover.StateFailed, reason
}

// exitInfo is what an exit event tells besides what the guest reported.
type exitInfo struct {
	requested, restarting bool
	at                    time.Time
}

// unknownExit stands for an exit code that nobody saw, and for no signal.
const unknownExit = -1

// exitRequest is what an exit event tells, with the names that clients of the Machines API look for: exit_code is the main process's, 128+N
// after signal N.
func (r *records) exitRequest(i exitInfo) map[string]any {
	vm := r.Obs.VM
	code, guestSignal, signal, oom := unknownExit, unknownExit, unknownExit, false
	if vm.Exit != nil {
		code, oom = vm.Exit.Code, vm.Exit.OOM
		if vm.Exit.Signal > 0 {
			guestSignal = vm.Exit.Signal
		}
		i.at = vm.Exit.At
	}
	if vm.Killed != "" {
		signal = int(unix.SIGKILL)
	}
	m := map[string]any{"requested_stop": i.requested, "oom_killed": oom, "restart_count": r.Obs.Status.Restarts,
		"exit_event": map[string]any{"exit_code": code, "guest_exit_code": code, "guest_signal": guestSignal, "signal": signal, "oom_killed": oom,
			"requested_stop": i.requested, "restarting": i.restarting, "exited_at": i.at.UTC().Format(time.RFC3339Nano)}}
	if vm.Exit != nil {
		m["exit_code"] = code
	}
	return m
}

// event is an event to be added.
type event struct {
	kind, source, text string
	request            map[string]any
}

// event adds an event with the state as it is now. Its ID is unique for ever: no two placements share an epoch.
func (r *records) event(now time.Time, e event) {
	o := &r.Obs
	o.Seq++
	o.Status.Events = append(o.Status.Events, drover.Event{
		ID:     fmt.Sprintf("%s-%d-%d", o.Status.Machine, o.Status.Epoch, o.Seq),
		Type:   e.kind,
		Status: o.Status.State, Source: e.source, Text: e.text, Request: e.request, At: now,
		Run: o.Status.Run, Instance: o.Status.Instance,
	})
	if n := len(o.Status.Events); n > drover.MaxEvents {
		o.Status.Events = o.Status.Events[n-drover.MaxEvents:]
	}
}
