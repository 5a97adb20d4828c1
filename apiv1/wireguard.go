package apiv1

import "drover"

// CreatePeerRequest asks for a person's way into a private network. The private key stays with the person.
type CreatePeerRequest struct {
	Name string `json:"name"`
	// OrgSlug is the organization; that of the token when empty. Network is a named network of it; empty for its own.
	OrgSlug string `json:"org_slug,omitempty"`
	Network string `json:"network,omitempty"`
	// PublicKey is that of the person's WireGuard client, in base64.
	PublicKey string `json:"public_key"`
	// Host or Region say where the client is to connect to; anywhere when both are empty.
	Host   drover.HostID `json:"host,omitempty"`
	Region drover.Region `json:"region,omitempty"`
}

// MovePeerRequest says where a peer is to connect to; to any other host when both are empty.
type MovePeerRequest struct {
	Host   drover.HostID `json:"host,omitempty"`
	Region drover.Region `json:"region,omitempty"`
}
