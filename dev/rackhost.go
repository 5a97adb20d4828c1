package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

// start gives a host power: its first process, its link, and on control hosts the API's listener. A host that has power is left as it is.
func (r *rack) start(ctx context.Context, h HostSpec) error {
	if r.powered(h.ID) != nil {
		return nil
	}
	if err := r.clearRun(h); err != nil {
		return err
	}
	if err := r.mountDisk(h); err != nil {
		return err
	}
	state, ready, err := r.launch(h)
	if err != nil {
		return err
	}
	defer ready.Close()
	go r.watch(ctx, h, state) // ends with the host
	if r.uplink != nil {
		if err := r.uplink.connect(h.Number, state.proc.pid); err != nil {
			return r.abandon(ctx, h, state, err)
		}
	}
	if err := ready.SetReadDeadline(time.Now().Add(linkTimeout + ctlDeadline)); err != nil {
		return r.abandon(ctx, h, state, err)
	}
	var m readyMessage
	if err := json.NewDecoder(ready).Decode(&m); err != nil {
		return r.abandon(ctx, h, state, drover.Errorf(drover.Unavailable, "host %q did not start: %w", h.ID, err).
			WithHint("see %s", r.p.log(h.ID, "host")))
	}
	if m.Error != nil {
		return r.abandon(ctx, h, state, m.Error)
	}
	r.mu.Lock()
	state.pid = m.PID
	if r.opts.Mode == ModeLoopback {
		state.pid = state.proc.pid
	}
	r.mu.Unlock()
	r.opts.Log.Info("host has power", "host", h.ID, "pid", m.PID)
	return nil
}

// launch starts a host's first process.
func (r *rack) launch(h HostSpec) (state *rackHost, ready *os.File, err error) {
	cannot := func(what string, err error) (*rackHost, *os.File, error) {
		return nil, nil, drover.Errorf(drover.CodeOf(err), "cannot start host %q: %s: %w", h.ID, what, err)
	}
	out, err := openLog(r.p.log(h.ID, "host"))
	if err != nil {
		return cannot("its log", err)
	}
	defer out.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return cannot("a pipe", err)
	}
	defer readyWrite.Close()
	lifeRead, lifeline, err := os.Pipe()
	if err != nil {
		ready.Close()
		return cannot("a pipe", err)
	}
	defer lifeRead.Close()
	cmd := exec.Command(r.opts.Exe, "dev", "host", "--dir", r.p.dir(), "--mode", string(r.opts.Mode), string(h.ID))
	cmd.Env = append(os.Environ(), envMark+"="+r.p.dir())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = lifeRead, out, out
	cmd.ExtraFiles = []*os.File{readyWrite}
	cmd.SysProcAttr = hostAttributes(r.opts.Mode)
	if h.has(drover.RoleControl) {
		listener, err := r.listenAPI()
		if err != nil {
			closeAll([]*os.File{ready, lifeline})
			return nil, nil, err
		}
		// The host has it from now on: when the host loses its power, nobody listens.
		defer listener.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, listener)
	}
	proc, err := r.children.start(cmd)
	if err != nil {
		closeAll([]*os.File{ready, lifeline})
		return cannot("its first process", err)
	}
	state = &rackHost{proc: proc, lifeline: lifeline, gone: make(chan struct{})}
	r.mu.Lock()
	r.hosts[h.ID] = state
	r.mu.Unlock()
	return state, ready, nil
}

// listenAPI opens the API's listener in the machine's own network namespace.
func (r *rack) listenAPI() (*os.File, error) {
	ports, err := r.apiPorts()
	if err != nil {
		return nil, err
	}
	var l net.Listener
	for _, port := range ports {
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			break
		}
	}
	if err != nil {
		return nil, drover.Errorf(drover.Conflict, "cannot listen on 127.0.0.1:%d for the API: %w", ports[0], err).
			WithHint("another fleet may run; choose another port with drover dev up --api-port N (0 for any)")
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot hand the API's listener over: %w", err)
	}
	r.mu.Lock()
	r.apiAddr = l.Addr().String()
	r.mu.Unlock()
	return f, nil
}

// apiPorts are the ports to be tried in order. Where any will do, the one that the fleet had is the best.
func (r *rack) apiPorts() ([]int, error) {
	layout, err := loadLayout(r.p)
	if err != nil {
		return nil, err
	}
	if layout.APIPort != 0 {
		return []int{layout.APIPort}, nil
	}
	if info, err := readAPIInfo(r.p); err == nil && info.port() != 0 {
		return []int{info.port(), 0}, nil
	}
	return []int{0}, nil
}

// watch deals with the end of a host's first process, whatever ended it.
func (r *rack) watch(ctx context.Context, h HostSpec, state *rackHost) {
	defer close(state.gone)
	<-state.proc.done
	code := state.proc.exitCode()
	if r.opts.Mode == ModeLoopback {
		// The host's other processes are the rack's children now; the host is off only when they are gone.
		r.killOrphans(ctx, h)
		if err := r.clearRun(h); err != nil {
			r.opts.Log.Error("cannot take away what a power cut takes", "host", h.ID, "err", err)
		}
	}
	state.lifeline.Close()
	if r.uplink != nil {
		if err := r.uplink.disconnect(h.Number); err != nil {
			r.opts.Log.Error("cannot remove a host's link", "host", h.ID, "err", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case state.why != "":
	case code == powerCutCode:
		state.why = "power cut (fault)"
	default:
		state.why = fmt.Sprintf("power cut (first process ended with exit code %d)", code)
	}
	state.proc, state.pid = nil, 0
	r.opts.Log.Info("host has no power", "host", h.ID, "why", state.why)
}

// clearRun removes the host's run directory, as a power cut does: in ModeNamespaces the kernel did it with the mount.
func (r *rack) clearRun(h HostSpec) error {
	if r.opts.Mode == ModeNamespaces {
		return nil
	}
	if err := durable.Remove(r.p.run(h.ID, r.opts.Mode)); err != nil {
		return drover.Errorf(drover.Internal, "cannot clear the run directory of host %q: %w", h.ID, err)
	}
	return nil
}

// killOrphans kills what a host's first process left behind.
func (r *rack) killOrphans(ctx context.Context, h HostSpec) {
	ctx, cancel := context.WithTimeout(ctx, ctlDeadline)
	defer cancel()
	if err := r.p.hostMembers(h.ID).sweep(ctx); err != nil {
		r.opts.Log.Error("cannot kill all of a host", "host", h.ID, "err", err)
	}
}

// kill cuts a host's power. A host without power stays so.
func (r *rack) kill(ctx context.Context, h HostSpec) error {
	state := r.powered(h.ID)
	if state == nil {
		return nil
	}
	r.because(state, "killed")
	if r.opts.Mode == ModeLoopback {
		cutPower(state.proc.pid, true)
	} else if err := r.children.signal(state.proc, unix.SIGKILL); err != nil {
		return drover.Errorf(drover.Internal, "cannot kill host %q: %w", h.ID, err)
	}
	return r.awaitGone(ctx, h, state, ctlDeadline)
}

// stop shuts a host down: its services are stopped, and what is left then (VMs among it) loses its power.
func (r *rack) stop(ctx context.Context, h HostSpec) error {
	state := r.powered(h.ID)
	if state == nil {
		return nil
	}
	r.because(state, "shut down")
	if err := r.children.signal(state.proc, unix.SIGTERM); err != nil {
		return drover.Errorf(drover.Internal, "cannot shut host %q down: %w", h.ID, err)
	}
	if r.awaitGone(ctx, h, state, hostStopTimeout) == nil {
		return nil
	}
	r.opts.Log.Error("host does not shut down; its power is cut", "host", h.ID)
	return r.kill(ctx, h)
}

func (r *rack) because(state *rackHost, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state.why = why
}

func (r *rack) awaitGone(ctx context.Context, h HostSpec, state *rackHost, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-state.gone:
		return nil
	case <-ctx.Done():
		return drover.Errorf(drover.Unavailable, "host %q is not off after %s", h.ID, limit)
	}
}

// abandon takes back the power of a host that did not start.
func (r *rack) abandon(ctx context.Context, h HostSpec, state *rackHost, cause error) error {
	r.because(state, "did not start")
	if err := r.kill(ctx, h); err != nil {
		r.opts.Log.Error("cannot end a host that did not start", "host", h.ID, "err", err)
	}
	return cause
}
