package qemu

import (
	"context"
	"net"

	"drover"
)

// Listen makes a VM that was started to wait (drover.VMSpec.Incoming) take its memory at an address of this host, with this host's certificate,
// from the host peer and no other. It returns the address with its port. Nothing is done when it listens already.
//
// Where this package copies the memory (copiesMemory), that is where the memory is taken; the sender is told there where QEMU waits for the rest.
func (vm *VM) Listen(ctx context.Context, address string, peer drover.HostID) (string, error) {
	if vm.d.cfg.TLSDir == "" {
		return "", drover.Errorf(drover.Precondition, "machine %q: this host has no certificates to take memory with", vm.id)
	}
	if at := vm.takesAt(); at != "" {
		return at, nil
	}
	info, err := vm.migration(ctx)
	if err != nil {
		return "", err
	}
	if len(info.Listening) == 0 && info.state() == drover.TransferNone {
		err := vm.commands(ctx, "wait for its memory",
			qmpCommand{name: "object-del", arguments: map[string]any{"id": tlsTake}, mayFail: true},
			qmpCommand{name: "object-del", arguments: map[string]any{"id": takeFrom}, mayFail: true},
			qmpCommand{name: "object-add", arguments: map[string]any{"qom-type": "tls-creds-x509", "id": tlsTake, "dir": vm.d.cfg.TLSDir,
				"endpoint": "server", "verify-peer": true, "priority": tlsPriority}},
			// The subject of a host's certificate is its ID and nothing else.
			qmpCommand{name: "object-add", arguments: map[string]any{"qom-type": "authz-simple", "id": takeFrom, "identity": "CN=" + string(peer)}},
			qmpCommand{name: "migrate-set-capabilities", arguments: capabilities(vm.d.sharedStays()...)},
			qmpCommand{name: "migrate-set-parameters", arguments: map[string]any{"tls-creds": tlsTake, "tls-authz": takeFrom}},
			qmpCommand{name: "migrate-incoming", arguments: map[string]any{"uri": "tcp:" + net.JoinHostPort(address, "0")}})
		if err != nil {
			return "", err
		}
		if info, err = vm.migration(ctx); err != nil {
			return "", err
		}
	}
	state, err := vm.listens(address, info)
	if err != nil || !vm.d.copiesMemory() {
		return state, err
	}
	if err := vm.takeMemory(ctx, takeRecord{Address: net.JoinHostPort(address, "0"), Peer: peer, State: state}); err != nil {
		return "", err
	}
	return vm.takesAt(), nil
}

// listens returns where QEMU waits.
func (vm *VM) listens(address string, info migrationInfo) (string, error) {
	for _, at := range info.Listening {
		if at.Port != "" {
			return net.JoinHostPort(address, at.Port), nil
		}
	}
	return "", drover.Errorf(drover.Precondition, "machine %q: its VM does not wait for its memory any more: %s", vm.id, info.Status)
}

// takesAt is where the VM's memory is taken; empty for nowhere.
func (vm *VM) takesAt() string {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.taking == nil {
		return ""
	}
	return vm.taking.record.Address
}
