package natsbus

import (
	"context"
	"encoding/json"
	"time"

	"drover"
)

// A data directory that was copied with everything in it, the host's ID too, makes two hosts of which each proves to be that one. They differ in their boots: the
// network of a host answers of which boot it is, and a claim by another one is refused as long as it does.

// bootQuestion asks a host's network of which boot of the host it is.
const bootQuestion = "network-boot"

const (
	// bootAnswer bounds the answer.
	bootAnswer = time.Second
	// A host that is suddenly at another address may be a copy of one whose network is just being started again: it is asked for so many times, with a pause.
	copyTries = 4
	copyPause = time.Second
)

// ServeBoot answers the control side, until ctx ends, of which boot of this host its network is.
func (h *HostBus) ServeBoot(ctx context.Context, boot string) error {
	return h.conn.serve(ctx, string(h.host), bootQuestion, func(context.Context, []byte) (any, error) { return boot, nil })
}

// bootEnded makes sure that the boot which has a host's identity is over before another one gets it. Records and hosts of before there were boots prove nothing.
func (r registrar) bootEnded(ctx context.Context, have, want drover.HostIdentity) error {
	if have.Boot == "" || want.Boot == "" {
		return nil
	}
	tries := 1
	if have.Address != want.Address {
		tries = copyTries
	}
	for i := range tries {
		if i > 0 {
			select {
			case <-time.After(copyPause):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		boot, err := r.bootOf(ctx, want.Host)
		switch {
		case drover.Is(err, drover.Unavailable):
			continue // nobody is there
		case err != nil:
			return err
		case boot == want.Boot:
			return nil
		}
		return drover.Errorf(drover.Conflict, "this host cannot join as %q: that host runs, at %s, and this one, at %s, has a copy of its data directory", want.Host,
			have.Address, want.Address).
			WithHint("give this host an id of its own and remove mesh/identity.json from its data directory; if it is to take the other one's place, switch that off first")
	}
	return nil
}

func (r registrar) bootOf(ctx context.Context, host drover.HostID) (boot string, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootAnswer)
	defer cancel()
	body, err := r.conn.ask(ctx, string(host), bootQuestion, nil)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(body, &boot); err != nil {
		return "", drover.Errorf(drover.Internal, "host %q answered %s with something else: %w", host, bootQuestion, err)
	}
	return boot, nil
}
