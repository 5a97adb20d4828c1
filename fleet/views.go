package fleet

import (
	"cmp"
	"context"
	"time"

	"drover"
)

// MachineView is everything that is known of a machine.
type MachineView struct {
	Machine   drover.Machine
	Placement drover.Placement
	// Status is zero but for State (created) before the host first reports.
	Status drover.MachineStatus
	// HostStatus tells whether the status is as fresh as it should be.
	HostStatus drover.HostStatus
	// HostSeenAt is when the host was last heard of: how old what is known may be.
	HostSeenAt time.Time
	// Migration is the one under way, nil if none is.
	Migration *drover.Migration
	// Nonce is that of the lease which was asked for with the machine.
	Nonce string
	// Revisions are those of the records that the view is made of.
	Revisions Revisions
}

// MachineKey tells which machine a view is of, where in a list it is, and all that the view is made of: two views with equal keys are equal but for the age
// of what is known of an unreachable host.
type MachineKey struct {
	ID         drover.MachineID
	CreatedAt  time.Time
	Revisions  Revisions
	HostStatus drover.HostStatus
	State      drover.MachineState
	// Migration, Phase and Target are those of the one under way.
	Migration drover.MigrationID
	Phase     drover.Phase
	Target    drover.HostID
}

// Key returns the view's key.
func (v MachineView) Key() MachineKey {
	k := MachineKey{ID: v.Machine.ID, CreatedAt: v.Machine.CreatedAt, Revisions: v.Revisions, HostStatus: v.HostStatus, State: v.Status.State}
	if v.Migration != nil {
		k.Migration, k.Phase, k.Target = v.Migration.ID, v.Migration.Phase, v.Migration.Target
	}
	return k
}

// Compare tells which of two machines comes first in a list: the older one.
func (k *MachineKey) Compare(other *MachineKey) int {
	return cmp.Or(k.CreatedAt.Compare(other.CreatedAt), cmp.Compare(k.ID, other.ID))
}

// Revisions are the revisions of a machine's record, placement and status; 0 for what there is not.
type Revisions struct{ Machine, Placement, Status uint64 }

// VolumeView is everything that is known of a volume. Its Host is where it lives now.
type VolumeView struct {
	Volume     drover.Volume
	HostStatus drover.HostStatus
	// Hydration is there while blocks are fetched.
	Hydration *drover.Hydration
	// Layer is what the volume's host says of it; nil where it was not asked or did not answer.
	Layer *drover.LayerStatus
	// Conditions is what is not as it should be with its snapshots.
	Conditions []drover.Condition
}

// CreateMachine asks for a new machine.
type CreateMachine struct {
	App    drover.AppName
	Name   string // made up when empty
	Region drover.Region
	// Fallback are the regions to take, in order, when there is no room in Region.
	Fallback []drover.Region
	// Host pins the machine to a host; empty lets the fleet choose. Mounted volumes pin it too.
	Host       drover.HostID
	Config     drover.MachineConfig
	SkipLaunch bool
	// Cordoned keeps it out of what gets traffic from its first moment on.
	Cordoned bool
	SecretsWish
	// LeaseTTL, when it is not 0, leases the machine to Owner before anybody else can; MachineView.Nonce has the nonce.
	LeaseTTL time.Duration
	Owner    string
	// Once keeps the machine from being made twice; nil for a request that may be carried out as often as it comes.
	Once *Once
	// id is the one that the machine gets; keep stores it, where somebody must find it again.
	id   drover.MachineID
	keep func(context.Context, drover.MachineID) error
}

// UpdateMachine replaces a machine's config. CurrentVersion, when not empty, must be the instance ID it has now (Conflict).
type UpdateMachine struct {
	App            drover.AppName
	Machine        drover.MachineID
	Config         drover.MachineConfig
	CurrentVersion drover.InstanceID
	SkipLaunch     bool
	// Cordon keeps it out of what gets traffic, too; false leaves it as it is.
	Cordon bool
	SecretsWish
	// LeaseTTL, when it is not 0, prolongs the lease with the Nonce, or takes one for Owner.
	LeaseTTL     time.Duration
	Nonce, Owner string
}

// CreateVolume asks for a new volume.
type CreateVolume struct {
	App    drover.AppName
	Name   string
	Region drover.Region
	Host   drover.HostID // empty lets the fleet choose
	Size   drover.Bytes  // 0 with Snapshot or Source: as large as that
	// Snapshot makes the volume one that is restored from it, Source one that is forked from that volume; usable at once.
	Snapshot drover.SnapshotID
	Source   drover.VolumeID
	// Unencrypted leaves the encryption out. A fork and a restored volume are encrypted as what they come from.
	Unencrypted bool
	Limits      drover.Limits
	// Fallback are the regions to take, in order, when there is no room in Region. Compute is the size of a machine for which room is held with the
	// volume for a time; nil for none.
	Fallback []drover.Region
	Compute  *drover.Guest
	// NoAutoBackup leaves the schedule out. 0 means the defaults.
	NoAutoBackup     bool
	SnapshotInterval drover.Duration
	RetentionDays    int
}

// UpdateVolume changes what is not nil.
type UpdateVolume struct {
	App              drover.AppName
	Volume           drover.VolumeID
	AutoBackup       *bool
	SnapshotInterval *drover.Duration
	RetentionDays    *int
	Limits           *drover.Limits
}

// ExtendVolume makes a volume larger.
type ExtendVolume struct {
	App    drover.AppName
	Volume drover.VolumeID
	Size   drover.Bytes
}

// Extended is what became of it. NeedsRestart: the guest sees the new size only after the machine was started again.
type Extended struct {
	Volume       VolumeView
	NeedsRestart bool
}

// CreateSnapshot asks for a snapshot. Quiesce freezes the guest's file systems for the moment. RetentionDays 0 means the volume's.
type CreateSnapshot struct {
	App           drover.AppName
	Volume        drover.VolumeID
	Quiesce       bool
	Full          bool
	RetentionDays int
}

// VerifyVolume compares a volume with its checksums, or with a snapshot.
type VerifyVolume struct {
	App      drover.AppName
	Volume   drover.VolumeID
	Snapshot drover.SnapshotID
}

// SetHydration changes the background copy of a volume that hydrates; nil leaves a field.
type SetHydration struct {
	App    drover.AppName
	Volume drover.VolumeID
	Limit  *drover.Bytes
	Paused *bool
}

// Move asks for a migration. Target empty lets the fleet choose.
type Move struct {
	App     drover.AppName // empty for operators: any app
	Machine drover.MachineID
	Target  drover.HostID
	Actor   string
	Options drover.MoveOptions
	// Drain is the drain that asks; empty for none.
	Drain drover.DrainID
	// undoes is the migration that this one takes back (UndoMigration).
	undoes *drover.Migration
}

// Undo asks to take a migration back. Without Confirm it is only told what would be given up.
type Undo struct {
	Migration drover.MigrationID
	Actor     string
	Confirm   bool
}

// Principal is who a token belongs to.
type Principal struct {
	Name string `json:"name"`
	// Organization limits the token to one; empty for operators.
	Organization string `json:"organization,omitempty"`
	Operator     bool   `json:"operator"`
	// Token is the token that was shown, Limits what its caveats say; they are not stored.
	Token  drover.TokenID `json:"-"`
	Limits drover.Caveats `json:"-"`
}
