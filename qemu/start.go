package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// startTimeout bounds the time until QEMU has read its arguments, opened its disks and answers.
const startTimeout = 30 * time.Second

// Start launches a VM. It returns when QEMU has all that it needs and the guest begins to boot. Exists: a VM of the machine runs
// already, or is being started. Invalid: the spec cannot be run. Precondition: its network device is not there. Unavailable: QEMU gave
// up; the text has its own words.
func (d *Driver) Start(ctx context.Context, spec drover.VMSpec) (*VM, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	id := spec.Machine
	lock, err := d.lockPatiently(ctx, id)
	if errors.Is(err, errLocked) {
		return nil, drover.Errorf(drover.Exists, "machine %q has a running VM on this host already", id)
	}
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "machine %q: cannot lock its run directory: %w", id, err)
	}
	proc, err := d.spawn(spec, lock)
	// QEMU has the lock now, or nobody.
	if err = errors.Join(err, lock.Close()); err != nil {
		return nil, errors.Join(drover.Errorf(drover.Internal, "machine %q: cannot start QEMU: %w", id, err), d.giveUp(id, proc))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.startWait, d.noAnswer(spec))
	defer cancel()
	vm := newVM(ctx, d, id, proc)
	if err := vm.await(ctx); err != nil {
		code := drover.Unavailable
		if errors.Is(err, context.Canceled) {
			code = drover.Canceled
		}
		said := d.said(id) // before the log is cleared away
		gone := errors.Join(d.giveUp(id, proc), vm.closeQMP())
		return nil, errors.Join(drover.Errorf(code, "machine %q: QEMU does not run: %w%s", id, err, said), gone)
	}
	d.keep(vm)
	return vm, nil
}

// noAnswer is what a start has to say that took too long.
func (d *Driver) noAnswer(spec drover.VMSpec) error {
	for _, at := range disks(spec) {
		if at.Transport == drover.TransportVhost {
			return fmt.Errorf("QEMU did not answer for %s; it waits for the storage daemon, which has to connect to %s", d.startWait, at.Socket)
		}
	}
	return fmt.Errorf("QEMU did not answer for %s", d.startWait)
}

// lockPatiently takes the lock for a start. Clearing away what a VM left takes the lock for a moment, too: that is not a running VM.
func (d *Driver) lockPatiently(ctx context.Context, id drover.MachineID) (*os.File, error) {
	for range 10 {
		lock, err := d.lock(id)
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return d.lock(id)
}

// spawn starts the process with the lock, in a session of its own.
func (d *Driver) spawn(spec drover.VMSpec, lock *os.File) (*process, error) {
	id := spec.Machine
	for _, name := range []string{pidFile, qmpFile, opFile, logFile} {
		if err := os.Remove(d.path(id, name)); err != nil && !isGone(err) {
			return nil, err
		}
	}
	out, err := os.OpenFile(d.path(id, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // QEMU has it; nothing was written through this one
	cmd := exec.Command(d.binary, d.arguments(spec)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lock} // becomes lockFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	group, err := d.groups.open(spec, d.Overhead())
	if err != nil { // a machine without bounds is better than none
		d.cfg.Log.Error("the VM starts without bounds for CPU and memory", "machine", id, "err", err)
	}
	if group != nil { // the process is in it from its first instruction on
		defer group.Close() // only named
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	proc, err := openProcess(cmd.Process.Pid) // our child, not reaped yet: the number is still its own
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	proc.cmd = cmd
	return proc, nil
}

// giveUp ends what was started and removes its traces.
func (d *Driver) giveUp(id drover.MachineID, proc *process) error {
	if proc == nil {
		return d.clear(id)
	}
	err := errors.Join(proc.signal(unix.SIGKILL), proc.wait())
	proc.reap() // the status of what we killed says nothing
	return errors.Join(err, proc.close(), d.clear(id))
}

// said returns the last words of QEMU, for an error's text.
func (d *Driver) said(id drover.MachineID) string {
	f, err := os.Open(d.path(id, logFile))
	if err != nil {
		return ""
	}
	defer f.Close() // only read
	const most = 2000
	if st, err := f.Stat(); err == nil && st.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil || len(text) == 0 {
		return ""
	}
	return ": " + strings.Join(strings.Fields(string(text)), " ")
}

// await connects to QEMU's control socket as soon as QEMU serves it.
func (vm *VM) await(ctx context.Context) error {
	dead := make(chan error, 1)
	watch, err := openProcess(vm.proc.pid) // our own child
	if err != nil {
		return err
	}
	go func() { dead <- watch.wait() }()
	defer watch.close() // ends the goroutine; its answer goes into the buffer
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	connected := make(chan error, 1)
	dialing := false
	for {
		if !dialing {
			if _, err := os.Stat(vm.d.path(vm.id, qmpFile)); err == nil {
				dialing = true
				go func() { connected <- vm.connect(ctx) }()
			}
		}
		select {
		case <-tick.C:
		case err := <-connected:
			if err == nil {
				return nil
			}
			dialing = false // not listening yet
		case <-dead:
			if dialing {
				cancel(errEnded)
				<-connected
			}
			return errEnded
		case <-ctx.Done():
			if dialing {
				<-connected
			}
			return context.Cause(ctx)
		}
	}
}

var errEnded = errors.New("it ended at once")
