package drover

import "time"

// MachineLease lets one client change a machine, and keeps others from it, until it is released or expires. It says nothing about
// where the machine runs: moves and recoveries go on.
type MachineLease struct {
	Machine MachineID `json:"machine"`
	// Nonce is what the holder proves itself with.
	Nonce string `json:"nonce"`
	// Owner is the name of the token that took it, Description what the holder says it is for.
	Owner       string    `json:"owner"`
	Description string    `json:"description,omitempty"`
	TakenAt     time.Time `json:"taken_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	// Version is the machine's instance when this was read; it is not stored.
	Version InstanceID `json:"-"`
}

// Live reports whether the lease holds at a time.
func (l MachineLease) Live(now time.Time) bool { return l.Nonce != "" && now.Before(l.ExpiresAt) }

// MachineVersion is one config that a machine has or had.
type MachineVersion struct {
	Machine  MachineID     `json:"machine"`
	Instance InstanceID    `json:"instance_id"`
	Config   MachineConfig `json:"config"`
	Image    ImageRef      `json:"image_ref"`
	// CreatedAt is when the machine got it, ReplacedAt when it got another one; zero for the one that it has.
	CreatedAt  time.Time `json:"created_at"`
	ReplacedAt time.Time `json:"replaced_at,omitzero"`
}
