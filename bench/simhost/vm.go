package simhost

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drover"
	"drover/guest"
	"drover/host"
)

// vmm starts VMs that are nothing but what they report.
type vmm struct{ sim *sim }

// vm is a machine that runs its main process from the start, and ends when it is asked to, or killed. What only live moves need is that of a nil
// interface.
type vm struct {
	host.LiveVM
	host.StatefulVM
	sim  *sim
	spec drover.VMSpec
	run  string
	done chan struct{}
	once sync.Once
	// at and reason are there once done is closed.
	at     time.Time
	reason string
}

func (v vmm) Start(_ context.Context, spec drover.VMSpec) (host.VM, error) {
	cfg, err := guest.ReadConfig(spec.ConfigPath)
	if err != nil {
		return nil, err
	}
	m := &vm{sim: v.sim, spec: spec, run: cfg.Run, done: make(chan struct{})}
	v.sim.mu.Lock()
	_, there := v.sim.vms[spec.Machine]
	if !there {
		v.sim.vms[spec.Machine] = m
	}
	v.sim.mu.Unlock()
	if there {
		return nil, drover.Errorf(drover.Exists, "VM %q runs", spec.Machine)
	}
	if err := m.report(guest.StatusEvent{Event: guest.EventStarted, PID: 2}); err != nil {
		return nil, err
	}
	return m, nil
}

func (v vmm) Find(_ context.Context, id drover.MachineID) (host.VM, error) {
	v.sim.mu.Lock()
	defer v.sim.mu.Unlock()
	m, ok := v.sim.vms[id]
	if !ok {
		return nil, drover.Errorf(drover.NotFound, "no VM %q", id)
	}
	return m, nil
}

func (v vmm) Running(context.Context) (ids []drover.MachineID, err error) {
	v.sim.mu.Lock()
	defer v.sim.mu.Unlock()
	for id := range v.sim.vms {
		ids = append(ids, id)
	}
	return ids, nil
}

// report writes into the status file, as a guest does.
func (m *vm) report(ev guest.StatusEvent) (err error) {
	ev.T, ev.Run = time.Now().UnixNano(), m.run
	line, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(m.spec.StatusPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(append(line, '\n'))
	return err
}

func (m *vm) end(reason string) {
	m.once.Do(func() {
		m.sim.mu.Lock()
		delete(m.sim.vms, m.spec.Machine)
		m.sim.mu.Unlock()
		m.at, m.reason = time.Now(), reason
		close(m.done)
	})
}

func (m *vm) Kill(context.Context) error { m.end("killed"); return nil }

func (m *vm) Done() <-chan struct{} { return m.done }

func (m *vm) Ended() (time.Time, string) { return m.at, m.reason }

func (m *vm) SetShare(drover.VMShare) error { return nil }

func (m *vm) Resize(context.Context, int, drover.Attachment, drover.Bytes) error { return nil }

// dial connects to a guest: the directory of its agent socket is named after the machine.
func (s *sim) dial(_ context.Context, socket string) (host.Guest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.vms[drover.MachineID(filepath.Base(filepath.Dir(socket)))]
	if !ok {
		return nil, drover.Errorf(drover.Unavailable, "nobody listens at %s", socket)
	}
	return guestAgent{vm: m}, nil
}

// guestAgent is drover-init's side. What it does not do is that of a nil interface.
type guestAgent struct {
	host.Guest
	vm *vm
}

func (g guestAgent) Exec(_ context.Context, req drover.ExecRequest) (drover.ExecResult, error) {
	return drover.ExecResult{Stdout: []byte(req.Command[0])}, nil
}

func (g guestAgent) Signal(context.Context, string) error { return nil }

func (g guestAgent) Stop(context.Context, string, time.Duration) error {
	if err := g.vm.report(guest.StatusEvent{Event: guest.EventExited, Code: 130}); err != nil {
		return err
	}
	g.vm.end("the guest powered off")
	return nil
}

func (g guestAgent) Close() error { return nil }
