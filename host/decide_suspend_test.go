package host

import (
	"testing"
	"time"

	"drover"
)

func TestNextOfASuspension(t *testing.T) {
	type change func(r *records)
	rec := func(goal drover.Goal, changes ...change) *records {
		r := &records{Desired: &drover.ApplyRequest{Machine: drover.Machine{Instance: "i", Goal: goal, Run: 2, Suspend: 1}},
			Obs: observed{Status: drover.MachineStatus{State: drover.StateSuspended, Instance: "i", Run: 2}}}
		for _, c := range changes {
			c(r)
		}
		return r
	}
	live := func(fn func(vm *vmRecord)) change {
		return func(r *records) {
			r.Obs.Status.State = drover.StateStarted
			r.Obs.VM = vmRecord{Live: true, Launched: true, Launch: 1, Instance: "i", Run: 2, At: t0, MainStarted: true}
			if fn != nil {
				fn(&r.Obs.VM)
			}
		}
	}
	runs := live(nil)
	resuming := live(func(vm *vmRecord) { vm.Resuming = true })
	loaded := live(func(vm *vmRecord) { vm.Resuming, vm.Loaded = true, true })
	memory := func(m memoryRecord) change {
		return func(r *records) { m.Layer, m.Launch, m.Instance = "mem", 1, "i"; r.Obs.Memory = &m }
	}
	begun, saved := memory(memoryRecord{}), memory(memoryRecord{Saved: true})
	failed, spent := memory(memoryRecord{Failed: "why"}), memory(memoryRecord{Saved: true, Spent: true})
	resume := func(r *records) { r.Desired.Machine.Resume = true }
	run3 := func(r *records) { r.Desired.Machine.Run = 3 }
	tried := func(r *records) { r.Obs.SuspendOver = 1 }
	gone := func(r *records) { r.Obs.Lost = &lost{Host: "x"} }
	open := func(r *records) { r.Obs.Open = []drover.LayerID{"l"} }
	source := func(mv moveRecord) change {
		return func(r *records) { mv.Role, mv.Migration = roleSource, "m"; r.Move = &mv }
	}
	exported := source(moveRecord{Exported: true})
	arriving := func(r *records) {
		r.Move = &moveRecord{Role: roleTarget, Migration: "m", Image: &drover.ImageLayer{}, WantClones: true, AdoptedAt: t0}
	}
	cases := []struct {
		name string
		rec  *records
		vm   vmFact
		want actionKind
	}{
		{"to be suspended", rec("suspended", runs), vmLive, actSuspend},
		{"tried in vain", rec("suspended", runs, tried), vmLive, actWait},
		{"boots yet", rec("suspended", live(func(vm *vmRecord) { vm.MainStarted = false })), vmLive, actWait},
		{"ends by itself", rec("suspended", live(func(vm *vmRecord) { vm.Exit = &exitReport{} })), vmLive, actWait},
		{"stops", rec("suspended", live(func(vm *vmRecord) { vm.StopAt, vm.StopWhy = t0, whyUser })), vmLive, actStop},
		{"a migration has begun before", rec("suspended", runs, exported), vmLive, actWait},
		{"cut while it was written", rec("suspended", runs, begun), vmLive, actSuspend},
		{"an export waits for it", rec("suspended", runs, begun, source(moveRecord{})), vmLive, actSuspend},
		{"an export waits for the end of its VM", rec("suspended", runs, saved, source(moveRecord{})), vmLive, actKill},
		{"cannot be written", rec("suspended", runs, failed), vmLive, actUnsuspend},
		{"started before the mark", rec("started", runs, begun, resume, run3), vmLive, actUnsuspend},
		{"stopped before the mark", rec("stopped", runs, begun), vmLive, actUnsuspend},
		{"destroyed before the mark", rec("destroyed", runs, begun), vmLive, actKill},
		{"lost before the mark", rec("suspended", runs, begun, gone), vmLive, actKill},
		{"the VM ended before the mark", rec("suspended", begun), vmNone, actDropMemory},
		{"past the mark", rec("suspended", runs, saved), vmLive, actKill},
		{"past the mark, and started", rec("started", runs, saved, resume, run3), vmLive, actKill},
		{"past the mark, and destroyed", rec("destroyed", runs, saved), vmLive, actKill},
		{"past the mark, the VM is gone", rec("suspended", runs, saved), vmNone, actSettle},
		{"no VM, layers open", rec("suspended", saved, open), vmNone, actClose},
		{"state not yet", rec("suspended", saved, func(r *records) { r.Obs.Status.State = drover.StateSuspending }), vmNone, actRest},
		{"suspended", rec("suspended", saved), vmNone, actWait},
		{"without a memory", rec("suspended"), vmNone, actRest},
		{"resume", rec("started", saved, resume, run3), vmNone, actStart},
		{"resume while it moves", rec("started", saved, resume, run3, exported), vmNone, actWait},
		{"resume before its disks are there", rec("started", saved, resume, run3, arriving), vmNone, actClone},
		{"stop", rec("stopped", saved), vmNone, actDropMemory},
		{"stop while it moves", rec("stopped", saved, exported), vmNone, actRest},
		{"restart", rec("started", saved, run3), vmNone, actDropMemory},
		{"restart while it moves", rec("started", saved, run3, exported), vmNone, actWait},
		{"another config", rec("suspended", saved, func(r *records) { r.Desired.Machine.Instance = "j" }), vmNone, actDropMemory},
		{"destroy", rec("destroyed", saved), vmNone, actDropMemory},
		{"lost", rec("suspended", saved, gone), vmNone, actDropMemory},
		{"given up", rec("started", spent, run3), vmNone, actDropMemory},
		{"the resuming was cut", rec("started", saved, resume, resuming), vmLive, actKill},
		{"the resuming was cut, the VM is gone", rec("started", saved, resume, resuming), vmNone, actSettle},
		{"the memory is of no use to the VM", rec("started", spent, resume, resuming), vmLive, actKill},
		{"has its memory", rec("started", spent, resume, loaded), vmLive, actGoOn},
		{"has its memory, and is to be stopped", rec("stopped", spent, loaded), vmLive, actGoOn},
		{"has its memory, and is to be suspended", rec("suspended", spent, loaded, func(r *records) { r.Desired.Machine.Suspend = 9 }), vmLive, actGoOn},
		{"has its memory, and is destroyed", rec("destroyed", spent, loaded), vmLive, actKill},
		{"goes on, the image is left", rec("started", spent, resume, runs), vmLive, actDropMemory},
		{"goes on, to be stopped first", rec("stopped", spent, runs), vmLive, actStop},
		{"its clock", rec("started", resume, live(func(vm *vmRecord) { vm.ClockDue = t0 })), vmLive, actClock},
		{"was never suspended, and started", rec("started", runs, resume, run3), vmLive, actGoOnAs},
		{"was never suspended, and restarted", rec("started", runs, run3), vmLive, actStop},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := next(view{rec: c.rec, vm: c.vm, now: t0.Add(time.Second), bootTimeout: 30 * time.Second})
			if got.kind != c.want {
				t.Errorf("got %s (%s), want %s", got.kind, got.why, c.want)
			}
		})
	}
}
