package host

import (
	"context"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/boltstore"
)

const (
	// sendEvery is how often the sending of the memory is looked at; the VMM tells of the pause itself.
	sendEvery = 100 * time.Millisecond
	// sendBound is how long the memory may take in all. A guest that changes it faster than it can be copied is slowed down by the VMM
	// until it does not.
	sendBound = 15 * time.Minute
	// pauseFirst is how long the machine may stand still for the last of its memory at first, pauseMost in the end.
	pauseFirst = 20 * time.Millisecond
	pauseMost  = 400 * time.Millisecond
	// patience is how many rounds are made over the memory with one length of the pause before a longer one is allowed.
	patience = 4
	// handoverBound bounds the time from the pause until the target has all.
	handoverBound = 30 * time.Second
)

// incarnation describes the VM that runs, to the host that is to go on with it; nil for none, and for one that is to be replaced.
func (m *machine) incarnation(r *records) *drover.Incarnation {
	vm := r.Obs.VM
	if r.Desired == nil || !vm.Live || vm.Resuming || r.suspending() || !vm.MainStarted || !vm.StopAt.IsZero() || vm.Killed != "" || vm.Exit != nil ||
		r.Desired.Machine.Instance != vm.Instance || r.Desired.Machine.Run != vm.Run {
		return nil
	}
	size := r.Desired.Machine.Config.WithDefaults().Guest
	return &drover.Incarnation{Instance: vm.Instance, Run: vm.Run, Spec: r.Desired.Machine, MemoryMB: size.MemoryMB, CPUs: size.CPUs,
		Boot: bootName(m.id, vm)}
}

// send sends the memory of the VM, one step at a time: what the VMM tells says which.
func (m *machine) send(ctx context.Context) error {
	src := m.rec.Load().Move
	m.sendAt = m.agent.now().Add(sendEvery)
	if !src.Send.Begun {
		return m.beginSend(ctx, src)
	}
	now, err := call(ctx, m.vm.Transfer)
	if err != nil {
		return err
	}
	if src.Hold {
		return m.stopSending(ctx, src, "the machine is stopped instead")
	}
	if now.Running && now.State == drover.TransferDone {
		now.State = drover.TransferNone // an earlier transfer's
	}
	switch now.State {
	case drover.TransferPaused, drover.TransferDone:
		return m.handOver(ctx, src, now)
	case drover.TransferFailed:
		return m.sendFailed(ctx, src, now)
	case drover.TransferNone:
		return m.sendFailed(ctx, src, drover.VMTransfer{Reason: "the VMM does not know of it any more", Running: now.Running})
	}
	m.sent.Store(&now.Memory)
	if m.agent.now().Sub(src.Send.AskedAt) > sendBound {
		return m.stopSending(ctx, src, fmt.Sprintf("the memory was not copied within %s", sendBound))
	}
	return m.converge(ctx, src, now.Memory)
}

// beginSend tells the VMM to send.
func (m *machine) beginSend(ctx context.Context, src *moveRecord) error {
	why, err := call(ctx, m.vm.LiveBlocker)
	if err != nil {
		return err
	}
	if why != "" {
		return m.sendFailed(ctx, src, drover.VMTransfer{Reason: why, Running: true})
	}
	m.sent.Store(nil)
	m.pauseFor = pauseFirst
	if err := m.flushLayers(ctx, src); err != nil {
		return err
	}
	m.agent.hit("host.live.before-send")
	if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.vm.Send(ctx, drover.VMSend{Address: src.Send.Address, Peer: src.Target, Bandwidth: src.Send.Bandwidth, Pause: m.pauseFor})
	}); err != nil {
		return err
	}
	m.agent.hit("host.live.after-send")
	return m.changeMove(src.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Send.Begun = true
		return nil
	})
}

// converge looks whether what is left gets less. While it is nearly nothing the layers are flushed, so that little of that is left for the
// pause; when it does not get there a longer pause is allowed.
func (m *machine) converge(ctx context.Context, src *moveRecord, mem drover.MemoryMove) error {
	want := pauseFirst
	for n := mem.Rounds; n > patience && want < pauseMost; n -= patience {
		want *= 2
	}
	if want = min(want, pauseMost); want > m.pauseFor {
		m.pauseFor = want
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.SetPause(ctx, want) }); err != nil {
			return err
		}
	}
	if mem.Rounds < 2 && mem.Remaining > mem.Rate {
		return nil
	}
	return m.flushLayers(ctx, src)
}

func (m *machine) flushLayers(ctx context.Context, src *moveRecord) error {
	_, err := eachExport(ctx, src.Exports, func(ctx context.Context, e drover.Export) (struct{}, error) {
		return struct{}{}, m.agent.cfg.Storage.Flush(ctx, e.Layer)
	})
	return err
}

// eachExport calls fn for all exports at once, each call bounded.
func eachExport[T any](ctx context.Context, exports []drover.Export, fn func(ctx context.Context, e drover.Export) (T, error)) (map[drover.DiskID]T, error) {
	var mu sync.Mutex
	out := make(map[drover.DiskID]T, len(exports))
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range exports {
		group.Go(func() error {
			got, err := call(ctx, func(ctx context.Context) (T, error) { return fn(ctx, e) })
			mu.Lock()
			defer mu.Unlock()
			out[e.Disk] = got
			return err
		})
	}
	return out, group.Wait()
}

// handOver is what the machine stands still for: the mark, the freezing of its layers, and the rest of its state, the two at once.
func (m *machine) handOver(ctx context.Context, src *moveRecord, paused drover.VMTransfer) error {
	if err := m.readReports(ctx); err != nil { // what the guest told before
		return err
	}
	at := paused.PausedAt
	if at.IsZero() || at.Before(src.Send.AskedAt) {
		at = m.agent.now() // an earlier agent saw it
	}
	group, gctx := errgroup.WithContext(ctx)
	var memory drover.MemoryMove
	group.Go(func() (err error) { memory, err = m.handState(gctx); return err })
	var allocated map[drover.DiskID]drover.Bytes
	group.Go(func() (err error) {
		m.agent.hit("host.live.before-mark")
		if err := m.changeMove(src.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
			if mv.Ending == "" && !mv.Frozen {
				mv.Frozen, mv.StoppedAt = true, at
			}
			return nil
		}); err != nil {
			return err
		}
		m.agent.hit("host.live.after-mark")
		if now := m.rec.Load().source(); now == nil || !now.Frozen || now.Ending != "" {
			return errSuperseded // an abort was faster
		}
		allocated, err = m.freezeLive(gctx, src)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	m.agent.hit("host.live.before-done")
	end, err := m.logEnd()
	if err != nil {
		return err
	}
	return m.changeMove(src.Migration, func(r *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Allocated = maps.Clone(allocated)
		mv.Send.Done, mv.Send.Memory = true, memory
		mv.Send.Handover = handoverOf(r, end)
		return nil
	})
}

// handoverOf is what the next host has to know.
func handoverOf(r *records, logEnd int64) *drover.Handover {
	h := &drover.Handover{Checks: r.Obs.Status.Checks, LogNext: logEnd}
	if e := r.Obs.VM.Exit; e != nil {
		h.Exit = &drover.MainExit{Code: e.Code, OOM: e.OOM, Text: e.Text, At: e.At}
	}
	return h
}

// logEnd is the length of the machine's log, which does not grow while the machine stands still.
func (m *machine) logEnd() (int64, error) {
	st, err := os.Stat(m.logPath())
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot look at the log of machine %q: %w", m.id, err)
	}
	return st.Size(), nil
}

func (m *machine) freezeLive(ctx context.Context, src *moveRecord) (map[drover.DiskID]drover.Bytes, error) {
	m.agent.hit("host.live.before-freeze")
	frozen, err := eachExport(ctx, src.Exports, func(ctx context.Context, e drover.Export) (drover.LayerStatus, error) {
		status, err := m.agent.cfg.Storage.Freeze(ctx, e.Layer)
		if err != nil {
			err = fmt.Errorf("cannot freeze the layer %q: %w", e.Layer, err)
		}
		return status, err
	})
	allocated := map[drover.DiskID]drover.Bytes{}
	for disk, status := range frozen {
		allocated[disk] = status.Allocated
	}
	m.agent.hit("host.live.after-freeze")
	return allocated, err
}

// handState lets the rest of the state go, waits until the target has it, and returns how the memory was copied.
func (m *machine) handState(ctx context.Context) (memory drover.MemoryMove, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handoverBound, fmt.Errorf("the target did not have it within %s", handoverBound))
	defer cancel()
	m.agent.hit("host.live.before-handover")
	if err := m.vm.Handover(ctx); err != nil {
		return memory, err
	}
	m.agent.hit("host.live.after-handover")
	for {
		now, err := m.vm.Transfer(ctx)
		switch {
		case err != nil:
			return memory, err
		case now.State == drover.TransferDone:
			return now.Memory, nil
		case now.State == drover.TransferFailed, now.State == drover.TransferNone:
			return memory, drover.Errorf(drover.Unavailable, "the rest of the state of machine %q was not sent: %s", m.id, now.Reason)
		}
		if err := m.awaitChange(ctx); err != nil {
			return memory, drover.Errorf(drover.Unavailable, "the rest of the state of machine %q is not sent: %w", m.id, err)
		}
	}
}

// changePoll is how often a transfer is looked at whose VMM says nothing of it.
const changePoll = 20 * time.Millisecond

// awaitChange waits until the VMM may tell something new.
func (m *machine) awaitChange(ctx context.Context) error {
	timer := time.NewTimer(changePoll)
	defer timer.Stop()
	select {
	case <-m.vm.Changes():
	case <-timer.C:
	case <-m.vm.Done():
		return drover.Errorf(drover.Precondition, "the VM has ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// stopSending ends what was begun, and lets the VM run on here.
func (m *machine) stopSending(ctx context.Context, src *moveRecord, why string) error {
	if !src.Frozen {
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.TakeBack(ctx) }); err != nil {
			return err
		}
	}
	return m.sendFailed(ctx, src, drover.VMTransfer{Reason: why, Running: true})
}

// sendFailed notes why the memory does not move. The VM runs on, unless its layers are frozen: that is for the abort to take back.
func (m *machine) sendFailed(ctx context.Context, src *moveRecord, now drover.VMTransfer) error {
	if !now.Running && !src.Frozen {
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.TakeBack(ctx) }); err != nil {
			return err
		}
	}
	m.agent.hit("host.live.failed")
	m.log.Warn("the machine does not move with its memory", "migration", string(src.Migration), "why", now.Reason)
	return m.changeMove(src.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		if mv.Send.Failed = now.Reason; mv.Send.Failed == "" {
			mv.Send.Failed = "the VMM does not say why"
		}
		return nil
	})
}

// goOnHere is a part of an abort: the VM whose memory was being sent goes on. Frozen layers are thawed by now, and are opened again at the
// epoch at which the VM has them.
func (m *machine) goOnHere(ctx context.Context, src *moveRecord) error {
	vm := m.rec.Load().Obs.VM
	if src.Send == nil || !vm.Live || m.vmFact != vmLive || vm.Launch != src.Send.Launch {
		return nil
	}
	if src.Frozen {
		m.agent.hit("host.live.before-reopen")
		_, err := eachExport(ctx, src.Exports, func(ctx context.Context, e drover.Export) (Attachment, error) {
			return m.agent.cfg.Storage.Open(ctx, e.Layer, vm.Epoch)
		})
		if drover.Is(err, drover.Conflict) || drover.Is(err, drover.Precondition) {
			m.log.Warn("the VM cannot have its disks again: the machine is started anew", "err", err)
			return m.kill(ctx, whyMove)
		}
		if err != nil {
			return err
		}
	}
	m.agent.hit("host.live.before-take-back")
	if src.Send.Begun || src.Frozen {
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.vm.TakeBack(ctx) }); err != nil {
			return err
		}
	}
	m.agent.hit("host.live.after-take-back")
	return nil
}
