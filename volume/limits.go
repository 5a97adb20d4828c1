package volume

import (
	"context"

	"drover"
)

// checkLimits refuses limits that are none.
func checkLimits(id drover.LayerID, limits drover.Limits) error {
	if limits.IOPS < 0 || limits.BytesPerSecond < 0 {
		return drover.Errorf(drover.Invalid, "the limits of layer %s, %d operations and %d bytes per second, are negative in part", id, limits.IOPS, limits.BytesPerSecond).
			WithField("limits")
	}
	return nil
}

// limit bounds what the layer's writer may do from now on, and after a restart too.
func (p *pool) limit(ctx context.Context, id drover.LayerID, limits drover.Limits) error {
	if err := checkLimits(id, limits); err != nil {
		return err
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if l.meta().Spec.Limits != limits {
		if err := l.update(func(m *meta) { m.Spec.Limits = limits }); err != nil {
			return err
		}
		l.log.Info("limits set", "iops", limits.IOPS, "bytes_per_second", int64(limits.BytesPerSecond))
	}
	l.applyLimits()
	return nil
}

// applyLimits makes the recorded limits hold. Without any there is no throttle, and nothing to pay for it.
func (l *layer) applyLimits() {
	limits, t := l.meta().Spec.Limits, l.throttle.Load()
	switch {
	case limits == (drover.Limits{}) && t != nil:
		l.throttle.Store(nil)
		t.set(limits) // lets those go that wait
	case limits != (drover.Limits{}) && t == nil:
		l.throttle.Store(newThrottle(limits))
	case t != nil:
		t.set(limits)
	}
}

// throttled returns what bounds the session; nil for nothing. Limits bound a layer's writer, and neither hosts that read an export nor
// tools that look on.
func (s *session) throttled() *throttle {
	if s.epoch == 0 {
		return nil
	}
	return s.layer.throttle.Load()
}

// admit waits until a request of n bytes keeps to the limits. It comes before the gate.
func (s *session) admit(ctx context.Context, n int64) error {
	t := s.throttled()
	if t == nil {
		return nil
	}
	return t.wait(ctx, s, n)
}

// admission is a request that was let in without waiting.
type admission struct {
	t *throttle
	n int64
}

// tryAdmit lets a request of n bytes in if it need not wait. The admission must be given back when the request is not made.
func (s *session) tryAdmit(n int64) (admission, bool) {
	t := s.throttled()
	if t == nil {
		return admission{}, true
	}
	return admission{t: t, n: n}, t.try(n)
}

// giveBack takes the admission back.
func (a admission) giveBack() {
	if a.t != nil {
		a.t.giveBack(a.n)
	}
}
