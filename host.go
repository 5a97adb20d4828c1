package drover

import "time"

// Role is something a host does.
type Role string

// The roles.
const (
	RoleWorker  Role = "worker"
	RoleControl Role = "control"
	RoleEdge    Role = "edge"
	RoleGateway Role = "gateway"
)

// Accel is how VMs execute on a host.
type Accel string

// The accelerators.
const (
	AccelKVM Accel = "kvm"
	AccelTCG Accel = "tcg"
)

// HostInfo is what a host says of itself, about every two seconds.
type HostInfo struct {
	ID     HostID `json:"id"`
	Region Region `json:"region"`
	Roles  []Role `json:"roles"`
	// Address is the host's own IP address, which other hosts reach.
	Address string `json:"address"`
	// RouteAddress is the private IPv6 address to which other hosts send packets for the machines of this one; empty where they cannot.
	RouteAddress string `json:"route_address,omitempty"`
	// Mesh is how other hosts reach its machines; nil where they cannot, or not by the mesh.
	Mesh *HostMesh `json:"mesh,omitempty"`
	// RoutesDigest stands for all that the host believes of where machines are, as its mesh said last; empty when that said nothing.
	RoutesDigest string `json:"routes_digest,omitempty"`
	// StorageAddress is the host and port of its storage daemon's TLS listener.
	StorageAddress string `json:"storage_address,omitempty"`
	Accel          Accel  `json:"accel,omitempty"`
	// AccelReason says how the accelerator was chosen ("/dev/kvm: trial boot failed: …").
	AccelReason string `json:"accel_reason,omitempty"`
	VMM         string `json:"vmm,omitempty"`
	Version     string `json:"version"`
	CPUs        int    `json:"cpus"`
	// CPUsTotal is what the host promises of its CPUs to machines, CPUsUsed what of it is taken: by performance CPUs whole, by shared ones in part.
	CPUsTotal float64 `json:"cpus_total,omitempty"`
	CPUsUsed  float64 `json:"cpus_used,omitempty"`
	// Dedication is what the host is dedicated to: only machines and volumes with that host_dedication_id come to it.
	Dedication string    `json:"dedication,omitempty"`
	Memory     Bytes     `json:"memory"`
	MemoryUsed Bytes     `json:"memory_used"`
	Disk       Bytes     `json:"disk"`
	DiskUsed   Bytes     `json:"disk_used"`
	Machines   int       `json:"machines"`
	StartedAt  time.Time `json:"started_at"`
	// DiskProvisioned is what the volumes of the host may grow to together; thin provisioning lets it be more than Disk.
	DiskProvisioned Bytes `json:"disk_provisioned"`
	// Conditions is what is not as it should be on the host now.
	Conditions []Condition `json:"conditions,omitempty"`
	// Storage is what an operator set for its storage.
	Storage StorageSettings `json:"storage,omitzero"`
	// CPU says what processor the guests see, Platform which machine type: memory moves between equal ones only.
	CPU      string `json:"cpu,omitempty"`
	Platform string `json:"platform,omitempty"`
	// Observations is which of its fellow hosts it reaches.
	Observations []Observation `json:"observations,omitempty"`
	// Reach and ReachText are filled in by the control side: what the bus and the observers together tell of the host.
	Reach     HostReach `json:"reach,omitempty"`
	ReachText string    `json:"reach_text,omitempty"`
	// Mark is filled in by the control side: what an operator or a drain wants of the host; nil for nothing.
	Mark *HostMark `json:"mark,omitempty"`
	// SeenAt is filled in by the control side: when it last heard of the host.
	SeenAt time.Time `json:"seen_at,omitzero"`
	// Status is filled in by the control side.
	Status HostStatus `json:"status,omitempty"`
}

// HostMark closes a host for new machines: a cordon. Every mark has an owner and a reason; one that has expired raises a condition, and
// stays until somebody takes it away.
type HostMark struct {
	Host HostID `json:"host"`
	// Suspect: the host is not trusted any more. Nothing is moved to it, and what leaves it leaves by an early switch.
	Suspect bool   `json:"suspect,omitempty"`
	Owner   string `json:"owner"`
	Reason  string `json:"reason"`
	// Drain is the drain that made the mark; empty for an operator's.
	Drain     DrainID   `json:"drain,omitempty"`
	Since     time.Time `json:"since"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// HostStatus is whether a host answers.
type HostStatus string

// The statuses, with the words of the Machines API's host_status.
const (
	HostOK          HostStatus = "ok"
	HostUnknown     HostStatus = "unknown"
	HostUnreachable HostStatus = "unreachable"
)
