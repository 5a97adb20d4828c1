package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover/guest"
)

// newRoot is where the root disk is mounted before it becomes "/".
const newRoot = "/root"

// diskOptions are the mount options of every disk. Blocks that the guest frees are told to the host (discard), so that they are not
// copied when the machine moves; nothing is written behind the guest's back (noinit_itable); and after a failed
// write nothing more is written (errors=remount-ro), because a program must not believe that its data is safe.
const diskOptions = "discard,noinit_itable,errors=remount-ro"

// mountKernel mounts what the kernel shows of itself.
func mountKernel() error {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, unix.MS_NOSUID, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	return nil
}

// loadModules loads the modules of the initial RAM disk, in the order of their names.
func loadModules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, file := range files {
		fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot open module %s: %w", file, err)
		}
		err = unix.FinitModule(fd, "", 0)
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
			err = nil // it is built in, or there is no such device in this VM
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("cannot load module %s: %w", file, err)
		}
	}
	return nil
}

// mountRoot mounts the root disk where switchRoot expects it.
func mountRoot(device string) error {
	if err := unix.Mount(device, newRoot, "ext4", 0, diskOptions); err != nil {
		return fmt.Errorf("cannot mount the root disk %s: %w", device, err)
	}
	return growFilesystem(device, newRoot)
}

// switchRoot makes the root disk "/", takes /proc, /sys and /dev along, and empties the initial RAM disk to give its memory back.
func switchRoot() error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := makeDir(newRoot+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("cannot move %s to the root disk: %w", dir, err)
		}
	}
	for _, name := range []string{"/modules", "/lib", "/lib64", "/sbin", "/init"} {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("cannot empty the initial RAM disk: %w", err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("cannot switch to the root disk: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot switch to the root disk: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot switch to the root disk: %w", err)
	}
	return unix.Chdir("/")
}

// mountExtras mounts what programs expect under /dev, and makes the directories that they expect to be able to write to. /run and
// /tmp are those of the image, as in a container: images keep files and owners in them that an empty one would hide.
func mountExtras() error {
	for _, m := range []struct {
		source, target, kind, data string
		flags                      uintptr
	}{
		{"devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"shm", "/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"mqueue", "/dev/mqueue", "mqueue", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
	} {
		if err := makeDir(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	for link, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot make %s: %w", link, err)
		}
	}
	return errors.Join(makeDir("/run", 0o755), makeDir("/tmp", 0o1777))
}

// makeDir makes a directory and its parents with exactly the mode; one that is there stays as it is.
func makeDir(path string, mode uint32) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", path, err)
	}
	if err := unix.Chmod(path, mode); err != nil {
		return fmt.Errorf("cannot make %s: %w", path, err)
	}
	return nil
}

// mountVolume mounts a volume on its path. The root of a file system that was made just now gets the owner and the mode
// that the directory has in the image, or the owner is the machine's user where the image has none: so that a main process which
// is not root can write to its new volume.
func mountVolume(v guest.Volume, device string, fresh bool, user identity) error {
	path := filepath.Clean("/" + v.Path)
	if path == "/" {
		return fmt.Errorf("volume %s cannot be mounted on \"/\"", v.Name)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDir(path, 0o755); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("cannot look at %s: %w", path, err)
	case !st.IsDir():
		return fmt.Errorf("volume %s cannot be mounted on %s: the image has a file there", v.Name, path)
	}
	if err := unix.Mount(device, path, "ext4", 0, diskOptions); err != nil {
		return fmt.Errorf("cannot mount volume %s (%s) on %s: %w", v.Name, device, path, err)
	}
	if fresh {
		return giveVolume(path, st, user)
	}
	return growFilesystem(device, path)
}

// giveVolume sets owner and mode of a new volume's root; was is the directory below it, nil if there was none.
func giveVolume(path string, was os.FileInfo, user identity) error {
	uid, gid, mode := int(user.uid), int(user.gid), uint32(0o755)
	if was != nil {
		st, ok := was.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("cannot learn the owner of %s", path)
		}
		uid, gid, mode = int(st.Uid), int(st.Gid), st.Mode&0o7777
	}
	if err := unix.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("cannot set the owner of %s: %w", path, err)
	}
	if err := unix.Chmod(path, mode); err != nil {
		return fmt.Errorf("cannot set the mode of %s: %w", path, err)
	}
	return nil
}

// unmountWait bounds the wait for the last users of a volume, which were killed, to let go of it.
const unmountWait = 5 * time.Second

// unmountAll writes everything to the disks and takes them down in reverse order. What is still in use is made read-only, which
// writes it as well. The root disk cannot be unmounted, as this program runs in it.
func unmountAll(paths []string) error {
	var failed []error
	for _, path := range slices.Backward(paths) {
		err := poll(unmountWait, func() (bool, error) {
			err := unix.Unmount(path, 0)
			if errors.Is(err, unix.EBUSY) {
				return false, nil
			}
			return true, err
		})
		if err == nil {
			continue
		}
		failed = append(failed, fmt.Errorf("cannot unmount %s: %w", path, err))
		if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			failed = append(failed, fmt.Errorf("cannot make %s read-only: %w", path, err))
		}
	}
	unix.Sync()
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		failed = append(failed, fmt.Errorf("cannot make the root disk read-only: %w", err))
	}
	return errors.Join(failed...)
}
