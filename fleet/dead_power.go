package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover"
)

// PowerSwitch switches hosts off.
type PowerSwitch interface {
	// Off returns nil only when the host is certainly off, with what is to be told about it. It may be asked any number of times.
	Off(ctx context.Context, host drover.HostID) (said string, err error)
}

const (
	// powerWait bounds one try to switch a host off.
	powerWait = 2 * time.Minute
	// powerRetry is the pause after the first try that failed; it doubles, up to powerRetryMost.
	powerRetry     = 30 * time.Second
	powerRetryMost = 10 * time.Minute
	// powerLook is how often it is looked whether a host that was switched off has fallen silent.
	powerLook = 100 * time.Millisecond
)

// powerTries is what the lease holder remembers of hosts that it tries to switch off.
type powerTries struct {
	mu sync.Mutex
	// first is when a host was first seen as one that is to be switched off.
	first map[drover.HostID]time.Time
	busy  map[drover.HostID]bool
	bad   map[drover.HostID]badPower
}

// badPower is a try that failed, since when they do, and when the next one is made.
type badPower struct {
	err       error
	tries     int
	since, at time.Time
}

func newPowerTries() *powerTries {
	return &powerTries{first: map[drover.HostID]time.Time{}, busy: map[drover.HostID]bool{}, bad: map[drover.HostID]badPower{}}
}

// SwitchOff switches a host off by the power command, and fences it. It is refused like ConfirmOff while anybody can tell that the host runs, unless its disk hangs: then it
// runs, but does nothing that lasts.
func (f *Fleet) SwitchOff(ctx context.Context, req ConfirmOff) (drover.HostFence, error) {
	if f.cfg.Power == nil {
		return drover.HostFence{}, drover.Errorf(drover.Precondition, "there is no power command: the fleet cannot switch host %q off", req.Host).
			WithHint("set power_off_command in the control hosts' host.json, or switch it off yourself, then: drover host confirm-off %s --reason TEXT", req.Host)
	}
	if err := f.checkFence(ctx, &req); err != nil {
		return drover.HostFence{}, err
	}
	return f.switchOff(ctx, req)
}

func (f *Fleet) switchOff(ctx context.Context, req ConfirmOff) (drover.HostFence, error) {
	fence := drover.HostFence{Host: req.Host, By: drover.FenceByCommand, Actor: req.Actor, Reason: req.Reason}
	if err := f.seemsOff(req.Host); err != nil && !f.diskHangs(req.Host) {
		return fence, err
	}
	ctx, cancel := context.WithTimeout(ctx, powerWait)
	defer cancel()
	f.log.Warn("a host is being switched off", "host", req.Host, "actor", req.Actor, "why", req.Reason)
	said, err := f.cfg.Power.Off(ctx, req.Host)
	f.hit("fleet.power.after")
	if err != nil {
		return fence, err
	}
	if said != "" {
		fence.Reason += "; the power command said: " + said
	}
	if err := f.awaitOff(ctx, req.Host); err != nil {
		return fence, err
	}
	return f.fenceHost(ctx, fence)
}

// diskHangs reports whether a host that is heard says that its disk does not end what it is asked for.
func (f *Fleet) diskHangs(id drover.HostID) bool {
	h := f.hostInfo(id)
	return h.Status == drover.HostOK && slices.ContainsFunc(h.Conditions, func(c drover.Condition) bool { return c.Code == drover.DiskStalled })
}

// awaitOff waits until a host that was heard until it was switched off is heard no more, and reached by nobody.
func (f *Fleet) awaitOff(ctx context.Context, id drover.HostID) error {
	for {
		err := f.seemsOff(id)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(powerLook):
		case <-ctx.Done():
			return drover.Errorf(drover.Unavailable, "the power command says that host %q is off, and it is not: %w", id, err).
				WithHint("see whether the command switches the right host off; asked again, it is run again")
		}
	}
}

// tendPower switches hosts off that nobody reaches for long, where machines wait for it that may be started elsewhere without asking. Each host has at most
// one goroutine at a time.
func (r *rescuer) tendPower(ctx context.Context) {
	if r.cfg.Power == nil {
		return
	}
	for _, h := range r.hostList() {
		why, due := r.powerDue(h)
		if !due {
			r.power.forget(h.ID)
			continue
		}
		if !r.power.begin(h.ID, r.now(), r.timing.PowerOff) {
			continue
		}
		r.group.Go(func() {
			_, err := r.switchOff(ctx, ConfirmOff{Host: h.ID, Reason: why, Actor: "automatic"})
			if ctx.Err() != nil {
				err = nil
			}
			r.power.end(h.ID, err, r.now())
			if err != nil {
				r.log.Error("a host cannot be switched off; its machines are not started elsewhere", "host", h.ID, "err", err)
			}
		})
	}
}

// powerDue reports whether a host is to be switched off now, and why.
func (r *rescuer) powerDue(h drover.HostInfo) (why string, due bool) {
	if !isWorker(h) || !r.agreed(h.ID) {
		return "", false
	}
	if fence, _, ok := r.state.fences.seen(string(h.ID)); ok && fence.ReturnedAt.IsZero() {
		return "", false
	}
	r.state.mu.RLock()
	v := r.judgeLocked(h.ID)
	r.state.mu.RUnlock()
	// Without a witness it may be the bus alone that is at fault.
	return v.text, v.reach == drover.ReachNone && v.witnesses > 0
}

// begin reports whether a try may begin now: the host has been as it is for long enough, by the clock of this control host alone.
func (p *powerTries) begin(id drover.HostID, now time.Time, after time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, seen := p.first[id]
	if !seen {
		first = now
		p.first[id] = now
	}
	if bad, failed := p.bad[id]; p.busy[id] || now.Sub(first) < after || failed && now.Before(bad.at) {
		return false
	}
	p.busy[id] = true
	return true
}

func (p *powerTries) end(id drover.HostID, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, id)
	if err == nil {
		delete(p.bad, id)
		return
	}
	bad := p.bad[id]
	if bad.tries == 0 {
		bad.since = now
	}
	bad.err, bad.at = err, now.Add(min(powerRetry<<min(bad.tries, 8), powerRetryMost))
	bad.tries++
	p.bad[id] = bad
}

// forget drops what is known of a host that need not be switched off any more.
func (p *powerTries) forget(id drover.HostID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.bad, id)
	delete(p.first, id)
}

// condition says that a host cannot be switched off; nil when nothing is the matter. Only the control host that tries knows.
func (p *powerTries) condition(id drover.HostID) *drover.Condition {
	p.mu.Lock()
	defer p.mu.Unlock()
	bad, failed := p.bad[id]
	if !failed {
		return nil
	}
	return &drover.Condition{Code: drover.PowerOffFails, Severity: drover.SeverityCritical, Since: bad.since.UTC(),
		Text: fmt.Sprintf("host %q cannot be switched off, so that its machines wait for it; tried %d times, again at %s: %v", id, bad.tries,
			bad.at.UTC().Format(time.TimeOnly), bad.err)}
}
