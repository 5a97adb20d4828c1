package fleet

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
)

// leaseKey is the one lease: who drives migrations and repairs.
const leaseKey = "controller"

// lease is its record. Renewed changes at each renewal, so that others see by the revision alone that the holder lives; no
// two hosts' clocks are compared.
type lease struct {
	Holder  drover.HostID `json:"holder"`
	Renewed time.Time     `json:"renewed"`
}

// lead takes the lease whenever it is free, and does the holder's work while it has it, until ctx ends.
func (f *Fleet) lead(ctx context.Context) error {
	for ctx.Err() == nil {
		rev, ok := f.acquire(ctx)
		if !ok {
			return nil
		}
		f.log.Info("this control host drives the fleet", "host", f.cfg.Host)
		if err := f.hold(ctx, rev); err != nil {
			return err
		}
		f.log.Info("this control host does not drive the fleet any more", "host", f.cfg.Host)
	}
	return nil
}

// acquire waits until this host has the lease; false when ctx ended first.
func (f *Fleet) acquire(ctx context.Context) (rev uint64, ok bool) {
	var seenRev uint64
	var seenAt time.Time
	for {
		if rev, err := f.tryAcquire(ctx, &seenRev, &seenAt); err == nil && rev != 0 {
			return rev, true
		} else if err != nil && ctx.Err() == nil {
			f.log.Warn("cannot take the lease", "err", err)
		}
		select {
		case <-ctx.Done():
			return 0, false
		case <-time.After(f.timing.LeaseRenew):
		}
	}
}

// tryAcquire takes the lease if it is free, is this host's own from before a restart, or was not renewed for its whole time as
// measured here. 0 without an error: another holds it.
func (f *Fleet) tryAcquire(ctx context.Context, seenRev *uint64, seenAt *time.Time) (uint64, error) {
	mine := lease{Holder: f.cfg.Host, Renewed: f.now().UTC()}
	l, rev, err := f.state.leases.get(ctx, leaseKey)
	switch {
	case drover.Is(err, drover.NotFound):
		rev, err = f.state.leases.create(ctx, leaseKey, mine)
	case err != nil:
		return 0, err
	case l.Holder == f.cfg.Host, rev == *seenRev && time.Since(*seenAt) > f.timing.LeaseTTL:
		rev, err = f.state.leases.update(ctx, leaseKey, mine, rev)
	default:
		if rev != *seenRev {
			*seenRev, *seenAt = rev, time.Now()
		}
		return 0, nil
	}
	if drover.Is(err, drover.Exists) || drover.Is(err, drover.Conflict) {
		return 0, nil // another was faster
	}
	return rev, err
}

// hold does the holder's work and renews the lease, until it is lost or ctx ends. The work is stopped, and has ended, before hold returns.
func (f *Fleet) hold(ctx context.Context, rev uint64) error {
	g, work := errgroup.WithContext(ctx)
	work, stop := context.WithCancelCause(work)
	defer stop(nil)
	g.Go(func() error { f.control(work); return nil })
	g.Go(func() error { f.repairs(work); return nil })
	g.Go(func() error { f.keepVolumes(work); return nil })
	g.Go(func() error { f.traces.run(work); return nil })
	g.Go(func() error { f.keepDrains(work); return nil })
	g.Go(func() error { f.keepRecoveries(work); return nil })
	g.Go(func() error { f.keepDeploys(work); return nil })
	g.Go(func() error { f.keepStandbys(work); return nil })
	g.Go(func() error { f.keepTimetable(work); return nil })
	g.Go(func() error { f.keepApps(work); return nil })
	g.Go(func() error {
		rev = f.renew(work, rev)
		stop(drover.Errorf(drover.Canceled, "control host %q lost the lease", f.cfg.Host))
		return nil
	})
	err := g.Wait()
	if ctx.Err() != nil && rev != 0 {
		// A clean end: the next holder need not wait.
		last, cancel := lastWord(ctx)
		defer cancel()
		if rerr := f.state.leases.remove(last, leaseKey, rev); rerr != nil {
			f.log.Debug("lease runs out by itself", "err", rerr)
		}
	}
	return err
}

// renew renews the lease until ctx ends, when it returns the lease's revision, or the lease is lost, when it returns 0. It
// counts as lost well before another may take it.
func (f *Fleet) renew(ctx context.Context, rev uint64) uint64 {
	renewed := time.Now()
	tick := time.NewTicker(f.timing.LeaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return rev
		case <-tick.C:
		}
		started := time.Now()
		left := f.timing.LeaseTTL*3/4 - started.Sub(renewed)
		try, cancel := context.WithTimeout(ctx, left)
		next, err := f.state.leases.update(try, leaseKey, lease{Holder: f.cfg.Host, Renewed: f.now().UTC()}, rev)
		cancel()
		switch {
		case err == nil:
			rev, renewed = next, started
		case ctx.Err() != nil:
			return rev
		case drover.Is(err, drover.Conflict):
			// Either another has it, or an earlier renewal of ours whose answer was lost went through.
			l, now, gerr := f.state.leases.get(ctx, leaseKey)
			if gerr != nil || l.Holder != f.cfg.Host {
				return 0
			}
			rev, renewed = now, started
		case time.Since(renewed) >= f.timing.LeaseTTL*3/4:
			f.log.Warn("lease could not be renewed", "err", err)
			return 0
		}
	}
}

// lastWordTimeout bounds what is still written after a request was given up.
const lastWordTimeout = 10 * time.Second

// lastWord is a context for cleaning up after ctx ended.
func lastWord(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), lastWordTimeout)
}
