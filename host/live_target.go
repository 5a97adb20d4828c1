package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/boltstore"
	"drover/guest"
	"drover/internal/durable"
)

// takeWait bounds the wait for the last of a VM's state, whose sender has it confirmed already.
const takeWait = 5 * time.Second

// take starts a VM that waits for its memory, with its layers prepared and its link without the route, and notes where it waits. The record
// comes first: from then on a VM may be there.
func (m *machine) take(ctx context.Context) error {
	mv := m.rec.Load().Move
	if mv.Take.StartedAt.IsZero() {
		if err := m.changeMove(mv.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
			mv.Take.StartedAt = m.agent.now()
			return nil
		}); err != nil {
			return err
		}
	}
	if m.vmFact != vmLive {
		if err := m.startTaking(ctx, mv); err != nil {
			return err
		}
	}
	address, err := call(ctx, func(ctx context.Context) (string, error) {
		return m.vm.Listen(ctx, m.agent.cfg.Address, mv.Take.Source)
	})
	if err != nil {
		return err
	}
	m.agent.hit("host.live.after-listen")
	return m.changeMove(mv.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Take.Address = address
		return nil
	})
}

// startTaking starts the VM.
func (m *machine) startTaking(ctx context.Context, mv *moveRecord) error {
	spec, disks, err := m.takeSpec(ctx, mv)
	if err != nil {
		return err
	}
	inc := mv.Take.Incarnation
	secrets, err := m.secretsOf(inc.Spec)
	if err != nil {
		return err
	}
	cfg, err := guestConfig(guestInput{apply: drover.ApplyRequest{Machine: inc.Spec}, root: disks[0], volumes: disks[1:], userNet: spec.Tap == "",
		boot: m.agent.cfg.BootTimeout, secrets: revealed(secrets), mtu: m.agent.cfg.GuestMTU, dns: m.agent.cfg.GuestDNS})
	if err != nil {
		return err
	}
	cfg.Run = inc.Boot
	if err := m.agent.cfg.files.WriteConfig(spec.ConfigPath, cfg); err != nil {
		return err
	}
	m.agent.hit("host.live.before-take")
	vm, err := call(ctx, func(ctx context.Context) (VM, error) { return m.agent.cfg.VMM.Start(ctx, spec) })
	if err != nil {
		m.vmFact = vmUnknown // it may be there all the same
		return fmt.Errorf("cannot start the VM that waits for the memory: %w", err)
	}
	m.attach(vm)
	m.agent.hit("host.live.after-take")
	return nil
}

// takeSpec prepares what the VM needs: the same devices as it has on the source.
func (m *machine) takeSpec(ctx context.Context, mv *moveRecord) (drover.VMSpec, []diskRecord, error) {
	inc := mv.Take.Incarnation
	spec := drover.VMSpec{Machine: m.id, CPUs: inc.CPUs, MemoryMB: inc.MemoryMB, MAC: m.id.MAC(), ConfigPath: m.configPath(),
		ConsolePath: m.consolePath(), LogPath: m.logPath(), StatusPath: m.statusPath(), AgentSocket: m.agentSocket(), Incoming: true}
	disks, err := takenDisks(mv)
	if err != nil {
		return spec, nil, err
	}
	for i, disk := range disks {
		at, err := call(ctx, func(ctx context.Context) (Attachment, error) {
			return m.agent.cfg.Storage.Prepare(ctx, disk.Layer, string(mv.Migration))
		})
		if err != nil {
			return spec, nil, fmt.Errorf("cannot prepare the layer %q: %w", disk.Layer, err)
		}
		at = Attachment{Transport: drover.TransportVhost, Socket: at.VhostSocket}
		if i == 0 {
			spec.Root = at
		} else {
			spec.Volumes = append(spec.Volumes, at)
		}
	}
	m.agent.hit("host.live.after-prepare")
	// The address is the source's until the switch: the link has no route yet.
	spec.Tap, err = m.agent.link(ctx, inc.Spec, "")
	if err != nil {
		return spec, nil, fmt.Errorf("cannot make the link: %w", err)
	}
	return spec, disks, m.freshFiles()
}

// takenDisks are the machine's disks in the order of its devices.
func takenDisks(mv *moveRecord) ([]diskRecord, error) {
	byVolume := map[drover.VolumeID]diskRecord{}
	for _, disk := range mv.clones() {
		byVolume[disk.Volume] = disk
	}
	want := []drover.VolumeID{""} // the root disk
	for _, mount := range mv.Take.Incarnation.Spec.Config.Mounts {
		want = append(want, mount.Volume)
	}
	var disks []diskRecord
	for _, volume := range want {
		disk, ok := byVolume[volume]
		if !ok {
			return nil, drover.Errorf(drover.Precondition, "machine %q cannot move with its memory: its disk %q is not part of the migration",
				mv.Take.Incarnation.Spec.ID, volume).WithHint("move it cold")
		}
		disks = append(disks, disk)
	}
	return disks, nil
}

// freshFiles makes the machine's directories, and removes what an earlier stay, or try, left in them: offsets in the files that the VM writes
// begin anew.
func (m *machine) freshFiles() error {
	err := errors.Join(durable.MkdirAll(m.dir(), 0o700), os.MkdirAll(m.runDir(), 0o700))
	for _, path := range []string{m.logPath(), m.statusPath(), m.consolePath()} {
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot make the files of machine %q: %w", m.id, err)
	}
	return nil
}

// adoptLive is a part of adopt: a machine whose VM waits here with its memory does not begin anew.
func (m *machine) adoptLive(r *records, req drover.MoveActivateRequest) {
	t := r.Move.Take
	if t == nil || t.Over || !req.Live {
		return
	}
	t.Live, t.Handover = true, req.Handover
	inc, o := t.Incarnation, &r.Obs
	o.Status.State, o.Status.Reason, o.Over = drover.StateStarted, "", false
	if h := req.Handover; h != nil && h.Checks != nil {
		o.Status.Checks = h.Checks
	}
	o.VM = vmRecord{Launch: 1, Live: true, Launched: true, At: m.agent.now(), Instance: inc.Instance, Run: inc.Run, Epoch: req.Apply.Epoch,
		Boot: inc.Boot, MainStarted: true}
	if h := req.Handover; h != nil && h.Exit != nil {
		o.VM.Exit = &exitReport{Code: h.Exit.Code, OOM: h.Exit.OOM, Text: h.Exit.Text, At: h.Exit.At}
	}
	o.Status.Instance, o.Status.Run, o.OverRun = inc.Instance, inc.Run, inc.Run
	for _, disk := range r.Move.clones() {
		o.Open = append(o.Open, disk.Layer)
	}
}

// resume lets a machine go on here that was handed over with its memory. If its VM has not all of the state, it is started anew.
func (m *machine) resume(ctx context.Context) error {
	r := m.rec.Load()
	mv := r.Move
	now, err := call(ctx, m.vm.Transfer)
	if err != nil {
		return err
	}
	if !now.Running {
		if why, err := m.makeReady(ctx, r); err != nil {
			return err
		} else if why != "" {
			return m.endTake(ctx, why)
		}
		m.agent.hit("host.live.before-resume")
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.Resume(ctx) }); err != nil {
			return err
		}
	}
	m.agent.hit("host.live.after-resume")
	at := m.agent.now()
	if now.Running && !now.ResumedAt.IsZero() {
		at = now.ResumedAt
	}
	return m.changeMove(mv.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Take.Over, mv.Take.ResumedAt = true, at
		return nil
	})
}

// makeReady opens the layers, gives the address its route, and waits for the last of the state, all at once. why says what is against going
// on with the VM, for good.
func (m *machine) makeReady(ctx context.Context, r *records) (why string, err error) {
	mv, epoch := r.Move, r.Desired.Epoch
	var late string
	group, gctx := errgroup.WithContext(ctx)
	for _, disk := range mv.clones() {
		group.Go(func() error {
			m.agent.hit("host.live.before-open")
			_, err := m.open(gctx, disk, epoch)
			m.agent.hit("host.live.after-open")
			if err != nil {
				err = fmt.Errorf("cannot open the layer %q: %w", disk.Layer, err)
			}
			return err
		})
	}
	group.Go(func() error {
		_, err := m.agent.link(gctx, r.Desired.Machine, r.Desired.Machine.Address)
		return err
	})
	group.Go(func() (err error) { late, err = m.awaitTaken(gctx); return err })
	if h := mv.Take.Handover; h != nil {
		group.Go(func() error { return m.agent.cfg.files.BeginLog(m.logPath(), h.LogNext) })
	}
	err = group.Wait()
	if late == "" && err != nil && !drover.Is(err, drover.Unavailable) && !drover.Is(err, drover.Canceled) {
		return "its disks or its link could not be made ready: " + err.Error(), nil
	}
	return late, err
}

// awaitTaken waits until the VM has all of its state. why is what is against it.
func (m *machine) awaitTaken(ctx context.Context) (why string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, takeWait, errTakeWait)
	defer cancel()
	for {
		now, err := m.vm.Transfer(ctx)
		switch {
		case errors.Is(context.Cause(ctx), errTakeWait):
			return errTakeWait.Error(), nil
		case err != nil:
			return "", err
		case now.State == drover.TransferDone:
			return "", nil
		case now.State == drover.TransferFailed:
			return "its state did not arrive: " + now.Reason, nil
		}
		switch err := m.awaitChange(ctx); {
		case drover.Is(err, drover.Precondition):
			return "the VM that took the memory has ended", nil
		case errors.Is(err, errTakeWait):
			return errTakeWait.Error(), nil
		case err != nil:
			return "", err
		}
	}
}

// errTakeWait says that the state is not there though its sender was told so.
var errTakeWait = fmt.Errorf("its state was not complete after %s", takeWait)

// endTake gives up the VM that waits. A machine that is this host's by now is started anew, from the same layers.
func (m *machine) endTake(ctx context.Context, why string) error {
	mv := m.rec.Load().Move
	m.log.Warn("the machine does not go on with its memory here", "migration", string(mv.Migration), "why", why)
	if err := m.killTaking(ctx); err != nil {
		return err
	}
	if err := m.unprepare(ctx, mv); err != nil {
		return err
	}
	if !mv.adopted() {
		if err := m.detach(ctx); err != nil {
			return err
		}
	}
	m.agent.hit("host.live.take-ended")
	return m.changeMove(mv.Migration, func(r *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Take.Over, mv.Take.ColdReason = true, why
		if mv.adopted() && r.Obs.VM.Live {
			r.Obs.VM = vmRecord{Launch: r.Obs.VM.Launch}
			r.Obs.Status.State = drover.StateStarting
			r.event(m.agent.now(), event{kind: "restart", source: "drover", text: "the machine was started anew after its move: " + why})
		}
		return nil
	})
}

// killTaking ends the VM that waits, if there is one.
func (m *machine) killTaking(ctx context.Context) error {
	if m.vmFact == vmLive {
		m.agent.hit("host.live.before-kill")
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.Kill(ctx) }); err != nil {
			return err
		}
	}
	m.vm, m.vmFact, m.watched = nil, vmNone, false
	return nil
}

// unprepare takes the sockets away that were made for the VM that waits.
func (m *machine) unprepare(ctx context.Context, mv *moveRecord) error {
	return eachDisk(ctx, mv.clones(), true, func(ctx context.Context, d diskRecord) error {
		return m.agent.cfg.Storage.Unprepare(ctx, d.Layer, string(mv.Migration))
	})
}

// dropTake is a part of an abort: whatever was made for a VM that waits goes.
func (m *machine) dropTake(ctx context.Context, mv *moveRecord) error {
	if mv.Take == nil {
		return nil
	}
	if err := m.killTaking(ctx); err != nil {
		return err
	}
	if err := m.unprepare(ctx, mv); err != nil {
		return err
	}
	if err := m.detach(ctx); err != nil {
		return err
	}
	m.agent.hit("host.live.dropped")
	return m.removeFiles()
}

// BeginLog makes a log file that goes on where another host's ended.
func (realFiles) BeginLog(path string, next int64) error { return guest.BeginLog(path, next) }
