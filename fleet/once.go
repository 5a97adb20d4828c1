package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"drover"
)

// Once keeps a request from being carried out twice: a second one with the same key gets what the first one made.
type Once struct {
	// Scope is who asks, and for what: equal keys of others are other keys.
	Scope, Key string
	// Body is a digest of what is asked. Another body under the same key is refused.
	Body string
}

// request is the record of a request that carries a key. Machine is chosen before anything is made, so that whoever comes later finds
// what became of it.
type request struct {
	Body    string           `json:"body"`
	Machine drover.MachineID `json:"machine"`
	At      time.Time        `json:"at"`
}

// keepRequests is how long a key is remembered.
const keepRequests = 24 * time.Hour

func (o Once) key() string {
	h := sha256.Sum256([]byte(o.Scope + "\x00" + o.Key))
	return hex.EncodeToString(h[:])
}

// createOnce makes the machine unless an earlier request with the key has made it, or is about to.
func (f *Fleet) createOnce(ctx context.Context, req CreateMachine) (MachineView, error) {
	key := req.Once.key()
	for {
		req.id = drover.NewMachineID()
		mine := request{Body: req.Once.Body, Machine: req.id, At: f.now().UTC()}
		rev, err := f.state.requests.create(ctx, key, mine)
		if err == nil {
			return f.createFor(ctx, req, key, rev)
		}
		if !drover.Is(err, drover.Exists) {
			return MachineView{}, err
		}
		old, rev, err := f.state.requests.get(ctx, key)
		if drover.Is(err, drover.NotFound) {
			continue // it failed just now, so this one is the first
		}
		if err != nil {
			return MachineView{}, err
		}
		if old.Body != req.Once.Body {
			return MachineView{}, drover.Errorf(drover.Invalid, "Idempotency-Key: the key was used for another request at %s", old.At.UTC().Format(time.RFC3339)).
				WithField("Idempotency-Key").WithHint("use a new key for a new request")
		}
		view, over, err := f.madeBefore(ctx, req, key, old)
		if over {
			if rev, err = f.state.requests.update(ctx, key, mine, rev); drover.Is(err, drover.Conflict) {
				continue
			} else if err != nil {
				return MachineView{}, err
			}
			return f.createFor(ctx, req, key, rev)
		}
		if err == nil && view.Machine.ID == "" {
			continue
		}
		return view, err
	}
}

// createFor makes the machine of a request; one that was refused is forgotten, so that it can be asked again.
func (f *Fleet) createFor(ctx context.Context, req CreateMachine, key string, rev uint64) (MachineView, error) {
	f.hit("fleet.once.record.after")
	req.keep = func(ctx context.Context, id drover.MachineID) (err error) {
		rev, err = f.state.requests.update(ctx, key, request{Body: req.Once.Body, Machine: id, At: f.now().UTC()}, rev)
		return err
	}
	view, err := f.createMachine(ctx, req)
	if err == nil {
		return view, nil
	}
	clean, cancel := lastWord(ctx)
	defer cancel()
	if rerr := f.state.requests.remove(clean, key, rev); rerr != nil && !drover.Is(rerr, drover.Conflict) {
		f.log.Warn("the key of a request that failed is forgotten later", "machine", req.id, "err", rerr)
	}
	return view, err
}

// madeBefore waits for what an earlier request makes. over says that it made nothing and will not. An empty view without an error means
// that its record changed: look again.
func (f *Fleet) madeBefore(ctx context.Context, req CreateMachine, key string, old request) (view MachineView, over bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.timing.Make)
	defer cancel()
	id := string(old.Machine)
	tick := time.NewTicker(f.timing.Apply)
	defer tick.Stop()
	for {
		changed, machine, status := f.state.requests.next(key), f.state.machines.next(id), f.state.status.next(id)
		if _, _, ok := f.state.requests.seen(key); !ok {
			return MachineView{}, false, nil
		}
		v, err := f.view(req.App, old.Machine)
		late := f.now().Sub(old.At) > f.timing.Make
		// Its host has an end of whatever it was told of, but no event of a machine that was taken back before that.
		ended := err == nil && v.Machine.Last != nil
		was := ended && saysMore(*v.Machine.Last, &drover.MachineStatus{})
		switch {
		case ended && !was:
			return MachineView{}, true, nil
		case err == nil && (was || (v.Machine.Goal != drover.GoalDestroyed && v.Status.Host != "")):
			if l, _, ok := f.state.machineLeases.seen(id); ok && req.LeaseTTL > 0 && l.Live(f.now()) && l.Owner == req.Owner {
				v.Nonce = l.Nonce
			}
			return v, false, nil
		case late && (err != nil || v.Machine.Goal == drover.GoalDestroyed):
			return MachineView{}, true, nil
		}
		select {
		case <-changed:
		case <-machine:
		case <-status:
		case <-tick.C:
		case <-ctx.Done():
			return MachineView{}, false, drover.Errorf(drover.Conflict, "the first request with this Idempotency-Key is still under way").WithField("Idempotency-Key").
				WithHint("ask again in a moment, with the same key")
		}
	}
}

// sweepRequests forgets keys that are old.
func (f *Fleet) sweepRequests(ctx context.Context) {
	now := f.now()
	for key, i := range f.state.requests.snapshot() {
		if now.Sub(i.value.At) > keepRequests {
			f.trouble(ctx, "request", key, f.state.requests.remove(ctx, key, i.rev))
		}
	}
}
