package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

// How a service is started again when it has died: at once, then after a pause that doubles from the first to the last. Once it has run for a
// while it is started at once again.
const (
	restartFirst = 100 * time.Millisecond
	restartLast  = 5 * time.Second
	restartReset = 10 * time.Second
)

// stopTimeout is how long a service may take to end after SIGTERM.
const stopTimeout = 10 * time.Second

// logLimit is the size from which on a log is set aside when its service starts; one old log is kept.
const logLimit = 8 << 20

// ServiceStatus is one service of a host.
type ServiceStatus struct {
	Name string `json:"name"`
	// PID is 0 while the service does not run.
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	LastExit string `json:"last_exit,omitempty"`
}

// service is one long-running process of a host.
type service struct {
	name    string
	args    []string
	env     []string
	logPath string
	// socket is the listener that the service is started with, as descriptor 3, and that outlives it; nil for none.
	socket   func() (*os.File, error)
	children *children
	log      *slog.Logger

	mu       sync.Mutex
	running  *child // nil while it does not run
	restarts int
	lastExit string
}

// run keeps the service running until ctx ends, then stops it: SIGTERM, and after stopTimeout SIGKILL.
func (s *service) run(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		p, err := s.start()
		if err == nil {
			s.log.Info("service started", "service", s.name, "pid", p.pid)
			select {
			case <-p.done:
				err = fmt.Errorf("exit code %d", p.exitCode())
			case <-ctx.Done():
				s.stop(p)
				return
			}
		}
		s.ended(err)
		if time.Since(began) >= restartReset {
			pause = 0
		}
		s.log.Warn("service ended, it is started again", "service", s.name, "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(max(2*pause, restartFirst), restartLast)
	}
}

func (s *service) start() (*child, error) {
	out, err := openLog(s.logPath)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Env = s.env
	cmd.Stdout, cmd.Stderr = out, out
	if s.socket != nil {
		socket, err := s.socket()
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles = []*os.File{socket}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.children.start(cmd)
	if err == nil {
		s.running = p
	}
	return p, err
}

func (s *service) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = nil
	s.restarts++
	s.lastExit = err.Error()
}

func (s *service) stop(p *child) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := s.children.signal(p, sig); err != nil {
			s.log.Error("cannot signal a service", "service", s.name, "signal", sig, "err", err)
		}
		select {
		case <-p.done:
			s.log.Info("service stopped", "service", s.name)
			return
		case <-time.After(stopTimeout):
			s.log.Error("service does not end", "service", s.name, "after", sig.String())
		}
	}
}

// kill ends the service by SIGKILL and returns when it is gone; it is then started again. No error when it does not run.
func (s *service) kill(ctx context.Context) error {
	s.mu.Lock()
	p := s.running
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := s.children.signal(p, unix.SIGKILL); err != nil {
		return drover.Errorf(drover.Internal, "cannot kill %s: %w", s.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return drover.Errorf(drover.Unavailable, "%s does not end: %w", s.name, context.Cause(ctx))
	}
}

func (s *service) status() ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ServiceStatus{Name: s.name, Restarts: s.restarts, LastExit: s.lastExit}
	if s.running != nil {
		st.PID = s.running.pid
	}
	return st
}

// openLog opens a log for appending; one that has grown too long is set aside first.
func openLog(path string) (*os.File, error) {
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err == nil && st.Size() > logLimit {
		if err := durable.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}
