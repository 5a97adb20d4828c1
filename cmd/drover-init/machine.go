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

// program is what is to be run as a main process.
type program struct {
	// name marks its lines in the log; empty for the only one.
	name string
	argv []string
	env  []string
	user identity
	// tty gives it a terminal.
	tty bool
}

// machine is the running machine: its main processes, of which there is one mostly, and all that goes on beside them.
type machine struct {
	cfg    guest.Config
	report *reporter
	logs   *logWriter
	procs  *processes
	checks *checker
	*filesystems
	// env is the machine's own environment, for commands.
	env      []string
	programs []program
	// dir is the working directory.
	dir string

	// oomKills is the kernel's count before the main process was started.
	oomKills uint64

	mu sync.Mutex
	// mains are the main processes; none before they are started.
	mains []*process
	// stopping: an orderly stop was asked for; kill fires when its time is over, at killAt.
	stopping bool
	kill     *time.Timer
	killAt   time.Time
}

var _ handler = (*machine)(nil)

// run starts the main processes, serves the host until the first of them has ended, and reports that. What it returns could not be done on
// the way, and changes nothing about the end.
func (m *machine) run(agentPort *port) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var outputs sync.WaitGroup
	if err := m.start(&outputs); err != nil {
		m.logs.say("cannot run the main process: %v", err)
		m.report.emit(guest.StatusEvent{Event: guest.EventExited, Code: exitCodeOf(err), Error: "cannot run the main process: " + err.Error()})
		return m.killAll()
	}
	m.report.emit(guest.StatusEvent{Event: guest.EventStarted, PID: m.mains[0].pid})
	a := &agent{handler: m, port: agentPort}
	go func() {
		if err := a.serve(); err != nil {
			console("%v", err) // the machine goes on without exec; its end is seen by the host all the same
		}
	}()
	m.forwardSignals()
	var checks sync.WaitGroup
	checks.Go(func() { m.checks.run(ctx, m.cfg.Checks) })

	first := m.firstEnd()
	m.thawAll() // what ends now must be able to write
	code, sig := exitCode(first.status)
	m.report.emit(guest.StatusEvent{Event: guest.EventExited, Code: code, Signal: sig, OOM: oomKills() > m.oomKills})
	cancel()
	err := m.endOthers()
	err = errors.Join(err, m.killAll())
	ended := make(chan struct{})
	go func() {
		outputs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(lastOutputWait):
		err = errors.Join(err, fmt.Errorf("the main process's output had no end %s after all processes were killed", lastOutputWait))
	}
	checks.Wait()
	return err
}

// firstEnd waits until one of the main processes has ended.
func (m *machine) firstEnd() *process {
	first := make(chan *process, len(m.mains))
	for _, p := range m.mains {
		go func() {
			<-p.done
			first <- p
		}()
	}
	return <-first
}

// endOthers stops the main processes that are left in the orderly way: a signal, and SIGKILL when the time is over.
func (m *machine) endOthers() error {
	if len(m.mains) == 1 {
		return nil
	}
	err := m.stop("", 0)
	for _, p := range m.mains {
		<-p.done
	}
	return err
}

// start executes the main processes, one after the other. outputs ends when all that they wrote is in the log.
func (m *machine) start(outputs *sync.WaitGroup) error {
	if err := makeDir(m.dir, 0o755); err != nil {
		return err
	}
	m.oomKills = oomKills()
	for _, p := range m.programs {
		proc, err := m.startProgram(p, outputs)
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.mains = append(m.mains, proc)
		m.mu.Unlock()
	}
	return nil
}

func (m *machine) startProgram(p program, outputs *sync.WaitGroup) (*process, error) {
	file, err := findProgram(p.argv[0], m.dir, p.env)
	if err != nil {
		return nil, err
	}
	files, err := m.connect(p, outputs)
	defer func() {
		for _, fd := range files {
			if fd >= 0 {
				closeFD(fd)
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	proc, err := m.procs.start(command{path: file, argv: p.argv, env: p.env, dir: m.dir, files: files, credential: p.user.credential(), terminal: p.tty})
	if err != nil {
		return nil, explainExec(p.argv[0], err)
	}
	return proc, nil
}

// connect makes stdin, stdout and stderr of a program, whose output goes to the log. The caller closes what is not negative, also after an
// error.
func (m *machine) connect(p program, outputs *sync.WaitGroup) (files [3]int, err error) {
	files = [3]int{-1, -1, -1}
	if p.tty {
		r, tty, err := openLogTerminal(p.user.uid, p.user.gid)
		if err != nil {
			return files, err
		}
		files[0] = tty
		for i := 1; i < len(files) && err == nil; i++ {
			files[i], err = unix.FcntlInt(uintptr(tty), unix.F_DUPFD_CLOEXEC, 0)
		}
		m.copyLog(source{"stdout", p.name}, r, outputs)
		return files, err
	}
	if files[0], err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return files, fmt.Errorf("%q: cannot open /dev/null: %w", p.argv[0], err)
	}
	for i, stream := range []string{"stdout", "stderr"} {
		r, w, err := outputPipe()
		if err != nil {
			return files, err
		}
		files[i+1] = w
		m.copyLog(source{stream, p.name}, r, outputs)
		// So that a main process that is not root can open /dev/stdout.
		if err := unix.Fchown(w, int(p.user.uid), int(p.user.gid)); err != nil {
			return files, fmt.Errorf("cannot give the log to the machine's user: %w", err)
		}
	}
	return files, nil
}

func (m *machine) copyLog(from source, r *os.File, outputs *sync.WaitGroup) {
	outputs.Go(func() {
		if err := errors.Join(m.logs.copy(from, r), r.Close()); err != nil {
			console("%v", err)
		}
	})
}

// forwardSignals passes on to the main processes what is sent to PID 1, as in a container, where the main process is PID 1.
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
			if _, err := m.signalMains(sig); err != nil {
				console("%v", err)
			}
		}
	}()
}

// signalMains sends the main processes a signal; false when all have ended.
func (m *machine) signalMains(sig unix.Signal) (any bool, err error) {
	for _, p := range m.mains {
		ok, serr := m.procs.signal(p, sig)
		any, err = any || ok, errors.Join(err, serr)
	}
	return any, err
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
	ok, err := m.signalMains(sig)
	if err == nil && !ok {
		return drover.Errorf(drover.Precondition, "the main process has ended")
	}
	return err
}

// stop sends the main processes the signal, once, and SIGKILL when the time is over. Asked again, an earlier end of the time counts.
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
		m.kill = time.AfterFunc(timeout, m.killMains)
	}
	m.mu.Unlock()
	if !first {
		return nil
	}
	_, err = m.signalMains(sig) // one that has ended already is stopped
	return err
}

func (m *machine) killMains() {
	if _, err := m.signalMains(unix.SIGKILL); err != nil {
		console("%v", err)
	}
}

func (m *machine) status() guest.Status {
	m.mu.Lock()
	s := guest.Status{Run: m.cfg.Run, Stopping: m.stopping}
	m.mu.Unlock()
	select {
	case <-m.mains[0].done:
	default:
		s.PID = m.mains[0].pid
	}
	s.Uptime, s.DroppedLog, s.Checks = uptime(), m.logs.lost(), m.checks.statuses()
	return s
}

func (m *machine) ps() ([]drover.Process, error) { return listProcesses("/proc", time.Now(), uptime()) }

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
