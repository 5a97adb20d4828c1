package dev

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// children starts processes and reaps: its own, and all that the kernel hands to a process that is the first of a PID namespace or a
// subreaper. Only one may exist in a process, and nothing else in it may wait for processes.
type children struct {
	signals chan os.Signal
	mu      sync.Mutex // held while a process starts, so that it is known before it can be reaped
	alive   map[int]*child
}

// child is a process that was started. status may be read once done is closed.
type child struct {
	pid    int
	done   chan struct{}
	status unix.WaitStatus
}

func newChildren() *children {
	c := &children{signals: make(chan os.Signal, 1), alive: map[int]*child{}}
	signal.Notify(c.signals, unix.SIGCHLD)
	return c
}

// start starts a command. Its files must be *os.File or nil, because nobody calls its Wait.
func (c *children) start(cmd *exec.Cmd) (*child, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &child{pid: cmd.Process.Pid, done: make(chan struct{})}
	c.alive[p.pid] = p
	return p, cmd.Process.Release()
}

// run reaps until ctx ends.
func (c *children) run(ctx context.Context) {
	defer signal.Stop(c.signals)
	for {
		c.reap()
		select {
		case <-ctx.Done():
			return
		case <-c.signals:
		}
	}
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return // no children, or none that ended
		}
		if p := c.alive[pid]; p != nil {
			delete(c.alive, pid)
			p.status = status
			close(p.done)
		}
	}
}

// signal sends a signal to a child that is still there: its number cannot be another process's before it is reaped.
func (c *children) signal(p *child, sig unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive[p.pid] != p {
		return nil
	}
	if err := unix.Kill(p.pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// killSession kills a child that is still there and that leads a session, with all that is in it: what the child has started, and what that has, but for what
// began a session of its own.
func (c *children) killSession(p *child) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive[p.pid] != p {
		return nil
	}
	killed := map[int]bool{}
	for found := true; found; { // what is started meanwhile is found the next time
		found = false
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		for _, path := range all {
			pid, err := strconv.Atoi(filepath.Base(path))
			if err != nil || killed[pid] {
				continue
			}
			if session, err := unix.Getsid(pid); err != nil || session != p.pid {
				continue // another one's, or gone
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			killed[pid], found = true, true
		}
	}
	return nil
}

// exitCode is the shell's: that of the process, or 128 and the signal that ended it.
func (p *child) exitCode() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}
