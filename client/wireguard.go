package client

import (
	"context"
	"net/url"

	"drover"
	"drover/apiv1"
)

const (
	peersPath = "/wireguard_peers"
	peerPath  = peersPath + "/%s"
)

// ofOrganization is the query that names an organization; that of the token when it is empty.
func ofOrganization(organization string) url.Values {
	query := url.Values{}
	if organization != "" {
		query.Set("org_slug", organization)
	}
	return query
}

// CreatePeer lets a person's WireGuard client into a private network. It may be repeated.
func (c *Client) CreatePeer(ctx context.Context, req apiv1.CreatePeerRequest) (drover.WireGuardView, error) {
	return post[drover.WireGuardView](ctx, c, req, peersPath)
}

// Peers lists the peers of an organization; all that the token may see when it is empty.
func (c *Client) Peers(ctx context.Context, organization string) ([]drover.WireGuardView, error) {
	return get[[]drover.WireGuardView](ctx, c, ofOrganization(organization), peersPath)
}

// Peer describes a peer.
func (c *Client) Peer(ctx context.Context, organization, name string) (drover.WireGuardView, error) {
	return get[drover.WireGuardView](ctx, c, ofOrganization(organization), peerPath, name)
}

// MovePeer lets a peer connect to another host.
func (c *Client) MovePeer(ctx context.Context, organization, name string, req apiv1.MovePeerRequest) (v drover.WireGuardView, err error) {
	return v, c.do(ctx, "POST", peersPath+"/"+url.PathEscape(name)+"/move", ofOrganization(organization), req, &v)
}

// RemovePeer shuts a peer out for good.
func (c *Client) RemovePeer(ctx context.Context, organization, name string) (drover.WireGuardView, error) {
	return remove[drover.WireGuardView](ctx, c, ofOrganization(organization), peerPath, name)
}
