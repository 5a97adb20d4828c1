package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

// Config describes the fleet that Up brings up. The zero Config asks for what is there, or for the default fleet: the workers h1 and h2
// in region ams, h3 in region fra, and the control host c1.
type Config struct {
	// Dir is the fleet's directory. Default: DefaultDir.
	Dir string
	// Exe is the drover program. Default: the one that is running.
	Exe string
	// Workers is how many worker hosts there shall be. 0 keeps what is there.
	Workers int
	// Regions are dealt out to new workers, in equal parts. Default: ams and fra.
	Regions []drover.Region
	// APIPort is the API's port on 127.0.0.1; 0 takes any free one, nil keeps what it was, 4280 at first.
	APIPort *int
	// Disk gives each worker a file system of that size for its data, which can be filled up. 0 keeps what is there: at first none.
	Disk drover.Bytes
	// Grace is how long a source keeps its copy after a move. 0 keeps what is there: at first the default of hosts.
	Grace time.Duration
	// BootTimeout is how long a machine's boot may take. 0 keeps what is there: at first the default of hosts.
	BootTimeout time.Duration
	// Mode may be left empty.
	Mode Mode
	// Wait bounds the time until the API answers and all workers have registered. Default 60 s.
	Wait time.Duration
	// Progress gets lines for people. It may be nil.
	Progress func(text string)
}

// Fleet is a development fleet in a directory.
type Fleet struct {
	p paths
	// rackEnded is closed when a rack that this process started has ended and been waited for; nil when another process did.
	rackEnded chan struct{}
}

// Bounds of what commands wait for.
const (
	lockTimeout  = 2 * time.Minute
	startTimeout = linkTimeout + 2*ctlDeadline
	// downTimeout is for hosts that take all their time, workers first.
	downTimeout = 2*(hostStopTimeout+ctlDeadline) + ctlDeadline
	killTimeout = 10 * time.Second
	defaultWait = 60 * time.Second
)

// Open returns the fleet of a directory. NotFound when there is none.
func Open(dir string) (*Fleet, error) {
	p, err := absolute(dir)
	if err != nil {
		return nil, err
	}
	if _, err := loadLayout(p); err != nil {
		return nil, err
	}
	return &Fleet{p: p}, nil
}

func absolute(dir string) (paths, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return "", err
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", drover.Errorf(drover.Invalid, "cannot use the directory %q: %w", dir, err)
	}
	return paths(abs), nil
}

// Up brings a fleet up: it makes what is missing, starts what is not running, and returns when the API answers and every worker has
// registered. It may be repeated. When it fails, what runs is left running, so that it can be looked at; Down ends it.
func Up(ctx context.Context, cfg Config) (*Fleet, error) {
	p, err := absolute(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.Exe == "" {
		if cfg.Exe, err = os.Executable(); err != nil {
			return nil, drover.Errorf(drover.Internal, "cannot find the drover program: %w", err)
		}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	if cfg.Wait == 0 {
		cfg.Wait = defaultWait
	}
	if err := durable.MkdirAll(p.dir(), 0o700); err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot make the fleet's directory: %w", err)
	}
	unlock, err := lock(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f := &Fleet{p: p}
	layout, mode, err := f.layOut(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := f.powerUp(ctx, cfg, layout, mode); err != nil {
		return nil, err
	}
	if err := f.waitReady(ctx, layout, cfg); err != nil {
		return nil, err
	}
	return f, nil
}

// layOut decides about layout and mode, makes sure that a rack runs, and prepares the hosts' directories.
func (f *Fleet) layOut(ctx context.Context, cfg Config) (*Layout, Mode, error) {
	have, err := loadLayout(f.p)
	if err != nil && !drover.Is(err, drover.NotFound) {
		return nil, "", err
	}
	layout, err := planLayout(have, cfg.Workers, cfg.Regions, cfg.APIPort)
	if err != nil {
		return nil, "", err
	}
	if err := layout.settle(have, cfg); err != nil {
		return nil, "", err
	}
	running, err := f.rack(ctx)
	mode, reason := Mode(""), ""
	switch {
	case err == nil && cfg.Mode != "" && cfg.Mode != running.Mode:
		return nil, "", drover.Errorf(drover.Precondition, "the fleet is up in the mode %s", running.Mode).WithHint("take it down first: drover dev down")
	case err == nil:
		mode = running.Mode
	default:
		if mode, reason, err = chooseMode(ctx, cfg.Exe, cfg.Mode); err != nil {
			return nil, "", err
		}
	}
	if under(f.p.dir(), "/run") && mode == ModeNamespaces {
		return nil, "", drover.Errorf(drover.Invalid, "the fleet's directory %q is in /run, which each host has for itself", f.p.dir()).
			WithHint("choose another with --dir")
	}
	if err := durable.WriteJSON(f.p.layout(), layout, 0o600); err != nil {
		return nil, "", drover.Errorf(drover.Internal, "cannot write the fleet's layout: %w", err)
	}
	if err := prepare(f.p, layout, mode, cfg.Exe); err != nil {
		return nil, "", err
	}
	if running != nil {
		return layout, mode, nil
	}
	cfg.Progress(fmt.Sprintf("hosts are kept apart by %s: %s", mode, reason))
	if mode == ModeLoopback {
		cfg.Progress("  so links cannot be cut or slowed down, and machines have QEMU's user networking")
	}
	return layout, mode, f.startRack(ctx, cfg, mode, reason)
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// startRack starts the rack's process, after the end of what an earlier one may have left.
func (f *Fleet) startRack(ctx context.Context, cfg Config, mode Mode, reason string) error {
	if err := f.endAll(ctx); err != nil {
		return err
	}
	out, err := openLog(f.p.rackLog())
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot open the rack's log: %w", err)
	}
	defer out.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot make a pipe: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(cfg.Exe, "dev", "rack", "--dir", f.p.dir(), "--mode", string(mode), "--reason", reason)
	cmd.Env = append(os.Environ(), envMark+"="+f.p.dir())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{readyWrite}
	cmd.SysProcAttr = rackAttributes(mode)
	err = cmd.Start()
	readyWrite.Close()
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot start the rack: %w", err)
	}
	f.rackEnded = make(chan struct{})
	go func() { // ends with the rack; the rack outlives this process, unless this is a test
		defer close(f.rackEnded)
		cmd.Wait() // how it ended is in its log
	}()
	if err := ready.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return drover.Errorf(drover.Internal, "cannot wait for the rack: %w", err)
	}
	var m readyMessage
	if err := json.NewDecoder(ready).Decode(&m); err != nil {
		return drover.Errorf(drover.Unavailable, "the rack did not start: %w", err).WithHint("%s", tailHint(f.p.rackLog()))
	}
	if m.Error != nil {
		return m.Error
	}
	return nil
}

// powerUp starts every host, control hosts first, so that workers find them.
func (f *Fleet) powerUp(ctx context.Context, cfg Config, layout *Layout, mode Mode) error {
	n := network{mode: mode, p: f.p}
	for _, role := range []drover.Role{drover.RoleControl, drover.RoleWorker} {
		for _, h := range layout.Hosts {
			if !h.has(role) {
				continue
			}
			if err := f.askRack(ctx, startTimeout, request{Op: "start", Host: h.ID}); err != nil {
				return err
			}
			cfg.Progress(fmt.Sprintf("%-4s %-5s %-14s %s", h.ID, h.Region, n.address(h.Number), strings.Join(h.services(), ", ")))
		}
	}
	return nil
}

// rack asks the rack how it is. Unavailable when there is none.
func (f *Fleet) rack(ctx context.Context) (*rackStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, ctlDeadline)
	defer cancel()
	a, err := ask(ctx, f.p.dir(), rackSocketName, request{Op: "status"})
	if err != nil {
		return nil, err
	}
	if a.Rack == nil {
		return nil, drover.Errorf(drover.Internal, "the rack in %q answers without a status", f.p.dir())
	}
	return a.Rack, nil
}

// askRack asks the rack for a change. Precondition when the fleet is down.
func (f *Fleet) askRack(ctx context.Context, limit time.Duration, req request) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := ask(ctx, f.p.dir(), rackSocketName, req)
	if drover.Is(err, drover.Unavailable) && ctx.Err() == nil {
		return drover.Errorf(drover.Precondition, "the fleet in %q is not up: %w", f.p.dir(), err).WithHint("drover dev up")
	}
	return err
}

// Dir is the fleet's directory.
func (f *Fleet) Dir() string { return f.p.dir() }

// Kill cuts a host's power: every process of it is gone at once, and what it had in its run directory. It stays off until Start.
func (f *Fleet) Kill(ctx context.Context, id drover.HostID) error {
	return f.askRack(ctx, killTimeout, request{Op: "kill", Host: id})
}

// KillService ends one service of a host by SIGKILL; the host starts it again.
func (f *Fleet) KillService(ctx context.Context, id drover.HostID, service string) error {
	_, err := f.askHost(ctx, id, killTimeout, request{Op: "kill-service", Service: service})
	return err
}

// Start gives a host power again. It returns when the host's services have been started, not when they are ready.
func (f *Fleet) Start(ctx context.Context, id drover.HostID) error {
	if err := f.askRack(ctx, startTimeout, request{Op: "start", Host: id}); err != nil {
		return err
	}
	return f.storeAPIInfo(ctx)
}

// Stop shuts a host down in order: its services are stopped, then its power is cut.
func (f *Fleet) Stop(ctx context.Context, id drover.HostID) error {
	return f.askRack(ctx, hostStopTimeout+killTimeout, request{Op: "stop", Host: id})
}

// Cut drops everything that the host sends and receives, without a sign to it, until Heal.
func (f *Fleet) Cut(ctx context.Context, id drover.HostID) error {
	return f.SetLink(ctx, id, Link{CutIn: true, CutOut: true})
}

// Heal makes the host's link whole: not cut, not slow.
func (f *Fleet) Heal(ctx context.Context, id drover.HostID) error { return f.SetLink(ctx, id, Link{}) }

// Slow bounds the host's link to a rate in bytes per second (0: no bound) in each direction, and adds a delay in each direction.
func (f *Fleet) Slow(ctx context.Context, id drover.HostID, rate drover.Bytes, delay time.Duration) error {
	return f.SetLink(ctx, id, Link{Rate: rate, Delay: delay})
}

// SetLink replaces what is done to the host's link. It holds until it is replaced, also while the host is off, and ends with Down.
func (f *Fleet) SetLink(ctx context.Context, id drover.HostID, l Link) error {
	return f.askRack(ctx, killTimeout, request{Op: "link", Host: id, Link: l})
}

// askHost asks a host's first process. Precondition when the host is off.
func (f *Fleet) askHost(ctx context.Context, id drover.HostID, limit time.Duration, req request, files ...*os.File) (*answer, error) {
	layout, err := loadLayout(f.p)
	if err != nil {
		return nil, err
	}
	if _, err := layout.host(id); err != nil {
		return nil, err
	}
	asking := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	a, err := ask(asking, f.p.host(id), hostSocketName, req, files...)
	if drover.Is(err, drover.Unavailable) && asking.Err() == nil {
		return nil, drover.Errorf(drover.Precondition, "host %q is off: %w", id, err).WithHint("drover dev start %s", id)
	}
	return a, err
}

// Exec runs a command inside a host, with its network, processes and run directory, and returns its exit code. It is killed when ctx
// ends.
func (f *Fleet) Exec(ctx context.Context, id drover.HostID, args []string, stdin, stdout, stderr *os.File) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	a, err := f.askHost(ctx, id, 0, request{Op: "exec", Args: args, Env: os.Environ(), Dir: dir}, stdin, stdout, stderr)
	if err != nil && ctx.Err() != nil {
		return 0, drover.Errorf(drover.Canceled, "%q was ended in host %q: %w", args[0], id, context.Cause(ctx))
	}
	if err != nil {
		return 0, err
	}
	return a.ExitCode, nil
}

// lock keeps two commands from bringing a fleet up and down at the same time. It waits for the other for a while.
func lock(ctx context.Context, p paths) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	file, err := os.OpenFile(p.lock(), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot open the fleet's lock: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			file.Close()
			return nil, drover.Errorf(drover.Internal, "cannot lock the fleet: %w", err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, drover.Errorf(drover.Conflict, "another command brings the fleet in %q up or down", p.dir())
		case <-tick.C:
		}
	}
}
