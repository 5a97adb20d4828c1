package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

// lockFD is the number under which a VM's process has its lock file.
const lockFD = 3

// Files of a VM in its directory.
const (
	lockFile = "lock"
	pidFile  = "pid"
	qmpFile  = "qmp.sock"
	opFile   = "op.sock"
	logFile  = "qemu.log"
)

func (d *Driver) path(id drover.MachineID, name string) string {
	return filepath.Join(d.cfg.RunDir, string(id), name)
}

// errLocked says that a VM of the machine runs.
var errLocked = errors.New("locked")

// lock takes the machine's lock, or fails with errLocked. The lock is that of the open file (F_OFD_SETLK in fcntl(2)): it is held
// until the last process that has the file open is gone.
func (d *Driver) lock(id drover.MachineID) (*os.File, error) {
	path := d.path(id, lockFile)
	for range 100 {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if isGone(err) {
			continue // cleared between the two
		}
		if err != nil {
			return nil, err
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				err = errLocked
			}
			return nil, errors.Join(err, f.Close())
		}
		// The file may have been cleared away between opening and locking: then this lock keeps nobody out.
		if same, err := isFile(f, path); err != nil || same {
			return f, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s changes all the time", path)
}

// isFile reports whether the path leads to the open file.
func isFile(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, there), nil
}

// locked reports whether a VM of the machine runs, or is being started.
func (d *Driver) locked(id drover.MachineID) (bool, error) {
	f, err := os.Open(d.path(id, lockFile))
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, drover.Errorf(drover.Internal, "machine %q: cannot look at its lock: %w", id, err)
	}
	// Asking takes no lock, so it is in nobody's way.
	held := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, drover.Errorf(drover.Internal, "machine %q: cannot look at its lock: %w", id, err)
	}
	return held.Type != unix.F_UNLCK, nil
}

// clear removes the directory of a VM that is gone; that of a running one stays.
func (d *Driver) clear(id drover.MachineID) error {
	if _, err := os.Stat(d.path(id, lockFile)); isGone(err) {
		return nil // nothing of ours, or nothing left
	}
	f, err := d.lock(id)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "machine %q: cannot clear its run directory: %w", id, err)
	}
	if err := errors.Join(d.groups.remove(id), durable.Remove(filepath.Dir(d.path(id, lockFile))), f.Close()); err != nil {
		return drover.Errorf(drover.Internal, "machine %q: cannot clear its run directory: %w", id, err)
	}
	return nil
}

// errNoProcess says that no process could be identified as the VM.
var errNoProcess = errors.New("no process has its lock file open")

// identify finds the process of the machine's VM: the one that QEMU's pid file names, or else any that has the lock file open.
func (d *Driver) identify(id drover.MachineID) (*process, error) {
	if text, err := os.ReadFile(d.path(id, pidFile)); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			if p, err := d.verify(id, pid); err == nil {
				return p, nil
			}
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, err := d.verify(id, pid); err == nil {
			return p, nil
		}
	}
	return nil, errNoProcess
}

// verify opens a process and makes sure that it is the machine's VM: it has the lock file open and our pid file in its
// arguments. The process is opened first, so that the answer cannot be about another that got its number.
func (d *Driver) verify(id drover.MachineID, pid int) (*process, error) {
	p, err := openProcess(pid)
	if err != nil {
		return nil, err
	}
	dir := "/proc/" + strconv.Itoa(pid)
	err = func() error {
		held, err := os.Stat(dir + "/fd/" + strconv.Itoa(lockFD))
		if err != nil {
			return err
		}
		lock, err := os.Stat(d.path(id, lockFile))
		if err != nil {
			return err
		}
		args, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			return err
		}
		if !os.SameFile(held, lock) || !bytes.Contains(args, []byte("\x00"+d.path(id, pidFile)+"\x00")) {
			return errNoProcess
		}
		return nil
	}()
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}
