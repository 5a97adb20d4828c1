package api

import (
	"context"

	"drover"
	"drover/fleet"
)

// machineBackend is the part of Backend about what goes on around machines: leases, versions, waits, and who is to have traffic.
type machineBackend interface {
	// MachineKeys lists the keys of what Machines lists, in the same order. They are shared, as is the slice: nobody changes them.
	MachineKeys(ctx context.Context, app drover.AppName) ([]*fleet.MachineKey, error)
	// AllMachines is Machines with those that were destroyed lately.
	AllMachines(ctx context.Context, app drover.AppName) ([]fleet.MachineView, error)
	// WaitFor returns when the machine is, or was, where the request says. When ctx ends first: Unavailable.
	WaitFor(ctx context.Context, w fleet.Wait) (fleet.MachineView, error)

	// MachineLease answers from memory; NotFound when nobody has the lease.
	MachineLease(ctx context.Context, app drover.AppName, id drover.MachineID) (drover.MachineLease, error)
	// LeaseMachine takes a lease or prolongs it; Conflict while somebody else has it.
	LeaseMachine(ctx context.Context, req fleet.LeaseMachine) (drover.MachineLease, error)
	// ReleaseMachine is refused with Conflict for another nonce than the lease's; NotFound when nobody has it.
	ReleaseMachine(ctx context.Context, app drover.AppName, id drover.MachineID, nonce string) error
	// GuardMachine is refused with Conflict while somebody else has the lease.
	GuardMachine(ctx context.Context, app drover.AppName, id drover.MachineID, nonce string) error

	// Versions lists the configs that a machine has and had, newest first.
	Versions(ctx context.Context, app drover.AppName, id drover.MachineID) ([]drover.MachineVersion, error)
	// CordonMachine keeps a machine out of what gets traffic, or lets it in again.
	CordonMachine(ctx context.Context, app drover.AppName, id drover.MachineID, cordoned bool) (fleet.MachineView, error)
	// Processes is refused with Precondition for a machine that does not run.
	Processes(ctx context.Context, app drover.AppName, id drover.MachineID) ([]drover.Process, error)
}
