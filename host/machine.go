package host

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"drover"
	"drover/boltstore"
)

// machine is one machine of the host: its records, and the loop that does all work on it.
type machine struct {
	agent *Agent
	id    drover.MachineID
	log   *slog.Logger
	// statusFile is where the guest reports.
	statusFile string

	// rec is the newest stored state; what it points to is never changed.
	rec atomic.Pointer[records]
	// writing is held from the reading of rec until the new one is stored: it orders the writers, and guards nothing else.
	writing sync.Mutex
	wake    chan struct{}

	mu sync.Mutex
	// changed is closed and replaced when rec or failed changes.
	changed chan struct{}
	// failed is the newest error of each kind of action, without an entry after a success.
	failed map[actionKind]failure
	// current is the action that is under way, and how to cut it short.
	current actionKind
	cut     context.CancelCauseFunc
	// ownedAt is when the control side last confirmed that this host owns the machine, askedAt when it last asked anything about
	// the migration, placedAt when the placement was last asked for.
	ownedAt, askedAt, placedAt time.Time

	// The rest belongs to the loop alone.
	vm VM
	// share is what shareOf, a VM, was given of the CPUs.
	share    drover.VMShare
	shareOf  VM
	vmFact   vmFact
	watched  bool
	stopping *stopper
	// hydrateAt is when the copy is looked at again, hydratePause how long that was put off.
	hydrateAt    time.Time
	hydratePause time.Duration
	sendAt       time.Time
	// pauseFor is how long the machine may stand still for the last of its memory.
	pauseFor time.Duration

	// sent is how far the sending of the memory was when it was last looked at.
	sent atomic.Pointer[drover.MemoryMove]
}

// failure is an action that failed: the error, how often in a row, and when it is tried again.
type failure struct {
	err   error
	tries int
	retry time.Time
	at    time.Time
}

// errSuperseded cuts an action short whose result nobody wants any more.
var errSuperseded = errors.New("something else was asked for")

func newMachine(a *Agent, id drover.MachineID, rec *records) *machine {
	m := &machine{agent: a, id: id, log: a.cfg.Log.With("machine", string(id)), wake: make(chan struct{}, 1),
		changed: make(chan struct{}), failed: map[actionKind]failure{}}
	m.askedAt = a.now()
	m.statusFile = filepath.Join(m.dir(), "status")
	m.rec.Store(rec)
	return m
}

// change is the one way to change a machine's records: fn changes a copy, and says no by an error; then the copy is stored, and
// only then seen by others. Other records may be written in the same transaction.
func (m *machine) change(fn func(r *records, tx *boltstore.Tx) error) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	before := m.rec.Load()
	r := before.clone()
	err := m.agent.update(func(tx *boltstore.Tx) error {
		if err := fn(r, tx); err != nil {
			return err
		}
		if r.Desired != nil {
			r.Obs.Status.UpdatedAt = m.agent.now()
		}
		return r.put(tx, m.id)
	})
	if err != nil {
		return err
	}
	m.rec.Store(r)
	if from, to := before.Obs.Status.State, r.Obs.Status.State; from != to {
		m.log.Info("machine state", "from", string(from), "to", string(to), "why", r.Obs.Status.Reason)
	}
	m.broadcast()
	m.agent.publishLater(m.id)
	return nil
}

// order is change for what comes from outside the loop: it also wakes the loop, and cuts an action short that has become pointless.
func (m *machine) order(fn func(r *records, tx *boltstore.Tx) error) error {
	if err := m.change(fn); err != nil {
		return err
	}
	m.mu.Lock()
	if m.cut != nil && pointless(m.current, m.rec.Load()) {
		m.cut(errSuperseded)
	}
	clear(m.failed) // a new order is a new chance: no waiting for an old back-off
	m.mu.Unlock()
	m.nudge()
	return nil
}

// pointless reports whether an action that may take long should end because the records say something else now.
func pointless(kind actionKind, r *records) bool {
	switch kind {
	case actStart:
		return !wantsVM(r)
	case actPrepare:
		return !r.unprepared()
	case actSuspend:
		return !r.wantsSuspend()
	case actImage, actClone, actSend, actTake:
		return r.Move == nil || r.Move.Ending != ""
	case actHydrate:
		return r.Move == nil
	case actRound, actCopy:
		return r.Move == nil || r.Move.Ending != ""
	}
	return false
}

// nudge wakes the loop.
func (m *machine) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *machine) broadcast() {
	m.mu.Lock()
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
}

// await waits until done says so. An action of the kinds that fails meanwhile ends the wait with its error.
func (m *machine) await(ctx context.Context, done func(r *records) (bool, error), kinds ...actionKind) error {
	from := m.agent.now()
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	for {
		m.mu.Lock()
		changed := m.changed
		var failed error
		for _, kind := range kinds {
			if f, ok := m.failed[kind]; ok && !f.at.Before(from) {
				failed = f.err
			}
		}
		m.mu.Unlock()
		ok, err := done(m.rec.Load())
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		case failed != nil:
			return failed
		}
		select {
		case <-changed:
		case <-m.agent.stopped():
			return drover.Errorf(drover.Unavailable, "the agent of host %q is stopping", m.agent.cfg.ID)
		case <-ctx.Done():
			return drover.Errorf(drover.Unavailable, "host %q is not ready with machine %q yet: %w", m.agent.cfg.ID, m.id, context.Cause(ctx)).
				WithHint("ask again: what was begun goes on")
		}
	}
}

// orderWait bounds how long an order waits for the loop. What was begun goes on beyond it; the order can be asked again.
const orderWait = 10 * time.Minute

// loop does what next says until ctx ends, or until the machine is forgotten.
func (m *machine) loop(ctx context.Context) {
	for ctx.Err() == nil {
		if err := m.readReports(ctx); err != nil {
			m.log.Warn("cannot read what the guest reports", "err", err)
		}
		m.setShare()
		act := m.due(next(m.view()))
		if act.kind == actWait {
			if m.rec.Load().empty() {
				if m.agent.remove(m) {
					return
				}
				continue
			}
			m.sleep(ctx, act.at)
			continue
		}
		m.do(ctx, act)
	}
}

func (m *machine) view() view {
	return view{rec: m.rec.Load(), vm: m.vmFact, stopping: m.stopping.running(), now: m.agent.now(),
		bootTimeout: m.agent.cfg.BootTimeout, hydrateAt: m.hydrateAt, sendAt: m.sendAt}
}

// due turns an action that failed a moment ago into a wait for its next try.
func (m *machine) due(act action) action {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.failed[act.kind]; ok && m.agent.now().Before(f.retry) {
		return action{kind: actWait, at: f.retry}
	}
	return act
}

// sleep waits for something to happen. at is when to go on at the latest; zero for no time.
func (m *machine) sleep(ctx context.Context, at time.Time) {
	wait := time.Hour
	if !at.IsZero() {
		wait = min(at.Sub(m.agent.now()), sleepMost)
	}
	r := m.rec.Load()
	var ended, moved <-chan struct{}
	if m.vmFact == vmLive {
		ended = m.vm.Done()
		if r.movesLive() {
			moved = m.vm.Changes()
		}
		poll := m.pollIdle(r)
		if r.Obs.VM.Live && !r.Obs.VM.MainStarted || !r.Obs.VM.StopAt.IsZero() {
			poll = pollBusy
		}
		wait = min(wait, poll)
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-m.wake:
	case <-moved:
		m.sendAt = time.Time{}
	case <-ended:
		m.vmFact = vmNone
	case <-timer.C:
	}
}

const (
	// pollBusy and pollRunning are how often the status file is looked at, while a boot or a stop is waited for, and else. A machine without checks has
	// nothing to report while it runs but its end, which ends the VM as well: it is looked at every pollQuiet.
	pollBusy    = 20 * time.Millisecond
	pollRunning = 250 * time.Millisecond
	pollQuiet   = 10 * time.Second
)

// pollIdle is how often the reports of a machine that runs are looked at.
func (m *machine) pollIdle(r *records) time.Duration {
	if spec, ok := r.spec(); ok && len(spec.Config.Checks) == 0 && len(spec.Config.Services) == 0 {
		return pollQuiet
	}
	return pollRunning
}

// do does one action, and remembers how it went.
func (m *machine) do(ctx context.Context, act action) {
	actx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.mu.Lock()
	m.current, m.cut = act.kind, cancel
	m.mu.Unlock()
	if pointless(act.kind, m.rec.Load()) {
		cancel(errSuperseded) // the order came between the decision and here
	}
	err := m.act(actx, act)
	cause := context.Cause(actx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current, m.cut = "", nil
	switch {
	case err == nil:
		delete(m.failed, act.kind)
		return
	case ctx.Err() != nil, errors.Is(cause, errSuperseded):
		return
	}
	tries := m.failed[act.kind].tries + 1
	now := m.agent.now()
	m.failed[act.kind] = failure{err: err, tries: tries, at: now, retry: now.Add(backoff(tries))}
	m.log.Warn("an action failed and is tried again", "step", string(act.kind), "err", err, "try", tries)
	close(m.changed)
	m.changed = make(chan struct{})
}

// act finds the function of an action.
func (m *machine) act(ctx context.Context, act action) error {
	switch act.kind {
	case actFind:
		return m.find(ctx)
	case actSettle:
		return m.settle(ctx)
	case actKill:
		return m.kill(ctx, act.why)
	case actStop:
		return m.stop(ctx, act.why)
	case actStart:
		return m.start(ctx)
	case actPrepare:
		return m.prepareRoot(ctx)
	case actClose:
		return m.closeAll(ctx)
	case actRest:
		return m.rest()
	case actDestroy:
		return m.destroy(ctx)
	case actForget:
		return m.forget(ctx)
	case actExport:
		return m.exportLayers(ctx)
	case actHeld:
		return m.showHeld()
	case actFreeze:
		return m.freeze(ctx)
	case actFence:
		return m.fence(ctx)
	case actRelease:
		return m.release(ctx)
	case actAbortSource:
		return m.abortSource(ctx)
	case actImage:
		return m.ensureMoveImage(ctx)
	case actClone:
		return m.cloneLayers(ctx)
	case actHydrate:
		return m.hydrate(ctx)
	case actRound:
		return m.freezeRound(ctx)
	case actCopy:
		return m.copyRound(ctx)
	case actAbortTarget:
		return m.abortTarget(ctx)
	case actSend:
		return m.send(ctx)
	case actTake:
		return m.take(ctx)
	case actResume:
		return m.resume(ctx)
	case actTakeEnd:
		return m.endTake(ctx, act.why)
	case actSuspend:
		return m.suspend(ctx)
	case actUnsuspend:
		return m.unsuspend(ctx)
	case actGoOn:
		return m.goOn(ctx)
	case actGoOnAs:
		return m.goOnAs()
	case actClock:
		return m.setClock(ctx)
	case actDropMemory:
		return m.dropMemory(ctx, act.why)
	}
	return drover.Errorf(drover.Internal, "machine %q: no action %q", m.id, act.kind)
}

// asked remembers that the control side cares about the migration.
func (m *machine) asked() {
	m.mu.Lock()
	m.askedAt = m.agent.now()
	m.mu.Unlock()
}

// confirmed remembers that the control side named this host as the owner.
func (m *machine) confirmed() {
	m.mu.Lock()
	m.ownedAt = m.agent.now()
	m.mu.Unlock()
}
