package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"drover"
)

// firstClient ends the name of the node of a disk's first NBD client; that of a later one has the size for which it was opened.
const firstClient = "-nbd"

// clientNode is an NBD client of an export of the storage daemon.
func clientNode(name string, at drover.Attachment) map[string]any {
	return map[string]any{"driver": "nbd", "node-name": name, "export": at.Export, "reconnect-delay": reconnectDelay,
		"open-timeout": openTimeout, "discard": "unmap", "server": map[string]any{"type": "unix", "path": at.Socket}}
}

// diskNode is what the device is attached to.
func diskNode(name, client string) map[string]any {
	return map[string]any{"driver": "raw", "node-name": name, "file": client, "discard": "unmap"}
}

// diskName names the node of the n-th disk: the root disk, then the volumes.
func diskName(n int) string {
	if n == 0 {
		return "root"
	}
	return "volume" + strconv.Itoa(n-1)
}

// blockNode is what QEMU tells of a node.
type blockNode struct {
	Name   string `json:"node-name"`
	Driver string `json:"drv"`
	Image  struct {
		Size drover.Bytes `json:"virtual-size"`
	} `json:"image"`
}

// Resize makes the guest see that a disk has grown, whose layer is that large already: disk 0 is the root disk, the volumes follow. An NBD
// client learns the size of its export once, when it connects. So a second client is opened, the disk's node is put onto it between two
// requests of the guest, and only then the device is told. Precondition for a VM that was started before that could be done.
func (vm *VM) Resize(ctx context.Context, disk int, at drover.Attachment, size drover.Bytes) error {
	vm.resizing.Lock()
	defer vm.resizing.Unlock()
	vm.mu.Lock()
	c := vm.qmp
	vm.mu.Unlock()
	if c == nil {
		return drover.Errorf(drover.Unavailable, "machine %q: QEMU does not listen to this agent yet", vm.id).WithHint("ask again in a moment")
	}
	name := diskName(disk)
	nodes, err := blockNodes(ctx, c)
	if err != nil {
		return vm.notResized(name, err)
	}
	node, ok := nodes[name]
	if !ok && overVhost(ctx, c, name) {
		return nil // the storage daemon has told the device itself
	}
	switch {
	case !ok:
		return drover.Errorf(drover.Precondition, "machine %q has no disk %q that can be made larger while it runs", vm.id, name).
			WithHint("restart the machine: it sees the new size then")
	case node.Driver != "raw":
		return drover.Errorf(drover.Precondition, "machine %q was started by an older Drover: its disk %q cannot be made larger while it runs", vm.id, name).
			WithHint("restart the machine: it sees the new size then")
	case node.Image.Size > size:
		return drover.Errorf(drover.Invalid, "machine %q: its disk %q has %d bytes: it is never made smaller", vm.id, name, node.Image.Size)
	case node.Image.Size < size:
		if err := reopen(ctx, c, nodes, name, at, size); err != nil {
			return vm.notResized(name, err)
		}
	}
	// Told in any case: an earlier try may have been cut before this.
	if _, err := c.run(ctx, "block_resize", map[string]any{"node-name": name, "size": size}); err != nil {
		return vm.notResized(name, err)
	}
	return vm.dropClients(ctx, c, nodes, name, size)
}

// overVhost reports whether a disk is attached over vhost-user-blk.
func overVhost(ctx context.Context, c *qmpClient, name string) bool {
	_, err := c.run(ctx, "qom-get", map[string]any{"path": "/machine/peripheral/disk-" + name, "property": "type"})
	return err == nil
}

// reopen puts a disk's node onto a client that was opened for the size.
func reopen(ctx context.Context, c *qmpClient, nodes map[string]blockNode, name string, at drover.Attachment, size drover.Bytes) error {
	client := fmt.Sprintf("%s-%d", name, size)
	if _, ok := nodes[client]; !ok {
		if _, err := c.run(ctx, "blockdev-add", clientNode(client, at)); err != nil {
			return err
		}
	}
	_, err := c.run(ctx, "blockdev-reopen", map[string]any{"options": []any{diskNode(name, client)}})
	return err
}

func (vm *VM) notResized(name string, err error) error {
	return drover.Errorf(drover.Unavailable, "machine %q: QEMU does not make the disk %q larger: %w", vm.id, name, err).WithHint("ask again")
}

// dropClients removes the clients that a disk had before. One that is still in use is refused by QEMU, and stays.
func (vm *VM) dropClients(ctx context.Context, c *qmpClient, nodes map[string]blockNode, name string, size drover.Bytes) error {
	for other, node := range nodes {
		if node.Driver != "nbd" || !strings.HasPrefix(other, name+"-") || other == fmt.Sprintf("%s-%d", name, size) {
			continue
		}
		if _, err := c.run(ctx, "blockdev-del", map[string]any{"node-name": other}); err != nil {
			vm.d.cfg.Log.Debug("a disk's earlier connection stays", "machine", vm.id, "node", other, "err", err)
		}
	}
	return ctx.Err()
}

// blockNodes asks for all nodes, by name.
func blockNodes(ctx context.Context, c *qmpClient) (map[string]blockNode, error) {
	answer, err := c.run(ctx, "query-named-block-nodes", map[string]any{"flat": true})
	if err != nil {
		return nil, err
	}
	var list []blockNode
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("qmp query-named-block-nodes: %w", err)
	}
	nodes := map[string]blockNode{}
	for _, n := range list {
		nodes[n.Name] = n
	}
	return nodes, nil
}
