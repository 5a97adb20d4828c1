package netdev

import (
	"context"
	"fmt"
	"os"

	"drover"
)

// Network gives machines their link; see host.Network.
type Network interface {
	Attach(ctx context.Context, id drover.MachineID, address string) (tap string, err error)
	Police(ctx context.Context, id drover.MachineID, address string, p drover.MachinePolicy) error
	Detach(ctx context.Context, id drover.MachineID) error
	Attached(ctx context.Context) ([]drover.MachineID, error)
}

var (
	_ Network = (*Taps)(nil)
	_ Network = User{}
)

// Choose returns Taps when a device can be made here, found out by making one and removing it, and User otherwise. reason says in
// words for the operator which it is and why.
func Choose(ctx context.Context) (network Network, reason string) {
	taps := &Taps{}
	id := drover.MachineID(fmt.Sprintf("try%09x", os.Getpid()))
	_, err := taps.Attach(ctx, id, "fd00:d0e5::1")
	if err == nil {
		err = taps.Detach(ctx, id)
	}
	if err != nil {
		return User{}, fmt.Sprintf("user networking, because taps are not allowed here: %v", err)
	}
	return taps, "tap devices: a trial device could be made"
}

// User is the network where no devices may be made: each machine gets its VMM's user networking, which reaches out but cannot be
// reached.
type User struct{}

// Attach returns no tap.
func (User) Attach(context.Context, drover.MachineID, string) (string, error) { return "", nil }

// Police has nothing to do: nobody reaches the machine, and what it reaches is outside.
func (User) Police(context.Context, drover.MachineID, string, drover.MachinePolicy) error { return nil }

// Detach has nothing to remove.
func (User) Detach(context.Context, drover.MachineID) error { return nil }

// Attached lists nothing.
func (User) Attached(context.Context) ([]drover.MachineID, error) { return nil, nil }
