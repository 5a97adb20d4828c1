package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"drover"
	"drover/apiv1"
)

const (
	// serverWait is how long one request of WaitMachine waits at most: the API's own bound.
	serverWait = time.Minute
)

// patience counts how long a server has not answered.
type patience struct {
	limit, pause time.Duration
	since        time.Time
}

// next decides about an error of a request that only reads. It returns nil, after a pause, when the request may be sent again, else
// the error to give up with. Only Unavailable is worth another try: nothing else gets better by waiting.
func (p *patience) next(ctx context.Context, err error) error {
	if !drover.Is(err, drover.Unavailable) {
		return err
	}
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	if now.Sub(p.since) >= p.limit {
		return err
	}
	return pause(ctx, p.pause)
}

func (p *patience) answered() { p.since = time.Time{} }

func (c *Client) newPatience() *patience { return &patience{limit: c.patience, pause: c.interval} }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return drover.Errorf(drover.Canceled, "stopped waiting: %w", context.Cause(ctx))
	}
}

// WaitMachine returns the machine when it is in the state, of the instance if one is given. It asks again after each of the server's
// timeouts, until ctx ends (Canceled). A server that does not answer is asked again for the client's Patience.
func (c *Client) WaitMachine(ctx context.Context, app drover.AppName, id drover.MachineID, state drover.MachineState, instance drover.InstanceID) (apiv1.Machine, error) {
	query := url.Values{"state": {string(state)}}
	if instance != "" {
		query.Set("instance_id", string(instance))
	}
	p := c.newPatience()
	for {
		seconds := serverWait
		if deadline, ok := ctx.Deadline(); ok {
			seconds = min(seconds, time.Until(deadline)+time.Second)
		}
		query.Set("timeout", strconv.Itoa(max(1, int(seconds/time.Second))))
		err := c.send(ctx, http.MethodGet, pathOf(machinePath+"/wait", []any{app, id}), query, nil, nil)
		if err == nil {
			return c.Machine(ctx, app, id)
		}
		var answer *answerError
		if errors.As(err, &answer) && answer.status == http.StatusRequestTimeout {
			p.answered()
			continue
		}
		if err := p.next(ctx, err); err != nil {
			return apiv1.Machine{}, drover.AsError(err)
		}
	}
}

// follow looks again and again, after each Interval, until what it sees has ended, and returns the last. An error of fn ends it and is
// returned; when ctx ends: Canceled. What is followed goes on in any case.
func follow[T any](ctx context.Context, c *Client, look func() (T, error), fn func(T) error, ended func(T) bool) (T, error) {
	p := c.newPatience()
	var last T
	for {
		now, err := look()
		if err != nil {
			if err := p.next(ctx, err); err != nil {
				return last, err
			}
			continue
		}
		p.answered()
		last = now
		if err := fn(now); err != nil {
			return last, err
		}
		if ended(now) {
			return last, nil
		}
		if err := pause(ctx, c.interval); err != nil {
			return last, err
		}
	}
}

// FollowMigration calls fn with the migration as it is now, and again after each Interval, until it has ended; it returns the last. An
// error of fn ends it and is returned; when ctx ends: Canceled. The migration itself goes on in any case.
func (c *Client) FollowMigration(ctx context.Context, id drover.MigrationID, fn func(apiv1.Migration) error) (apiv1.Migration, error) {
	return follow(ctx, c, func() (apiv1.Migration, error) { return c.Migration(ctx, id) }, fn, func(m apiv1.Migration) bool { return m.Ended() })
}

// FollowSnapshot is FollowMigration for a snapshot on its way into the object store.
func (c *Client) FollowSnapshot(ctx context.Context, app drover.AppName, volume drover.VolumeID, id drover.SnapshotID, fn func(apiv1.Snapshot) error) (apiv1.Snapshot, error) {
	return follow(ctx, c, func() (apiv1.Snapshot, error) { return c.Snapshot(ctx, app, volume, id) }, fn,
		func(s apiv1.Snapshot) bool { return s.Status != drover.SnapshotCreating })
}

// FollowVerification is FollowMigration for the verification that VerifyVolume has begun, and answered as begun.
func (c *Client) FollowVerification(ctx context.Context, app drover.AppName, volume drover.VolumeID, begun drover.Verification,
	fn func(drover.Verification) error) (drover.Verification, error) {
	look := func() (drover.Verification, error) {
		v, err := c.Verification(ctx, app, volume)
		if drover.Is(err, drover.NotFound) || (err == nil && v.StartedAt.Before(begun.StartedAt)) {
			return begun, nil // the host has not said anything of this one yet
		}
		return v, err
	}
	return follow(ctx, c, look, fn, func(v drover.Verification) bool { return v.Done || v.Problem != "" })
}
