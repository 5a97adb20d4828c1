package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

const (
	// clockDue is how long it is tried to set the clock of a guest that stood still, clockWait how long one try may take.
	clockDue  = 10 * time.Minute
	clockWait = 3 * time.Second
)

// resumeMemory starts a VM that takes the machine's memory, and gives the image up in the same write in which it is noted that the VM has
// all. It executes nothing until then: the loop lets it go on. An image that is of no use is given up, and the machine boots.
func (m *machine) resumeMemory(ctx context.Context, d *drover.ApplyRequest, spec drover.VMSpec, disks []diskRecord, secrets drover.SecretValues) (err error) {
	mem := m.rec.Load().Obs.Memory
	ctx, cancel := context.WithTimeoutCause(ctx, saveBound, fmt.Errorf("its memory was not read within %s", saveBound))
	defer cancel()
	from, err := m.openMemory(ctx, mem, d.Epoch)
	if err != nil {
		return m.orBoot(err)
	}
	defer func() {
		if cerr := from.Close(); cerr != nil {
			m.log.Debug("the connection to the disk with the memory closed with an error", "err", cerr)
		}
	}()
	head, err := readMemoryHead(ctx, from)
	if err != nil {
		return m.orBoot(err)
	}
	if why := head.unusable(m.agent.cfg, d.Machine, disks); why != "" {
		return m.bootInstead(why)
	}
	spec.Incoming = true
	if err := m.launchResuming(ctx, d, spec, disks, head, secrets); err != nil {
		return err
	}
	if err := m.vm.Load(ctx, newMemoryReader(ctx, from, head)); err != nil {
		return m.orBoot(err)
	}
	m.agent.hit("host.resume.before-mark")
	err = m.change(func(r *records, _ *boltstore.Tx) error {
		if !r.Obs.VM.Resuming || !r.Obs.Memory.whole() || memoryUnwanted(r) != "" {
			return nil // the loop ends the VM
		}
		r.Obs.Memory.Spent, r.Obs.VM.Loaded, r.Obs.VM.Launched = true, true, true
		r.Obs.Status.Checks = head.Handover.Checks
		return nil
	})
	m.agent.hit("host.resume.after-mark")
	return err
}

// openMemory opens the image.
func (m *machine) openMemory(ctx context.Context, mem *memoryRecord, epoch drover.Epoch) (LayerData, error) {
	disk, err := m.disk(drover.MemoryDisk(m.id))
	if err != nil {
		return nil, err
	}
	if disk.Layer != mem.Layer {
		return nil, drover.Errorf(drover.NotFound, "the layer %q is not there any more", mem.Layer)
	}
	if err := m.change(func(r *records, _ *boltstore.Tx) error {
		if !slices.Contains(r.Obs.Open, disk.Layer) {
			r.Obs.Open = append(slices.Clone(r.Obs.Open), disk.Layer)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	m.agent.hit("host.resume.before-open")
	at, err := m.open(ctx, disk, epoch)
	if err != nil {
		return nil, err
	}
	return m.agent.cfg.LayerDial(ctx, at)
}

// launchResuming starts the VM that waits for its memory. The record comes first: from then on a VM may be there.
func (m *machine) launchResuming(ctx context.Context, d *drover.ApplyRequest, spec drover.VMSpec, disks []diskRecord, head memoryHead, secrets drover.SecretValues) error {
	inc, old := head.Incarnation, m.rec.Load().Obs.VM
	guestCfg, err := guestConfig(guestInput{apply: drover.ApplyRequest{Machine: inc.Spec}, root: disks[0], volumes: disks[1:], userNet: spec.Tap == "",
		boot: m.agent.cfg.BootTimeout, secrets: revealed(secrets), mtu: m.agent.cfg.GuestMTU, dns: m.agent.cfg.GuestDNS})
	if err != nil {
		return err
	}
	guestCfg.Run = inc.Boot
	if err := m.agent.cfg.files.WriteConfig(spec.ConfigPath, guestCfg); err != nil {
		return err
	}
	offset, err := m.reportsBegin(old.Offset)
	if err != nil {
		return err
	}
	if _, err := os.Stat(m.logPath()); errors.Is(err, fs.ErrNotExist) { // it comes from another host, whose log went on until there
		if err := m.agent.cfg.files.BeginLog(m.logPath(), head.Handover.LogNext); err != nil {
			return err
		}
	}
	vm := vmRecord{Launch: old.Launch + 1, Live: true, Resuming: true, At: m.agent.now(), Instance: d.Machine.Instance, Run: d.Machine.Run, Epoch: d.Epoch,
		Offset: offset, Boot: inc.Boot, MainStarted: true}
	m.agent.hit("host.resume.before-vm")
	if err := m.change(func(r *records, _ *boltstore.Tx) error { r.Obs.VM = vm; return nil }); err != nil {
		return err
	}
	m.agent.hit("host.resume.before-launch")
	started, err := call(ctx, func(ctx context.Context) (VM, error) { return m.agent.cfg.VMM.Start(ctx, spec) })
	m.vmFact = vmUnknown // the loop finds it, and ends it, should this be cut
	if err != nil {
		return fmt.Errorf("cannot start the VM that takes the memory: %w", err)
	}
	m.attach(started)
	m.agent.hit("host.resume.after-launch")
	return nil
}

// reportsBegin is where the guest's reports go on: what a power cut took of the file was read before, and must not be waited for.
func (m *machine) reportsBegin(offset int64) (int64, error) {
	return m.agent.cfg.files.ReportsEnd(m.statusPath(), offset)
}

// ReportsEnd returns the offset, or the file's length if that is smaller.
func (realFiles) ReportsEnd(path string, offset int64) (int64, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
	}
	return min(offset, st.Size()), nil
}

// orBoot gives up an image that cannot be read, or that the VM does not take, for good. Any other error comes back: the start is tried
// again, from the same image.
func (m *machine) orBoot(err error) error {
	switch drover.CodeOf(err) {
	case drover.Invalid, drover.NotFound, drover.Precondition:
		return m.bootInstead(err.Error())
	case drover.Internal:
		if m.rec.Load().Obs.StartTries+1 >= maxTries { // a disk that gives errors, or the host that the rest is on does not answer
			return m.bootInstead(err.Error())
		}
	}
	return err
}

// bootInstead gives the image up: the machine boots. A VM that was started for it executes nothing, and is ended by the loop.
func (m *machine) bootInstead(why string) error {
	m.log.Warn("the machine cannot go on with its memory, and boots", "why", why)
	m.agent.hit("host.resume.give-up")
	return m.change(func(r *records, _ *boltstore.Tx) error {
		if !r.Obs.Memory.whole() {
			return nil
		}
		r.Obs.Memory.Spent = true
		r.event(m.agent.now(), event{kind: "restart", source: "drover", text: "the machine boots, because its memory is of no use: " + why,
			request: map[string]any{"resumed": false}})
		return nil
	})
}

// goOn lets a VM execute that has its memory.
func (m *machine) goOn(ctx context.Context) error {
	now, err := call(ctx, m.vm.Transfer)
	if err != nil {
		m.vmFact = vmUnknown // it may have ended
		return err
	}
	m.agent.hit("host.resume.before-go-on")
	if !now.Running {
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.Resume(ctx) }); err != nil {
			m.vmFact = vmUnknown
			return err
		}
	}
	m.agent.hit("host.resume.after-go-on")
	// Before the machine counts as started: nobody else has the way to the guest yet. One that is slow to answer gets its clock later.
	due := time.Time{}
	if err := m.tryClock(ctx); err != nil {
		m.log.Info("the guest's clock is not set yet", "err", err)
		due = m.agent.now().Add(clockDue)
	}
	return m.change(func(r *records, _ *boltstore.Tx) error {
		o := &r.Obs
		o.VM.Resuming, o.VM.Loaded = false, false
		o.VM.ClockDue = due
		o.StartTries, o.RetryAt = 0, time.Time{}
		o.Status.State, o.Status.Reason = drover.StateStarted, ""
		r.event(m.agent.now(), event{kind: "start", source: "user", text: "it goes on with its memory", request: map[string]any{"resumed": true}})
		return nil
	})
}

// setClock sets the clock of a guest that stood still.
func (m *machine) setClock(ctx context.Context) error {
	err := m.tryClock(ctx)
	due := m.rec.Load().Obs.VM.ClockDue
	if err != nil && m.agent.now().Before(due) && !drover.Is(err, drover.Precondition) {
		return err
	}
	if err != nil {
		m.log.Warn("the guest's clock is behind: it could not be set", "err", err)
	}
	return m.change(func(r *records, _ *boltstore.Tx) error { r.Obs.VM.ClockDue = time.Time{}; return nil })
}

func (m *machine) tryClock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clockWait)
	defer cancel()
	g, err := m.agent.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return err
	}
	defer g.Close() // the answer is here
	return g.SetClock(ctx, m.agent.now())
}

// adoptMemory is a part of adopt: a suspended machine's memory comes along as one of its disks.
func (m *machine) adoptMemory(r *records, mig drover.MigrationID) {
	o := &r.Obs
	for _, e := range r.Move.Exports {
		if e.Disk == drover.MemoryDisk(m.id) && r.Move.Undoes == "" {
			o.Memory = &memoryRecord{Layer: drover.LayerFor(e.Disk, mig), Saved: true}
		}
	}
	if r.goal() != drover.GoalSuspended {
		return
	}
	if o.Memory != nil {
		o.Status.State = drover.StateSuspended
		return
	}
	if o.VM.Live {
		return // it moves live, and is suspended here
	}
	o.Status.State = drover.StateStopped
	r.event(m.agent.now(), event{kind: "suspend", source: "drover", text: "its memory did not come along with the machine: the next start boots"})
}
