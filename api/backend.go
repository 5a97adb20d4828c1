package api

import (
	"context"

	"drover"
	"drover/fleet"
)

// Backend is what the API asks (*fleet.Fleet). All errors are *drover.Error with a text for users. Every changing method is
// durable when it returns.
type Backend interface {
	RecoveryBackend
	TokenBackend
	NetworkBackend
	WireGuardBackend
	PolicyBackend

	CreateApp(ctx context.Context, app drover.App) (drover.App, error)
	Apps(ctx context.Context) ([]drover.App, error)
	AppEndBackend

	CreateMachine(ctx context.Context, req fleet.CreateMachine) (fleet.MachineView, error)
	// Machines lists the machines of an app, oldest first.
	Machines(ctx context.Context, app drover.AppName) ([]fleet.MachineView, error)
	Machine(ctx context.Context, app drover.AppName, id drover.MachineID) (fleet.MachineView, error)
	UpdateMachine(ctx context.Context, req fleet.UpdateMachine) (fleet.MachineView, error)
	StartMachine(ctx context.Context, app drover.AppName, id drover.MachineID) (fleet.MachineView, error)
	StopMachine(ctx context.Context, app drover.AppName, id drover.MachineID, stop drover.StopConfig) (fleet.MachineView, error)
	// RestartMachine stops it as the config says but for what stop says otherwise.
	RestartMachine(ctx context.Context, app drover.AppName, id drover.MachineID, stop drover.StopConfig) (fleet.MachineView, error)
	// DestroyMachine is refused with Precondition for a running machine unless forced.
	DestroyMachine(ctx context.Context, app drover.AppName, id drover.MachineID, force bool) error
	// WaitMachine returns when the machine is in the state, of the instance if one is given. When ctx ends first: Unavailable.
	WaitMachine(ctx context.Context, app drover.AppName, id drover.MachineID, state drover.MachineState, instance drover.InstanceID) (fleet.MachineView, error)
	ExecMachine(ctx context.Context, app drover.AppName, req drover.ExecRequest) (drover.ExecResult, error)
	SignalMachine(ctx context.Context, app drover.AppName, req drover.SignalRequest) error
	MachineLogs(ctx context.Context, app drover.AppName, req drover.LogsRequest) (drover.LogsAnswer, error)

	CreateVolume(ctx context.Context, req fleet.CreateVolume) (fleet.VolumeView, error)
	Volumes(ctx context.Context, app drover.AppName) ([]fleet.VolumeView, error)
	Volume(ctx context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error)
	// DestroyVolume is refused with Precondition while a machine has the volume. UndeleteVolume takes it back until the volume's WipeAt.
	DestroyVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error)
	UndeleteVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (fleet.VolumeView, error)
	// DestroyedVolumes lists those that can be brought back.
	DestroyedVolumes(ctx context.Context, app drover.AppName) ([]fleet.VolumeView, error)
	UpdateVolume(ctx context.Context, req fleet.UpdateVolume) (fleet.VolumeView, error)
	ExtendVolume(ctx context.Context, req fleet.ExtendVolume) (fleet.Extended, error)
	// VerifyVolume begins a verification, or answers how far the one is that runs. Volume has the newest in its Layer.
	VerifyVolume(ctx context.Context, req fleet.VerifyVolume) (drover.Verification, error)
	// SetHydration is refused with Precondition for a volume that does not hydrate.
	SetHydration(ctx context.Context, req fleet.SetHydration) (fleet.VolumeView, error)

	// CreateSnapshot answers when the moment is past; Snapshot tells how far the way into the object store is.
	CreateSnapshot(ctx context.Context, req fleet.CreateSnapshot) (drover.Snapshot, error)
	// Snapshots lists those of a volume, or of all volumes of the app, those that are gone too, when it is empty.
	Snapshots(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Snapshot, error)
	Snapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error)
	DeleteSnapshot(ctx context.Context, app drover.AppName, id drover.SnapshotID) (drover.Snapshot, error)

	Hosts(ctx context.Context) ([]drover.HostInfo, error)
	Host(ctx context.Context, id drover.HostID) (drover.HostInfo, error)
	HostLayers(ctx context.Context, id drover.HostID) ([]drover.LayerStatus, error)
	HostMachines(ctx context.Context, id drover.HostID) ([]fleet.MachineView, error)
	// SetStorage sets what holds for a host's storage as a whole; HostInfo.Storage has it then.
	SetStorage(ctx context.Context, host drover.HostID, settings drover.StorageSettings) (drover.StorageSettings, error)

	// Keyring describes the keys of volumes; Precondition where the fleet does not keep them itself.
	Keyring(ctx context.Context) (drover.Keyring, error)
	// RotateKeys makes a new fleet key. Conflict when another rotation began just now.
	RotateKeys(ctx context.Context) (drover.Keyring, error)

	// Metrics counts what there is to count.
	Metrics(ctx context.Context) (fleet.Metrics, error)

	MoveMachine(ctx context.Context, req fleet.Move) (drover.Migration, error)
	// CheckMove changes nothing, and tells everything that is for and against a move.
	CheckMove(ctx context.Context, req fleet.Move) (drover.MoveCheck, error)
	// UndoMigration is refused with Precondition before the switch, and when the source keeps its copy no longer. Without confirm it changes nothing.
	UndoMigration(ctx context.Context, req fleet.Undo) (drover.MoveUndo, error)
	// WriteOffSource is refused with Precondition while anybody can tell that the source runs. Without confirm it changes nothing.
	WriteOffSource(ctx context.Context, req fleet.WriteOff) (drover.LostSource, error)
	Migrations(ctx context.Context) ([]drover.Migration, error)
	Migration(ctx context.Context, id drover.MigrationID) (drover.Migration, error)
	// AbortMigration is refused with Precondition after the switch.
	AbortMigration(ctx context.Context, id drover.MigrationID) (drover.Migration, error)

	drainBackend
	machineBackend
	suspendBackend
	secretBackend
	placeBackend
	clientsBackend
	StreamBackend
	DeployBackend
}
