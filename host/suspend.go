package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// StatefulVM is what suspends a VM to a disk and resumes it (qemu.VM). Errors: Unavailable when the VMM does not answer.
type StatefulVM interface {
	// SaveBlocker says why the VM cannot be suspended; empty when it can.
	SaveBlocker(ctx context.Context) (string, error)
	// Save pauses the VM and writes all of its state to w. It stands still afterwards, after an error too, until LiveVM.TakeBack. It may be
	// repeated, also after the VMM's agent died in the middle of it.
	Save(ctx context.Context, w io.Writer) error
	// Load gives a VM that was started to wait its state; LiveVM.Resume lets it execute. Precondition when the state is of no use to
	// the VM. An error of r comes back as it is. After any error the VM is of no use.
	Load(ctx context.Context, r io.Reader) error
}

// saveBound is how long the memory may take to be written, or read.
const saveBound = 15 * time.Minute

// suspend writes the memory of a VM to a disk of its own, to the mark. It begins anew each time: what an earlier agent had written is not
// known to be whole, and the VM may have gone on since. When it fails for another reason than the agent's own end, the VM goes on, and the user
// is told.
func (m *machine) suspend(ctx context.Context) error {
	why, err := call(ctx, m.vm.SaveBlocker)
	if err != nil {
		m.vmFact = vmUnknown // it may have ended
		return err
	}
	if mem := m.rec.Load().Obs.Memory; mem != nil {
		// The record stays until there is the next one: the VM may stand still, and nobody else would let it go on.
		if err := m.removeLayerOf(ctx, mem); err != nil {
			return err
		}
	}
	disk, begun, err := m.beginMemory(why)
	if err != nil || !begun {
		return err
	}
	if err = m.saveMemory(ctx, disk); err == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, errSuperseded) {
		return nil // the loop lets it go on
	}
	m.log.Warn("the machine cannot be suspended", "err", err)
	m.vmFact = vmUnknown // it may have ended
	return m.change(func(r *records, _ *boltstore.Tx) error {
		if mem := r.Obs.Memory; mem != nil && !mem.Saved {
			mem.Failed = err.Error()
			r.Obs.SuspendOver = max(r.Obs.SuspendOver, mem.Ask)
		}
		return nil
	})
}

// beginMemory stores that the memory is about to be written, before anything is done. blocked is why it cannot be.
func (m *machine) beginMemory(blocked string) (disk diskRecord, begun bool, err error) {
	size := m.rec.Load().Desired.Machine.Config.WithDefaults().Guest
	disk = diskRecord{Disk: drover.MemoryDisk(m.id), Size: memorySize(size.MemoryMB), Made: true}
	if disk.Cipher, err = m.memoryCipher(); err != nil {
		return disk, false, err
	}
	if blocked == "" {
		m.agent.capacity.Lock()
		room, err := m.agent.room(m.id)
		m.agent.capacity.Unlock()
		if err != nil {
			return disk, false, err
		}
		if need := drover.Bytes(size.MemoryMB) * drover.MiB; need > room.diskFree {
			blocked = fmt.Sprintf("host %q has %d MiB of disk left, and its memory may take %d MiB", m.agent.cfg.ID, room.diskFree/drover.MiB, need/drover.MiB)
		}
	}
	m.agent.hit("host.suspend.before")
	err = m.change(func(r *records, tx *boltstore.Tx) error {
		o := &r.Obs
		if blocked == "" && o.VM.Instance != r.Desired.Machine.Instance {
			blocked = "its config was changed since it was started: restart it first"
		}
		o.MemoryTries++
		disk.Layer = drover.LayerID(fmt.Sprintf("%s.s%d-%d", disk.Disk, r.Desired.Epoch, o.MemoryTries))
		o.Memory = &memoryRecord{Layer: disk.Layer, Ask: r.Desired.Machine.Suspend, Launch: o.VM.Launch, Instance: o.VM.Instance, BegunAt: m.agent.now(), Failed: blocked}
		if blocked != "" {
			o.SuspendOver = max(o.SuspendOver, o.Memory.Ask)
			return nil
		}
		if o.Status.State != drover.StateSuspending {
			o.Status.State, o.Status.Reason = drover.StateSuspending, ""
			r.event(m.agent.now(), event{kind: "suspend", source: "user"})
		}
		o.Open = append(slices.Clone(o.Open), disk.Layer)
		return diskBucket.Put(tx, string(disk.Disk), disk)
	})
	if err == nil && blocked != "" {
		m.log.Warn("the machine cannot be suspended", "why", blocked)
	}
	m.agent.hit("host.suspend.after")
	return disk, blocked == "", err
}

// memoryCipher is how the memory is encrypted: as the machine's first encrypted volume, whose key is here while the machine runs. What a
// machine has without one is not encrypted, as its root disk is not.
func (m *machine) memoryCipher() (*drover.Cipher, error) {
	volumes, err := m.volumeDisks()
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		if v.Cipher != nil {
			c := *v.Cipher
			return &c, nil
		}
	}
	return nil, nil
}

// saveMemory writes the memory, makes durable what the machine has written to its disks, and stores the mark.
func (m *machine) saveMemory(ctx context.Context, disk diskRecord) error {
	cfg, r := m.agent.cfg, m.rec.Load()
	if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
		return cfg.Storage.CreateLayer(ctx, LayerSpec{ID: disk.Layer, Disk: disk.Disk, Size: disk.Size, Cipher: disk.Cipher})
	}); err != nil {
		return fmt.Errorf("cannot make the disk for its memory: %w", err)
	}
	m.agent.hit("host.suspend.created")
	at, err := m.open(ctx, disk, r.Desired.Epoch)
	if err != nil {
		return fmt.Errorf("cannot open the disk for its memory: %w", err)
	}
	if err := m.writeMemory(ctx, at, disk); err != nil {
		return err
	}
	m.agent.hit("host.suspend.written")
	if err := m.closeLayer(ctx, disk.Layer); err != nil {
		return err
	}
	// The guest takes for written what it was told is written, and will not write it again: the image is worth nothing without that.
	disks, err := m.allDisks()
	if err != nil {
		return err
	}
	if err := eachDisk(ctx, disks, false, func(ctx context.Context, d diskRecord) error { return cfg.Storage.Flush(ctx, d.Layer) }); err != nil {
		return fmt.Errorf("cannot make durable what the machine has written: %w", err)
	}
	m.agent.hit("host.suspend.before-mark")
	return m.change(func(r *records, _ *boltstore.Tx) error {
		mem := r.Obs.Memory
		if mem == nil || mem.Layer != disk.Layer || mem.Failed != "" || !r.wantsSuspend() {
			return errSuperseded
		}
		mem.Saved = true
		r.Obs.Open = slices.DeleteFunc(slices.Clone(r.Obs.Open), func(l drover.LayerID) bool { return l == disk.Layer })
		return nil
	})
}

// writeMemory writes the image, durably.
func (m *machine) writeMemory(ctx context.Context, at Attachment, disk diskRecord) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, saveBound, fmt.Errorf("its memory was not written within %s", saveBound))
	defer cancel()
	to, err := m.agent.cfg.LayerDial(ctx, at)
	if err != nil {
		return fmt.Errorf("cannot reach the disk for its memory: %w", err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	w := newMemoryWriter(ctx, to, disk.Size)
	if err := m.vm.Save(ctx, w); err != nil {
		return err
	}
	m.agent.hit("host.suspend.saved")
	if err := m.readReports(ctx); err != nil { // what the guest told before it stood still
		return err
	}
	r := m.rec.Load()
	if r.Obs.VM.Exit != nil {
		return drover.Errorf(drover.Precondition, "its main process has just ended")
	}
	end, err := m.logEnd()
	if err != nil {
		return err
	}
	head := memoryHead{CPU: m.agent.cfg.GuestCPU, Platform: m.agent.cfg.Platform, SavedAt: m.agent.now(), Handover: *handoverOf(r, end)}
	if head.Incarnation, err = m.suspended(r); err != nil {
		return err
	}
	disks, err := m.allDisks()
	if err != nil {
		return err
	}
	for _, d := range disks {
		head.Disks = append(head.Disks, d.Disk)
	}
	return w.finish(head)
}

// suspended describes the VM whose memory is written.
func (m *machine) suspended(r *records) (drover.Incarnation, error) {
	vm := r.Obs.VM
	if r.Desired == nil || r.Desired.Machine.Instance != vm.Instance {
		return drover.Incarnation{}, drover.Errorf(drover.Conflict, "its config was changed meanwhile")
	}
	size := r.Desired.Machine.Config.WithDefaults().Guest
	return drover.Incarnation{Instance: vm.Instance, Run: vm.Run, Spec: r.Desired.Machine, MemoryMB: size.MemoryMB, CPUs: size.CPUs, Boot: bootName(m.id, vm)}, nil
}

// unsuspend lets a VM go on whose memory was being written.
func (m *machine) unsuspend(ctx context.Context) error {
	m.agent.hit("host.unsuspend.before")
	if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.TakeBack(ctx) }); err != nil {
		m.vmFact = vmUnknown // it may have ended
		return err
	}
	m.agent.hit("host.unsuspend.after")
	return m.change(func(r *records, _ *boltstore.Tx) error {
		o := &r.Obs
		mem := o.Memory
		mem.Spent = true
		o.VM.ClockDue = m.agent.now().Add(clockDue)
		if o.VM.StopAt.IsZero() {
			o.Status.State = drover.StateStarted
		}
		if mem.Failed == "" {
			r.event(m.agent.now(), event{kind: "start", source: "user", text: "it was not to be suspended any more, and goes on"})
			return nil
		}
		o.Status.Reason = "it cannot be suspended, and runs on: " + mem.Failed
		r.event(m.agent.now(), event{kind: "suspend", source: "drover", text: o.Status.Reason})
		return nil
	})
}

// goOnAs makes a VM that runs the one that the newest start asked for.
func (m *machine) goOnAs() error {
	return m.change(func(r *records, _ *boltstore.Tx) error {
		if continued(r) {
			run := r.Desired.Machine.Run
			r.Obs.VM.Run, r.Obs.Status.Run, r.Obs.Status.Reason = run, run, ""
		}
		return nil
	})
}

// dropMemory gives the memory up, for the reason if it was of use, and removes it.
func (m *machine) dropMemory(ctx context.Context, why string) error {
	if mem := m.rec.Load().Obs.Memory; mem != nil && !mem.Spent {
		wanted := false
		if err := m.change(func(r *records, _ *boltstore.Tx) error {
			if wanted = r.Obs.Memory.Saved && memoryUnwanted(r) == ""; wanted {
				return nil // somebody has changed his mind
			}
			r.Obs.Memory.Spent = true
			if r.Obs.Memory.Saved && r.Desired != nil {
				r.event(m.agent.now(), event{kind: "suspend", source: "drover", text: "its memory is given up: " + why})
			}
			return nil
		}); err != nil || wanted {
			return err
		}
		m.agent.hit("host.memory-drop.spent")
	}
	return m.removeMemory(ctx)
}

// removeMemory removes the layer and the records of an image that is of no use.
func (m *machine) removeMemory(ctx context.Context) error {
	mem := m.rec.Load().Obs.Memory
	if err := m.removeLayerOf(ctx, mem); err != nil {
		return err
	}
	return m.change(func(r *records, tx *boltstore.Tx) error {
		r.Obs.Memory = nil
		r.Obs.Open = slices.DeleteFunc(slices.Clone(r.Obs.Open), func(l drover.LayerID) bool { return l == mem.Layer })
		key := string(drover.MemoryDisk(m.id))
		disk, ok, err := diskBucket.Get(tx, key)
		if err != nil || !ok || disk.Layer != mem.Layer {
			return err
		}
		return diskBucket.Delete(tx, key)
	})
}

// removeLayerOf removes the layer of an image. One that is not encrypted is overwritten: it has whatever the machine had in its memory.
func (m *machine) removeLayerOf(ctx context.Context, mem *memoryRecord) error {
	disk, err := m.disk(drover.MemoryDisk(m.id))
	if err != nil && !drover.Is(err, drover.NotFound) {
		return err
	}
	m.agent.hit("host.memory-drop.before")
	if err := m.closeLayer(ctx, mem.Layer); err != nil {
		return err
	}
	if err := m.agent.discardLayer(ctx, mem.Layer, disk.Cipher == nil); err != nil {
		return err
	}
	m.agent.hit("host.memory-drop.after")
	return nil
}
