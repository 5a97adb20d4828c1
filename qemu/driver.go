package qemu

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"drover"
	"drover/internal/durable"
)

// Config is what a Driver is made of.
type Config struct {
	// RunDir holds a directory for each running VM. It should be on tmpfs: nothing in it outlives a boot of the host. Its
	// path may have at most 80 bytes, because sockets are in it.
	RunDir string
	// GuestDir has vmlinux, vmlinuz and initrd.img.
	GuestDir string
	// TLSDir has the host's certificates under the names that QEMU looks for (package fleetca); VMs send and take memory with them. Empty: none
	// can move live.
	TLSDir string
	// Accel is the accelerator; empty means to find out by trying.
	Accel drover.Accel
	Log   *slog.Logger
}

// Driver starts and finds VMs. It is safe for concurrent use.
type Driver struct {
	cfg     Config
	binary  string
	version string
	// machine is the versioned name of the machine type: memory goes only between equal ones.
	machine string
	accel   drover.Accel
	reason  string
	groups  cgroups
	// startWait is how long a start may take, from the process to its first answer.
	startWait time.Duration

	mu  sync.Mutex
	vms map[drover.MachineID]*VM
}

// maxRunDir leaves room for the names below it in a socket's address (108 bytes with the final zero).
const maxRunDir = 80

// binaryName is the emulator.
const binaryName = "qemu-system-x86_64"

var versionRE = regexp.MustCompile(`version (\d+\.\d+(\.\d+)?)`)

// New finds QEMU, chooses the accelerator and clears what VMs that are gone left in RunDir. Invalid: the config is wrong, or a
// part is not installed; the hint says what to do.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	if cfg.RunDir == "" || !filepath.IsAbs(cfg.RunDir) || len(cfg.RunDir) > maxRunDir {
		return nil, drover.Errorf(drover.Invalid, "qemu: the run directory %q must be an absolute path of at most %d bytes, because sockets "+
			"are in it", cfg.RunDir, maxRunDir)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Driver{cfg: cfg, startWait: startTimeout, vms: map[drover.MachineID]*VM{}}
	for _, name := range []string{kernelTCG, kernelKVM, initrd} {
		if _, err := os.Stat(d.guestFile(name)); err != nil {
			return nil, drover.Errorf(drover.Invalid, "qemu: a part of the guest is missing: %w", err).
				WithHint("run script/bootstrap and script/build-guest, which put it into build/guest")
		}
	}
	if err := d.findBinary(ctx); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "qemu: cannot make the run directory: %w", err)
	}
	if err := d.sweep(); err != nil {
		return nil, err
	}
	if d.groups = findCgroups("", cfg.RunDir); d.groups.dir == "" {
		cfg.Log.Warn("CPU and memory of VMs are not bounded by control groups; shared CPUs have a lower priority", "why", d.groups.reason)
	}
	return d, d.chooseAccel(ctx)
}

func (d *Driver) guestFile(name string) string { return filepath.Join(d.cfg.GuestDir, name) }

func (d *Driver) findBinary(ctx context.Context) error {
	path, err := exec.LookPath(binaryName)
	if err != nil {
		return drover.Errorf(drover.Invalid, "qemu: there is no %s: %w", binaryName, err).
			WithHint("install it: apt-get install --no-install-recommends qemu-system-x86")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return drover.Errorf(drover.Internal, "qemu: %s --version: %w", path, err)
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return drover.Errorf(drover.Internal, "qemu: %s --version says %q", path, out)
	}
	d.binary, d.version = path, string(m[1])
	return d.findMachine(ctx)
}

// Accel returns how VMs execute, and why so.
func (d *Driver) Accel() (accel drover.Accel, reason string) { return d.accel, d.reason }

// Version names the VMM, such as "QEMU 7.2.22".
func (d *Driver) Version() string { return "QEMU " + d.version }

// Find attaches to the running VM of the machine. NotFound when none runs.
func (d *Driver) Find(ctx context.Context, id drover.MachineID) (*VM, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	d.mu.Lock()
	vm := d.vms[id]
	d.mu.Unlock()
	if vm != nil && !vm.ended() {
		return vm, nil
	}
	// A VM that another process is just starting has its lock before it has its process: look for a while.
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		locked, err := d.locked(id)
		if err != nil {
			return nil, err
		}
		if !locked {
			return nil, drover.Errorf(drover.NotFound, "machine %q has no running VM on this host", id)
		}
		proc, err := d.identify(id)
		if err == nil {
			return d.attach(ctx, id, proc), nil
		}
		if !errors.Is(err, errNoProcess) || wait > 2*time.Second {
			return nil, drover.Errorf(drover.Unavailable, "machine %q: its VM cannot be found, though it runs: %w", id, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, drover.Errorf(drover.Canceled, "machine %q: finding its VM was given up: %w", id, context.Cause(ctx))
		}
	}
}

// Running lists the VMs whose process exists, known to this Driver or not.
func (d *Driver) Running(context.Context) ([]drover.MachineID, error) {
	entries, err := os.ReadDir(d.cfg.RunDir)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "qemu: cannot list the run directory: %w", err)
	}
	var out []drover.MachineID
	for _, e := range entries {
		id := drover.MachineID(e.Name())
		if !e.IsDir() || checkID(id) != nil {
			continue
		}
		locked, err := d.locked(id)
		if err != nil {
			return nil, err
		}
		if locked {
			out = append(out, id)
		}
	}
	return out, nil
}

// sweep removes the directories of VMs that ended while no Driver was looking.
func (d *Driver) sweep() error {
	entries, err := os.ReadDir(d.cfg.RunDir)
	if err != nil {
		return drover.Errorf(drover.Internal, "qemu: cannot list the run directory: %w", err)
	}
	for _, e := range entries {
		id := drover.MachineID(e.Name())
		if !e.IsDir() || checkID(id) != nil {
			continue
		}
		if err := d.clear(id); err != nil {
			return err
		}
	}
	return nil
}

// Close lets go of all VMs. They run on.
func (d *Driver) Close() error {
	d.mu.Lock()
	vms := d.vms
	d.vms = map[drover.MachineID]*VM{}
	d.mu.Unlock()
	var errs []error
	for _, vm := range vms {
		errs = append(errs, vm.detach())
	}
	return errors.Join(errs...)
}

// checkID refuses what cannot be a directory of ours.
func checkID(id drover.MachineID) error {
	if !drover.ValidName(string(id)) {
		return drover.Errorf(drover.Invalid, "%q is not the ID of a machine", id)
	}
	return nil
}

// isGone reports whether an error says that a file or process is not there any more.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone)
}
