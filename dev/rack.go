package dev

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"drover"
)

// rackReadyFD gets the rack's readyMessage.
const rackReadyFD = 3

// hostStopTimeout is how long a host may take to shut down before its power is cut.
const hostStopTimeout = 30 * time.Second

// RackOptions describe the rack's process.
type RackOptions struct {
	Dir  string
	Mode Mode
	// Reason says why it is that mode.
	Reason string
	// Exe is the program that hosts and services run.
	Exe string
	Log *slog.Logger
}

// rack is power and network of a fleet.
type rack struct {
	opts     RackOptions
	p        paths
	children *children
	uplink   *uplink // nil in ModeLoopback
	down     context.CancelFunc

	changes sync.Mutex // one change of a host at a time
	mu      sync.Mutex // guards what follows; never held while waiting
	hosts   map[drover.HostID]*rackHost
	hung    map[drover.HostID]bool // whose disk does not end what it is asked for
	disks   map[drover.HostID]bool // whose disk is mounted; guarded by changes
	apiAddr string
}

// rackHost is one host's place in the rack.
type rackHost struct {
	proc *child // nil: without power
	// pid is the first process's number outside of the rack's namespaces.
	pid int
	// lifeline is held open as long as the rack wants the host to live.
	lifeline *os.File
	// why tells how a host without power lost it.
	why string
	// gone is closed when the end of the process has been dealt with.
	gone chan struct{}
}

// rackStatus is the rack's answer to "status".
type rackStatus struct {
	Mode   Mode       `json:"mode"`
	Reason string     `json:"reason"`
	API    string     `json:"api"`
	Hosts  []rackView `json:"hosts"`
}

// rackView is the rack's view of one host.
type rackView struct {
	ID   drover.HostID `json:"id"`
	PID  int           `json:"pid"` // 0: without power
	Why  string        `json:"why,omitempty"`
	Link Link          `json:"link"`
	// Filled is what the ballast on the host's disk takes.
	Filled drover.Bytes `json:"filled,omitempty"`
	Hangs  bool         `json:"hangs,omitempty"`
}

// RunRack is the rack's process: it serves requests until it is asked to end, or ctx ends; then it shuts every host down. It is
// started by Up, never by hand.
func RunRack(ctx context.Context, opts RackOptions) error {
	ready := os.NewFile(rackReadyFD, "ready")
	defer ready.Close()
	ctx, down := context.WithCancel(ctx)
	defer down()
	r := &rack{opts: opts, p: paths(opts.Dir), children: newChildren(), down: down, hosts: map[drover.HostID]*rackHost{}, hung: map[drover.HostID]bool{}, disks: map[drover.HostID]bool{}}
	pid, err := selfOutside()
	if err == nil {
		err = r.setUp(ctx)
	}
	if err != nil {
		return tell(ready, readyMessage{Error: drover.AsError(err)}, err)
	}
	l, err := listenDir(opts.Dir, rackSocketName)
	if err != nil {
		err = drover.Errorf(drover.Internal, "cannot listen on the rack's socket in %q: %w", opts.Dir, err)
		return tell(ready, readyMessage{Error: drover.AsError(err)}, err)
	}
	if err := tell(ready, readyMessage{PID: pid}, nil); err != nil {
		return drover.Errorf(drover.Internal, "cannot tell that the rack is ready: %w", err)
	}
	ready.Close()
	opts.Log.Info("rack is ready", "dir", opts.Dir, "mode", opts.Mode, "pid", pid)

	var g sync.WaitGroup
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() { r.children.run(lasting) })
	g.Go(func() { serveCtl(lasting, l, r.handle) })
	<-ctx.Done()
	r.shutDown(lasting)
	l.Close()
	end()
	g.Wait()
	if r.uplink != nil {
		r.uplink.close()
	}
	opts.Log.Info("rack is down", "dir", opts.Dir)
	return nil
}

func (r *rack) setUp(ctx context.Context) error {
	if r.opts.Mode == ModeLoopback {
		return becomeSubreaper()
	}
	if err := privateMounts(); err != nil {
		return err
	}
	var err error
	r.uplink, err = newUplink(context.WithoutCancel(ctx), network{mode: r.opts.Mode, p: r.p}, r.opts.Log)
	return err
}

// shutDown shuts all hosts down, all workers at once and then the others, so that workers can still report to the control hosts.
func (r *rack) shutDown(ctx context.Context) {
	layout, err := loadLayout(r.p)
	if err != nil {
		r.opts.Log.Error("cannot read the layout; hosts lose their power without being shut down", "err", err)
		return
	}
	r.changes.Lock()
	defer r.changes.Unlock()
	for _, role := range []drover.Role{drover.RoleWorker, drover.RoleControl} {
		var g sync.WaitGroup
		for _, h := range layout.Hosts {
			if h.has(role) {
				g.Go(func() {
					if err := errors.Join(r.unhang(h), r.stop(ctx, h)); err != nil {
						r.opts.Log.Error("cannot shut a host down", "host", h.ID, "err", err)
					}
				})
			}
		}
		g.Wait()
	}
}

// handle answers a request to the rack.
func (r *rack) handle(ctx context.Context, req request, _ []*os.File) (answer, error) {
	layout, err := loadLayout(r.p)
	if err != nil {
		return answer{}, err
	}
	switch req.Op {
	case "status":
		return answer{Rack: r.status(layout)}, nil
	case "down":
		r.down()
		return answer{}, nil
	}
	h, err := layout.host(req.Host)
	if err != nil {
		return answer{}, err
	}
	// What was begun is done, whether or not the caller waits for it.
	ctx = context.WithoutCancel(ctx)
	r.changes.Lock()
	defer r.changes.Unlock()
	if req.Op != "link" && req.Op != "hang" {
		if err := r.unhang(h); err != nil {
			return answer{}, err
		}
	}
	switch req.Op {
	case "hang":
		return answer{}, r.hang(h)
	case "unhang":
		return answer{}, nil // it was done
	case "start":
		return answer{}, r.start(ctx, h)
	case "stop":
		return answer{}, r.stop(ctx, h)
	case "kill":
		return answer{}, r.kill(ctx, h)
	case "link":
		return answer{}, r.setLink(layout, h, req.Link)
	case "fill":
		return answer{}, r.fill(h, req.Leave)
	case "unfill":
		return answer{}, r.unfill(h)
	}
	return answer{}, drover.Errorf(drover.Invalid, "the rack does not know the request %q", req.Op)
}

func (r *rack) status(layout *Layout) *rackStatus {
	s := &rackStatus{Mode: r.opts.Mode, Reason: r.opts.Reason}
	var links []Link
	for _, h := range layout.Hosts {
		var l Link
		if r.uplink != nil {
			l = r.uplink.link(h.Number)
		}
		links = append(links, l)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.API = r.apiAddr
	for i, h := range layout.Hosts {
		v := rackView{ID: h.ID, Why: "not started", Link: links[i], Filled: r.filled(h), Hangs: r.hung[h.ID]}
		if state := r.hosts[h.ID]; state != nil {
			v.Why = state.why
			if state.proc != nil {
				v.PID, v.Why = state.pid, ""
			}
		}
		s.Hosts = append(s.Hosts, v)
	}
	return s
}

func (r *rack) setLink(layout *Layout, h HostSpec, l Link) error {
	if r.uplink == nil {
		return drover.Errorf(drover.Precondition, "the link of host %q cannot be changed: this fleet runs without network namespaces (%s)", h.ID, r.opts.Reason).
			WithHint("run the fleet as root, or where user namespaces are allowed, to cut links and slow them down")
	}
	if err := l.check(); err != nil {
		return err
	}
	var without []int
	for _, id := range l.Without {
		other, err := layout.host(id)
		if err != nil {
			return err
		}
		if id == h.ID {
			return drover.Errorf(drover.Invalid, "host %q cannot be cut from itself", id)
		}
		without = append(without, other.Number)
	}
	if err := r.uplink.set(h.Number, l, without); err != nil {
		return err
	}
	r.opts.Log.Info("link changed", "host", h.ID, "link", l.String())
	return nil
}

// powered returns the host's state when it has power.
func (r *rack) powered(id drover.HostID) *rackHost {
	r.mu.Lock()
	defer r.mu.Unlock()
	if state := r.hosts[id]; state != nil && state.proc != nil {
		return state
	}
	return nil
}
