package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// process is a handle on one process that cannot come to mean another (a pidfd).
type process struct {
	pid int
	// file is the pidfd, known to the runtime's poller: waiting takes no thread.
	file *os.File
	// cmd is set when the process is our own child, which has to be reaped.
	cmd *exec.Cmd
	// closed tells that the handle was given up; the poller's own error for that is not exported.
	closed atomic.Bool
}

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	return &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns nil when the process has ended, or os.ErrClosed when the handle was closed.
func (p *process) wait() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			pollErr = err
			return true
		}
		return n > 0
	})
	if err != nil && p.closed.Load() {
		return os.ErrClosed
	}
	return errors.Join(err, pollErr)
}

// signal sends a signal; a process that is gone is no error. os.ErrClosed when the handle was closed.
func (p *process) signal(sig unix.Signal) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err != nil && p.closed.Load() {
		return os.ErrClosed
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return errors.Join(err, sent)
}

// reap collects the exit status if the process is our child; otherwise somebody else does. The text is empty for a normal end.
func (p *process) reap() (text string, own bool) {
	if p.cmd == nil {
		return "", false
	}
	var exit *exec.ExitError
	switch err := p.cmd.Wait(); {
	case err == nil:
		return "", true
	case errors.As(err, &exit):
		return exit.String(), true
	default:
		return err.Error(), true
	}
}

// close gives the handle up; the second time does nothing.
func (p *process) close() error {
	if p.closed.Swap(true) {
		return nil
	}
	return p.file.Close()
}
