package drover

import "time"

// WireGuardPeer is a person's way into a private network: a WireGuard peer that one host takes packets from. The private key is the person's alone.
type WireGuardPeer struct {
	// Name is unique in the organization.
	Name         string `json:"name"`
	Organization string `json:"organization"`
	// Network is the named network; empty for the organization's own.
	Network string `json:"network,omitempty"`
	// PublicKey is the peer's, in base64; no other peer and no host has it.
	PublicKey string `json:"public_key"`
	// Address is the peer's own in the network. It stays, and is given to nobody else, ever.
	Address string `json:"address"`
	// Host is where the peer connects to.
	Host      HostID    `json:"host"`
	CreatedAt time.Time `json:"created_at"`
}

// WireGuardView is a peer with what its end of the tunnel has to know, and with what its host has seen of it.
type WireGuardView struct {
	WireGuardPeer
	Region Region `json:"region,omitempty"`
	// Endpoint is where the host listens, EndpointKey its public key.
	Endpoint    string   `json:"endpoint,omitempty"`
	EndpointKey string   `json:"endpoint_key,omitempty"`
	AllowedIPs  []string `json:"allowed_ips"`
	DNS         string   `json:"dns"`
	MTU         int      `json:"mtu,omitempty"`
	// HandshakeAt is when the peer last proved its key; zero for never since the host's mesh began. Received and Sent are bytes, as the host sees it.
	HandshakeAt time.Time `json:"handshake_at,omitzero"`
	Received    uint64    `json:"received_bytes"`
	Sent        uint64    `json:"sent_bytes"`
	// Problem says why the peer cannot connect, or why nothing is known of it; empty when all is well.
	Problem string `json:"problem,omitempty"`
}

// OrderMeshPeers asks a host what it has seen of its peers. Empty, MeshPeersAnswer. Changes nothing.
const OrderMeshPeers Order = "mesh.peers"

// MeshPeersAnswer is what a host has seen of the peers that connect to it.
type MeshPeersAnswer struct {
	Peers []MeshPeer `json:"peers"`
}

// MeshPeer is what a host has seen of one peer.
type MeshPeer struct {
	PublicKey   string    `json:"public_key"`
	HandshakeAt time.Time `json:"handshake_at,omitzero"`
	Received    uint64    `json:"received_bytes"`
	Sent        uint64    `json:"sent_bytes"`
}
