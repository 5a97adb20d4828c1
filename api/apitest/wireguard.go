package apitest

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/fleet"
)

// CreatePeer gives each peer an address after the last one's.
func (b *Backend) CreatePeer(_ context.Context, req fleet.NewPeer) (drover.WireGuardView, error) {
	if err := b.begin("CreatePeer"); err != nil {
		return drover.WireGuardView{}, err
	}
	defer b.mu.Unlock()
	for i, p := range b.peers {
		switch {
		case p.Organization == req.Organization && p.Name == req.Name && p.PublicKey == req.PublicKey:
			return b.peers[i], nil
		case p.Organization == req.Organization && p.Name == req.Name:
			return drover.WireGuardView{}, drover.Errorf(drover.Exists, "organization %q has a peer %q with another key or network", req.Organization, req.Name).WithField("name")
		}
	}
	host := b.hosts[0]
	for _, h := range b.hosts {
		if h.ID == req.Host || req.Host == "" && h.Region == req.Region {
			host = h
		}
	}
	b.count++
	address := fmt.Sprintf("fdaa:0:1:0:%x::2", b.count)
	v := drover.WireGuardView{WireGuardPeer: drover.WireGuardPeer{Name: req.Name, Organization: req.Organization, Network: req.Network, PublicKey: req.PublicKey,
		Address: address, Host: host.ID, CreatedAt: b.Now()},
		Region: host.Region, Endpoint: "192.0.2.1:51820", EndpointKey: "aG9zdCBrZXkgaG9zdCBrZXkgaG9zdCBrZXkgaG9zdCE=", AllowedIPs: []string{"fdaa:0:1::/48", "fdaa::3/128"},
		DNS: "fdaa::3", MTU: 1380}
	b.peers = append(b.peers, v)
	return v, nil
}

// Peers lists by name.
func (b *Backend) Peers(_ context.Context, organization string) ([]drover.WireGuardView, error) {
	if err := b.begin("Peers"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	all := []drover.WireGuardView{}
	for _, p := range b.peers {
		if organization == "" || p.Organization == organization {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(x, y drover.WireGuardView) int { return cmp.Compare(x.Name, y.Name) })
	return all, nil
}

// Peer finds one.
func (b *Backend) Peer(_ context.Context, organization, name string) (drover.WireGuardView, error) {
	if err := b.begin("Peer"); err != nil {
		return drover.WireGuardView{}, err
	}
	defer b.mu.Unlock()
	i, err := b.peerLocked(organization, name)
	if err != nil {
		return drover.WireGuardView{}, err
	}
	return b.peers[i], nil
}

func (b *Backend) peerLocked(organization, name string) (int, error) {
	for i, p := range b.peers {
		if p.Organization == organization && p.Name == name {
			return i, nil
		}
	}
	return 0, drover.Errorf(drover.NotFound, "organization %q has no peer %q", organization, name)
}

// MovePeer goes to the host that is named, or to the last one.
func (b *Backend) MovePeer(_ context.Context, organization, name string, host drover.HostID, _ drover.Region) (drover.WireGuardView, error) {
	if err := b.begin("MovePeer"); err != nil {
		return drover.WireGuardView{}, err
	}
	defer b.mu.Unlock()
	i, err := b.peerLocked(organization, name)
	if err != nil {
		return drover.WireGuardView{}, err
	}
	b.peers[i].Host = cmp.Or(host, b.hosts[len(b.hosts)-1].ID)
	b.peers[i].Endpoint = "192.0.2.2:51820"
	return b.peers[i], nil
}

// RemovePeer forgets one.
func (b *Backend) RemovePeer(_ context.Context, organization, name string) (drover.WireGuardView, error) {
	if err := b.begin("RemovePeer"); err != nil {
		return drover.WireGuardView{}, err
	}
	defer b.mu.Unlock()
	i, err := b.peerLocked(organization, name)
	if err != nil {
		return drover.WireGuardView{}, err
	}
	p := b.peers[i]
	b.peers = slices.Delete(b.peers, i, i+1)
	return p, nil
}
