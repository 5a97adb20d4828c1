package apiv1

import (
	"time"

	"drover"
)

// LeaseNonceHeader is the request header with the nonce of a machine's lease.
const LeaseNonceHeader = "fly-machine-lease-nonce"

// LeaseRequest asks for the lease of a machine. The query parameter ttl counts before TTL.
type LeaseRequest struct {
	// TTL is in seconds; 0 means 60.
	TTL         int    `json:"ttl,omitempty"`
	Description string `json:"description,omitempty"`
}

// Lease is what one needs to know of a lease, nonce included.
type Lease struct {
	Nonce string `json:"nonce"`
	// ExpiresAt is in seconds since 1970.
	ExpiresAt   int64  `json:"expires_at"`
	Owner       string `json:"owner"`
	Description string `json:"description"`
	// Version is the machine's instance ID.
	Version drover.InstanceID `json:"version"`
}

// LeaseResponse has the lease twice: in data, where most clients look for it, and beside it, as the published document has it.
type LeaseResponse struct {
	// Status is "success".
	Status string `json:"status"`
	Data   Lease  `json:"data"`
	Lease
}

// MachineVersion is one config that a machine has or had.
type MachineVersion struct {
	// Version and InstanceID both name it.
	Version    drover.InstanceID    `json:"version"`
	InstanceID drover.InstanceID    `json:"instance_id"`
	UserConfig drover.MachineConfig `json:"user_config"`
	ImageRef   drover.ImageRef      `json:"image_ref"`
	// Status is "replaced" for one that the machine has no longer, else the machine's state.
	Status     string    `json:"status"`
	Replaced   bool      `json:"replaced"`
	CreatedAt  time.Time `json:"created_at"`
	ReplacedAt time.Time `json:"replaced_at,omitzero"`
}

// StatusReplaced is MachineVersion.Status of a version that was replaced.
const StatusReplaced = "replaced"
