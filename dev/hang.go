package dev

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"drover"
)

// What freezes a file system, and lets it go on (linux/fs.h).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// Hang lets no write to the host's disk end, nor a flush, until Unhang or the next cut or start of its power. Precondition when the host has no disk of its own.
func (f *Fleet) Hang(ctx context.Context, id drover.HostID) error {
	return f.askRack(ctx, killTimeout, request{Op: "hang", Host: id})
}

// Unhang lets the disk go on. Nothing to let go on is no error.
func (f *Fleet) Unhang(ctx context.Context, id drover.HostID) error {
	return f.askRack(ctx, killTimeout, request{Op: "unhang", Host: id})
}

// hang freezes the file system of a host's disk: whoever writes waits, in the kernel, and not even SIGKILL ends that.
func (r *rack) hang(h HostSpec) error {
	if !r.disks[h.ID] {
		return drover.Errorf(drover.Precondition, "host %q has no disk of its own that could hang", h.ID).
			WithHint("bring the fleet up with disks: drover dev up --disk 8GiB")
	}
	if r.hangs(h.ID) {
		return nil
	}
	if err := r.askDisk(h, fiFreeze); err != nil {
		return drover.Errorf(drover.Internal, "cannot let the disk of host %q hang: %w", h.ID, err)
	}
	r.setHangs(h.ID, true)
	r.opts.Log.Info("disk hangs", "host", h.ID)
	return nil
}

// unhang is called before anything else is done with a host, too: what waits for its disk cannot be killed.
func (r *rack) unhang(h HostSpec) error {
	if !r.hangs(h.ID) {
		return nil
	}
	if err := r.askDisk(h, fiThaw); err != nil {
		return drover.Errorf(drover.Internal, "cannot let the disk of host %q go on: %w", h.ID, err)
	}
	r.setHangs(h.ID, false)
	r.opts.Log.Info("disk goes on", "host", h.ID)
	return nil
}

func (r *rack) askDisk(h HostSpec, what uint) error {
	d, err := os.Open(r.p.data(h.ID))
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("ioctl", unix.IoctlSetInt(int(d.Fd()), what, 0))
}

func (r *rack) hangs(id drover.HostID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hung[id]
}

func (r *rack) setHangs(id drover.HostID, yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hung[id] = yes
}
