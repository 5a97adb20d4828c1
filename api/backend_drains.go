package api

import (
	"context"

	"drover"
	"drover/fleet"
)

// drainBackend is the part of Backend about drains, marks of hosts, and labels.
type drainBackend interface {
	// PlanDrain changes nothing; what stands against the drain is in the answer's Problem.
	PlanDrain(ctx context.Context, req fleet.StartDrain) (drover.Drain, error)
	// CreateDrain is refused with Exhausted or Precondition when something cannot be moved, unless a part is allowed.
	CreateDrain(ctx context.Context, req fleet.StartDrain) (drover.Drain, error)
	Drains(ctx context.Context) ([]drover.Drain, error)
	Drain(ctx context.Context, id drover.DrainID) (drover.Drain, error)
	PauseDrain(ctx context.Context, id drover.DrainID) (drover.Drain, error)
	ResumeDrain(ctx context.Context, id drover.DrainID, class string) (drover.Drain, error)
	AbortDrain(ctx context.Context, id drover.DrainID, running bool, actor string) (drover.Drain, error)
	ApproveMove(ctx context.Context, id drover.DrainID, machine drover.MachineID, actor string) (drover.Drain, error)

	CordonHost(ctx context.Context, req fleet.Cordon) (drover.HostInfo, error)
	// UncordonHost is refused with Precondition while the host is being drained.
	UncordonHost(ctx context.Context, host drover.HostID, actor string) (drover.HostInfo, error)
	CheckRegion(ctx context.Context, region drover.Region) (drover.RegionCheck, error)

	// SetMachineLabel and SetAppLabel change one entry of metadata; an empty value removes it.
	SetMachineLabel(ctx context.Context, app drover.AppName, id drover.MachineID, key, value string) (fleet.MachineView, error)
	SetAppLabel(ctx context.Context, name drover.AppName, key, value string) (drover.App, error)
}
