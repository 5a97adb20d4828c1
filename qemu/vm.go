package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// VM is one running VM.
type VM struct {
	d    *Driver
	id   drover.MachineID
	proc *process
	done chan struct{}
	// life ends with the VM, or when the Driver lets go: stop ends it.
	life context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// resizing lets one Resize at a time work.
	resizing sync.Mutex

	// moved gets a token when something happened to the VM's transfer, migrated when QEMU told of its migration.
	moved, migrated chan struct{}

	mu  sync.Mutex
	qmp *qmpClient
	// sending and taking copy the VM's memory; nil when nothing does.
	sending *sending
	taking  *taking
	// pausedAt and resumedAt are when QEMU last told that the VM stood still, and that it went on.
	pausedAt, resumedAt time.Time
	killed              bool
	shutdown            string // the reason of QEMU's SHUTDOWN event
	at                  time.Time
	reason              string
}

func newVM(ctx context.Context, d *Driver, id drover.MachineID, proc *process) *VM {
	vm := &VM{d: d, id: id, proc: proc, done: make(chan struct{}), moved: make(chan struct{}, 1), migrated: make(chan struct{}, 1)}
	vm.life, vm.stop = context.WithCancel(context.WithoutCancel(ctx))
	return vm
}

// attach makes a VM of a process that was found. Where another client has the control socket, the VM is watched without it.
func (d *Driver) attach(ctx context.Context, id drover.MachineID, proc *process) *VM {
	vm := newVM(ctx, d, id, proc)
	vm.wg.Go(func() {
		for vm.life.Err() == nil {
			try, done := context.WithTimeout(vm.life, 5*time.Second)
			err := vm.connect(try)
			done()
			if err == nil {
				return
			}
			select {
			case <-vm.life.Done():
			case <-time.After(time.Second):
			}
		}
	})
	kept := d.keep(vm)
	if kept == vm {
		if err := vm.goOnCopying(ctx); err != nil { // whoever waits for it is told that nothing is copied
			d.cfg.Log.Warn("the memory of a VM is not copied any more", "machine", id, "err", err)
		}
	}
	return kept
}

// keep remembers a VM and watches it. If another caller was faster, that one's VM is kept.
func (d *Driver) keep(vm *VM) *VM {
	d.mu.Lock()
	if other := d.vms[vm.id]; other != nil && !other.ended() && other.proc.pid == vm.proc.pid {
		d.mu.Unlock()
		if err := vm.detach(); err != nil {
			d.cfg.Log.Warn("cannot let go of a VM", "machine", vm.id, "err", err)
		}
		return other
	}
	d.vms[vm.id] = vm
	d.mu.Unlock()
	vm.wg.Go(vm.watch)
	return vm
}

// connect opens the control socket.
func (vm *VM) connect(ctx context.Context) error {
	c, err := dialQMP(ctx, vm.d.path(vm.id, qmpFile), vm.event)
	if err != nil {
		return err
	}
	vm.mu.Lock()
	vm.qmp = c
	vm.mu.Unlock()
	return nil
}

// event notes why QEMU is about to end.
func (vm *VM) event(e qmpEvent) {
	if e.Name != "SHUTDOWN" {
		vm.noteMove(e)
		return
	}
	var data struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(e.Data, &data) != nil || data.Reason == "" {
		data.Reason = "unknown"
	}
	vm.mu.Lock()
	vm.shutdown = data.Reason
	vm.mu.Unlock()
}

// watch waits for the end of the process.
func (vm *VM) watch() {
	if err := vm.proc.wait(); err != nil {
		if !errors.Is(err, os.ErrClosed) {
			vm.d.cfg.Log.Error("a VM cannot be watched any more", "machine", vm.id, "err", err)
		}
		return // let go: the VM runs on
	}
	at := time.Now()
	vm.stop()
	exit, own := vm.proc.reap()
	vm.mu.Lock()
	c := vm.qmp
	vm.mu.Unlock()
	if c != nil {
		<-c.done // the process is gone, so the stream ends; its last event may be the one that tells why
		if err := c.close(); err != nil {
			vm.d.cfg.Log.Warn("cannot close a control connection", "machine", vm.id, "err", err)
		}
	}
	said := ""
	if exit != "" {
		said = vm.d.said(vm.id)
	}
	vm.mu.Lock()
	vm.at, vm.reason = at, vm.why(exit, own, said)
	if !vm.killed && vm.shutdown == "" && vm.d.groups.outOfMemory(vm.id) {
		vm.reason = "out of memory: QEMU took more memory than its machine's size and what it may have for itself"
	}
	vm.mu.Unlock()
	if err := vm.d.clear(vm.id); err != nil {
		vm.d.cfg.Log.Warn("a VM's run directory stays behind", "machine", vm.id, "err", err)
	}
	vm.d.mu.Lock()
	if vm.d.vms[vm.id] == vm {
		delete(vm.d.vms, vm.id)
	}
	vm.d.mu.Unlock()
	vm.d.cfg.Log.Info("VM ended", "machine", vm.id, "reason", vm.reason)
	close(vm.done)
	// Last: whoever kills a VM that has just ended by itself finds a handle on a process that is gone, and not one that was let go.
	if err := vm.proc.close(); err != nil {
		vm.d.cfg.Log.Warn("cannot close a process handle", "machine", vm.id, "err", err)
	}
}

// why puts the end into words; mu is held.
func (vm *VM) why(exit string, own bool, said string) string {
	switch vm.shutdown {
	case "guest-shutdown":
		return "guest-shutdown: the guest powered off"
	case "guest-reset":
		return "guest-reset: the guest's kernel panicked or rebooted"
	case "guest-panic":
		return "guest-panic: the guest's kernel panicked"
	case "host-qmp-quit":
		return "host-qmp-quit: QEMU was told to quit"
	case "host-signal":
		return "host-signal: QEMU was told to end by a signal"
	}
	switch {
	case vm.killed:
		return "killed: this host ended the VM"
	case vm.shutdown != "":
		return vm.shutdown + ": QEMU ended"
	case exit != "":
		return "QEMU ended by itself: " + exit + said
	case own:
		return "QEMU ended without a word"
	default:
		return "the process is gone"
	}
}

// Kill ends the process at once, and returns when it is gone. No error when it is gone already.
func (vm *VM) Kill(ctx context.Context) error {
	vm.mu.Lock()
	vm.killed = true
	vm.mu.Unlock()
	if err := vm.proc.signal(unix.SIGKILL); err != nil && !vm.ended() {
		if errors.Is(err, os.ErrClosed) {
			return drover.Errorf(drover.Unavailable, "machine %q: its VM is not watched any more: find it again", vm.id)
		}
		return drover.Errorf(drover.Internal, "machine %q: cannot kill its VM: %w", vm.id, err)
	}
	select {
	case <-vm.done:
		return nil
	case <-ctx.Done():
		return drover.Errorf(drover.Unavailable, "machine %q: its VM was killed but is not gone yet: %w", vm.id, context.Cause(ctx))
	}
}

// Done is closed when the process is gone.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Ended tells when and why the VM ended; the zero time while it runs.
func (vm *VM) Ended() (at time.Time, reason string) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.at, vm.reason
}

// PID is the process ID of QEMU.
func (vm *VM) PID() int { return vm.proc.pid }

func (vm *VM) ended() bool {
	select {
	case <-vm.done:
		return true
	default:
		return false
	}
}

func (vm *VM) closeQMP() error {
	vm.mu.Lock()
	c := vm.qmp
	vm.mu.Unlock()
	if c == nil || vm.ended() {
		return nil
	}
	return c.close()
}

// detach lets go of a VM, which runs on.
func (vm *VM) detach() error {
	vm.stop()
	err := vm.proc.close()
	vm.wg.Wait()
	return errors.Join(err, vm.closeQMP())
}
