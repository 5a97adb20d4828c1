package host

import (
	"context"
	"time"

	"drover"
)

// fakeMove is the memory of a VM on its way, at either side.
type fakeMove struct {
	state   drover.VMTransferState
	reason  string
	address string
	from    drover.HostID // who may send
	to      *fakeVM
	begun   time.Time
	paused  time.Time
	resumed time.Time
	changes chan struct{}
}

// fakeCopy is how long the memory of a fake VM takes, fakeRest the rest of its state.
const (
	fakeCopy = 250 * time.Millisecond
	fakeRest = 30 * time.Millisecond
)

func (m *fakeMove) tell() {
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

// runs reports whether the VM executes.
func (vm *fakeVM) runs() bool { return !vm.still }

func (v sessionVM) Changes() <-chan struct{} { return v.move.changes }

func (v sessionVM) LiveBlocker(context.Context) (string, error) {
	return v.plan.blocker, v.s.look(func() error { return nil })
}

func (v sessionVM) Listen(_ context.Context, address string, peer drover.HostID) (at string, err error) {
	err = v.s.effect("vm-listen", func() error {
		if !v.spec.Incoming {
			return drover.Errorf(drover.Precondition, "it waits for nothing")
		}
		v.move.address, v.move.from = address+" of "+string(v.h.id), peer
		at = v.move.address
		return nil
	})
	return at, err
}

func (v sessionVM) Transfer(context.Context) (t drover.VMTransfer, err error) {
	err = v.s.look(func() error {
		m := v.move
		t = drover.VMTransfer{State: m.state, Reason: m.reason, Running: v.runs(), PausedAt: m.paused, ResumedAt: m.resumed,
			Memory: drover.MemoryMove{Total: drover.GiB, Transferred: drover.GiB / 2, Rounds: 1}}
		return nil
	})
	return t, err
}

func (v sessionVM) SetPause(context.Context, time.Duration) error { return nil }

// Send copies for a while, then the VM stands still.
func (v sessionVM) Send(_ context.Context, to drover.VMSend) error {
	return v.s.effect("vm-send", func() error {
		m := v.move
		if m.state == drover.TransferActive || m.state == drover.TransferPaused || m.state == drover.TransferDone && !v.runs() {
			return nil
		}
		peer := v.h.w.host[to.Peer].vms[v.spec.Machine]
		if peer == nil || peer.move.address != to.Address || peer.move.from != v.h.id {
			m.state, m.reason = drover.TransferFailed, "nobody takes it"
			return nil
		}
		m.state, m.to, m.begun = drover.TransferActive, peer, time.Now()
		peer.move.state = drover.TransferActive
		begun := m.begun
		v.h.w.wg.Go(func() { v.fakeVM.copies(begun) })
		return nil
	})
}

func (vm *fakeVM) copies(begun time.Time) {
	timer := time.NewTimer(fakeCopy)
	defer timer.Stop()
	select {
	case <-vm.done:
		return
	case <-timer.C:
	}
	vm.h.w.mu.Lock()
	defer vm.h.w.mu.Unlock()
	if m := vm.move; m.state == drover.TransferActive && m.begun.Equal(begun) {
		if m.to.h.vms[vm.spec.Machine] != m.to {
			m.state, m.reason = drover.TransferFailed, "the other VM is gone"
		} else {
			m.state, m.paused, vm.still = drover.TransferPaused, time.Now(), true
		}
		m.tell()
	}
}

func (v sessionVM) Handover(context.Context) error {
	return v.s.effect("vm-handover", func() error {
		if v.move.state == drover.TransferPaused {
			v.h.w.wg.Go(v.fakeVM.handsOver)
		}
		return nil
	})
}

func (vm *fakeVM) handsOver() {
	timer := time.NewTimer(fakeRest)
	defer timer.Stop()
	select {
	case <-vm.done:
		return
	case <-timer.C:
	}
	vm.h.w.mu.Lock()
	defer vm.h.w.mu.Unlock()
	m := vm.move
	switch {
	case m.state != drover.TransferPaused:
		return
	case m.to.h.vms[vm.spec.Machine] != m.to:
		m.state, m.reason, vm.still = drover.TransferFailed, "the other VM is gone", false
	default:
		m.state, m.to.move.state, m.to.main = drover.TransferDone, drover.TransferDone, vm.main
		m.to.boot = vm.bootName()
		m.to.move.tell()
	}
	m.tell()
}

func (v sessionVM) TakeBack(context.Context) error {
	return v.s.effect("vm-take-back", func() error {
		m := v.move
		if m.state == drover.TransferActive || m.state == drover.TransferPaused {
			m.state, m.reason = drover.TransferFailed, "it was canceled"
		}
		return v.goesOn()
	})
}

func (v sessionVM) Resume(context.Context) error {
	return v.s.effect("vm-resume", v.goesOn)
}

// goesOn lets the VM execute, which must be the only one of its machine then, with its disks.
func (vm *fakeVM) goesOn() error {
	if vm.h.vms[vm.spec.Machine] != vm {
		return drover.Errorf(drover.Unavailable, "the VM has ended: %s", vm.reason)
	}
	if vm.runs() {
		return nil
	}
	w := vm.h.w
	if p := w.placements[vm.spec.Machine]; p.Host != vm.h.id {
		w.t.Errorf("machine %s goes on on %s, and is placed on %s", vm.spec.Machine, vm.h.id, p.Host)
	}
	for hid, other := range w.host {
		if o := other.vms[vm.spec.Machine]; o != nil && o != vm && o.runs() {
			w.t.Errorf("machine %s goes on on %s while it runs on %s", vm.spec.Machine, vm.h.id, hid)
		}
	}
	if vm.spec.Incoming && vm.move.state != drover.TransferDone {
		w.t.Errorf("machine %s goes on on %s without all of its state", vm.spec.Machine, vm.h.id)
	}
	open := 0
	for _, l := range vm.h.layers {
		if l.status.Writer != 0 && machineOf(w, l.spec.Disk) == vm.spec.Machine {
			open++
		}
	}
	if open != 1+len(vm.spec.Volumes) {
		w.t.Errorf("machine %s goes on on %s with %d open layers", vm.spec.Machine, vm.h.id, open)
	}
	vm.runsNow()
	vm.still, vm.move.resumed = false, time.Now()
	return nil
}

// bootName is the name under which the guest reports.
func (vm *fakeVM) bootName() string {
	if vm.boot != "" {
		return vm.boot
	}
	return vm.h.configs[vm.spec.ConfigPath]
}

func (f fakeStorage) Prepare(_ context.Context, id drover.LayerID, token string) (at Attachment, err error) {
	_, err = f.with("prepare", id, func(l *fakeLayer) error {
		if l.prepared != "" && l.prepared != token {
			return drover.Errorf(drover.Conflict, "layer %q is prepared for %s", id, l.prepared)
		}
		l.prepared = token
		at = Attachment{Transport: drover.TransportVhost, Socket: "p-" + string(id), VhostSocket: "p-" + string(id)}
		return nil
	})
	return at, err
}

func (f fakeStorage) Unprepare(_ context.Context, id drover.LayerID, token string) error {
	_, err := f.with("unprepare", id, func(l *fakeLayer) error {
		if l.prepared == token {
			l.prepared = ""
		}
		return nil
	})
	return err
}

func (f fakeStorage) Flush(_ context.Context, id drover.LayerID) error {
	_, err := f.with("flush", id, func(l *fakeLayer) error { l.flush(); return nil })
	return err
}

func (f fakeFiles) BeginLog(string, int64) error { return nil }
