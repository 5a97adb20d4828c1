package drover

import "time"

// Severity is how bad a condition is.
type Severity string

// The severities.
const (
	// SeverityWarning: somebody should look at it in working hours.
	SeverityWarning Severity = "warning"
	// SeverityCritical: somebody should look at it now.
	SeverityCritical Severity = "critical"
)

// ConditionCode names a kind of condition. docs/CONDITIONS.md has a part for each that says what to do.
type ConditionCode string

// The conditions of storage.
const (
	// PoolFilling: the pool of a host is 80 % full (warning) or 90 % (critical).
	PoolFilling ConditionCode = "pool-filling"
	// PoolFull: writes of volumes are refused because the pool has no room.
	PoolFull ConditionCode = "pool-full"
	// DiskStalled: the disk of a host's pool does not end what it is asked for.
	DiskStalled ConditionCode = "disk-stalled"
	// DiskFailing: the disk of a host's pool answers with errors, or with something else than what was written.
	DiskFailing ConditionCode = "disk-failing"
	// HydrationStalled: a layer has made no progress for the time that the operator set.
	HydrationStalled ConditionCode = "hydration-stalled"
	// LayerDamaged: blocks of a layer do not have the checksum that they were written with, or never came from a source that was written off.
	LayerDamaged ConditionCode = "layer-damaged"
	// LayerRefused: a layer cannot be used, or not be written.
	LayerRefused ConditionCode = "layer-refused"
	// KeyMissing: the key of an encrypted layer cannot be had.
	KeyMissing ConditionCode = "key-missing"
	// SnapshotFailing: a snapshot cannot be finished now.
	SnapshotFailing ConditionCode = "snapshot-failing"
)

// The conditions of the control side. They are shown with the hosts that they concern.
const (
	// MarkExpired: the mark of a host is older than whoever made it wanted.
	MarkExpired ConditionCode = "mark-expired"
	// ClassHalted: a move of a class failed, and no drain moves machines of the class.
	ClassHalted ConditionCode = "class-halted"
	// RegionNotDrainable: a region has no room for the machines of one of its hosts.
	RegionNotDrainable ConditionCode = "region-not-drainable"
	// AuditIncomplete: a control host could not write some entries of the audit trail.
	AuditIncomplete ConditionCode = "audit-incomplete"
)

// ControlConditions lists the conditions of the control side, with how bad each is.
func ControlConditions() map[ConditionCode]Severity {
	return map[ConditionCode]Severity{MarkExpired: SeverityWarning, ClassHalted: SeverityCritical, RegionNotDrainable: SeverityWarning,
		HostIsSilent: SeverityCritical, HostIsPartitioned: SeverityCritical, HostIsUnreachable: SeverityCritical, StandbyLagging: SeverityWarning,
		AuditIncomplete: SeverityWarning, PowerOffFails: SeverityCritical, MeshStale: SeverityCritical}
}

// Condition is something that is not as it should be, for as long as it is so.
type Condition struct {
	Code     ConditionCode `json:"code"`
	Severity Severity      `json:"severity"`
	// Subject is what it is about: a layer, volume or snapshot ID, a class, a region; empty for the host as a whole.
	Subject string    `json:"subject,omitempty"`
	Text    string    `json:"text"`
	Since   time.Time `json:"since"`
}
