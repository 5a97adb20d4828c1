package host

import (
	"context"
	"time"

	"drover"
)

// LiveVM is what moves a VM with its memory (qemu.VM). Every method may be repeated and asks the VMM for what is so now, so that an agent that
// was restarted goes on where it was. Unavailable when the VMM does not answer.
type LiveVM interface {
	// LiveBlocker says why the VM cannot move with its memory; empty when it can.
	LiveBlocker(ctx context.Context) (string, error)
	// Listen makes a VM that was started to wait for its memory take it from the host peer, and returns the address. Precondition when it
	// does not wait any more.
	Listen(ctx context.Context, address string, peer drover.HostID) (string, error)
	// Send begins to send the memory. The VM runs on until it is paused for what is left.
	Send(ctx context.Context, to drover.VMSend) error
	// SetPause changes how long the VM may stand still for what is left.
	SetPause(ctx context.Context, pause time.Duration) error
	// Transfer tells how far that is, at either side.
	Transfer(ctx context.Context) (drover.VMTransfer, error)
	// Changes gets a token when Transfer may tell something else than before.
	Changes() <-chan struct{}
	// Handover lets the rest of a paused VM's state go. It may take as long as what is left of the memory.
	Handover(ctx context.Context) error
	// TakeBack ends the sending, and lets the VM go on here.
	TakeBack(ctx context.Context) error
	// Resume lets the VM execute.
	Resume(ctx context.Context) error
}
