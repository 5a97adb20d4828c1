package drover

import "time"

// MeshStatus is what the mesh of a host says of itself.
type MeshStatus struct {
	// Mesh is how other hosts reach this one's machines; nil while the host has not joined.
	Mesh *HostMesh `json:"mesh,omitempty"`
	// Key is the host's key; nil while the host has not joined.
	Key *MeshKey `json:"key,omitempty"`
	// Problem says why it does not work as it should; empty when it does.
	Problem string `json:"problem,omitempty"`
	// NameTaken: the problem is that the host's name or key is another host's. It must do nothing in that name.
	NameTaken bool `json:"name_taken,omitempty"`
	// Links are those to the other hosts.
	Links []MeshLink `json:"links,omitempty"`
	// Routes is how many machines it knows a way to, RoutesDigest stands for all of these ways (RoutesDigest.String); empty while the host has not joined.
	Routes       int    `json:"routes"`
	RoutesDigest string `json:"routes_digest,omitempty"`
	// SyncedAt is when it last knew all that the fleet agrees on; zero before, when it goes by what it knew in an earlier life.
	SyncedAt time.Time `json:"synced_at,omitzero"`
	// News tells how long the news of the last moves took, from the store to the table that packets follow.
	News MeshNews `json:"news"`
	// DroppedUnknown and DroppedMalformed are packets for machines that it knows no way to, and those that were none.
	DroppedUnknown   uint64 `json:"dropped_unknown"`
	DroppedMalformed uint64 `json:"dropped_malformed"`
	// Refused are packets that machines may not send: those with a source of others, to other networks, and to the host.
	Refused map[string]uint64 `json:"refused,omitempty"`
}

// MeshNews are times from a placement's change until packets follow it, as far as the clocks of the hosts agree.
type MeshNews struct {
	Count int      `json:"count"`
	P50   Duration `json:"p50"`
	P99   Duration `json:"p99"`
	Max   Duration `json:"max"`
}

// MeshLink is how packets pass between a host and another one, as far as the first knows.
type MeshLink struct {
	Host  HostID `json:"host"`
	State string `json:"state"`
	Text  string `json:"text"`
	// Bad: somebody should look at it.
	Bad bool     `json:"bad,omitempty"`
	RTT Duration `json:"rtt,omitempty"`
}

// MeshRoute is where a host sends packets for a machine.
type MeshRoute struct {
	Machine string `json:"machine"`
	// Host is the private address of the host; empty where the packets leave the host's own taps aside although nobody says by which host they go.
	Host string `json:"host"`
}

// OrderMeshRoutes asks a host by which hosts it reaches machines. MeshRoutesRequest, MeshRoutesAnswer. Changes nothing.
const OrderMeshRoutes Order = "mesh.routes"

// OrderMeshStatus asks how a host's mesh is. Empty, MeshStatus.
const OrderMeshStatus Order = "mesh.status"

// MaxMeshRoutes bounds one answer.
const MaxMeshRoutes = 5000

// MeshRoutesRequest asks for the routes after an address, in order.
type MeshRoutesRequest struct {
	After string `json:"after,omitempty"`
}

// MeshRoutesAnswer has up to MaxMeshRoutes routes; More says that there are others.
type MeshRoutesAnswer struct {
	Routes []MeshRoute `json:"routes"`
	More   bool        `json:"more,omitempty"`
}

// The conditions of the network.
const (
	// MeshLinkBad: packets between two hosts do not pass in one direction, or in none. Its subject is the other host.
	MeshLinkBad ConditionCode = "mesh-link-bad"
	// MeshDown: machines of the host and those of others do not reach each other.
	MeshDown ConditionCode = "mesh-down"
	// MeshStale: the host sends packets for machines to where they are not. It is the control side that finds it.
	MeshStale ConditionCode = "mesh-stale"
)
