package api

import (
	"net/http"
	"net/netip"
	"net/url"

	"drover"
	"drover/api/graphql"
	"drover/apiv1"
)

// peersOf asks for the peers of an organization; of all that the client may see when it is empty.
func (g *graph) peersOf(slug string) (peers []drover.WireGuardView, err error) {
	return peers, g.h.inside(g.c, http.MethodGet, prefix+"/wireguard_peers?org_slug="+url.QueryEscape(slug), nil, &peers)
}

func (g *graph) peers(slug string) (any, error) {
	peers, err := g.peersOf(slug)
	nodes := []graphql.Object{}
	for _, p := range peers {
		nodes = append(nodes, g.peer(p))
	}
	return list(nodes), err
}

// peer has the names that clients know. Its ID is its name.
func (g *graph) peer(p drover.WireGuardView) graphql.Object {
	status := graphql.Object{Type: "WireGuardPeerStatus", Values: map[string]any{"endpoint": p.Endpoint, "live": !p.HandshakeAt.IsZero(),
		"rx": p.Received, "tx": p.Sent, "lastHandshake": nil, "sinceHandshake": nil}}
	if !p.HandshakeAt.IsZero() {
		status.Values["lastHandshake"], status.Values["sinceHandshake"] = p.HandshakeAt, g.h.now().Sub(p.HandshakeAt).String()
	}
	return graphql.Object{Type: "WireGuardPeer", Also: []string{"Node"}, Values: map[string]any{"id": p.Name, "name": p.Name, "pubkey": p.PublicKey, "region": string(p.Region),
		"peerip": p.Address, "network": p.Network, "gatewayStatus": status}}
}

// endpointIP is where a peer connects to, for clients that know the port: 51820.
func endpointIP(endpoint string) (string, error) {
	at, err := netip.ParseAddrPort(endpoint)
	if err != nil || at.Port() != 51820 {
		return "", drover.Errorf(drover.Precondition, "this client needs a host that is reached at an IP address and port 51820; it is at %q", endpoint).
			WithHint("'drover wireguard create' makes a configuration for every endpoint")
	}
	return at.Addr().String(), nil
}

func (g *graph) addPeer(in graphql.Args) (any, error) {
	req := apiv1.CreatePeerRequest{Name: in.String("name"), OrgSlug: in.String("organizationId"), Network: in.String("network"), PublicKey: in.String("pubkey"),
		Region: drover.Region(in.String("region"))}
	var p drover.WireGuardView
	if err := g.h.inside(g.c, http.MethodPost, prefix+"/wireguard_peers", req, &p); err != nil {
		return nil, err
	}
	endpoint, err := endpointIP(p.Endpoint)
	if err != nil {
		return nil, err
	}
	return payload(map[string]any{"peerip": p.Address, "endpointip": endpoint, "pubkey": p.EndpointKey}), nil
}

func (g *graph) removePeer(in graphql.Args) (any, error) {
	slug := in.String("organizationId")
	path := prefix + "/wireguard_peers/" + url.PathEscape(in.String("name")) + "?org_slug=" + url.QueryEscape(slug)
	if err := g.h.inside(g.c, http.MethodDelete, path, nil, nil); err != nil {
		return nil, err
	}
	return payload(map[string]any{"organization": g.organization(slug), "clientMutationId": in.String("clientMutationId")}), nil
}

// validatePeers names the addresses that are those of no peer any more.
func (g *graph) validatePeers(in graphql.Args) (any, error) {
	peers, err := g.peersOf("")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, p := range peers {
		known[p.Address] = true
	}
	invalid := []any{}
	asked, _ := in["peerIps"].([]any)
	for _, ip := range asked {
		if text, ok := ip.(string); ok && !known[text] {
			invalid = append(invalid, text)
		}
	}
	return payload(map[string]any{"invalidPeerIps": invalid}), nil
}
