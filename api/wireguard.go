package api

import (
	"context"
	"net/http"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// WireGuardBackend is what the API asks about people's ways into private networks. An organization that is empty is the fleet's first.
type WireGuardBackend interface {
	// CreatePeer may be repeated. Exists when the name or the key is another's.
	CreatePeer(ctx context.Context, req fleet.NewPeer) (drover.WireGuardView, error)
	// Peers lists those of the organization, of all when it is empty.
	Peers(ctx context.Context, organization string) ([]drover.WireGuardView, error)
	Peer(ctx context.Context, organization, name string) (drover.WireGuardView, error)
	MovePeer(ctx context.Context, organization, name string, host drover.HostID, region drover.Region) (drover.WireGuardView, error)
	RemovePeer(ctx context.Context, organization, name string) (drover.WireGuardView, error)
}

func wireguardRoutes() []route {
	const all, one = "/wireguard_peers", "/wireguard_peers/{peer_name}"
	org := []param{{"org_slug", "string", "the organization; default that of the token"}}
	return []route{
		{method: "GET", path: all, id: "WireGuard_list", summary: "List the people's WireGuard peers of the organization; for operators all", access: tenants,
			query: org, status: http.StatusOK, response: []drover.WireGuardView{}, handle: (*handler).listPeers},
		{method: "POST", path: all, id: "WireGuard_create", summary: "Let a person's WireGuard client into a private network", access: tenants,
			request: apiv1.CreatePeerRequest{}, status: http.StatusCreated, response: drover.WireGuardView{}, handle: (*handler).createPeer},
		{method: "GET", path: one, id: "WireGuard_show", summary: "Describe a peer", access: tenants,
			query: org, status: http.StatusOK, response: drover.WireGuardView{}, handle: (*handler).showPeer},
		{method: "POST", path: one + "/move", id: "WireGuard_move", summary: "Let a peer connect to another host, with its address and key", access: tenants,
			query: org, request: apiv1.MovePeerRequest{}, optional: true, status: http.StatusOK, response: drover.WireGuardView{}, handle: (*handler).movePeer},
		{method: "DELETE", path: one, id: "WireGuard_remove", summary: "Shut a peer out of its network for good, at once", access: tenants,
			query: org, status: http.StatusOK, response: drover.WireGuardView{}, handle: (*handler).removePeer},
	}
}

// peerOwner is the organization whose peers a request is about.
func peerOwner(c *call, asked string) (string, error) {
	org, err := ownOrganization(c.principal, asked)
	if org == "" && err == nil {
		org = defaultOrganization
	}
	return org, err
}

func (h *handler) listPeers(c *call) (any, error) {
	org, err := ownOrganization(c.principal, c.r.URL.Query().Get("org_slug"))
	if err != nil {
		return nil, err
	}
	return h.backend.Peers(c.ctx(), org)
}

func (h *handler) createPeer(c *call) (any, error) {
	var req apiv1.CreatePeerRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	org, err := peerOwner(c, req.OrgSlug)
	if err != nil {
		return nil, err
	}
	return h.backend.CreatePeer(c.ctx(), fleet.NewPeer{Name: req.Name, Organization: org, Network: req.Network, PublicKey: req.PublicKey, Host: req.Host, Region: req.Region})
}

func (h *handler) showPeer(c *call) (any, error) {
	org, err := peerOwner(c, c.r.URL.Query().Get("org_slug"))
	if err != nil {
		return nil, err
	}
	return h.backend.Peer(c.ctx(), org, c.r.PathValue("peer_name"))
}

func (h *handler) movePeer(c *call) (any, error) {
	var req apiv1.MovePeerRequest
	if err := readStrict(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	org, err := peerOwner(c, c.r.URL.Query().Get("org_slug"))
	if err != nil {
		return nil, err
	}
	return h.backend.MovePeer(c.ctx(), org, c.r.PathValue("peer_name"), req.Host, req.Region)
}

func (h *handler) removePeer(c *call) (any, error) {
	org, err := peerOwner(c, c.r.URL.Query().Get("org_slug"))
	if err != nil {
		return nil, err
	}
	return h.backend.RemovePeer(c.ctx(), org, c.r.PathValue("peer_name"))
}
