package fleet

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"sync"

	"drover"
	"drover/natsbus"
	"drover/plan"
)

// maxPeers is how many peers an organization may have: each is a key on a host and an entry on all of them.
const maxPeers = 1000

// NewPeer asks for a person's peer. Host and Region say where it is to connect to; both empty is anywhere.
type NewPeer struct {
	Name, Organization, Network string
	PublicKey                   string
	Host                        drover.HostID
	Region                      drover.Region
}

func (r NewPeer) check() error {
	var p problems
	for _, n := range []struct{ what, field, name string }{{"peer", "name", r.Name}, {"organization", "org_slug", r.Organization}} {
		if !drover.ValidName(n.name) {
			p = append(p, badName(n.what, n.name).WithField(n.field))
		}
	}
	if r.Network != "" && !drover.ValidName(r.Network) {
		p = append(p, badName("network", r.Network).WithField("network"))
	}
	if raw, err := base64.StdEncoding.DecodeString(r.PublicKey); err != nil || len(raw) != 32 || base64.StdEncoding.EncodeToString(raw) != r.PublicKey {
		p.add("public_key", "%q is not a WireGuard public key: 32 bytes in base64, as 'wg pubkey' prints it", r.PublicKey)
	}
	return p.err()
}

// CreatePeer lets a person's WireGuard client into a network. The same request again answers the same peer. Exists when the name or the key is another's.
func (f *Fleet) CreatePeer(ctx context.Context, req NewPeer) (drover.WireGuardView, error) {
	var none drover.WireGuardView
	if err := f.await(ctx); err != nil {
		return none, err
	}
	if req.Organization == "" {
		req.Organization = f.cfg.Organization
	}
	if err := req.check(); err != nil {
		return none, err
	}
	key := natsbus.PeerKey(req.Organization, req.Name)
	taken := drover.Errorf(drover.Exists, "organization %q has a peer %q with another key or network", req.Organization, req.Name).WithField("name").
		WithHint("choose another name, or remove it first: drover wireguard remove %s", req.Name)
	have, _, err := f.state.peers.get(ctx, key)
	switch {
	case err == nil && have.PublicKey == req.PublicKey && have.Network == req.Network:
		return f.confirmPeer(ctx, have)
	case err == nil:
		return none, taken
	case !drover.Is(err, drover.NotFound):
		return none, err
	}
	if n := len(f.peersOf(req.Organization)); n >= maxPeers {
		return none, drover.Errorf(drover.Exhausted, "organization %q has %d peers, which is the most", req.Organization, n).
			WithHint("remove some that are not used: 'drover wireguard list' shows when each was last seen")
	}
	p := drover.WireGuardPeer{Name: req.Name, Organization: req.Organization, Network: req.Network, PublicKey: req.PublicKey, CreatedAt: f.now().UTC()}
	if p.Host, err = f.peerHost(req.Host, req.Region, ""); err != nil {
		return none, err
	}
	if err := f.claimPeerKey(ctx, p); err != nil {
		return none, err
	}
	if p.Address, err = f.newAddress(ctx, drover.App{Organization: p.Organization, Network: p.Network}); err != nil {
		return none, err
	}
	if _, err := f.state.peers.create(ctx, key, p); err != nil {
		if drover.Is(err, drover.Exists) {
			return none, taken
		}
		return none, err
	}
	return f.confirmPeer(ctx, p)
}

// confirmPeer takes a peer back whose key a host has claimed while it was made. The host, if it sees the peer, does the same.
func (f *Fleet) confirmPeer(ctx context.Context, p drover.WireGuardPeer) (drover.WireGuardView, error) {
	err := f.notAHosts(ctx, p.PublicKey)
	if drover.Is(err, drover.Exists) {
		if _, rerr := f.RemovePeer(ctx, p.Organization, p.Name); rerr != nil && !drover.Is(rerr, drover.NotFound) {
			return drover.WireGuardView{}, rerr
		}
	}
	if err != nil {
		return drover.WireGuardView{}, err
	}
	return f.peerView(p), nil
}

// keyUsed is why a key cannot be a peer's.
func keyUsed() *drover.Error {
	return drover.Errorf(drover.Exists, "the public key is used by another peer or host").WithField("public_key").WithHint("make a new one: wg genkey | wg pubkey")
}

// notAHosts is Exists for a key that a host has, had, or is about to have.
func (f *Fleet) notAHosts(ctx context.Context, publicKey string) error {
	_, _, err := f.state.identities.bucket.GetConfirmed(ctx, natsbus.KeyOwner(publicKey))
	switch {
	case err == nil:
		return keyUsed()
	case drover.Is(err, drover.NotFound):
		return nil
	}
	return err
}

// claimPeerKey notes whose a key is, before any host is told: one key at two peers would be two ends of one tunnel, and a host's key is a host's.
func (f *Fleet) claimPeerKey(ctx context.Context, p drover.WireGuardPeer) error {
	used := keyUsed()
	owner := natsbus.KeyOwner(p.PublicKey)
	if err := f.notAHosts(ctx, p.PublicKey); err != nil {
		return err
	}
	_, err := f.state.peers.create(ctx, owner, p)
	if !drover.Is(err, drover.Exists) {
		return err
	}
	have, rev, err := f.state.peers.get(ctx, owner)
	if err != nil {
		return err
	}
	if have.Organization != p.Organization || have.Name != p.Name {
		// Its peer may be gone: the key is then free.
		other, _, err := f.state.peers.get(ctx, natsbus.PeerKey(have.Organization, have.Name))
		if err == nil && other.PublicKey == p.PublicKey {
			return used
		}
		if err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	_, err = f.state.peers.update(ctx, owner, p, rev)
	return err
}

// peerHost chooses where a peer connects to: the host that is named, else the one with the fewest peers of those that are well. but is left out.
func (f *Fleet) peerHost(host drover.HostID, region drover.Region, but drover.HostID) (drover.HostID, error) {
	load := map[drover.HostID]int{}
	for _, i := range f.state.peers.snapshot() {
		load[i.value.Host]++
	}
	if known := f.regions(); region != "" && !slices.Contains(known, region) {
		return "", plan.UnknownRegion(region, known)
	}
	best, least := drover.HostID(""), 0
	for _, h := range f.hostList() {
		if host != "" && h.ID != host {
			continue
		}
		why := ""
		switch {
		case h.Mesh == nil:
			why = "has no mesh"
		case !f.reachable(h.ID):
			why = "does not answer"
		case region != "" && h.Region != region:
			why = fmt.Sprintf("is in region %q", h.Region)
		case host == "":
			why = f.closed(h.ID)
		}
		if why != "" || h.ID == but && host == "" {
			if host != "" {
				return "", drover.Errorf(drover.Precondition, "a peer cannot connect to host %q: it %s", host, why).WithField("host")
			}
			continue
		}
		if best == "" || load[h.ID] < least {
			best, least = h.ID, load[h.ID]
		}
	}
	switch {
	case best == "" && host != "":
		return "", drover.Errorf(drover.NotFound, "host %q is not known", host).WithField("host")
	case best == "":
		return "", drover.Errorf(drover.Unavailable, "no host is there for a peer to connect to").WithHint("hosts need a mesh (docs/NETWORK.md), must answer, and must not be cordoned")
	}
	return best, nil
}

// MovePeer lets a peer connect to another host, with its address and key. Where it connected before it is shut out at once.
func (f *Fleet) MovePeer(ctx context.Context, organization, name string, host drover.HostID, region drover.Region) (drover.WireGuardView, error) {
	var none drover.WireGuardView
	if err := f.await(ctx); err != nil {
		return none, err
	}
	for range casTries {
		p, rev, err := f.peer(ctx, organization, name)
		if err != nil {
			return none, err
		}
		if p.Host, err = f.peerHost(host, region, p.Host); err != nil {
			return none, err
		}
		_, err = f.state.peers.update(ctx, natsbus.PeerKey(p.Organization, p.Name), p, rev)
		if err == nil {
			return f.peerView(p), nil
		}
		if !drover.Is(err, drover.Conflict) {
			return none, err
		}
	}
	return none, drover.Errorf(drover.Conflict, "peer %q was changed by others again and again", name)
}

// RemovePeer shuts a person's peer out of its network for good; every host hears of it at once.
func (f *Fleet) RemovePeer(ctx context.Context, organization, name string) (drover.WireGuardView, error) {
	if err := f.await(ctx); err != nil {
		return drover.WireGuardView{}, err
	}
	p, rev, err := f.peer(ctx, organization, name)
	if err != nil {
		return drover.WireGuardView{}, err
	}
	if err := f.state.peers.remove(ctx, natsbus.PeerKey(p.Organization, p.Name), rev); err != nil {
		return drover.WireGuardView{}, err
	}
	// Cut here, the key is free all the same: its peer is gone.
	owner := natsbus.KeyOwner(p.PublicKey)
	if have, rev, err := f.state.peers.get(ctx, owner); err == nil && have.Name == p.Name && have.Organization == p.Organization {
		err = f.state.peers.remove(ctx, owner, rev)
		if err != nil && !drover.Is(err, drover.NotFound) && !drover.Is(err, drover.Conflict) {
			f.log.Warn("the key of a removed peer is still noted", "peer", p.Name, "err", err)
		}
	}
	return f.peerView(p), nil
}

// peer reads one peer. A peer of another organization is as unknown as one that does not exist.
func (f *Fleet) peer(ctx context.Context, organization, name string) (drover.WireGuardPeer, uint64, error) {
	organization = cmp.Or(organization, f.cfg.Organization)
	unknown := drover.Errorf(drover.NotFound, "organization %q has no peer %q", organization, name).WithHint("'drover wireguard list' shows the peers that there are")
	if !drover.ValidName(name) || !drover.ValidName(organization) {
		return drover.WireGuardPeer{}, 0, unknown
	}
	p, rev, err := f.state.peers.get(ctx, natsbus.PeerKey(organization, name))
	if drover.Is(err, drover.NotFound) {
		err = unknown
	}
	return p, rev, err
}

// Peer describes one peer, with what its host has seen of it.
func (f *Fleet) Peer(ctx context.Context, organization, name string) (drover.WireGuardView, error) {
	if err := f.await(ctx); err != nil {
		return drover.WireGuardView{}, err
	}
	p, _, err := f.peer(ctx, organization, name)
	if err != nil {
		return drover.WireGuardView{}, err
	}
	all := []drover.WireGuardView{f.peerView(p)}
	f.lookAtPeers(ctx, all)
	return all[0], nil
}

// Peers lists the peers of an organization by name, of all when it is empty.
func (f *Fleet) Peers(ctx context.Context, organization string) ([]drover.WireGuardView, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	all := []drover.WireGuardView{}
	for _, p := range f.peersOf(organization) {
		all = append(all, f.peerView(p))
	}
	f.lookAtPeers(ctx, all)
	return all, nil
}

func (f *Fleet) peersOf(organization string) []drover.WireGuardPeer {
	var all []drover.WireGuardPeer
	for key, i := range f.state.peers.snapshot() {
		if natsbus.IsPeerKey(key) && (organization == "" || i.value.Organization == organization) {
			all = append(all, i.value)
		}
	}
	slices.SortFunc(all, func(a, b drover.WireGuardPeer) int {
		return cmp.Or(cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// peerView adds what the peer's end has to know.
func (f *Fleet) peerView(p drover.WireGuardPeer) drover.WireGuardView {
	v := drover.WireGuardView{WireGuardPeer: p, DNS: drover.ResolverAddress().String(), AllowedIPs: []string{drover.ResolverAddress().String() + "/128"}}
	if a, err := drover.ParsePrivate(p.Address); err == nil {
		v.AllowedIPs = append([]string{drover.NetworkOf(a).String()}, v.AllowedIPs...)
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	h, known := f.hostLocked(p.Host)
	switch {
	case !known || h.Mesh == nil:
		v.Problem = fmt.Sprintf("host %q is gone", p.Host)
	case f.hostStatusLocked(p.Host) != drover.HostOK:
		v.Problem = fmt.Sprintf("host %q does not answer", p.Host)
	}
	if v.Problem != "" {
		v.Problem += ": let the peer connect to another: drover wireguard move " + p.Name
	}
	if known && h.Mesh != nil {
		v.Region, v.EndpointKey, v.MTU = h.Region, cmp.Or(h.Mesh.PeopleKey, h.Mesh.PublicKey), h.Mesh.MTU
		v.Endpoint = cmp.Or(h.Mesh.Public, h.Mesh.Endpoint)
	}
	return v
}

// lookAtPeers asks the hosts what they have seen, all at once.
func (f *Fleet) lookAtPeers(ctx context.Context, all []drover.WireGuardView) {
	byHost := map[drover.HostID][]*drover.WireGuardView{}
	for i := range all {
		if all[i].Problem == "" {
			byHost[all[i].Host] = append(byHost[all[i].Host], &all[i])
		}
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for host, views := range byHost {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var answer drover.MeshPeersAnswer
			err := f.order(ctx, f.timing.Apply, host, drover.OrderMeshPeers, drover.Empty{}, &answer)
			for _, v := range views {
				if err != nil {
					v.Problem = fmt.Sprintf("host %q does not tell what it has seen: %v", host, err)
					continue
				}
				for _, seen := range answer.Peers {
					if seen.PublicKey == v.PublicKey {
						v.HandshakeAt, v.Received, v.Sent = seen.HandshakeAt, seen.Received, seen.Sent
					}
				}
			}
		})
	}
	group.Wait()
}
