package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"drover"
	"drover/internal/testkit"
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
	cmd, listens, err := p.start(ctx, r.setup, fmt.Sprintf("peer%d", len(r.peers)), raw)
	if err != nil {
		return err
	}
	r.peers = append(r.peers, cmd)
	r.spec.Volumes = append(r.spec.Volumes, drover.Attachment{Transport: drover.TransportVhost, Socket: listens})
	return nil
}

// start starts the peer on a copy of the raw file, until ctx ends. It returns where the VM has to listen for its disk.
func (p guestPeer) start(ctx context.Context, s setup, name, raw string) (cmd *exec.Cmd, listens string, err error) {
	base := filepath.Join(s.dir, name)
	file, socket, listens := base+".raw", base+".sock", base+".vm"
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=never", raw, file).CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("cannot copy the disk: %w: %s", err, out)
	}
	cmd = exec.CommandContext(ctx, "qemu-storage-daemon", append(p.args, "--blockdev", "driver=file,node-name=f,discard=unmap,filename="+file+p.file,
		"--export", "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,writable=on,addr.path="+socket+p.export)...)
	cmd.Stderr = s.log
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	err = testkit.Eventually(ctx, 10*time.Second, "the start of qemu-storage-daemon", func() (bool, error) {
		_, err := os.Stat(socket)
		return err == nil, nil
	})
	go relayVhost(ctx, listens, socket)
	return cmd, listens, err
}
