package fleet

import (
	"context"
	"fmt"

	"drover"
)

// counterTries bounds how often a counter is asked for because others took numbers meanwhile.
const counterTries = 50

// nextNumber takes a number that nobody had and nobody will have.
func (f *Fleet) nextNumber(ctx context.Context, counter string) (uint64, error) {
	// One at a time here: those who make machines at once would take each other's numbers again and again.
	f.counting.Lock()
	defer f.counting.Unlock()
	for range counterTries {
		last, rev, err := f.state.counters.get(ctx, counter)
		switch {
		case drover.Is(err, drover.NotFound):
			_, err = f.state.counters.create(ctx, counter, 1)
		case err == nil:
			_, err = f.state.counters.update(ctx, counter, last+1, rev)
		}
		if err == nil {
			return last + 1, nil
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return 0, err
		}
	}
	return 0, drover.Errorf(drover.Unavailable, "no number from %q: it was taken by others %d times in a row", counter, counterTries)
}

// network returns the number of an app's private network, and gives it one if it has none.
func (f *Fleet) network(ctx context.Context, app drover.App) (uint64, error) {
	key := "network." + app.Organization
	if app.Network != "" {
		key += "." + app.Network
	}
	n, _, err := f.state.counters.get(ctx, key)
	if err == nil || !drover.Is(err, drover.NotFound) {
		return n, err
	}
	if n, err = f.nextNumber(ctx, "networks"); err != nil {
		return 0, err
	}
	_, err = f.state.counters.create(ctx, key, n)
	if drover.Is(err, drover.Exists) {
		n, _, err = f.state.counters.get(ctx, key)
	}
	return n, err
}

// newAddress gives a new machine of an app its private address, which nobody had before and nobody will have after it: numbers only grow, so that
// who still knows an address of a machine that is gone reaches nobody by it, however late.
func (f *Fleet) newAddress(ctx context.Context, app drover.App) (string, error) {
	network, err := f.network(ctx, app)
	if err != nil {
		return "", err
	}
	machine, err := f.nextNumber(ctx, fmt.Sprintf("machines.%d", network))
	if err != nil {
		return "", err
	}
	a, err := drover.MachineAddress(network, machine)
	return a.String(), err
}
