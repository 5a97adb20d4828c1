package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"drover"
)

// guestPeer is a qemu-storage-daemon that serves a file over vhost-user-blk.
type guestPeer struct {
	name string
	// file are options of its file, export those of its export, args what else it is started with.
	file, export string
	args         []string
}

// guestPeers are the settings with which the peer is measured: of four, with threads too, one of these was the
// fastest at each workload.
func guestPeers() []guestPeer {
	thread := []string{"--object", "iothread,id=io"}
	return []guestPeer{
		{name: "io_uring", file: ",aio=io_uring"},
		{name: "io_uring, iothread", file: ",aio=io_uring", export: ",iothread=io", args: thread},
	}
}

// addPeer starts the peer on a copy of the raw file, and adds its disk to the VM.
func (r *guestRig) addPeer(ctx context.Context, p guestPeer, raw string) error {
	base := filepath.Join(r.dir, fmt.Sprintf("peer%d", len(r.peers)))
	file, socket, listens := base+".raw", base+".sock", base+".vm" // the last is where the VM waits for its disk
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=never", raw, file).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy the disk: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, "qemu-storage-daemon", append(p.args, "--blockdev", "driver=file,node-name=f,discard=unmap,filename="+file+p.file,
		"--export", "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,writable=on,addr.path="+socket+p.export)...)
	cmd.Stderr = r.log
	if err := cmd.Start(); err != nil {
		return err
	}
	r.peers = append(r.peers, cmd)
	go relayVhost(ctx, listens, socket)
	r.spec.Volumes = append(r.spec.Volumes, drover.Attachment{Transport: drover.TransportVhost, Socket: listens})
	return nil
}
