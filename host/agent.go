package host

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/boltstore"
	"drover/internal/durable"
)

// Agent is the worker role of one host. Make it with New, run it with Run.
type Agent struct {
	cfg      Config
	started  time.Time
	publish  publisher
	watched  watcher
	trial    diskTrial
	routes   *router
	policies *policer
	// mesh is what the mesh said last; nil before it said anything.
	mesh atomic.Pointer[drover.MeshStatus]
	// observer has what this host says of others.
	observer observer
	// settings are what an operator set for the host's storage.
	settings atomic.Pointer[drover.StorageSettings]

	mu       sync.Mutex
	machines map[drover.MachineID]*machine
	// group, ctx and stop are there while Run runs: loops are started in the group, and end with ctx.
	group *errgroup.Group
	ctx   context.Context
	stop  context.CancelCauseFunc

	// capacity orders those that promise memory or disk, so that two do not promise the same. It guards promised: what volumes may grow
	// to whose records do not say so yet.
	capacity sync.Mutex
	promised map[drover.VolumeID]drover.Bytes
	// reserved is what is held with volumes for machines; capacity guards it too.
	reserved map[drover.VolumeID]reservation
	// volumes lets one order at a time work on a volume.
	volumes turns
}

// New makes an agent and starts nothing. Invalid when a required field of the config is not set.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.GuestDial = newGuests(cfg.GuestDial).get
	a := &Agent{cfg: cfg, machines: map[drover.MachineID]*machine{}, promised: map[drover.VolumeID]drover.Bytes{},
		reserved: map[drover.VolumeID]reservation{}}
	a.publish.init()
	a.routes = newRouter(a)
	a.policies = newPolicer(a)
	return a, nil
}

// Run works until ctx ends, and returns nil then; VMs and storage run on. It returns an error when the journal cannot be read or
// written: an agent without a memory must not act. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.cfg.Store.Migrate(storeMigrations()); err != nil {
		return err
	}
	for _, dir := range []string{a.cfg.DataDir, a.machinesDir()} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return drover.Errorf(drover.Internal, "cannot make the directory %s: %w", dir, err)
		}
	}
	known, err := a.load()
	if err != nil {
		return err
	}
	if err := errors.Join(a.loadSettings(), a.loadReserved(), a.policies.load()); err != nil {
		return err
	}
	a.started = a.now()
	runCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group errgroup.Group
	a.mu.Lock()
	a.ctx, a.stop, a.group = runCtx, stop, &group
	for id, rec := range known {
		a.addLocked(newMachine(a, id, rec))
	}
	a.mu.Unlock()
	for _, work := range []func(context.Context){a.publishLoop, a.infoLoop, a.watchLoop, a.placementLoop, a.sweepLoop, a.fillLoop, a.routeLoop,
		a.observeLoop, a.serveStreams, a.meshLoop, a.policyLoop, a.diskLoop} {
		group.Go(func() error { work(runCtx); return nil })
	}
	for order, handler := range a.handlers() {
		group.Go(func() error { a.serve(runCtx, order, handler); return nil })
	}
	<-runCtx.Done()
	a.mu.Lock()
	a.group = nil // from here on no loop starts
	a.mu.Unlock()
	if err := group.Wait(); err != nil || ctx.Err() != nil {
		return err
	}
	return context.Cause(runCtx)
}

// stopped is closed when the agent ends.
func (a *Agent) stopped() <-chan struct{} { return a.ctx.Done() }

func (a *Agent) now() time.Time { return a.cfg.Clock() }

// update writes the journal. An error of fn comes back as it is. When the journal itself cannot be written the agent ends:
// to go on without a memory could run a machine twice.
func (a *Agent) update(fn func(tx *boltstore.Tx) error) error {
	var refused error
	if a.cfg.journal != nil {
		if err := a.cfg.journal(); err != nil {
			a.stop(err)
			return err
		}
	}
	if a.ctx.Err() != nil {
		return drover.Errorf(drover.Unavailable, "the agent of host %q is stopping", a.cfg.ID)
	}
	err := a.cfg.Store.Update(func(tx *boltstore.Tx) error {
		refused = fn(tx)
		return refused
	})
	if err != nil && refused == nil {
		a.cfg.Log.Error("the journal cannot be written: the agent stops, machines and storage run on", "err", err)
		a.stop(err)
	}
	return err
}

// hit is a fault point; see FaultPoints.
func (a *Agent) hit(point string) {
	if a.cfg.hit != nil {
		a.cfg.hit(point)
	}
	a.cfg.Faults.Hit(point)
}

// load reads the records of every machine. One that cannot be read stops the start: it may be a machine that runs.
func (a *Agent) load() (map[drover.MachineID]*records, error) {
	known := map[drover.MachineID]*records{}
	get := func(key string) *records {
		r, ok := known[drover.MachineID(key)]
		if !ok {
			r = &records{}
			known[drover.MachineID(key)] = r
		}
		return r
	}
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return errors.Join(
			desiredBucket.ForEach(tx, func(key string, d drover.ApplyRequest, err error) error {
				get(key).Desired = &d
				return err
			}),
			observedBucket.ForEach(tx, func(key string, o observed, err error) error {
				get(key).Obs = o
				return err
			}),
			moveBucket.ForEach(tx, func(key string, m moveRecord, err error) error {
				get(key).Move = &m
				return err
			}))
	})
	if err != nil {
		return nil, drover.AsError(err).WithHint("the records of host %s in %s cannot be used by this version", a.cfg.ID, a.cfg.Store.Path())
	}
	return known, nil
}

// addLocked makes a machine known and starts its loop.
func (a *Agent) addLocked(m *machine) {
	a.machines[m.id] = m
	a.publishLater(m.id)
	a.group.Go(func() error {
		m.loop(a.ctx)
		m.stopping.wait()
		return nil
	})
}

// machine returns the machine of the ID. NotFound when the host does not have it.
func (a *Agent) machine(id drover.MachineID) (*machine, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.machines[id]
	if !ok || m.rec.Load().empty() {
		return nil, drover.Errorf(drover.NotFound, "host %q has no machine %q", a.cfg.ID, id)
	}
	return m, nil
}

// ensureMachine changes the records of a machine that the host may not know yet. fn sees empty records then; the machine becomes
// known when fn agrees.
func (a *Agent) ensureMachine(id drover.MachineID, fn func(r *records, tx *boltstore.Tx) error) (*machine, error) {
	if id == "" {
		return nil, drover.Errorf(drover.Invalid, "the order names no machine").WithField("machine")
	}
	for {
		a.mu.Lock()
		m, ok := a.machines[id]
		if !ok {
			if a.group == nil {
				a.mu.Unlock()
				return nil, drover.Errorf(drover.Unavailable, "the agent of host %q is not running", a.cfg.ID)
			}
			m = newMachine(a, id, &records{})
			a.addLocked(m)
		}
		a.mu.Unlock()
		err := m.order(func(r *records, tx *boltstore.Tx) error {
			if m.gone() {
				return errForgotten
			}
			return fn(r, tx)
		})
		if !errors.Is(err, errForgotten) {
			return m, err
		}
	}
}

// errForgotten: the machine's loop ended between the look-up and the change.
var errForgotten = errors.New("the machine was just forgotten")

// gone reports whether the machine was removed from the agent.
func (m *machine) gone() bool {
	m.agent.mu.Lock()
	defer m.agent.mu.Unlock()
	return m.agent.machines[m.id] != m
}

// remove forgets a machine whose records are empty. It answers false when somebody gave it new ones meanwhile.
func (a *Agent) remove(m *machine) bool {
	m.writing.Lock()
	defer m.writing.Unlock()
	if !m.rec.Load().empty() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.machines, m.id)
	return true
}

// list returns the machines that the host knows.
func (a *Agent) list() []*machine {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*machine, 0, len(a.machines))
	for _, m := range a.machines {
		all = append(all, m)
	}
	return all
}

func (a *Agent) machinesDir() string { return filepath.Join(a.cfg.DataDir, "machines") }

// dir is where a machine's files are, runDir where its sockets are.
func (m *machine) dir() string         { return filepath.Join(m.agent.machinesDir(), string(m.id)) }
func (m *machine) runDir() string      { return filepath.Join(m.agent.cfg.RunDir, "machines", string(m.id)) }
func (m *machine) logPath() string     { return filepath.Join(m.dir(), "log") }
func (m *machine) statusPath() string  { return m.statusFile } // asked for several times a second
func (m *machine) consolePath() string { return filepath.Join(m.dir(), "console") }
func (m *machine) configPath() string  { return filepath.Join(m.runDir(), "config.img") }
func (m *machine) agentSocket() string { return filepath.Join(m.runDir(), "agent") }
