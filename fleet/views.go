package fleet

import "drover"

// MachineView is everything that is known of a machine.
type MachineView struct {
	Machine   drover.Machine
	Placement drover.Placement
	// Status is zero but for State (created) before the host first reports.
	Status drover.MachineStatus
	// HostStatus tells whether the status is as fresh as it should be.
	HostStatus drover.HostStatus
	// Migration is the one under way, nil if none is.
	Migration *drover.Migration
}

// VolumeView is everything that is known of a volume. Its Host is where it lives now.
type VolumeView struct {
	Volume     drover.Volume
	HostStatus drover.HostStatus
	// Hydration is there while blocks are fetched.
	Hydration *drover.Hydration
}

// CreateMachine asks for a new machine.
type CreateMachine struct {
	App    drover.AppName
	Name   string // made up when empty
	Region drover.Region
	// Host pins the machine to a host; empty lets the fleet choose. Mounted volumes pin it too.
	Host       drover.HostID
	Config     drover.MachineConfig
	SkipLaunch bool
}

// UpdateMachine replaces a machine's config. CurrentVersion, when not empty, must be the instance ID it has now (Conflict).
type UpdateMachine struct {
	App            drover.AppName
	Machine        drover.MachineID
	Config         drover.MachineConfig
	CurrentVersion drover.InstanceID
	SkipLaunch     bool
}

// CreateVolume asks for a new volume.
type CreateVolume struct {
	App    drover.AppName
	Name   string
	Region drover.Region
	Host   drover.HostID // empty lets the fleet choose
	Size   drover.Bytes
}

// Move asks for a migration. Target empty lets the fleet choose.
type Move struct {
	App     drover.AppName // empty for operators: any app
	Machine drover.MachineID
	Target  drover.HostID
	Actor   string
}

// Principal is who a token belongs to.
type Principal struct {
	Name string `json:"name"`
	// Organization limits the token to one; empty for operators.
	Organization string `json:"organization,omitempty"`
	Operator     bool   `json:"operator"`
}
