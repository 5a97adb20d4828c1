package host

import (
	"time"

	"drover"
)

// memoryRecord is the memory of a machine on a disk of its own: being written, whole, or of no use any more. What it must never do is to be
// taken twice: a guest that went on from it has written to its disks since, and would go on a second time with a file system in mind that is not
// there any more. So it is given up, durably, before the guest that has it executes (vmRecord.Loaded), and a VM without it is started only when it
// was given up before.
type memoryRecord struct {
	Layer drover.LayerID `json:"layer"`
	// Ask is the drover.Machine.Suspend that it is for; Launch the VM whose memory it is, 0 for one of another host; Instance the version of the
	// config that the VM was started with, empty for what the layer itself says.
	Ask      uint64            `json:"ask,omitempty"`
	Launch   uint64            `json:"launch,omitempty"`
	Instance drover.InstanceID `json:"instance,omitempty"`
	BegunAt  time.Time         `json:"begun_at,omitzero"`
	// Failed says why it is not written: the VM goes on.
	Failed string `json:"failed,omitempty"`
	// Saved is THE mark: all is written, and durable, and so is what the machine has written to its disks. The VM never executes again.
	Saved bool `json:"saved,omitempty"`
	// Spent: it is never to be used, or used again. What is left of it is removed.
	Spent bool `json:"spent,omitempty"`
}

func (m *memoryRecord) clone() *memoryRecord {
	if m == nil {
		return nil
	}
	c := *m
	return &c
}

// whole reports whether a machine could go on from it.
func (m *memoryRecord) whole() bool { return m != nil && m.Saved && !m.Spent }

// wantsSuspend reports whether a VM that runs is to be suspended, and that was not tried in vain.
func (r *records) wantsSuspend() bool {
	return r.Desired != nil && r.Obs.Lost == nil && r.goal() == drover.GoalSuspended && r.Desired.Machine.Suspend > r.Obs.SuspendOver
}

// suspending reports whether the machine is on its way between running and being suspended.
func (r *records) suspending() bool {
	m := r.Obs.Memory
	return m != nil && !m.Spent && r.Obs.VM.Live && !r.Obs.VM.Resuming
}

// keepsMemory reports whether the machine is, or is to be, suspended with what was saved.
func (r *records) keepsMemory() bool { return r.Obs.Memory.whole() && memoryUnwanted(r) == "" }

// asleep reports whether the machine is suspended, and needs no memory of the host's.
func (r *records) asleep() bool {
	return r.Desired != nil && !r.Obs.VM.Live && r.goal() == drover.GoalSuspended && r.keepsMemory()
}

// memoryUnwanted says why nobody will go on from the memory that was saved; empty when somebody may.
func memoryUnwanted(r *records) string {
	m := r.Obs.Memory
	switch {
	case r.Desired == nil, r.Obs.Lost != nil:
		return "the machine is another host's"
	case r.goal() == drover.GoalDestroyed:
		return "the machine is destroyed"
	case r.goal() == drover.GoalStopped:
		return "the machine was stopped"
	case m.Instance != "" && m.Instance != r.Desired.Machine.Instance:
		return "the machine's config was changed"
	case r.goal() == drover.GoalStarted && !r.Desired.Machine.Resume:
		return "the machine was started anew"
	}
	return ""
}

// nextMemory decides about the memory of a machine that is, was or will be suspended. It answers actWait when other things may go on.
func nextMemory(v view) action {
	r := v.rec
	m, vm, end := r.Obs.Memory, r.Obs.VM, mustEnd(r)
	doomed := end == whyDestroy || end == whyLost
	switch {
	case vm.Resuming && (!vm.Loaded || doomed):
		return action{kind: actKill, why: whyStray} // it executes nothing: the resuming was cut, or nobody wants it any more
	case vm.Resuming:
		return action{kind: actGoOn}
	case m == nil:
		return action{kind: actWait}
	case m.Spent && vm.Live:
		return action{kind: actWait} // see afterwards
	case m.Spent:
		return action{kind: actDropMemory}
	case vm.Live && m.Saved:
		return action{kind: actKill, why: whySuspend}
	case vm.Live && (doomed || vm.Killed != ""):
		return action{kind: actWait} // it is killed
	case vm.Live && m.Failed == "" && r.wantsSuspend():
		return action{kind: actSuspend}
	case vm.Live:
		return action{kind: actUnsuspend}
	case !m.Saved:
		return action{kind: actDropMemory, why: "it was not written to its end"}
	}
	// A migration takes the memory along, whole; it is for the next owner to tell whether it is of use.
	t := r.target()
	if r.source() != nil || t != nil && !t.Cloned {
		return action{kind: actWait}
	}
	if why := memoryUnwanted(r); why != "" {
		return action{kind: actDropMemory, why: why}
	}
	return action{kind: actWait}
}

// afterwards decides about what is left to be done for a machine that has come to run again, when nothing else is.
func afterwards(v view) action {
	switch o := v.rec.Obs; {
	case !o.VM.ClockDue.IsZero() && o.VM.StopAt.IsZero():
		return action{kind: actClock}
	case o.Memory != nil && o.Memory.Spent:
		return action{kind: actDropMemory}
	}
	return action{kind: actWait}
}

// suspendDue reports whether a VM that runs is to be suspended now. While a migration is under way nothing is begun: what it moves was told
// before.
func suspendDue(r *records) bool {
	vm := r.Obs.VM
	return r.wantsSuspend() && r.source() == nil && vm.MainStarted && vm.Exit == nil && vm.StopAt.IsZero() && vm.Killed == ""
}

// continued reports whether a VM that runs is what a start of a suspended machine asked for: the suspending was never begun, or was taken back.
func continued(r *records) bool {
	return r.Desired != nil && r.goal() == drover.GoalStarted && r.Desired.Machine.Resume && r.Obs.VM.Live &&
		r.Desired.Machine.Instance == r.Obs.VM.Instance
}

// settleMemory is a part of settle, for a VM that was on its way out of its memory's image, or into one. It answers true when nothing is left to
// be said of its end.
func (r *records) settleMemory(e end, now time.Time) bool {
	o := &r.Obs
	vm, m := o.VM, o.Memory
	switch {
	case vm.Resuming:
		o.VM = vmRecord{Launch: vm.Launch, Offset: vm.Offset}
		o.Status.State = drover.StateStarting
		if vm.Loaded {
			r.event(now, event{kind: "restart", source: "drover", text: "the VM ended just when it was to go on with the machine's memory: " +
				"the memory is lost, and the machine boots"})
		}
		return true
	case m == nil || m.Spent || m.Launch != vm.Launch:
		return false
	case m.Saved:
		o.Status.State, o.Status.Reason, o.Status.StoppedAt = drover.StateSuspending, "", e.at
		o.RetryAt, o.Retries, o.BootTries = time.Time{}, 0, 0
		return true
	}
	m.Spent = true
	o.SuspendOver = max(o.SuspendOver, m.Ask)
	r.event(now, event{kind: "suspend", source: "drover", text: "the VM ended before all of its memory was written: the memory is lost, and the next start boots"})
	return false
}
