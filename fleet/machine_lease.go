package fleet

import (
	"context"
	"crypto/rand"
	"time"

	"drover"
)

// Bounds of a machine's lease.
const (
	LeaseDefault = time.Minute
	LeaseMost    = 24 * time.Hour
	maxLeaseText = 1024
)

// LeaseMachine asks for the lease of a machine; with the nonce of the one that there is, to prolong it.
type LeaseMachine struct {
	App         drover.AppName
	Machine     drover.MachineID
	Nonce       string
	TTL         time.Duration // 0 means LeaseDefault
	Owner       string
	Description string
}

func noLease(id drover.MachineID) *drover.Error {
	return drover.Errorf(drover.NotFound, "machine ID %s lease not found", id)
}

// leased is the refusal of whoever does not hold the lease. Clients of the Machines API read this text.
func leased(l drover.MachineLease) *drover.Error {
	return drover.Errorf(drover.Conflict, "machine ID %s lease currently held by %s, expires at %s", l.Machine, l.Owner, l.ExpiresAt.UTC().Format(time.RFC3339)).
		WithHint("wait until it is released or expires; 'drover machine lease view %s' shows it", l.Machine)
}

// MachineLease returns the lease that holds now, from memory. NotFound when none does.
func (f *Fleet) MachineLease(ctx context.Context, app drover.AppName, id drover.MachineID) (drover.MachineLease, error) {
	if err := f.await(ctx); err != nil {
		return drover.MachineLease{}, err
	}
	v, err := f.view(app, id)
	if err != nil {
		return drover.MachineLease{}, err
	}
	l, _, _ := f.state.machineLeases.seen(string(id))
	if !l.Live(f.now()) {
		return drover.MachineLease{}, noLease(id)
	}
	l.Version = v.Machine.Instance
	return l, nil
}

// GuardMachine refuses with Conflict a change by somebody who does not hold the lease, while there is one. Without one any nonce is as
// good as none: that of a lease which is over still passes.
func (f *Fleet) GuardMachine(ctx context.Context, app drover.AppName, id drover.MachineID, nonce string) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	if _, err := f.view(app, id); err != nil {
		return err
	}
	if err := f.heldByOther(id, nonce); err != nil {
		return err
	}
	// Another control host may have given it a moment ago.
	l, _, err := f.state.machineLeases.get(ctx, string(id))
	switch {
	case drover.Is(err, drover.NotFound):
		return nil
	case err != nil:
		return err
	case l.Live(f.now()) && l.Nonce != nonce:
		return leased(l)
	}
	return nil
}

// heldByOther answers from memory, so that clients which ask again and again for a lease that somebody holds cost nothing.
func (f *Fleet) heldByOther(id drover.MachineID, nonce string) error {
	if l, _, ok := f.state.machineLeases.seen(string(id)); ok && l.Live(f.now()) && l.Nonce != nonce {
		return leased(l)
	}
	return nil
}

// checkTTL checks how long a lease is to hold; 0 is for none, or the default.
func checkTTL(field string, ttl time.Duration) error {
	if ttl != 0 && (ttl < time.Second || ttl > LeaseMost) {
		return drover.Errorf(drover.Invalid, "%s: %v is out of range: 1s to %v", field, ttl, LeaseMost).WithField(field)
	}
	return nil
}

// LeaseMachine takes the lease of a machine, or prolongs it. Conflict, with the holder and the expiry, while somebody else has it.
func (f *Fleet) LeaseMachine(ctx context.Context, req LeaseMachine) (drover.MachineLease, error) {
	if err := f.await(ctx); err != nil {
		return drover.MachineLease{}, err
	}
	if req.TTL == 0 {
		req.TTL = LeaseDefault
	}
	if err := checkTTL("ttl", req.TTL); err != nil {
		return drover.MachineLease{}, err
	}
	if len(req.Description) > maxLeaseText {
		return drover.MachineLease{}, drover.Errorf(drover.Invalid, "description: %d bytes are too many: at most %d", len(req.Description), maxLeaseText).
			WithField("description")
	}
	v, err := f.view(req.App, req.Machine)
	if err != nil {
		return drover.MachineLease{}, err
	}
	if v.Machine.Goal == drover.GoalDestroyed {
		return drover.MachineLease{}, drover.Errorf(drover.Precondition, "machine %q is %s, and cannot be leased", req.Machine, v.Status.State)
	}
	if err := f.heldByOther(req.Machine, req.Nonce); err != nil {
		return drover.MachineLease{}, err
	}
	l, err := f.takeLease(ctx, req)
	l.Version = v.Machine.Instance
	return l, err
}

// takeLease writes the lease by compare-and-set on what it saw.
func (f *Fleet) takeLease(ctx context.Context, req LeaseMachine) (drover.MachineLease, error) {
	key := string(req.Machine)
	for range casTries {
		old, rev, err := f.state.machineLeases.get(ctx, key)
		if err != nil && !drover.Is(err, drover.NotFound) {
			return drover.MachineLease{}, err
		}
		now := f.now().UTC()
		if old.Live(now) && old.Nonce != req.Nonce {
			return drover.MachineLease{}, leased(old)
		}
		l := drover.MachineLease{Machine: req.Machine, Nonce: rand.Text(), Owner: req.Owner, Description: req.Description, TakenAt: now, ExpiresAt: now.Add(req.TTL)}
		if req.Nonce != "" && old.Nonce == req.Nonce { // nobody had it since
			l.Nonce, l.Owner, l.TakenAt = old.Nonce, old.Owner, old.TakenAt
			if l.Description == "" {
				l.Description = old.Description
			}
		}
		if rev == 0 {
			_, err = f.state.machineLeases.create(ctx, key, l)
		} else {
			_, err = f.state.machineLeases.update(ctx, key, l, rev)
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return l, err
		}
	}
	return drover.MachineLease{}, tooBusy("the lease of machine", key)
}

// ReleaseMachine gives a lease up. Conflict when somebody else holds it, NotFound when nobody does.
func (f *Fleet) ReleaseMachine(ctx context.Context, app drover.AppName, id drover.MachineID, nonce string) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	if _, err := f.view(app, id); err != nil {
		return err
	}
	for range casTries {
		l, rev, err := f.state.machineLeases.get(ctx, string(id))
		switch {
		case drover.Is(err, drover.NotFound):
			return noLease(id)
		case err != nil:
			return err
		case !l.Live(f.now()) && l.Nonce != nonce:
			return noLease(id)
		case l.Nonce != nonce:
			return leased(l)
		}
		if err := f.state.machineLeases.remove(ctx, string(id), rev); !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return tooBusy("the lease of machine", string(id))
}

// sweepLeases removes leases that are over, and those of machines that are gone. A lease that was over only now stays a little, so that its
// holder can still prolong it.
func (f *Fleet) sweepLeases(ctx context.Context) {
	now := f.now()
	for _, i := range f.state.machineLeases.all() {
		_, _, known := f.state.machines.seen(string(i.value.Machine))
		if now.Sub(i.value.ExpiresAt) > f.timing.Stale || (!known && now.Sub(i.value.TakenAt) > f.timing.Stale) {
			f.trouble(ctx, "lease", string(i.value.Machine), f.state.machineLeases.remove(ctx, string(i.value.Machine), i.rev))
		}
	}
}
