package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
)

// StartRecovery asks for the machines of a fenced host to be started elsewhere: all of them, or one.
type StartRecovery struct {
	Host    drover.HostID
	Machine drover.MachineID
	// AcceptAge bounds how old the copies may be; 0 is DefaultAcceptAge.
	AcceptAge time.Duration
	Actor     string
}

// DefaultAcceptAge is how old a copy may be for a recovery that says nothing of it.
const DefaultAcceptAge = 24 * time.Hour

// RecoveryStarted is what was begun, and what was left with the reason.
type RecoveryStarted struct {
	Recoveries []drover.Recovery
	Left       []drover.PlannedRecovery
}

// StartRecovery begins recoveries and answers when their records are written: from then on they end by themselves. Machines that
// cannot be recovered are left, with the reason; when one was named, or none is left over, that is an error.
func (f *Fleet) StartRecovery(ctx context.Context, req StartRecovery) (RecoveryStarted, error) {
	if err := f.await(ctx); err != nil {
		return RecoveryStarted{}, err
	}
	if req.AcceptAge < 0 {
		return RecoveryStarted{}, drover.Errorf(drover.Invalid, "accept_age: %v is negative", req.AcceptAge).WithField("accept_age")
	}
	host := req.Host
	if req.Machine != "" {
		p, err := f.state.placementOf(ctx, req.Machine)
		if drover.Is(err, drover.NotFound) {
			return RecoveryStarted{}, noMachine("", req.Machine)
		}
		if err != nil {
			return RecoveryStarted{}, err
		}
		host = p.Host
	}
	plan, err := f.RecoveryPlan(ctx, host)
	if err != nil {
		return RecoveryStarted{}, err
	}
	if plan.Fence == nil {
		_, err := f.certain(ctx, host)
		return RecoveryStarted{}, err
	}
	return f.startPlanned(ctx, plan, req, false)
}

// startPlanned begins what a plan says.
func (f *Fleet) startPlanned(ctx context.Context, plan drover.RecoveryPlan, req StartRecovery, automatic bool) (RecoveryStarted, error) {
	out := RecoveryStarted{Recoveries: []drover.Recovery{}, Left: []drover.PlannedRecovery{}}
	for _, p := range plan.Machines {
		if req.Machine != "" && p.Machine != req.Machine || automatic && (!p.Automatic || f.recoveredSince(p.Machine, plan.Fence.At)) {
			continue
		}
		if p.Recovery != "" {
			if r, _, ok := f.state.recoveries.seen(string(p.Recovery)); ok {
				out.Recoveries = append(out.Recoveries, r)
			}
			continue
		}
		if p.Problem == "" {
			p.Problem = tooOld(p, cmp.Or(req.AcceptAge, DefaultAcceptAge), plan.AsOf)
		}
		if p.Problem != "" {
			out.Left = append(out.Left, p)
			continue
		}
		r, err := f.beginRecovery(ctx, p, plan, req.Actor, automatic)
		if err != nil {
			return out, err
		}
		out.Recoveries = append(out.Recoveries, r)
	}
	if req.Machine != "" && len(out.Recoveries) == 0 {
		if len(out.Left) > 0 {
			return out, drover.Errorf(drover.Precondition, "machine %q cannot be recovered: %s", req.Machine, out.Left[0].Problem)
		}
		return out, noMachine("", req.Machine)
	}
	return out, nil
}

// recoveredSince reports whether a recovery of the machine was begun since: what was given up is not begun again by itself.
func (f *Fleet) recoveredSince(id drover.MachineID, at time.Time) bool {
	return slices.ContainsFunc(f.state.recoveries.all(), func(i item[drover.Recovery]) bool {
		return i.value.Machine == id && i.value.CreatedAt.After(at)
	})
}

// tooOld says which copy is older than what was agreed to; empty for none.
func tooOld(p drover.PlannedRecovery, most time.Duration, now time.Time) string {
	for _, s := range p.Sources {
		if age := now.Sub(s.At); age > most {
			return fmt.Sprintf("the newest copy of volume %s, a %s, is %s old, and %s are accepted", s.Volume, s.Kind,
				age.Round(time.Second), most)
		}
	}
	return ""
}

// beginRecovery writes the record.
func (f *Fleet) beginRecovery(ctx context.Context, p drover.PlannedRecovery, plan drover.RecoveryPlan, actor string, automatic bool) (drover.Recovery, error) {
	at, err := f.state.placementOf(ctx, p.Machine)
	if err != nil {
		return drover.Recovery{}, err
	}
	if at.Host != plan.Host {
		return drover.Recovery{}, drover.Errorf(drover.Conflict, "machine %q is on host %q by now", p.Machine, at.Host)
	}
	now := f.now().UTC()
	r := drover.Recovery{Machine: p.Machine, App: p.App, From: plan.Host, State: drover.RecoveryChoosing,
		FromEpoch: at.Epoch, Sources: p.Sources, Fence: *plan.Fence, Actor: actor, Automatic: automatic, CreatedAt: now, UpdatedAt: now}
	for earlier := 0; ; earlier++ {
		r.ID = drover.RecoveryOf(p.Machine, at.Epoch, earlier)
		_, err := f.state.recoveries.create(ctx, string(r.ID), r)
		if err == nil {
			break
		}
		if !drover.Is(err, drover.Exists) {
			return r, err
		}
		begun, _, err := f.state.recoveries.get(ctx, string(r.ID))
		if err != nil || begun.State != drover.RecoveryCanceled {
			return begun, err // somebody else has begun it just now
		}
	}
	f.log.Warn("recovery begun", "recovery", r.ID, "machine", r.Machine, "host", r.From, "actor", actor, "automatic", automatic)
	f.hit("fleet.recovery.record.after")
	return r, nil
}

// Recoveries lists them, newest first.
func (f *Fleet) Recoveries(ctx context.Context) ([]drover.Recovery, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	list := []drover.Recovery{}
	for _, i := range f.state.recoveries.all() {
		list = append(list, i.value)
	}
	slices.SortFunc(list, func(a, b drover.Recovery) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Recovery returns one.
func (f *Fleet) Recovery(ctx context.Context, id drover.RecoveryID) (drover.Recovery, error) {
	if err := f.await(ctx); err != nil {
		return drover.Recovery{}, err
	}
	r, _, ok := f.state.recoveries.seen(string(id))
	if !ok {
		return r, drover.Errorf(drover.NotFound, "recovery %q does not exist", id).WithHint("see `drover recovery list`")
	}
	return r, nil
}

// HostKept lists what a host keeps aside of machines that went on elsewhere without it.
func (f *Fleet) HostKept(ctx context.Context, host drover.HostID) ([]drover.KeptLayer, error) {
	info, err := f.Host(ctx, host)
	if err != nil {
		return nil, err
	}
	if info.Status == drover.HostUnreachable {
		return nil, drover.Errorf(drover.Unavailable, "host %q does not answer", host).WithHint("ask again when it is back")
	}
	kept := []drover.KeptLayer{}
	return kept, f.order(ctx, f.timing.Apply, host, drover.OrderRecoveryKept, drover.Empty{}, &kept)
}

// SetRecovery says whether an app's machines are started elsewhere without asking once their host is fenced.
func (f *Fleet) SetRecovery(ctx context.Context, app drover.AppName, policy drover.RecoveryPolicy) (drover.App, error) {
	if err := f.await(ctx); err != nil {
		return drover.App{}, err
	}
	if policy != drover.RecoverAsk && policy != drover.RecoverAutomatic {
		return drover.App{}, drover.Errorf(drover.Invalid, "recovery: %q is unknown: use ask or automatic", policy).WithField("recovery")
	}
	return f.changeApp(ctx, app, func(a *drover.App) (bool, error) {
		changed := a.Recovery != policy
		a.Recovery = policy
		return changed, nil
	})
}

// recoveryNote is what the host of a placement is told when a recovery brought the machine there; nil for none.
func (f *Fleet) recoveryNote(ctx context.Context, p drover.Placement) *drover.RecoveryNote {
	if p.Recovery == "" {
		return nil
	}
	note := &drover.RecoveryNote{Recovery: p.Recovery}
	if r, _, ok := f.state.recoveries.seen(string(p.Recovery)); ok {
		note.From, note.Sources, note.At = r.From, r.Sources, cmp.Or(r.SwitchedAt, f.now().UTC())
	}
	if status, _, err := f.state.status.get(ctx, string(p.Machine)); err == nil && status.Host != p.Host {
		note.Status = &status
	}
	return note
}
