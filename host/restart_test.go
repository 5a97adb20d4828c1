package host

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestSettle(t *testing.T) {
	exit := func(code int, after time.Duration) *exitReport { return &exitReport{Code: code, At: t0.Add(after)} }
	cases := []struct {
		name     string
		policy   drover.RestartPolicy
		goal     drover.Goal
		vm       vmRecord
		retries  int
		boots    int
		short    string
		watched  bool
		auto     bool
		state    drover.MachineState
		over     bool
		wait     time.Duration // until RetryAt; 0: none
		retriesA int
	}{
		{name: "no, exit 0", policy: "no", vm: vmRecord{MainStarted: true, Exit: exit(0, 5)}, watched: true, state: "stopped", over: true},
		{name: "no, exit 3", policy: "no", vm: vmRecord{MainStarted: true, Exit: exit(3, 5)}, watched: true, state: "stopped", over: true},
		{name: "no, VM lost", policy: "no", vm: vmRecord{MainStarted: true}, watched: true, state: "failed", over: true},
		{name: "no, power cut", policy: "no", vm: vmRecord{MainStarted: true}, state: "starting"},
		{name: "on-failure, exit 0", vm: vmRecord{MainStarted: true, Exit: exit(0, 5)}, watched: true, state: "stopped", over: true},
		{name: "on-failure, exit 0 unwatched", vm: vmRecord{MainStarted: true, Exit: exit(0, 5)}, state: "stopped", over: true},
		{name: "on-failure, exit 1", vm: vmRecord{MainStarted: true, Exit: exit(1, 5)}, watched: true, state: "starting", wait: time.Second, retriesA: 1},
		{name: "on-failure, fourth", vm: vmRecord{MainStarted: true, Exit: exit(1, 5)}, retries: 3, watched: true, state: "starting", wait: 8 * time.Second, retriesA: 4},
		{name: "on-failure, back-off ends at 30 s", vm: vmRecord{MainStarted: true, Exit: exit(1, 5)}, retries: 8, watched: true, state: "starting", wait: 30 * time.Second, retriesA: 9},
		{name: "on-failure, used up", vm: vmRecord{MainStarted: true, Exit: exit(1, 5)}, retries: 10, watched: true, state: "failed", over: true},
		{name: "on-failure, used up but stable", vm: vmRecord{MainStarted: true, Exit: exit(1, 2*time.Minute)}, retries: 10, watched: true, state: "starting", wait: time.Second, retriesA: 1},
		{name: "on-failure, VM lost", vm: vmRecord{MainStarted: true}, watched: true, state: "starting", wait: time.Second, retriesA: 1},
		{name: "on-failure, power cut", vm: vmRecord{MainStarted: true}, retries: 10, state: "starting", retriesA: 10},
		{name: "always, exit 0", policy: "always", vm: vmRecord{MainStarted: true, Exit: exit(0, 5)}, watched: true, state: "starting", wait: time.Second, retriesA: 1},
		{name: "always, never used up", policy: "always", vm: vmRecord{MainStarted: true, Exit: exit(1, 5)}, retries: 99, watched: true, state: "starting", wait: 30 * time.Second, retriesA: 100},
		{name: "not executable", policy: "no", vm: vmRecord{Exit: exit(126, 5)}, watched: true, state: "stopped", over: true},
		{name: "stopped by a user", goal: "stopped", vm: vmRecord{MainStarted: true, StopAt: t0, Exit: exit(130, 5)}, watched: true, state: "stopped"},
		{name: "stopped for a restart", vm: vmRecord{MainStarted: true, StopAt: t0, Exit: exit(130, 5)}, watched: true, state: "stopping"},
		{name: "killed after the stop", goal: "stopped", vm: vmRecord{MainStarted: true, StopAt: t0, Killed: whyStop}, watched: true, state: "stopped"},
		{name: "first boot hangs", vm: vmRecord{Killed: whyBoot}, watched: true, state: "starting"},
		{name: "third boot hangs", vm: vmRecord{Killed: whyBoot}, boots: 2, watched: true, state: "failed", over: true},
		{name: "third boot breaks", vm: vmRecord{BootError: "mount"}, boots: 2, watched: true, state: "failed", over: true},
		{name: "third boot breaks on a full host", vm: vmRecord{BootError: "mount"}, boots: 2, short: "the disk is full", watched: true, state: "starting", wait: time.Second},
		{name: "third boot hangs on a full host", vm: vmRecord{Killed: whyBoot}, boots: 2, short: "the disk is full", watched: true, state: "starting", wait: time.Second},
		{name: "power cut in the boot", boots: 2, state: "starting"},
		{name: "auto-destroy", policy: "no", auto: true, vm: vmRecord{MainStarted: true, Exit: exit(0, 5)}, watched: true, state: "stopped", over: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := drover.Machine{ID: "m1", Goal: drover.GoalStarted, Run: 7}
			m.Config.Restart.Policy, m.Config.AutoDestroy = c.policy, c.auto
			if c.goal != "" {
				m.Goal = c.goal
			}
			c.vm.Live, c.vm.Launched, c.vm.Run, c.vm.At = true, true, 7, t0
			r := &records{Desired: &drover.ApplyRequest{Machine: m}, Obs: observed{VM: c.vm, Retries: c.retries, BootTries: c.boots}}
			r.Obs.Status.StartedAt = t0
			now := t0.Add(10 * time.Minute)
			settle(r, end{at: t0.Add(10 * time.Second), reason: "gone", watched: c.watched, short: c.short}, now)
			o := r.Obs
			if o.Status.State != c.state || o.Over != c.over || o.Retries != c.retriesA {
				t.Errorf("state %s over %v retries %d; want %s %v %d (%s)", o.Status.State, o.Over, o.Retries, c.state, c.over, c.retriesA, o.Status.Reason)
			}
			wait := time.Duration(0)
			if !o.RetryAt.IsZero() {
				wait = o.RetryAt.Sub(now)
			}
			if wait != c.wait {
				t.Errorf("waits %s, want %s", wait, c.wait)
			}
			if o.Destroy != c.auto || o.VM.Live || len(o.Status.Events) == 0 {
				t.Errorf("destroy %v live %v events %d", o.Destroy, o.VM.Live, len(o.Status.Events))
			}
			if c.state == drover.StateFailed && o.Status.Reason == "" {
				t.Error("failed without a reason")
			}
		})
	}
}

func TestAStartThatWasCutBeforeTheVMIsNotCounted(t *testing.T) {
	r := &records{Desired: &drover.ApplyRequest{}, Obs: observed{VM: vmRecord{Live: true}, BootTries: 2}}
	settle(r, end{at: t0}, t0)
	if r.Obs.VM.Live || r.Obs.BootTries != 2 || len(r.Obs.Status.Events) != 0 {
		t.Errorf("%+v", r.Obs)
	}
}

func TestStartFailed(t *testing.T) {
	for _, c := range []struct {
		code  drover.Code
		tries int
		fails bool
	}{
		{drover.Invalid, 0, true}, {drover.NotFound, 0, true}, {drover.Denied, 0, true},
		{drover.Exhausted, 0, false}, {drover.Exhausted, 999, false}, {drover.Internal, 2, true},
		{drover.Unavailable, 2, false}, {drover.Unavailable, 999, false}, {drover.Conflict, 999, false},
	} {
		r := &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Run: 3}}, Obs: observed{StartTries: c.tries}}
		r.startFailed(drover.Errorf(c.code, "no"), t0)
		if failed := r.Obs.Status.State == drover.StateFailed; failed != c.fails || failed != r.Obs.Over || r.Obs.Status.Reason == "" {
			t.Errorf("%s after %d: %+v", c.code, c.tries, r.Obs)
		}
		if !c.fails && !r.Obs.RetryAt.After(t0) {
			t.Errorf("%s: no wait before the next try", c.code)
		}
	}
}

// A disk that is full has room again later: the machine must not need a user then.
func TestAStartWaitsForWhatTheHostLacks(t *testing.T) {
	for err, waits := range map[error]bool{
		&fs.PathError{Op: "write", Path: "/x", Err: unix.ENOSPC}: true,
		&fs.PathError{Op: "mkdir", Path: "/x", Err: unix.EIO}:    true,
		os.NewSyscallError("socket", unix.EMFILE):                true,
		&fs.PathError{Op: "open", Path: "/x", Err: unix.EACCES}:  false,
	} {
		r := &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Run: 3}}, Obs: observed{StartTries: 999}}
		r.startFailed(fmt.Errorf("cannot make the link: %w", drover.Errorf(drover.Internal, "cannot store the policy: %w", err)), t0)
		if r.Obs.Over == waits || waits != r.Obs.RetryAt.After(t0) || !strings.Contains(r.Obs.Status.Reason, err.Error()) {
			t.Errorf("%v: %+v", err, r.Obs)
		}
	}
}

func TestEventsAreBoundedAndUnique(t *testing.T) {
	r := &records{Obs: observed{Status: drover.MachineStatus{Machine: "m1", Epoch: 4}}}
	for range 3 * drover.MaxEvents {
		r.event(t0, event{kind: "start"})
	}
	seen := map[string]bool{}
	for _, e := range r.Obs.Status.Events {
		seen[e.ID] = true
	}
	if len(seen) != drover.MaxEvents || !seen["m1-4-150"] {
		t.Errorf("%d IDs", len(seen))
	}
}
