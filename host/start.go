package host

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
	"drover/internal/durable"
)

// ownerFresh is how long a word of the control side about the owner holds without asking again; ownerWait bounds the asking. In the first
// ownerFirst of the agent's life it asks again and again: after a power cut the bus may take a moment to be there, and the machines of this
// host may have been started elsewhere meanwhile.
const (
	ownerFresh = 5 * time.Second
	ownerWait  = time.Second
	ownerFirst = 10 * time.Second
	ownerRetry = 200 * time.Millisecond
)

// confirmOwner asks whether this host still owns the machine, as far as the bus answers in a moment. Where it does not, the machine
// may start: see "Why a host may start its machines without asking" in the package's documentation. This is the one place
// where a start asks for permission.
func (m *machine) confirmOwner(ctx context.Context) error {
	m.mu.Lock()
	fresh := m.agent.now().Sub(m.ownedAt) < ownerFresh
	m.mu.Unlock()
	if fresh {
		return nil
	}
	until := m.agent.started.Add(ownerFirst)
	for {
		try, cancel := context.WithTimeout(ctx, ownerWait)
		err := m.askPlacement(try)
		cancel()
		if !drover.Is(err, drover.Unavailable) || !m.agent.now().Before(until) || ctx.Err() != nil {
			return err
		}
		pause(ctx, ownerRetry)
	}
}

// start starts a VM for the machine. It may be cut anywhere: each part is done again and finds what is there. The boot itself
// is waited for by the loop.
func (m *machine) start(ctx context.Context) error {
	err := m.tryStart(ctx)
	if err == nil || context.Cause(ctx) != nil || !wantsVM(m.rec.Load()) {
		return nil // cut short by an order or the end of the agent: the loop looks again
	}
	m.log.Warn("cannot start the machine", "err", err)
	m.vmFact = vmUnknown // a VM may be there all the same
	return m.change(func(r *records, _ *boltstore.Tx) error {
		r.startFailed(err, m.agent.now())
		return nil
	})
}

func (m *machine) tryStart(ctx context.Context) error {
	if err := m.confirmOwner(ctx); err != nil {
		m.log.Info("the placement cannot be read, the machine starts by the host's own records", "err", err)
	}
	if !wantsVM(m.rec.Load()) {
		return nil
	}
	asked := m.rec.Load().Desired
	root, err := m.ensureRoot(ctx)
	if err != nil {
		return err
	}
	volumes, err := m.volumeDisks()
	if err != nil {
		return err
	}
	disks := append([]diskRecord{root}, volumes...)
	if err := m.beginStart(asked.Machine, disks); err != nil {
		return err
	}
	secrets, err := m.bringSecrets(ctx, asked.Machine)
	if err != nil {
		return err
	}
	spec, err := m.prepare(ctx, asked, disks)
	if err != nil {
		return err
	}
	if now := m.rec.Load().Desired; now == nil || now.Machine.Instance != asked.Machine.Instance || now.Machine.Run != asked.Machine.Run || now.Epoch != asked.Epoch {
		return nil // another config, run or epoch came meanwhile: the loop begins anew with it
	}
	if m.rec.Load().keepsMemory() {
		return m.resumeMemory(ctx, asked, spec, disks, secrets)
	}
	return m.launch(ctx, asked, spec, disks, secrets)
}

// beginStart stores that layers are about to be opened, before they are.
func (m *machine) beginStart(d drover.Machine, disks []diskRecord) error {
	r := m.rec.Load()
	open := slices.Clone(r.Obs.Open)
	for _, disk := range disks {
		if !slices.Contains(open, disk.Layer) {
			open = append(open, disk.Layer)
		}
	}
	return m.change(func(r *records, _ *boltstore.Tx) error {
		r.Obs.Open = open
		if d.Run != r.Obs.Status.Run {
			r.Obs.Status.Restarts, r.Obs.Retries, r.Obs.BootTries, r.Obs.StartTries = 0, 0, 0, 0
		}
		r.Obs.Over, r.Obs.RetryAt = false, time.Time{}
		r.Obs.Status.Run, r.Obs.Status.Instance = d.Run, d.Instance
		r.Obs.Status.State = drover.StateStarting
		return nil
	})
}

// prepare opens the layers at the placement's epoch, makes the link, and writes the guest's config.
func (m *machine) prepare(ctx context.Context, d *drover.ApplyRequest, disks []diskRecord) (drover.VMSpec, error) {
	cfg := m.agent.cfg
	size := d.Machine.Config.WithDefaults().Guest
	spec := drover.VMSpec{Machine: m.id, CPUs: size.CPUs, MemoryMB: size.MemoryMB, KernelArgs: kernelArgs(d.Machine.Config), MAC: m.id.MAC(), ConfigPath: m.configPath(),
		ConsolePath: m.consolePath(), LogPath: m.logPath(), StatusPath: m.statusPath(), AgentSocket: m.agentSocket()}
	for i, disk := range disks {
		m.agent.hit("host.start.before-open")
		at, err := m.open(ctx, disk, d.Epoch)
		if err != nil {
			return spec, fmt.Errorf("cannot open the layer %q: %w", disk.Layer, err)
		}
		if at, err = at.Over(drover.ChooseTransport(size.DiskTransport, cfg.DiskTransport)); err != nil {
			return spec, fmt.Errorf("cannot attach the layer %q: %w", disk.Layer, err)
		}
		m.agent.hit("host.start.after-open")
		if i == 0 {
			spec.Root = at
		} else {
			spec.Volumes = append(spec.Volumes, at)
		}
	}
	tap, err := m.agent.link(ctx, d.Machine, d.Machine.Address)
	if err != nil {
		return spec, fmt.Errorf("cannot make the link: %w", err)
	}
	m.agent.hit("host.start.after-attach")
	spec.Tap = tap
	if err := durable.MkdirAll(m.dir(), 0o700); err != nil {
		return spec, drover.Errorf(drover.Internal, "cannot make the machine's directory: %w", err)
	}
	if err := os.MkdirAll(m.runDir(), 0o700); err != nil {
		return spec, drover.Errorf(drover.Internal, "cannot make the machine's directory: %w", err)
	}
	return spec, nil
}

// launch writes the guest's config and starts the VM. The record comes first: from then on a VM may be there. It is started for the order that
// the start was begun for, even when a newer one comes now: the loop sees by the record what it runs.
func (m *machine) launch(ctx context.Context, d *drover.ApplyRequest, spec drover.VMSpec, disks []diskRecord, secrets drover.SecretValues) error {
	old := m.rec.Load().Obs.VM
	vm := vmRecord{Launch: old.Launch + 1, Live: true, At: m.agent.now(), Instance: d.Machine.Instance, Run: d.Machine.Run, Epoch: d.Epoch, Offset: old.Offset}
	guestCfg, err := guestConfig(guestInput{apply: *d, root: disks[0], volumes: disks[1:], userNet: spec.Tap == "", boot: m.agent.cfg.BootTimeout,
		secrets: revealed(secrets), mtu: m.agent.cfg.GuestMTU, dns: m.agent.cfg.GuestDNS})
	if err != nil {
		return err
	}
	guestCfg.Run = bootName(m.id, vm)
	if err := m.agent.cfg.files.WriteConfig(spec.ConfigPath, guestCfg); err != nil {
		return err
	}
	m.agent.hit("host.start.before-vm")
	kept := false
	if err := m.change(func(r *records, _ *boltstore.Tx) error {
		if kept = r.Obs.Memory.whole(); kept {
			return nil // it is to be given up first: what boots writes to the disks
		}
		r.Obs.VM = vm
		r.Obs.Status.Checks = firstChecks(d.Machine.Config, vm.At, "not asked yet")
		r.Obs.Status.SecretsVersion = secrets.Version
		return nil
	}); err != nil || kept {
		return err
	}
	m.agent.hit("host.start.before-launch")
	started, err := call(ctx, func(ctx context.Context) (VM, error) { return m.agent.cfg.VMM.Start(ctx, spec) })
	if drover.Is(err, drover.Exists) {
		m.vmFact = vmUnknown // an earlier agent's: the loop finds it, and sees what it is
		return nil
	}
	if err != nil {
		m.vmFact = vmUnknown
		return fmt.Errorf("cannot start the VM: %w", err)
	}
	m.attach(started)
	m.agent.hit("host.start.after-launch")
	return m.change(func(r *records, _ *boltstore.Tx) error { r.Obs.VM.Launched = true; return nil })
}

// bootName names one VM of a machine, so that its reports are told from those of others in the same file.
func bootName(id drover.MachineID, vm vmRecord) string {
	if vm.Boot != "" {
		return vm.Boot
	}
	return fmt.Sprintf("%s-%d-%d", id, vm.Epoch, vm.Launch)
}

// call bounds one call to another part of the host. One that was cut says nothing of what became of it: to those who asked the agent,
// Canceled would mean that it was given up for good.
func call[T any](ctx context.Context, fn func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := fn(ctx)
	if drover.Is(err, drover.Canceled) {
		err = drover.Errorf(drover.Unavailable, "%w", err)
	}
	return out, err
}
