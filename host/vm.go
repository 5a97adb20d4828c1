package host

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/boltstore"
)

// callTimeout bounds one call to storage, network or VMM, so that a part that hangs does not hold a machine for ever.
const callTimeout = 30 * time.Second

// find attaches to the VM, if there is one.
func (m *machine) find(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	vm, err := m.agent.cfg.VMM.Find(ctx, m.id)
	switch {
	case drover.Is(err, drover.NotFound):
		m.vm, m.vmFact = nil, vmNone
		return nil
	case err != nil:
		return err
	}
	m.attach(vm)
	if r := m.rec.Load(); r.Obs.VM.Live && !r.Obs.VM.Launched {
		// The agent was cut between the start and the note of it.
		return m.change(func(r *records, _ *boltstore.Tx) error { r.Obs.VM.Launched = true; return nil })
	}
	return nil
}

func (m *machine) attach(vm VM) { m.vm, m.vmFact, m.watched = vm, vmLive, true }

// settle deals with the end of the VM.
func (m *machine) settle(ctx context.Context) error {
	m.stopping.cancel()
	e := end{at: m.agent.now(), reason: "it was gone"}
	if m.vm != nil {
		at, reason := m.vm.Ended()
		e = end{at: at, reason: reason, watched: m.watched}
		if at.IsZero() {
			e.at = m.agent.now()
		}
	}
	e.short = m.agent.shortOf()
	if err := m.readReports(ctx); err != nil { // what the guest wrote last
		return err
	}
	m.agent.hit("host.settle.before")
	err := m.change(func(r *records, tx *boltstore.Tx) error {
		settle(r, e, m.agent.now())
		if src := r.source(); src != nil && src.Hold && !src.Frozen && !e.watched && r.Obs.VM.Exit == nil {
			// The host was down, or the VM was killed: nothing is frozen, so the machine is this host's, and better runs than waits.
			return m.giveUp(r, tx, "the source host was restarted before it had frozen the machine's layers")
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.agent.hit("host.settle.after")
	m.vm, m.watched = nil, false
	return nil
}

// kill ends the VM at once. The reason is stored first, so that the end is not taken for the machine's own.
func (m *machine) kill(ctx context.Context, why string) error {
	r := m.rec.Load()
	if r.Obs.VM.Live && r.Obs.VM.Killed == "" {
		if err := m.change(func(r *records, _ *boltstore.Tx) error {
			r.Obs.VM.Killed = why
			if why == whyDestroy {
				r.Obs.Status.State = drover.StateDestroying
			}
			return nil
		}); err != nil {
			return err
		}
	}
	m.log.Info("killing the VM", "why", why)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m.agent.hit("host.kill.before")
	if err := m.vm.Kill(ctx); err != nil {
		return err
	}
	m.agent.hit("host.kill.after")
	m.vmFact = vmNone
	return nil
}

// stop begins an orderly stop, or goes on with one that an earlier agent began.
func (m *machine) stop(_ context.Context, why string) error {
	if r := m.rec.Load(); r.Obs.VM.StopAt.IsZero() {
		m.agent.hit("host.stop.before")
		if err := m.change(func(r *records, _ *boltstore.Tx) error {
			r.Obs.VM.StopAt, r.Obs.VM.StopWhy = m.agent.now(), why
			r.Obs.Status.State = drover.StateStopping
			source, text := "user", ""
			if why == whyMove && r.Move != nil {
				source, text = "drover", heldReason(r.Move.Migration)
				r.Obs.Status.Reason = text
			}
			kind := "stop"
			if why == whyRestart {
				kind = "restart"
			}
			r.event(m.agent.now(), event{kind: kind, source: source, text: text})
			return nil
		}); err != nil {
			return err
		}
		m.agent.hit("host.stop.after")
	}
	signal, timeout := stopOf(m.rec.Load())
	m.stopping = m.startStopper(signal, timeout)
	return nil
}

// stopper asks a guest to stop until it does, beside the loop, which waits for the VM's end.
type stopper struct {
	group errgroup.Group
	cut   context.CancelFunc
	done  chan struct{}
}

func (m *machine) startStopper(signal string, timeout time.Duration) *stopper {
	ctx, cancel := context.WithTimeout(m.agent.ctx, timeout+stopSlack)
	s := &stopper{cut: cancel, done: make(chan struct{})}
	vm := m.vm
	s.group.Go(func() error {
		defer close(s.done)
		defer cancel()
		for {
			var again <-chan time.Time
			if err := m.askToStop(ctx, signal, timeout); err != nil {
				// Once it was taken it is not repeated: a second signal means "at once" to many programs.
				m.log.Info("the guest does not take the stop yet", "err", err)
				again = time.After(stopRetry)
			}
			select {
			case <-vm.Done():
				return nil
			case <-ctx.Done():
				return nil
			case <-again:
			}
		}
	})
	return s
}

// stopRetry is how long to wait before a guest is asked again to stop.
const stopRetry = 2 * time.Second

func (m *machine) askToStop(ctx context.Context, signal string, timeout time.Duration) error {
	g, err := m.agent.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return err
	}
	defer g.Close() // nothing is left to be told
	return g.Stop(ctx, signal, timeout)
}

// running reports whether the stopper is still at it. A nil stopper is not.
func (s *stopper) running() bool {
	if s == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// cancel ends the asking, and waits for it.
func (s *stopper) cancel() {
	if s != nil {
		s.cut()
		s.wait()
	}
}

func (s *stopper) wait() {
	if s != nil {
		_ = s.group.Wait() // its function returns no error
	}
}
