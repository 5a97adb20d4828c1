package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

// A worker may have a disk of its own: a file with an ext4 file system, mounted over a loop device on its data directory, so that it can be
// filled up without filling this machine. The kernel, not the rack, says then that there is no room. The mount is made in the rack's mount
// namespace: only the rack and its hosts see it (others through /proc/PID/root of the rack), it outlives power cuts, and it is gone when
// the rack is.

// Bounds of a disk: below the least one ext4 and the host's own reserve leave nothing.
const (
	minDisk = 2 * drover.GiB
	maxDisk = 16 * 1024 * drover.GiB
)

// loopTries is how often a free loop device is looked for: between finding and taking one, another process may have taken it.
const loopTries = 20

// settle takes over what a wish says about the hosts as such, given the layout that is there (nil for none).
func (l *Layout) settle(have *Layout, cfg Config) error {
	if cfg.Grace < 0 || cfg.BootTimeout < 0 {
		return drover.Errorf(drover.Invalid, "a grace period of %s and a boot of %s are not possible: one is negative", cfg.Grace, cfg.BootTimeout).
			WithField("grace")
	}
	if cfg.Grace > 0 {
		l.Grace = drover.Duration(cfg.Grace)
	}
	if cfg.BootTimeout > 0 {
		l.BootTimeout = drover.Duration(cfg.BootTimeout)
	}
	switch {
	case cfg.Disk == 0:
		return nil
	case cfg.Disk < minDisk || cfg.Disk > maxDisk:
		return drover.Errorf(drover.Invalid, "a disk of %d bytes is not between %d and %d", cfg.Disk, minDisk, maxDisk).WithField("disk")
	case have != nil && have.Disk != cfg.Disk:
		return drover.Errorf(drover.Precondition, "the fleet's hosts have their disks already; they cannot be replaced").
			WithHint("drover dev down --purge removes it, with all its data").WithField("disk")
	}
	l.Disk = cfg.Disk
	return nil
}

// makeDisk makes the file of a host's disk, unless it is there.
func makeDisk(p paths, mode Mode, id drover.HostID, size drover.Bytes) error {
	if mode != ModeNamespaces || os.Geteuid() != 0 {
		return drover.Errorf(drover.Precondition, "hosts cannot have disks of their own here: that needs root and namespaces").
			WithHint("leave --disk out; hosts keep their data in the fleet's directory then and cannot be filled up")
	}
	if _, err := os.Stat(p.diskImage(id)); err == nil {
		return nil
	}
	fail := func(err error) error {
		return drover.Errorf(drover.Internal, "cannot make the disk of host %q: %w", id, err)
	}
	fresh := p.diskImage(id) + ".new"
	f, err := os.Create(fresh)
	if err != nil {
		return fail(err)
	}
	err = f.Truncate(int64(size))
	if err = errors.Join(err, f.Close()); err != nil {
		return fail(err)
	}
	// The usual path of ordinary users leaves out where mkfs is.
	mkfs := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", fresh)
	mkfs.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("mkfs.ext4: %w: %s", err, out))
	}
	if err := durable.Rename(fresh, p.diskImage(id)); err != nil {
		return fail(err)
	}
	return nil
}

// mountDisk mounts a host's disk, if it has one, on its data directory.
func (r *rack) mountDisk(h HostSpec) error {
	if _, err := os.Stat(r.p.diskImage(h.ID)); err != nil || r.disks[h.ID] {
		return nil
	}
	fail := func(what string, err error) error {
		return drover.Errorf(drover.Internal, "cannot mount the disk of host %q: %s: %w", h.ID, what, err)
	}
	if err := durable.MkdirAll(r.p.data(h.ID), 0o700); err != nil {
		return fail("its directory", err)
	}
	if err := mountLoop(r.p.diskImage(h.ID), r.p.data(h.ID)); err != nil {
		return fail(r.p.diskImage(h.ID), err)
	}
	r.disks[h.ID] = true
	return nil
}

// mountLoop mounts the ext4 file system in a file. The loop device goes away with the mount.
func mountLoop(image, at string) error {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return os.NewSyscallError("ioctl", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			err = os.NewSyscallError("mount", unix.Mount(name, at, "ext4", 0, ""))
			loop.Close() // without a mount the device is free again with this
			return err
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return os.NewSyscallError("ioctl", err)
		}
	}
	return fmt.Errorf("no loop device is free: %w", unix.EBUSY)
}

// fill puts a ballast on a host's disk, so that only so much is left free.
func (r *rack) fill(h HostSpec, leave drover.Bytes) error {
	if !r.disks[h.ID] {
		return drover.Errorf(drover.Precondition, "host %q has no disk of its own that could be filled", h.ID).
			WithHint("bring the fleet up with disks: drover dev up --disk 8GiB")
	}
	if leave < 0 {
		return drover.Errorf(drover.Invalid, "%d bytes cannot be left free", leave).WithField("leave")
	}
	if err := r.unfill(h); err != nil {
		return err
	}
	f, err := os.Create(r.p.ballast(h.ID))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot fill the disk of host %q: %w", h.ID, err)
	}
	defer f.Close()
	// The file system wants blocks for its own books, and others write meanwhile: what is free is asked again until it fits.
	for size, end := drover.Bytes(0), time.Now().Add(ctlDeadline); time.Now().Before(end); {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return drover.Errorf(drover.Internal, "cannot tell the room on the disk of host %q: %w", h.ID, os.NewSyscallError("fstatfs", err))
		}
		more := drover.Bytes(st.Bavail)*drover.Bytes(st.Bsize) - leave
		if more < drover.MiB {
			r.opts.Log.Info("disk filled", "host", h.ID, "ballast", size)
			return nil
		}
		err := unix.Fallocate(int(f.Fd()), 0, int64(size), int64(more))
		if errors.Is(err, unix.ENOSPC) {
			continue
		}
		if err != nil {
			return drover.Errorf(drover.Internal, "cannot fill the disk of host %q: %w", h.ID, os.NewSyscallError("fallocate", err))
		}
		size += more
	}
	return nil
}

// unfill takes the ballast away; there may be none.
func (r *rack) unfill(h HostSpec) error {
	if err := durable.Remove(r.p.ballast(h.ID)); err != nil {
		return drover.Errorf(drover.Internal, "cannot take the ballast off the disk of host %q: %w", h.ID, err)
	}
	return nil
}

// filled is the size of the ballast.
func (r *rack) filled(h HostSpec) drover.Bytes {
	st, err := os.Stat(r.p.ballast(h.ID))
	if err != nil {
		return 0
	}
	return drover.Bytes(st.Size())
}
