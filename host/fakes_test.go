package host

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// The ports' fakes. Each is one session's view of the world.
type (
	fakeStorage struct{ s *session }
	fakeVMM     struct{ s *session }
	fakeImages  struct{ s *session }
	fakeNetwork struct{ s *session }
	fakeBus     struct{ s *session }
	fakeFiles   struct{ s *session }
	fakeKeys    struct{ s *session }
	fakeSecrets struct{ s *session }
	fakeGuest   struct {
		s  *session
		vm *fakeVM
	}
)

var (
	_ Storage    = fakeStorage{}
	_ VMM        = fakeVMM{}
	_ Images     = fakeImages{}
	_ Network    = fakeNetwork{}
	_ Bus        = fakeBus{}
	_ Keys       = fakeKeys{}
	_ Secrets    = fakeSecrets{}
	_ guestFiles = fakeFiles{}
	_ Guest      = fakeGuest{}
)

// fakeVM is one VM process.
type fakeVM struct {
	h      *fakeHost
	spec   drover.VMSpec
	plan   bootPlan
	done   chan struct{}
	at     time.Time
	reason string
	main   bool
	// share is the last that an agent gave it; it is started in a hurry.
	share drover.VMShare
	// still: it executes nothing. boot is how the guest names itself in its reports, when that is another host's name for it.
	still bool
	boot  string
	move  *fakeMove
	// life tells one guest, from its boot on, from others: it goes on where its memory does.
	life int
}

func (vm *fakeVM) Done() <-chan struct{} { return vm.done }

func (vm *fakeVM) Ended() (time.Time, string) {
	vm.h.w.mu.Lock()
	defer vm.h.w.mu.Unlock()
	return vm.at, vm.reason
}

func (vm *fakeVM) endLocked(reason string) {
	if vm.h.vms[vm.spec.Machine] != vm {
		return
	}
	delete(vm.h.vms, vm.spec.Machine)
	vm.at, vm.reason = time.Now(), reason
	close(vm.done)
}

func (vm *fakeVM) report(r report) {
	r.Run, r.At = vm.bootName(), time.Now()
	vm.h.reports[vm.spec.StatusPath] = append(vm.h.reports[vm.spec.StatusPath], r)
}

// live is the life of the guest, without the agent.
func (vm *fakeVM) live() {
	wait := func(d time.Duration) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-vm.done:
			return false
		case <-timer.C:
			return true
		}
	}
	if vm.plan.start < 0 || vm.spec.Incoming {
		<-vm.done
		return
	}
	if !wait(vm.plan.start) {
		return
	}
	vm.h.w.mu.Lock()
	vm.main = true
	vm.report(report{Kind: reportStarted})
	vm.h.w.mu.Unlock()
	if vm.plan.exit == 0 || !wait(vm.plan.exit) {
		return
	}
	vm.h.w.mu.Lock()
	defer vm.h.w.mu.Unlock()
	if !vm.plan.crash {
		vm.report(report{Kind: reportExited, Code: vm.plan.code})
	}
	vm.endLocked("the guest powered off")
}

// sessionVM is a VM as one agent sees it.
type sessionVM struct {
	*fakeVM
	s *session
}

func (v sessionVM) Kill(context.Context) error {
	return v.s.effect("kill", func() error { v.endLocked("killed"); return nil })
}

// SetShare is no effect of its own to be walked: an agent that dies gives the share again.
func (v sessionVM) SetShare(share drover.VMShare) error {
	return v.s.look(func() error { v.share = share; return nil })
}

func (v sessionVM) Resize(_ context.Context, disk int, _ drover.Attachment, size drover.Bytes) error {
	return v.s.effect("vm-resize", func() error {
		if v.plan.old {
			return drover.Errorf(drover.Precondition, "the VM cannot be told")
		}
		v.h.vmSizes[disk] = size
		return nil
	})
}

func (f fakeVMM) Start(_ context.Context, spec drover.VMSpec) (vm VM, err error) {
	err = f.s.effect("vm-start", func() error {
		h := f.s.h
		if h.vms[spec.Machine] != nil {
			return drover.Errorf(drover.Exists, "VM %q runs", spec.Machine)
		}
		for hid, other := range h.w.host {
			if o := other.vms[spec.Machine]; o != nil && o.runs() && !spec.Incoming {
				h.w.t.Errorf("machine %s is started on %s while it runs on %s", spec.Machine, h.id, hid)
			}
		}
		v := &fakeVM{h: h, spec: spec, share: drover.VMShare{Hurry: true}, plan: h.boot(h.booted), done: make(chan struct{}), still: spec.Incoming,
			move: &fakeMove{changes: make(chan struct{}, 1)}}
		h.booted++
		h.vms[spec.Machine] = v
		if !spec.Incoming {
			v.runsNow()
		}
		h.w.wg.Go(v.live)
		vm = sessionVM{v, f.s}
		return nil
	})
	return vm, err
}

func (f fakeVMM) Find(_ context.Context, id drover.MachineID) (vm VM, err error) {
	err = f.s.look(func() error {
		v := f.s.h.vms[id]
		if v == nil {
			return drover.Errorf(drover.NotFound, "no VM %q", id)
		}
		vm = sessionVM{v, f.s}
		return nil
	})
	return vm, err
}

func (f fakeVMM) Running(context.Context) (ids []drover.MachineID, err error) {
	err = f.s.look(func() error {
		for id := range f.s.h.vms {
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

func (s *session) dial(socket string) (g Guest, err error) {
	err = s.look(func() error {
		vm := s.h.vms[drover.MachineID(filepath.Base(filepath.Dir(socket)))]
		if vm == nil || !vm.main {
			return drover.Errorf(drover.Unavailable, "nobody listens at %s", socket)
		}
		g = fakeGuest{s, vm}
		return nil
	})
	return g, err
}

func (g fakeGuest) Exec(_ context.Context, req drover.ExecRequest) (drover.ExecResult, error) {
	return drover.ExecResult{Stdout: []byte(req.Command[0])}, nil
}

// Stream gives back what it gets, and ends with the code 5 when there is no more, or when its VM is gone.
func (g fakeGuest) Stream(_ context.Context, req drover.ExecStreamRequest) (frames.Conn, error) {
	if len(req.Command) > 0 && req.Command[0] == "refused" {
		return nil, drover.Errorf(drover.Exhausted, "16 commands are running in this machine already")
	}
	return &fakeStream{vm: g.vm, queue: frames.NewQueue()}, nil
}

func (g fakeGuest) Done() <-chan struct{} { return g.vm.done }

type fakeStream struct {
	vm    *fakeVM
	queue *frames.Queue
}

func (s *fakeStream) Send(_ context.Context, f frames.Frame) error {
	switch f.Kind {
	case frames.Stdin:
		f.Kind = frames.Stdout
	case frames.StdinEnd:
		f = frames.NewExit(drover.StreamExit{ExitCode: 5})
	}
	s.queue.Put(f)
	return nil
}

func (s *fakeStream) Receive(ctx context.Context) (frames.Frame, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.vm.done:
			s.queue.End(frames.Cut(nil))
		case <-ctx.Done():
		}
	}()
	return s.queue.Get(ctx)
}

func (s *fakeStream) Close() error {
	s.queue.End(io.EOF)
	return nil
}

func (g fakeGuest) Freeze(_ context.Context, volume drover.VolumeID, most time.Duration) error {
	return g.s.effect("guest-freeze", func() error {
		if g.vm.plan.old {
			return drover.Errorf(drover.Precondition, "the guest knows no freeze")
		}
		h := g.vm.h
		h.guestFrozen++
		turn := h.guestFrozen
		g.s.h.w.wg.Go(func() {
			timer := time.NewTimer(most)
			defer timer.Stop()
			select {
			case <-g.vm.done:
			case <-timer.C:
			}
			h.w.mu.Lock()
			defer h.w.mu.Unlock()
			if h.guestFrozen == turn {
				h.guestFrozen = 0
			}
		})
		return nil
	})
}

func (g fakeGuest) Thaw(context.Context, drover.VolumeID) error {
	return g.s.effect("guest-thaw", func() error {
		if g.vm.h.guestFrozen == 0 {
			return drover.Errorf(drover.Precondition, "it is not frozen any more")
		}
		g.vm.h.guestFrozen = 0
		return nil
	})
}

func (g fakeGuest) Grow(context.Context, drover.VolumeID, drover.Bytes) error {
	return g.s.effect("guest-grow", func() error { g.vm.h.guestGrown++; return nil })
}

func (g fakeGuest) Ps(context.Context) ([]drover.Process, error) {
	return []drover.Process{{PID: 2, Command: "main"}}, nil
}

func (g fakeGuest) Signal(context.Context, string) error { return nil }
func (g fakeGuest) Close() error                         { return nil }

func (g fakeGuest) Stop(_ context.Context, signal string, timeout time.Duration) error {
	return g.s.effect("guest-stop", func() error {
		if g.vm.plan.deaf || g.vm.h.vms[g.vm.spec.Machine] != g.vm {
			return nil
		}
		g.s.h.w.wg.Go(func() {
			timer := time.NewTimer(g.vm.plan.stopIn)
			defer timer.Stop()
			select {
			case <-g.vm.done:
				return
			case <-timer.C:
			}
			g.vm.h.w.mu.Lock()
			defer g.vm.h.w.mu.Unlock()
			if g.vm.h.vms[g.vm.spec.Machine] == g.vm {
				g.vm.report(report{Kind: reportExited, Code: 130})
				g.vm.endLocked("the guest powered off")
			}
		})
		return nil
	})
}

func (f fakeFiles) WriteConfig(path string, cfg guest.Config) error {
	return f.s.effect("write-config", func() error { f.s.h.configs[path], f.s.h.env[path] = cfg.Run, cfg.Env; return nil })
}

func (f fakeFiles) Reports(_ context.Context, path string, offset int64) (out []report, next int64, err error) {
	err = f.s.look(func() error {
		all := f.s.h.reports[path]
		if offset > int64(len(all)) {
			offset = 0
		}
		out, next = append(out, all[offset:]...), int64(len(all))
		return nil
	})
	return out, next, err
}

func (f fakeFiles) ReadLog(_ string, req drover.LogsRequest) (drover.LogsAnswer, error) {
	return drover.LogsAnswer{Next: req.Offset}, nil
}
func (f fakeFiles) TrimLog(string) error { return nil }

func (f fakeFiles) TrimRead(string, int64) error { return nil }

func (f fakeImages) Resolve(_ context.Context, image string) (drover.ResolvedImage, error) {
	return drover.ResolvedImage{ImageRef: drover.ImageRef{Digest: "sha256:" + image}}, nil
}

func (f fakeImages) Fetchable(context.Context, string, drover.ImageRef) error { return nil }

func (f fakeImages) Ensure(_ context.Context, _ string, ref drover.ImageRef, progress func(string)) (out drover.ImageLayer, err error) {
	progress("fetching")
	err = f.s.effect("ensure-image", func() error {
		h := f.s.h
		h.ensured++
		if h.images != nil {
			return h.images
		}
		id := drover.LayerID("img_" + ref.Digest)
		h.layers[id] = &fakeLayer{spec: LayerSpec{ID: id}, status: drover.LayerStatus{ID: id, State: drover.LayerImage, Size: drover.GiB}}
		out = drover.ImageLayer{Layer: id, Size: drover.GiB, Ref: ref, Run: drover.ImageConfig{Cmd: []string{"run"}}}
		return nil
	})
	return out, err
}

func (f fakeNetwork) Attach(_ context.Context, id drover.MachineID, _ string) (tap string, err error) {
	err = f.s.effect("attach", func() error { f.s.h.taps[id] = true; tap = "tap0"; return nil })
	return tap, err
}

func (f fakeNetwork) Police(_ context.Context, id drover.MachineID, _ string, p drover.MachinePolicy) error {
	return f.s.effect("police", func() error { f.s.h.policies[id] = p; return nil })
}

func (f fakeNetwork) Detach(_ context.Context, id drover.MachineID) error {
	return f.s.effect("detach", func() error { delete(f.s.h.taps, id); return nil })
}

func (f fakeNetwork) Attached(context.Context) (ids []drover.MachineID, err error) {
	err = f.s.look(func() error {
		for id := range f.s.h.taps {
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

// ask is one question to the fleet's store.
func (f fakeBus) ask(fn func(w *world) error) error {
	return f.s.look(func() error {
		if f.s.h.w.busDown || f.s.h.away {
			return drover.Errorf(drover.Unavailable, "the bus does not answer")
		}
		return fn(f.s.h.w)
	})
}

func (f fakeBus) Placement(_ context.Context, id drover.MachineID) (p drover.Placement, err error) {
	err = f.ask(func(w *world) error {
		w.placementReads++
		var ok bool
		if p, ok = w.placements[id]; !ok {
			return drover.Errorf(drover.NotFound, "no placement of %q", id)
		}
		return nil
	})
	return p, err
}

func (f fakeBus) Doubted(_ context.Context, has map[drover.MachineID]drover.Epoch) (doubted []drover.MachineID, err error) {
	err = f.ask(func(w *world) error {
		if w.controlDown {
			return drover.Errorf(drover.Unavailable, "no control host answers")
		}
		for id, epoch := range has {
			if p, ok := w.placements[id]; !ok || p.Host != f.s.h.id || p.Epoch != epoch {
				doubted = append(doubted, id)
			}
		}
		return nil
	})
	return doubted, err
}

func (f fakeBus) Machine(_ context.Context, id drover.MachineID) (m drover.Machine, err error) {
	err = f.ask(func(w *world) error { m = w.machines[id]; return nil })
	return m, err
}

func (f fakeBus) Migration(_ context.Context, id drover.MigrationID) (m drover.Migration, err error) {
	err = f.ask(func(w *world) error {
		var ok bool
		if m, ok = w.migrations[id]; !ok {
			return drover.Errorf(drover.NotFound, "no migration %q", id)
		}
		return nil
	})
	return m, err
}

func (f fakeBus) PublishStatus(_ context.Context, s drover.MachineStatus) error {
	return f.ask(func(w *world) error {
		if w.status[s.Machine].Epoch > s.Epoch {
			return drover.Errorf(drover.Conflict, "a newer epoch is there")
		}
		for _, e := range s.Events {
			if old, ok := w.events[e.ID]; ok && (old.Type != e.Type || old.Text != e.Text || !old.At.Equal(e.At)) {
				w.t.Errorf("event %s changed from %+v to %+v", e.ID, old, e)
			}
			w.events[e.ID] = e
		}
		w.status[s.Machine] = s
		return nil
	})
}

func (f fakeBus) PublishInfo(context.Context, drover.HostInfo) error {
	return f.ask(func(*world) error { return nil })
}

func (f fakeBus) Serve(ctx context.Context, _ drover.Order, _ func(context.Context, []byte) (any, error)) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (f fakeBus) ServeStream(ctx context.Context, _ drover.Order, _ func(context.Context, []byte, func() (frames.Conn, error)) error) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (f fakeBus) Connected() <-chan struct{} {
	f.s.h.w.mu.Lock()
	defer f.s.h.w.mu.Unlock()
	return f.s.h.w.connected
}

// The world's agents have no routes to follow anything for.
func (f fakeBus) FollowPlacements(ctx context.Context, _ func(drover.MachineID, *drover.Placement) error) error {
	<-ctx.Done()
	return nil
}

func (f fakeBus) FollowMachines(ctx context.Context, _ func(drover.MachineID, *drover.Machine) error) error {
	<-ctx.Done()
	return nil
}

func (f fakeBus) FollowHosts(ctx context.Context, _ func(drover.HostID, *drover.HostInfo) error) error {
	<-ctx.Done()
	return nil
}

func (f fakeBus) FollowPolicies(ctx context.Context, _ func(drover.AppName, *drover.AppPolicies) error) error {
	<-ctx.Done()
	return nil
}

// setBus cuts the bus, or brings it back.
func (w *world) setBus(up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busDown = !up
	if up {
		close(w.connected)
		w.connected = make(chan struct{})
	}
}
