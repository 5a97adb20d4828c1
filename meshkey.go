package drover

import "time"

// MeshKey is the key by which other hosts know a host, and what becomes of it.
type MeshKey struct {
	PublicKey string `json:"public_key"`
	// Number is how many keys the host had before.
	Number uint64 `json:"number"`
	// Since is when it got the key; zero for the one that it came with.
	Since time.Time `json:"since,omitzero"`
	// PeopleKey is the public key by which people's peers know the host.
	PeopleKey string `json:"people_key"`
	// Rotation is the one under way, or the last.
	Rotation *KeyRotation `json:"rotation,omitempty"`
	// WaitsFor are the hosts that do not send by the next key yet; where that is taken back, those that still do.
	WaitsFor []HostID `json:"waits_for,omitempty"`
	// NextAt is when the host's schedule begins to give it another key; zero for never, and while it is getting one.
	NextAt time.Time `json:"next_at,omitzero"`
}

// KeyRotation is how a host gets another key. It is part of the host's identity, where it stays until the next.
type KeyRotation struct {
	ID string `json:"id"`
	// By is who asked for it: somebody by name, or the host's own schedule.
	By string `json:"by"`
	// People: the key by which people know the host is another one, too.
	People    bool      `json:"people,omitempty"`
	StartedAt time.Time `json:"started_at"`
	// EndedAt is when the next key became the only one, which is the point of no return, or, canceled, when it was gone; zero before.
	EndedAt time.Time `json:"ended_at,omitzero"`
	// CanceledAt is when CanceledBy decided that the host keeps the key that it has; zero for never.
	CanceledAt time.Time `json:"canceled_at,omitzero"`
	CanceledBy string    `json:"canceled_by,omitempty"`
	// Silent are the hosts that were not waited for, because nothing came from them: they learn the key from the fleet when they are back.
	Silent []HostID `json:"silent,omitempty"`
}

// Running reports whether the host is reached by two keys.
func (r *KeyRotation) Running() bool { return r != nil && r.EndedAt.IsZero() }

// Canceled reports whether the next key is taken back, or was.
func (r *KeyRotation) Canceled() bool { return r != nil && !r.CanceledAt.IsZero() }

// BySchedule is who asks for the rotations that the configuration of a host asks for.
const BySchedule = "the host's schedule"

// OrderMeshRotate lets a host get another key. MeshRotateRequest, MeshKey. While one rotation is under way, another one is that one.
const OrderMeshRotate Order = "mesh.rotate"

// MeshRotateRequest says who asks for another key.
type MeshRotateRequest struct {
	By     string `json:"by"`
	People bool   `json:"people,omitempty"`
}

// OrderMeshCancel takes back the key that a host is about to have: it keeps the one that it has. MeshCancelRequest, MeshKey. Asked again it tells of the same.
// Precondition when there is nothing to take back.
const OrderMeshCancel Order = "mesh.cancel"

// MeshCancelRequest says who wants a host to keep its key.
type MeshCancelRequest struct {
	By string `json:"by"`
}

// MeshKeyWaits: the next key of a host cannot take the place of its present one, because another host (its subject) does not send by it.
const MeshKeyWaits ConditionCode = "mesh-key-waits"
