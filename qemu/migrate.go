package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"drover"
)

// The objects by which a VM proves who sends and takes its memory.
const (
	tlsSend  = "tls-send"
	tlsTake  = "tls-take"
	takeFrom = "take-from"
)

// tlsPriority is TLS 1.3 and nothing older, in the words of GnuTLS.
const tlsPriority = "NORMAL:-VERS-ALL:+VERS-TLS1.3"

// noLimit is the bandwidth, in bytes per second, where none is set: QEMU's own would be 128 MiB/s.
const noLimit = 64 << 30

// migrationInfo is what QEMU tells of a migration (qapi/migration.json, MigrationInfo).
type migrationInfo struct {
	Status string `json:"status"`
	Reason string `json:"error-desc"`
	RAM    struct {
		Total       drover.Bytes `json:"total"`
		Remaining   drover.Bytes `json:"remaining"`
		Transferred drover.Bytes `json:"transferred"`
		Rounds      int          `json:"dirty-sync-count"`
		DirtyPages  int64        `json:"dirty-pages-rate"`
		PageSize    int64        `json:"page-size"`
		Mbps        float64      `json:"mbps"`
	} `json:"ram"`
	// Blocked is why a VM cannot be migrated at all.
	Blocked []string `json:"blocked-reasons"`
	// Listening are the sockets at which an incoming one waits.
	Listening []struct {
		Type string `json:"type"`
		Host string `json:"host"`
		Port string `json:"port"`
	} `json:"socket-address"`
}

// state translates QEMU's word for how far a migration is.
func (i migrationInfo) state() drover.VMTransferState {
	switch i.Status {
	case "", "none":
		return drover.TransferNone
	case "pre-switchover":
		return drover.TransferPaused
	case "completed":
		return drover.TransferDone
	case "failed", "cancelled", "cancelling":
		return drover.TransferFailed
	}
	return drover.TransferActive
}

// memory is the numbers of it.
func (i migrationInfo) memory() drover.MemoryMove {
	return drover.MemoryMove{Total: i.RAM.Total, Transferred: i.RAM.Transferred, Rounds: i.RAM.Rounds, Remaining: i.RAM.Remaining,
		DirtyRate: drover.Bytes(i.RAM.DirtyPages * i.RAM.PageSize), Rate: drover.Bytes(i.RAM.Mbps * 1e6 / 8)}
}

// noteMove notes what an event tells of a migration, and wakes whoever waits for it.
func (vm *VM) noteMove(e qmpEvent) {
	vm.mu.Lock()
	switch e.Name {
	case "STOP":
		vm.pausedAt = e.At
	case "RESUME":
		vm.resumedAt = e.At
	case "MIGRATION":
	default:
		vm.mu.Unlock()
		return
	}
	vm.mu.Unlock()
	vm.tell()
	select {
	case vm.migrated <- struct{}{}:
	default:
	}
}

// tell wakes whoever waits for a change of the VM's transfer.
func (vm *VM) tell() {
	select {
	case vm.moved <- struct{}{}:
	default:
	}
}

// Changes gets a token when the transfer of the VM's memory may have another state than before.
func (vm *VM) Changes() <-chan struct{} { return vm.moved }

// control returns the control connection.
func (vm *VM) control() (*qmpClient, error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.qmp == nil {
		return nil, drover.Errorf(drover.Unavailable, "machine %q: QEMU does not listen to this agent yet", vm.id).WithHint("ask again in a moment")
	}
	return vm.qmp, nil
}

// commands runs QMP commands one after the other, to the first that fails.
func (vm *VM) commands(ctx context.Context, what string, list ...qmpCommand) error {
	c, err := vm.control()
	if err != nil {
		return err
	}
	for _, command := range list {
		if _, err := c.run(ctx, command.name, command.arguments); err != nil && !command.mayFail {
			return vm.notMoved(what, err)
		}
	}
	return nil
}

type qmpCommand struct {
	name      string
	arguments any
	mayFail   bool
}

func (vm *VM) notMoved(what string, err error) error {
	return drover.Errorf(drover.Unavailable, "machine %q: QEMU does not %s: %w", vm.id, what, err)
}

// migration asks how far a migration is.
func (vm *VM) migration(ctx context.Context) (info migrationInfo, err error) {
	c, err := vm.control()
	if err != nil {
		return info, err
	}
	answer, err := c.execute(ctx, "query-migrate")
	if err == nil {
		err = json.Unmarshal(answer, &info)
	}
	if err != nil {
		return info, vm.notMoved("tell of its migration", err)
	}
	return info, nil
}

// Transfer tells how far the sending or the taking of the VM's memory is, and whether the VM executes.
func (vm *VM) Transfer(ctx context.Context) (drover.VMTransfer, error) {
	vm.mu.Lock()
	s := vm.sending
	vm.mu.Unlock()
	begun := s != nil && s.begun.Load() // before QEMU is asked: what it tells may be of an earlier transfer until then
	t, err := vm.ask(ctx)
	if err != nil || s == nil {
		return t, err
	}
	return s.tells(t, begun), nil
}

// ask asks QEMU what it knows of it.
func (vm *VM) ask(ctx context.Context) (drover.VMTransfer, error) {
	info, err := vm.migration(ctx)
	if err != nil {
		return drover.VMTransfer{}, err
	}
	c, err := vm.control()
	if err != nil {
		return drover.VMTransfer{}, err
	}
	var now struct {
		Running bool `json:"running"`
	}
	answer, err := c.execute(ctx, "query-status")
	if err == nil {
		err = json.Unmarshal(answer, &now)
	}
	if err != nil {
		return drover.VMTransfer{}, vm.notMoved("tell its state", err)
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return drover.VMTransfer{State: info.state(), Reason: info.Reason, Running: now.Running, PausedAt: vm.pausedAt, ResumedAt: vm.resumedAt,
		Memory: info.memory()}, nil
}

// LiveBlocker says why the VM cannot move with its memory; empty when it can.
func (vm *VM) LiveBlocker(ctx context.Context) (string, error) {
	c, err := vm.control()
	if err != nil {
		return "", err
	}
	if vm.d.cfg.TLSDir == "" {
		return "its host has no certificates to send memory with", nil
	}
	if !overVhost(ctx, c, "root") {
		return "its disks are attached over " + string(drover.TransportNBD) + "; memory moves with disks over " + string(drover.TransportVhost), nil
	}
	info, err := vm.migration(ctx)
	if err != nil || len(info.Blocked) > 0 || !vm.d.copiesMemory() {
		return strings.Join(info.Blocked, "; "), err
	}
	memory, _, err := vm.memory(os.O_RDONLY)
	if err != nil {
		return err.Error(), nil
	}
	return "", memory.Close()
}

// capabilities are those of both sides. The return path makes the sender wait until the receiver has all.
func capabilities(more ...string) map[string]any {
	var list []map[string]any
	for _, name := range append([]string{"events", "return-path"}, more...) {
		list = append(list, map[string]any{"capability": name, "state": true})
	}
	return map[string]any{"capabilities": list}
}

// Send begins to send the VM's memory while it runs. It goes on until it is paused (TransferPaused) or fails. Nothing is done when it was
// begun before.
func (vm *VM) Send(ctx context.Context, to drover.VMSend) error {
	now, err := vm.Transfer(ctx)
	if err != nil {
		return err
	}
	// A VM that came here itself, or that was taken back when all was sent, runs, and its last transfer is done.
	over := now.State == drover.TransferDone && now.Running
	if now.State != drover.TransferNone && now.State != drover.TransferFailed && !over {
		return nil
	}
	if vm.d.copiesMemory() {
		if err := vm.stopSending(); err != nil { // it came to nothing
			return err
		}
		return vm.sendMemory(to)
	}
	return vm.sendState(ctx, to, "auto-converge")
}

// sharedStays are the capabilities by which QEMU leaves the guest's memory, which is shared, to this package.
func (d *Driver) sharedStays() []string {
	if d.copiesMemory() {
		return []string{"x-ignore-shared"}
	}
	return nil
}

// sendState lets QEMU send what it has of the VM, and pause the VM before the end.
func (vm *VM) sendState(ctx context.Context, to drover.VMSend, more ...string) error {
	host, port, err := net.SplitHostPort(to.Address)
	if err != nil {
		return drover.Errorf(drover.Invalid, "machine %q: %q is not where another host could wait for its memory: %w", vm.id, to.Address, err)
	}
	limit := to.Bandwidth
	if limit <= 0 {
		limit = noLimit
	}
	return vm.commands(ctx, "send its memory",
		qmpCommand{name: "object-del", arguments: map[string]any{"id": tlsSend}, mayFail: true},
		qmpCommand{name: "object-add", arguments: map[string]any{"qom-type": "tls-creds-x509", "id": tlsSend, "dir": vm.d.cfg.TLSDir,
			"endpoint": "client", "verify-peer": true, "priority": tlsPriority}},
		qmpCommand{name: "migrate-set-capabilities", arguments: capabilities(append(more, "pause-before-switchover")...)},
		qmpCommand{name: "migrate-set-parameters", arguments: map[string]any{"tls-creds": tlsSend, "tls-hostname": string(to.Peer),
			"max-bandwidth": limit, "downtime-limit": to.Pause.Milliseconds(), "cpu-throttle-initial": 20, "cpu-throttle-increment": 15}},
		qmpCommand{name: "migrate", arguments: map[string]any{"uri": "tcp:" + net.JoinHostPort(host, port)}})
}

// SetPause changes how long the VM may stand still for what is left.
func (vm *VM) SetPause(ctx context.Context, pause time.Duration) error {
	vm.mu.Lock()
	s := vm.sending
	vm.mu.Unlock()
	if s != nil {
		s.pause.Store(int64(pause))
		return nil
	}
	return vm.commands(ctx, "change how long it may be paused", qmpCommand{name: "migrate-set-parameters",
		arguments: map[string]any{"downtime-limit": pause.Milliseconds()}})
}

// Handover lets the rest of a paused VM's state go, when all of its memory is there where this package copies that. TransferDone tells of the end.
// Nothing is done for a VM that is past that.
func (vm *VM) Handover(ctx context.Context) error {
	vm.mu.Lock()
	s := vm.sending
	vm.mu.Unlock()
	if s != nil {
		if err := s.await(ctx); err != nil {
			return vm.notMoved("get all of its memory to the other host", err)
		}
	}
	info, err := vm.migration(ctx)
	if err != nil || info.state() != drover.TransferPaused {
		return err
	}
	return vm.commands(ctx, "let the rest of its state go", qmpCommand{name: "migrate-continue", arguments: map[string]any{"state": "pre-switchover"}})
}

// cancelPoll is how often it is looked whether a migration has ended that was canceled, cancelWait for how long.
const (
	cancelPoll = 5 * time.Millisecond
	cancelWait = 10 * time.Second
)

// TakeBack ends the sending, and lets the VM go on here if it stands still. It must be known that it runs nowhere else.
func (vm *VM) TakeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cancelWait, fmt.Errorf("it did not end for %s", cancelWait))
	defer cancel()
	if err := vm.stopSending(); err != nil {
		return err
	}
	if err := vm.commands(ctx, "end its migration", qmpCommand{name: "migrate_cancel"}); err != nil {
		return err
	}
	over := []string{"", "none", "failed", "cancelled", "completed"}
	for {
		info, err := vm.migration(ctx)
		if err != nil {
			return err
		}
		if slices.Contains(over, info.Status) {
			return vm.Resume(ctx)
		}
		select {
		case <-time.After(cancelPoll):
		case <-ctx.Done():
			return vm.notMoved("end its migration", context.Cause(ctx))
		}
	}
}

// Resume lets the VM execute; nothing is done for one that does. Nothing takes memory for it from there on.
func (vm *VM) Resume(ctx context.Context) error {
	if err := vm.stopTaking(); err != nil {
		return err
	}
	return vm.commands(ctx, "go on", qmpCommand{name: "cont"})
}
