package dev

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
	"drover/internal/fault"
	"drover/internal/netdev"
	"drover/internal/sockets"
	"drover/volume"
)

// Descriptors that the rack gives to a host's first process, besides its standard input, which ends when the rack does.
const (
	readyFD    = 3 // gets one readyMessage
	listenerFD = 4 // the API's listener, only on control hosts
)

// linkTimeout bounds how long a host waits for its network device.
const linkTimeout = 20 * time.Second

// powerCutCode is the exit code of a host's first process after a power cut from inside.
const powerCutCode = 77

// readyMessage tells the rack how the start went.
type readyMessage struct {
	PID   int           `json:"pid"`
	Error *drover.Error `json:"error,omitempty"`
}

// HostOptions describe the first process of a host.
type HostOptions struct {
	Dir  string
	ID   drover.HostID
	Mode Mode
	// Exe is the program that the services run.
	Exe string
	Log *slog.Logger
}

// hostProc is the first process of a host.
type hostProc struct {
	opts     HostOptions
	p        paths
	spec     HostSpec
	run      string
	children *children
	services []*service
}

// RunHost is the first process of a host: it sets up mounts and network, starts the services and keeps them running until
// ctx ends; then it stops them in reverse order and returns. It is started by the rack, never by hand.
func RunHost(ctx context.Context, opts HostOptions) error {
	ready := os.NewFile(readyFD, "ready")
	defer ready.Close()
	h := &hostProc{opts: opts, p: paths(opts.Dir), run: paths(opts.Dir).run(opts.ID, opts.Mode), children: newChildren()}
	pid, ctl, power, err := h.setUp(ctx)
	if err != nil {
		return tell(ready, readyMessage{Error: drover.AsError(err)}, err)
	}
	if err := tell(ready, readyMessage{PID: pid}, nil); err != nil {
		return drover.Errorf(drover.Internal, "cannot tell the rack that host %q is ready: %w", opts.ID, err)
	}
	ready.Close()
	opts.Log.Info("host has power", "host", opts.ID, "mode", opts.Mode, "pid", pid)

	var g sync.WaitGroup
	reaping, stopReaping := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() { h.children.run(reaping) })
	g.Go(func() { serveCtl(ctx, ctl, h.handle) })
	go h.watchPower(power)
	go h.watchRack()
	h.runServices(ctx)
	ctl.Close()
	stopReaping()
	g.Wait()
	opts.Log.Info("host was shut down", "host", opts.ID)
	return nil
}

func tell(ready *os.File, m readyMessage, err error) error {
	if encodeErr := json.NewEncoder(ready).Encode(m); encodeErr != nil && err == nil {
		return encodeErr
	}
	return err
}

func (h *hostProc) setUp(ctx context.Context) (pid int, ctl, power *net.UnixListener, err error) {
	fail := func(what string, err error) (int, *net.UnixListener, *net.UnixListener, error) {
		return 0, nil, nil, drover.Errorf(drover.CodeOf(err), "cannot %s of host %q: %w", what, h.opts.ID, err)
	}
	layout, err := loadLayout(h.p)
	if err != nil {
		return fail("read the layout", err)
	}
	if h.spec, err = layout.host(h.opts.ID); err != nil {
		return fail("find the layout", err)
	}
	if pid, err = selfOutside(); err != nil {
		return fail("find the process number", err)
	}
	if h.opts.Mode == ModeLoopback {
		if err := becomeSubreaper(); err != nil {
			return fail("set up the processes", err)
		}
	} else {
		if err := isolate(string(h.opts.ID)); err != nil {
			return fail("set up the namespaces", err)
		}
		ctx, cancel := context.WithTimeout(ctx, linkTimeout)
		defer cancel()
		if err := netdev.StartLoopback(); err != nil {
			return fail("set up the network", err)
		}
		n := network{mode: h.opts.Mode, p: h.p}
		if err := netdev.StartLink(ctx, "eth0", n.prefixes(h.spec.Number)...); err != nil {
			return fail("set up the network", err)
		}
		if err := netdev.StartForwarding(); err != nil {
			return fail("set up the network", err)
		}
	}
	if err := durable.MkdirAll(h.run, 0o700); err != nil {
		return fail("make the run directory", err)
	}
	if power, err = listenDir(h.run, powerSocketName); err != nil {
		return fail("listen on the power socket", err)
	}
	if ctl, err = listenDir(h.p.host(h.opts.ID), hostSocketName); err != nil {
		return fail("listen on the control socket", err)
	}
	if err = h.makeServices(); err != nil {
		return fail("make the services", err)
	}
	return pid, ctl, power, nil
}

// selfOutside returns this process's number as processes outside see it: /proc is still that of the outside.
func selfOutside() (int, error) {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(self)
}

// isolate makes the mounts of a host: its own /proc, and a tmpfs on /run for all that a power cut must take away.
func isolate(hostname string) error {
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	if err := privateMounts(); err != nil {
		return err
	}
	mounts := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"drover", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return drover.Errorf(drover.Denied, "cannot mount %s on %s: %w", m.source, m.target, os.NewSyscallError("mount", err))
		}
	}
	return nil
}

// powerSocket is where whoever connects cuts the host's power.
func (h *hostProc) powerSocket() string { return filepath.Join(h.run, powerSocketName) }

// powerEnv is the environment variable that names a power socket. In ModeLoopback it also tells the host's processes from others.
func powerEnv(socket string) string { return fault.EnvPowerSocket + "=" + socket }

// privateMounts keeps the mounts of this process's mount namespace from being seen outside of it.
func privateMounts() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return drover.Errorf(drover.Denied, "cannot keep mounts private: %w", os.NewSyscallError("mount", err))
	}
	return nil
}

// becomeSubreaper makes this process the parent of its descendants that lose theirs (prctl(2)), so that none escapes.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return drover.Errorf(drover.Internal, "cannot become a subreaper: %w", os.NewSyscallError("prctl", err))
	}
	return nil
}

func (h *hostProc) makeServices() error {
	env := append(os.Environ(),
		fault.EnvDir+"="+h.p.faults(h.opts.ID),
		powerEnv(h.powerSocket()))
	for _, name := range h.spec.services() {
		s := &service{
			name:     name,
			args:     []string{h.opts.Exe, "serve", name, "--config", h.p.hostConfig(h.opts.ID)},
			env:      env,
			logPath:  h.p.log(h.opts.ID, name),
			children: h.children,
			log:      h.opts.Log,
		}
		switch name {
		case "control":
			unix.CloseOnExec(listenerFD)
			api := os.NewFile(listenerFD, "api")
			s.socket, s.env = func() (*os.File, error) { return api, nil }, append(slices.Clone(env), sockets.Env("api")...)
		case "storage":
			s.socket, s.env = sockets.Hold(volume.NBDSocket(h.run)).File, append(slices.Clone(env), sockets.Env("nbd")...)
			if _, err := s.socket(); err != nil { // so that it is there as soon as the host is
				return err
			}
		}
		h.services = append(h.services, s)
	}
	return nil
}

// runServices runs the services until ctx ends, then stops them one after the other, the last first.
func (h *hostProc) runServices(ctx context.Context) {
	var all sync.WaitGroup
	type stopper struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	var stoppers []stopper
	for _, s := range h.services {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		stoppers = append(stoppers, stopper{cancel, done})
		all.Go(func() {
			defer close(done)
			s.run(ctx)
		})
	}
	<-ctx.Done()
	for _, s := range slices.Backward(stoppers) {
		s.cancel()
		<-s.done
	}
	all.Wait()
}

// watchPower cuts the power when somebody connects to the power socket.
func (h *hostProc) watchPower(power *net.UnixListener) {
	if _, err := power.Accept(); err == nil {
		h.powerOff()
	}
}

// watchRack cuts the power when the rack is gone.
func (h *hostProc) watchRack() {
	if _, err := io.Copy(io.Discard, os.Stdin); err == nil {
		h.powerOff()
	}
}

// powerOff ends everything of the host at once. In ModeNamespaces the end of the first process does it.
func (h *hostProc) powerOff() {
	if h.opts.Mode == ModeLoopback {
		cutPower(os.Getpid(), false)
	}
	os.Exit(powerCutCode)
}

// handle answers a request to the host.
func (h *hostProc) handle(ctx context.Context, req request, files []*os.File) (answer, error) {
	switch req.Op {
	case "services":
		var a answer
		for _, s := range h.services {
			a.Services = append(a.Services, s.status())
		}
		return a, nil
	case "kill-service":
		i := slices.IndexFunc(h.services, func(s *service) bool { return s.name == req.Service })
		if i < 0 {
			return answer{}, drover.Errorf(drover.NotFound, "host %q has no service %q", h.opts.ID, req.Service).
				WithHint("its services are %v", h.spec.services())
		}
		return answer{}, h.services[i].kill(ctx)
	case "exec":
		return h.exec(ctx, req, files)
	}
	return answer{}, drover.Errorf(drover.Invalid, "host %q does not know the request %q", h.opts.ID, req.Op)
}

// exec runs a command in the host with the caller's files, and kills it when the caller hangs up.
func (h *hostProc) exec(ctx context.Context, req request, files []*os.File) (answer, error) {
	if len(req.Args) == 0 || len(files) != 3 {
		return answer{}, drover.Errorf(drover.Invalid, "a command needs arguments and three files")
	}
	cmd := exec.Command(req.Args[0], req.Args[1:]...)
	cmd.Env, cmd.Dir = append(req.Env, envMark+"="+h.opts.Dir, powerEnv(h.powerSocket()), "DROVER_HOST="+string(h.opts.ID),
		"DROVER_RUN_DIR="+h.run, "DROVER_DATA_DIR="+h.p.data(h.opts.ID), "DROVER_TLS_DIR="+h.p.tls(h.opts.ID)), req.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // so that what it starts can be told from what else runs in the host
	p, err := h.children.start(cmd)
	if err != nil {
		return answer{}, drover.Errorf(drover.Invalid, "cannot run %q in host %q: %w", req.Args[0], h.opts.ID, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if err := h.children.killSession(p); err != nil {
			return answer{}, err
		}
		<-p.done
	}
	return answer{ExitCode: p.exitCode()}, nil
}
