package host

import (
	"testing"
	"time"

	"drover"
	"drover/guest"
)

func TestNext(t *testing.T) {
	owned := func(goal drover.Goal, obs observed) *records {
		return &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Instance: "i", Goal: goal, Run: 2}}, Obs: obs}
	}
	with := func(r *records, mv moveRecord) *records { r.Move = &mv; return r }
	live := func(vm vmRecord) observed {
		vm.Live, vm.Launched, vm.Run, vm.At = true, true, 2, t0
		return observed{VM: vm}
	}
	state := func(s drover.MachineState) observed {
		return observed{Status: drover.MachineStatus{State: s, Instance: "i", Run: 2}}
	}
	over := state(drover.StateStopped)
	over.Over, over.OverRun = true, 2
	open := over
	open.Open = []drover.LayerID{"l"}
	backing := state(drover.StateStarting)
	backing.RetryAt = t0.Add(time.Minute)
	lostObs := func(o observed) observed { o.Lost = &lost{Host: "x"}; return o }
	exported := moveRecord{Role: roleSource, Migration: "m", Exported: true}
	held := exported
	held.Hold = true
	frozen := held
	frozen.Frozen = true
	allFrozen := frozen
	allFrozen.Allocated = map[drover.DiskID]drover.Bytes{}
	moved := allFrozen
	moved.Moved = 9
	fenced := moved
	fenced.Fenced = true
	ending := func(mv moveRecord, e moveEnding) moveRecord { mv.Ending = e; return mv }
	reserved := moveRecord{Role: roleTarget, Migration: "m", Reserve: &drover.MoveReserveRequest{}}
	ready := reserved
	ready.Image = &drover.ImageLayer{}
	cloning := ready
	cloning.WantClones = true
	adopted := cloning
	adopted.AdoptedAt = t0
	cloned := adopted
	cloned.Cloned = true
	hydrated := cloned
	hydrated.Hydrated = true

	cases := []struct {
		name string
		rec  *records
		vm   vmFact
		now  time.Duration
		busy bool
		want actionKind
		at   time.Duration // of a wait
	}{
		{"nothing is known of the VM", owned("started", observed{}), vmUnknown, 0, false, actFind, 0},
		{"the VM ended", owned("started", live(vmRecord{})), vmNone, 0, false, actSettle, 0},
		{"a VM that no record speaks of", owned("started", observed{}), vmLive, 0, false, actKill, 0},
		{"to be started", owned("started", state("created")), vmNone, 0, false, actStart, 0},
		{"back-off", owned("started", backing), vmNone, 0, false, actWait, time.Minute},
		{"back-off is over", owned("started", backing), vmNone, time.Minute, false, actStart, 0},
		{"boots", owned("started", live(vmRecord{})), vmLive, time.Second, false, actWait, 30 * time.Second},
		{"boot hangs", owned("started", live(vmRecord{})), vmLive, 30 * time.Second, false, actKill, 0},
		{"boot checks a file system", owned("started", live(vmRecord{Checking: true})), vmLive, 30 * time.Second, false, actWait, 30*time.Second + guest.CheckDeadline},
		{"boot checks a file system and hangs", owned("started", live(vmRecord{Checking: true})), vmLive, 30*time.Second + guest.CheckDeadline, false, actKill, 0},
		{"runs", owned("started", live(vmRecord{MainStarted: true})), vmLive, time.Hour, false, actWait, 0},
		{"main process ended, VM not yet", owned("started", live(vmRecord{MainStarted: true, Exit: &exitReport{}})), vmLive, time.Hour, false, actWait, 0},
		{"to be stopped", owned("stopped", live(vmRecord{MainStarted: true})), vmLive, 0, false, actStop, 0},
		{"is stopping", owned("stopped", live(vmRecord{StopAt: t0})), vmLive, time.Second, true, actWait, 15 * time.Second},
		{"was stopping before the agent came", owned("stopped", live(vmRecord{StopAt: t0})), vmLive, time.Second, false, actStop, 0},
		{"does not stop", owned("stopped", live(vmRecord{StopAt: t0})), vmLive, 15 * time.Second, true, actKill, 0},
		{"stopping, and started again", owned("started", live(vmRecord{StopAt: t0})), vmLive, time.Second, true, actWait, 15 * time.Second},
		{"restart", &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Goal: "started", Run: 3}}, Obs: live(vmRecord{MainStarted: true})}, vmLive, 0, false, actStop, 0},
		{"destroyed while it runs", owned("destroyed", live(vmRecord{MainStarted: true})), vmLive, 0, false, actKill, 0},
		{"destroyed", owned("destroyed", over), vmNone, 0, false, actDestroy, 0},
		{"destroyed and open", owned("destroyed", open), vmNone, 0, false, actClose, 0},
		{"destroyed, done", owned("destroyed", state("destroyed")), vmNone, 0, false, actWait, 0},
		{"its run is over", owned("started", over), vmNone, 0, false, actWait, 0},
		{"its run is over, open", owned("started", open), vmNone, 0, false, actClose, 0},
		{"stopped, state not yet", owned("stopped", state("starting")), vmNone, 0, false, actRest, 0},
		{"lost and runs", owned("started", lostObs(live(vmRecord{MainStarted: true}))), vmLive, 0, false, actKill, 0},
		{"lost and open", owned("started", lostObs(open)), vmNone, 0, false, actClose, 0},
		{"lost", owned("started", lostObs(over)), vmNone, 0, false, actForget, 0},

		{"export", with(owned("started", live(vmRecord{MainStarted: true})), moveRecord{Role: roleSource}), vmLive, 0, false, actExport, 0},
		{"exported and runs", with(owned("started", live(vmRecord{MainStarted: true})), exported), vmLive, 0, false, actWait, 0},
		{"exported and crashed", with(owned("started", state("starting")), exported), vmNone, 0, false, actStart, 0},
		{"quiesce", with(owned("started", live(vmRecord{MainStarted: true})), held), vmLive, 0, false, actStop, 0},
		{"quiesce in a back-off", with(owned("started", state("starting")), held), vmNone, 0, false, actHeld, 0},
		{"freeze", with(owned("started", state("stopped")), frozen), vmNone, 0, false, actFreeze, 0},
		{"frozen, waits for the placement", with(owned("started", state("stopped")), allFrozen), vmNone, time.Hour, false, actWait, 0},
		{"frozen and a VM all the same", with(owned("started", live(vmRecord{MainStarted: true})), allFrozen), vmLive, 0, false, actStop, 0},
		{"moved", with(owned("started", state("stopped")), moved), vmNone, 0, false, actFence, 0},
		{"moved, serves its exports", with(owned("started", state("stopped")), fenced), vmNone, 0, false, actWait, 0},
		{"moved and a VM all the same", with(owned("started", live(vmRecord{MainStarted: true})), fenced), vmLive, 0, false, actKill, 0},
		{"released, fence first", with(owned("started", state("stopped")), ending(moved, endingRelease)), vmNone, 0, false, actFence, 0},
		{"released", with(owned("started", state("stopped")), ending(fenced, endingRelease)), vmNone, 0, false, actRelease, 0},
		{"aborted", with(owned("started", state("stopped")), ending(allFrozen, endingAbort)), vmNone, 0, false, actAbortSource, 0},
		{"aborted while it runs", with(owned("started", live(vmRecord{MainStarted: true})), ending(exported, endingAbort)), vmLive, 0, false, actAbortSource, 0},

		{"reserved", with(&records{}, reserved), vmNone, 0, false, actImage, 0},
		{"reserved, ready", with(&records{}, ready), vmNone, 0, false, actWait, 0},
		{"clone", with(&records{}, cloning), vmNone, 0, false, actClone, 0},
		{"target aborted", with(&records{}, ending(cloning, endingAbort)), vmNone, 0, false, actAbortTarget, 0},
		{"adopted without clones", with(owned("started", state("starting")), adopted), vmNone, 0, false, actClone, 0},
		{"adopted, boots before it hydrates", with(owned("started", state("starting")), cloned), vmNone, 0, false, actStart, 0},
		{"boots, hydration waits", with(owned("started", live(vmRecord{})), cloned), vmLive, time.Second, false, actWait, hydrateAfter},
		{"boots long, hydration begins", with(owned("started", live(vmRecord{})), cloned), vmLive, hydrateAfter, false, actHydrate, 0},
		{"runs and hydrates", with(owned("started", live(vmRecord{MainStarted: true})), cloned), vmLive, time.Second, false, actHydrate, 0},
		{"stopped and hydrates", with(owned("stopped", state("stopped")), cloned), vmNone, 0, false, actHydrate, 0},
		{"hydrated", with(owned("started", live(vmRecord{MainStarted: true})), hydrated), vmLive, 0, false, actWait, 0},
		{"nothing at all", &records{}, vmNone, 0, false, actWait, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := next(view{rec: c.rec, vm: c.vm, stopping: c.busy, now: t0.Add(c.now), bootTimeout: 30 * time.Second})
			if got.kind != c.want {
				t.Errorf("got %s (%s), want %s", got.kind, got.why, c.want)
			}
			if c.at != 0 && !got.at.Equal(t0.Add(c.at)) {
				t.Errorf("waits until %s, want %s", got.at.Sub(t0), c.at)
			}
		})
	}
}
