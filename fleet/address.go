package fleet

import (
	"context"
	"fmt"

	"drover"
)

// network returns the number of an app's private network, and gives it one if it has none.
func (f *Fleet) network(ctx context.Context, app drover.App) (uint64, error) {
	key := "network." + app.Organization
	if app.Network != "" {
		key += "." + app.Network
	}
	if n, _, ok := f.state.counters.seen(key); ok {
		return n, nil // it never changes
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
