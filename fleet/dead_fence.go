package fleet

import (
	"context"
	"slices"
	"strings"

	"drover"
)

// ConfirmOff is a person's word that a host is off and stays so.
type ConfirmOff struct {
	Host   drover.HostID
	Reason string
	Actor  string
}

// maxReason bounds the reason, in bytes.
const maxReason = 1000

// ConfirmOff records that a host is off. It is refused while anybody can tell that the host runs.
func (f *Fleet) ConfirmOff(ctx context.Context, req ConfirmOff) (drover.HostFence, error) {
	if err := f.checkFence(ctx, &req); err != nil {
		return drover.HostFence{}, err
	}
	return f.fenceHost(ctx, drover.HostFence{Host: req.Host, By: drover.FenceByOperator, Actor: req.Actor, Reason: req.Reason})
}

// checkFence refuses what can never be right.
func (f *Fleet) checkFence(ctx context.Context, req *ConfirmOff) error {
	info, err := f.Host(ctx, req.Host)
	if err != nil {
		return err
	}
	req.Reason = strings.TrimSpace(req.Reason)
	switch {
	case req.Reason == "":
		return drover.Errorf(drover.Invalid, "reason: say why host %q is fenced: how it is known that it is off, or what is wrong with it", req.Host).WithField("reason")
	case len(req.Reason) > maxReason:
		return drover.Errorf(drover.Invalid, "reason: %d bytes are too many: at most %d", len(req.Reason), maxReason).WithField("reason")
	case !slices.Contains(info.Roles, drover.RoleWorker):
		return drover.Errorf(drover.Invalid, "host %q runs no machines", req.Host).WithField("host")
	}
	return nil
}

// fenceHost records a fence that is certain by somebody's or something's word. A fence that holds already is returned as it is.
func (f *Fleet) fenceHost(ctx context.Context, fence drover.HostFence) (drover.HostFence, error) {
	if err := f.seemsOff(fence.Host); err != nil {
		return fence, err
	}
	fence.At = f.now().UTC()
	key := string(fence.Host)
	for range casTries {
		old, rev, err := f.state.fences.get(ctx, key)
		switch {
		case drover.Is(err, drover.NotFound):
			_, err = f.state.fences.create(ctx, key, fence)
		case err != nil:
			return fence, err
		case old.ReturnedAt.IsZero():
			return old, nil
		default:
			_, err = f.state.fences.update(ctx, key, fence, rev)
		}
		if drover.Is(err, drover.Conflict) || drover.Is(err, drover.Exists) {
			continue
		}
		if err == nil {
			f.log.Warn("host is fenced", "host", fence.Host, "by", fence.By, "actor", fence.Actor, "why", fence.Reason)
			f.hit("fleet.fence.after")
		}
		return fence, err
	}
	return fence, tooBusy("fence of host", key)
}

// seemsOff refuses while a host is heard, or anybody reaches it, or nothing is known yet.
func (f *Fleet) seemsOff(id drover.HostID) error {
	f.state.mu.RLock()
	status, v := f.hostStatusLocked(id), f.judgeLocked(id)
	f.state.mu.RUnlock()
	switch {
	case status == drover.HostUnknown:
		return drover.Errorf(drover.Unavailable, "it is not known yet whether host %q is there: this control host has just started", id).
			WithHint("ask again in a moment")
	case status == drover.HostOK:
		e := drover.Errorf(drover.Precondition, "host %q is not off: it is heard on the bus", id)
		if f.diskHangs(id) {
			return e.WithHint("its disk hangs: `drover host fence %s --reason TEXT` switches it off by the power command, and fences it", id)
		}
		return e.WithHint("drain it instead, or switch it off first")
	case v.reach != drover.ReachNone:
		return drover.Errorf(drover.Precondition, "host %q is not off: %s", id, v.text).
			WithHint("switch it off, or cut its power, until no other host reaches it")
	}
	return nil
}

// certain returns the fence of a host while it is certain that the host writes nothing. Precondition when there is none or the host is
// back; Unavailable when that cannot be told now.
func (f *Fleet) certain(ctx context.Context, id drover.HostID) (drover.HostFence, error) {
	fence, _, err := f.state.fences.get(ctx, string(id))
	switch {
	case drover.Is(err, drover.NotFound):
		return fence, drover.Errorf(drover.Precondition, "it is not certain that host %q is off: nothing of it is started elsewhere before it is fenced", id).
			WithHint("switch it off for good, then say so: drover host confirm-off %s --reason TEXT; or let the power command do it: drover host fence %s --reason TEXT", id, id)
	case err != nil:
		return fence, err
	case !fence.ReturnedAt.IsZero():
		return fence, returned(id)
	}
	return fence, f.seemsOff(id)
}

func returned(id drover.HostID) *drover.Error {
	return drover.Errorf(drover.Precondition, "host %q is back: what was not started elsewhere by then is its own", id)
}

// tendFences ends the fences of hosts that were heard of again.
func (f *Fleet) tendFences(ctx context.Context) {
	for _, i := range f.state.fences.all() {
		fence := i.value
		f.state.mu.RLock()
		s, heard := f.state.heard[fence.Host]
		ok := heard && f.hostStatusLocked(fence.Host) == drover.HostOK && s.at.After(fence.At)
		f.state.mu.RUnlock()
		if !fence.ReturnedAt.IsZero() || !ok {
			continue
		}
		fence.ReturnedAt = s.at.UTC()
		_, err := f.state.fences.update(ctx, string(fence.Host), fence, i.rev)
		f.trouble(ctx, "fence of host", string(fence.Host), err)
		if err == nil {
			f.log.Info("a fenced host is back", "host", fence.Host)
		}
	}
}
