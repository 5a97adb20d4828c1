package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"drover"
)

// stateSocket is where the state of a VM goes out of QEMU, or into it, while it is suspended or resumed. QEMU may start no other program, and
// opens no file for it by itself.
const stateSocket = "state.sock"

// stateChunk is how much of a VM's state is passed on at a time.
const stateChunk = 1 << 20

// SaveBlocker says why the VM cannot be suspended; empty when it can.
func (vm *VM) SaveBlocker(ctx context.Context) (string, error) {
	info, err := vm.migration(ctx)
	if err != nil {
		return "", err
	}
	return strings.Join(info.Blocked, "; "), nil
}

// Save pauses the VM and writes all of its state to w: memory, processors and devices. It returns nil when QEMU has confirmed that w was given
// all, and the VM stands still then. After an error it stands still, too: TakeBack lets it go on. What an earlier Save or Send left is
// done away with first, for which the VM may execute for a moment. Unavailable when QEMU does not answer or says no; an error of w comes back
// as it is.
func (vm *VM) Save(ctx context.Context, w io.Writer) error {
	now, err := vm.Transfer(ctx)
	if err != nil {
		return err
	}
	if !now.Running { // QEMU does not send the state of a VM twice that stands still because it was sent
		if err := vm.TakeBack(ctx); err != nil {
			return err
		}
	}
	path := vm.d.path(vm.id, stateSocket)
	if err := os.Remove(path); err != nil && !isGone(err) {
		return drover.Errorf(drover.Internal, "machine %q: cannot suspend it: %w", vm.id, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return drover.Errorf(drover.Internal, "machine %q: cannot suspend it: %w", vm.id, err)
	}
	defer l.Close() // it only accepts; the socket's name goes with it
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if err := vm.commands(ctx, "write its state",
		qmpCommand{name: "stop"},
		qmpCommand{name: "migrate-set-capabilities", arguments: plainCapabilities()},
		qmpCommand{name: "migrate-set-parameters", arguments: map[string]any{"tls-creds": "", "tls-hostname": "", "max-bandwidth": int64(noLimit)}},
		qmpCommand{name: "migrate", arguments: map[string]any{"uri": "unix:" + path}}); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return drover.Errorf(drover.Unavailable, "machine %q: QEMU does not begin to write its state: %w", vm.id, errors.Join(context.Cause(ctx), err))
	}
	defer conn.Close() // all was read, or nobody wants it
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.CopyBuffer(onlyWriter{w}, conn, make([]byte, stateChunk)); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("machine %q: cannot write its state: %w", vm.id, err)
	}
	return vm.awaitState(ctx, "write its state")
}

// onlyWriter hides what else a writer could do, so that the buffer's size holds.
type onlyWriter struct{ io.Writer }

// plainCapabilities are those of a state that goes to one who only listens: no way back, no pause before the end, and all of the memory.
func plainCapabilities() map[string]any {
	list := []map[string]any{{"capability": "events", "state": true}}
	for _, name := range []string{"return-path", "pause-before-switchover", "auto-converge", "x-ignore-shared"} {
		list = append(list, map[string]any{"capability": name, "state": false})
	}
	return map[string]any{"capabilities": list}
}

// Load gives a VM that was started to wait (drover.VMSpec.Incoming) its state, as Save has written it. It returns nil when the VM has all; it
// executes nothing until Resume. Precondition when the VM does not take the state, though all of it was read: it never will. An
// error of r comes back as it is. After any error the VM is of no use.
func (vm *VM) Load(ctx context.Context, r io.Reader) error {
	path := vm.d.path(vm.id, stateSocket)
	if err := os.Remove(path); err != nil && !isGone(err) {
		return drover.Errorf(drover.Internal, "machine %q: cannot resume it: %w", vm.id, err)
	}
	if err := vm.commands(ctx, "wait for its state",
		qmpCommand{name: "migrate-set-capabilities", arguments: plainCapabilities()},
		qmpCommand{name: "migrate-incoming", arguments: map[string]any{"uri": "unix:" + path}}); err != nil {
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return drover.Errorf(drover.Unavailable, "machine %q: QEMU does not take its state: %w", vm.id, err)
	}
	defer conn.Close() // all was written, or nobody wants it
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	source := &noteError{r: r}
	_, err = io.CopyBuffer(onlyWriter{conn}, source, make([]byte, stateChunk))
	switch {
	case source.err != nil:
		return source.err
	case err != nil && ctx.Err() != nil:
		return drover.Errorf(drover.Unavailable, "machine %q: giving it its state was cut short: %w", vm.id, context.Cause(ctx))
	case err != nil:
		// QEMU stopped to listen: what it says of it, and whether it is still there, counts.
		vm.d.cfg.Log.Debug("QEMU hung up on the state of a VM", "machine", vm.id, "err", err)
	}
	if err := conn.Close(); err != nil {
		vm.d.cfg.Log.Debug("the way into QEMU closed with an error", "machine", vm.id, "err", err)
	}
	return vm.awaitState(ctx, "take its state")
}

// noteError keeps the error that reading ended with.
type noteError struct {
	r   io.Reader
	err error
}

func (n *noteError) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}

// statePoll is how often it is looked whether QEMU is through, should it not say so by itself.
const statePoll = 20 * time.Millisecond

// awaitState waits until QEMU says that a state is complete. Precondition when it says that it is not, or ends.
func (vm *VM) awaitState(ctx context.Context, what string) error {
	for {
		info, err := vm.migration(ctx)
		switch {
		case vm.ended():
			return drover.Errorf(drover.Precondition, "machine %q: QEMU does not %s: it ended", vm.id, what)
		case err != nil && ctx.Err() != nil:
			return vm.notMoved(what, context.Cause(ctx))
		case err != nil: // the end of a process is seen a moment later than that of its connection
		case info.state() == drover.TransferDone:
			return nil
		case info.state() == drover.TransferFailed:
			return drover.Errorf(drover.Precondition, "machine %q: QEMU does not %s: %s", vm.id, what, info.Reason)
		}
		select {
		case <-vm.moved:
		case <-vm.done:
		case <-time.After(statePoll):
		case <-ctx.Done():
			return vm.notMoved(what, context.Cause(ctx))
		}
	}
}
