package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// The defaults of an orderly stop.
const (
	stopSignal  = "SIGINT"
	stopTimeout = 5 * time.Second
)

// lastOutputWait bounds the wait for the last lines of processes that were all killed.
const lastOutputWait = 5 * time.Second

// machine is the running machine: its main process and all that goes on beside it.
type machine struct {
	cfg    guest.Config
	report *reporter
	logs   *logWriter
	procs  *processes
	checks *checker
	*filesystems
	env []string
	// dir is the working directory.
	dir string

	// oomKills is the kernel's count before the main process was started.
	oomKills uint64

	mu sync.Mutex
	// main is the main process; nil before it is started.
	main *process
	// stopping: an orderly stop was asked for; kill fires when its time is over, at killAt.
	stopping bool
	kill     *time.Timer
	killAt   time.Time
}

var _ handler = (*machine)(nil)

// run starts the main process, serves the host until it has ended, and reports that. What it returns could not be done on the way,
// and changes nothing about the end.
func (m *machine) run(user identity, agentPort *port) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	outputs, err := m.start(user)
	if err != nil {
		m.logs.say("cannot run %v", err)
		m.report.emit(guest.StatusEvent{Event: guest.EventExited, Code: exitCodeOf(err), Error: "cannot run " + err.Error()})
		return nil
	}
	m.report.emit(guest.StatusEvent{Event: guest.EventStarted, PID: m.main.pid})
	a := &agent{handler: m, port: agentPort}
	go func() {
		if err := a.serve(); err != nil {
			console("%v", err) // the machine goes on without exec; its end is seen by the host all the same
		}
	}()
	m.forwardSignals()
	var checks sync.WaitGroup
	checks.Go(func() { m.checks.run(ctx, m.cfg.Checks) })

	<-m.main.done
	m.thawAll() // what ends now must be able to write
	code, sig := exitCode(m.main.status)
	m.report.emit(guest.StatusEvent{Event: guest.EventExited, Code: code, Signal: sig, OOM: oomKills() > m.oomKills})
	cancel()
	err = m.killAll()
	select {
	case <-outputs:
	case <-time.After(lastOutputWait):
		err = errors.Join(err, fmt.Errorf("the main process's output had no end %s after all processes were killed", lastOutputWait))
	}
	checks.Wait()
	return err
}

// start executes the main process. outputs is closed when all that it wrote is in the log.
func (m *machine) start(user identity) (outputs <-chan struct{}, err error) {
	if err := makeDir(m.dir, 0o755); err != nil {
		return nil, err
	}
	file, err := findProgram(m.cfg.Argv[0], m.dir, m.env)
	if err != nil {
		return nil, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%q: cannot open /dev/null: %w", m.cfg.Argv[0], err)
	}
	defer closeFD(null)
	files := [3]int{null, -1, -1}
	ended := make(chan struct{})
	var copies sync.WaitGroup
	for i, stream := range []string{"stdout", "stderr"} {
		r, w, err := outputPipe()
		if err != nil {
			return nil, err
		}
		defer closeFD(w)
		// So that a main process that is not root can open /dev/stdout.
		if err := unix.Fchown(w, int(user.uid), int(user.gid)); err != nil {
			return nil, fmt.Errorf("cannot give the log to the machine's user: %w", err)
		}
		files[i+1] = w
		copies.Go(func() {
			if err := errors.Join(m.logs.copy(stream, r), r.Close()); err != nil {
				console("%v", err)
			}
		})
	}
	go func() {
		copies.Wait()
		close(ended)
	}()
	m.oomKills = oomKills()
	proc, err := m.procs.start(command{path: file, argv: m.cfg.Argv, env: m.env, dir: m.dir, files: files,
		credential: user.credential()})
	if err != nil {
		return nil, explainExec(m.cfg.Argv[0], err)
	}
	m.mu.Lock()
	m.main = proc
	m.mu.Unlock()
	return ended, nil
}

// forwardSignals passes on to the main process what is sent to PID 1, as in a container, where the main process is PID 1.
func (m *machine) forwardSignals() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
		unix.SIGPWR)
	go func() {
		for s := range signals {
			sig, ok := s.(unix.Signal)
			if !ok {
				continue // every signal of this system is one
			}
			if _, err := m.procs.signal(m.main, sig); err != nil {
				console("%v", err)
			}
		}
	}()
}

// killAll kills every process but this one, and returns when all are reaped, within a bound.
func (m *machine) killAll() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot kill the processes that are left: %w", err)
	}
	err := poll(lastOutputWait, func() (bool, error) { return !m.procs.reap(), nil })
	if err != nil {
		return fmt.Errorf("processes are left after SIGKILL: %w", err)
	}
	return nil
}

func (m *machine) exec(ctx context.Context, req guest.Request) (drover.ExecResult, error) {
	return execCommand(ctx, m.procs, req, m.dir, m.env)
}

func (m *machine) stream(ctx context.Context, req guest.Request, conn frames.Conn) (drover.StreamExit, error) {
	return streamCommand(ctx, m.procs, req, m.dir, m.env, conn)
}

func (m *machine) signal(name string) error {
	sig, err := guest.ParseSignal(name)
	if err != nil {
		return err
	}
	ok, err := m.procs.signal(m.main, sig)
	if err == nil && !ok {
		return drover.Errorf(drover.Precondition, "the main process has ended")
	}
	return err
}

// stop sends the main process the signal, once, and SIGKILL when the time is over. Asked again, an earlier end of the time counts.
func (m *machine) stop(name string, timeout time.Duration) error {
	if name == "" {
		name = m.cfg.Stop.Signal
	}
	if name == "" {
		name = stopSignal
	}
	if timeout <= 0 {
		timeout = time.Duration(m.cfg.Stop.Timeout)
	}
	if timeout <= 0 {
		timeout = stopTimeout
	}
	sig, err := guest.ParseSignal(name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	first := !m.stopping
	m.stopping = true
	if at := time.Now().Add(timeout); first || at.Before(m.killAt) {
		if m.kill != nil {
			m.kill.Stop()
		}
		m.killAt = at
		m.kill = time.AfterFunc(timeout, m.killMain)
	}
	m.mu.Unlock()
	if !first {
		return nil
	}
	_, err = m.procs.signal(m.main, sig) // one that has ended already is stopped
	return err
}

func (m *machine) killMain() {
	if _, err := m.procs.signal(m.main, unix.SIGKILL); err != nil {
		console("%v", err)
	}
}

func (m *machine) status() guest.Status {
	m.mu.Lock()
	s := guest.Status{Run: m.cfg.Run, Stopping: m.stopping}
	m.mu.Unlock()
	select {
	case <-m.main.done:
	default:
		s.PID = m.main.pid
	}
	s.Uptime, s.DroppedLog, s.Checks = uptime(), m.logs.lost(), m.checks.statuses()
	return s
}

// oomKills reads how many processes the kernel has killed for lack of memory.
func oomKills() uint64 {
	data, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0 // without /proc nothing can be told
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
