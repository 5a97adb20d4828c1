package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes starts processes and reaps them, and every orphan besides: PID 1 inherits them all.
type processes struct {
	// mu is held over fork and over wait, so that a process is known before its end is seen.
	mu    sync.Mutex
	known map[int]*process
}

// process is one that was started here.
type process struct {
	pid int
	// done is closed when the process has ended; status is valid then.
	done   chan struct{}
	status unix.WaitStatus
}

// command is what is to be started.
type command struct {
	path string
	argv []string
	env  []string
	dir  string
	// files are stdin, stdout, stderr.
	files      [3]int
	credential *syscall.Credential
	// terminal: the files are a terminal, which becomes that of the process's session.
	terminal bool
}

// newProcesses starts to reap.
func newProcesses() *processes {
	p := &processes{known: map[int]*process{}}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			p.reap()
		}
	}()
	return p
}

// start starts a process in a session of its own. The error of exec itself is a syscall.Errno.
func (p *processes) start(c command) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := syscall.ForkExec(c.path, c.argv, &syscall.ProcAttr{
		Dir:   c.dir,
		Env:   c.env,
		Files: []uintptr{uintptr(c.files[0]), uintptr(c.files[1]), uintptr(c.files[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: c.terminal, Credential: c.credential},
	})
	if err != nil {
		return nil, err
	}
	proc := &process{pid: pid, done: make(chan struct{})}
	p.known[pid] = proc
	return proc, nil
}

// reap takes every process that has ended. It reports whether any is left; kernel threads are nobody's children.
func (p *processes) reap() (left bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false // ECHILD
		}
		if pid == 0 {
			return true
		}
		if proc := p.known[pid]; proc != nil && (status.Exited() || status.Signaled()) {
			proc.status = status
			delete(p.known, pid)
			close(proc.done)
		}
	}
}

// signal sends a process a signal; false when it has ended.
func (p *processes) signal(proc *process, sig unix.Signal) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[proc.pid] != proc {
		return false, nil
	}
	if err := unix.Kill(proc.pid, sig); err != nil {
		return false, fmt.Errorf("cannot send signal %d to process %d: %w", sig, proc.pid, err)
	}
	return true, nil
}

// killGroup kills a process and all that share its session's group, also when the process itself has ended.
func (p *processes) killGroup(proc *process) error {
	if err := unix.Kill(-proc.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot kill process group %d: %w", proc.pid, err)
	}
	return nil
}

// setLimits sets the limits that every process of the machine inherits. The kernel's own are those of a desktop.
func setLimits() error {
	// By syscall and not by unix, so that the runtime does not restore the old one in children.
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 1 << 20})
	if err != nil {
		return fmt.Errorf("cannot set the limit of open files: %w", err)
	}
	return nil
}

// exitCode returns a status as a shell tells it, and the signal if one ended the process.
func exitCode(status unix.WaitStatus) (code, sig int) {
	if status.Signaled() {
		return 128 + int(status.Signal()), int(status.Signal())
	}
	return status.ExitStatus(), 0
}

// closeFD closes a descriptor that was only passed on or read from, so that nothing can be lost by it.
func closeFD(fd int) { _ = unix.Close(fd) }

// outputPipe returns a pipe whose reading end works with deadlines and whose writing end is a plain file descriptor for a process.
func outputPipe() (r *os.File, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("cannot make a pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, -1, errors.Join(fmt.Errorf("cannot make a pipe: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), fds[1], nil
}

// inputPipe returns a pipe whose writing end works with deadlines and whose reading end is a plain file descriptor for a process.
func inputPipe() (r int, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[1], true); err != nil {
		return -1, nil, errors.Join(fmt.Errorf("cannot make a pipe: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "pipe"), nil
}
