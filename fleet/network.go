package fleet

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/natsbus"
)

// settleTime is how long news may take: what a host believes is stale when it still believes it that much later.
const settleTime = time.Second

// CheckNetwork asks every worker host how its mesh is and by which hosts it reaches machines, and compares that with the placements.
func (f *Fleet) CheckNetwork(ctx context.Context) (drover.NetworkCheck, error) {
	if err := f.await(ctx); err != nil {
		return drover.NetworkCheck{}, err
	}
	check := drover.NetworkCheck{OK: true}
	for _, h := range f.hostList() {
		if isWorker(h) {
			check.Hosts = append(check.Hosts, drover.NetworkHost{Host: h.ID})
		}
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i := range check.Hosts {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f.checkHost(ctx, &check.Hosts[i]); err != nil {
				check.Hosts[i].Problem = err.Error()
			}
		})
	}
	group.Wait()
	for _, h := range check.Hosts {
		bad := slices.ContainsFunc(h.Mesh.Links, func(l drover.MeshLink) bool { return l.Bad })
		check.OK = check.OK && h.Problem == "" && h.Mesh.Problem == "" && len(h.Stale) == 0 && !bad
	}
	return check, ctx.Err()
}

// checkHost fills in what one host believes.
func (f *Fleet) checkHost(ctx context.Context, h *drover.NetworkHost) error {
	if !f.reachable(h.Host) {
		return drover.Errorf(drover.Unavailable, "host %q does not answer", h.Host)
	}
	if err := f.order(ctx, f.timing.Apply, h.Host, drover.OrderMeshStatus, drover.Empty{}, &h.Mesh); err != nil {
		return err
	}
	var err error
	h.Stale, h.Checked, err = f.look(ctx, h.Host)
	return err
}

// staleRoutes compares what a host believes now with where machines are placed now.
func (f *Fleet) staleRoutes(ctx context.Context, host drover.HostID) ([]drover.StaleRoute, int, error) {
	var believed []drover.MeshRoute
	for page := (drover.MeshRoutesAnswer{More: true}); page.More; {
		req := drover.MeshRoutesRequest{}
		if len(believed) > 0 {
			req.After = believed[len(believed)-1].Machine
		}
		page = drover.MeshRoutesAnswer{}
		if err := f.order(ctx, f.timing.Apply, host, drover.OrderMeshRoutes, req, &page); err != nil {
			return nil, 0, err
		}
		believed = append(believed, page.Routes...)
	}
	expected, hosts := f.ways()
	return compareRoutes(believed, expected, hosts), len(expected), nil
}

// compareRoutes names what is believed and not so, and what is so and not believed.
func compareRoutes(believed []drover.MeshRoute, expected map[netip.Addr]way, hosts map[netip.Addr]drover.HostID) []drover.StaleRoute {
	var stale []drover.StaleRoute
	seen := map[netip.Addr]bool{}
	for _, b := range believed {
		address, err := netip.ParseAddr(b.Machine)
		via, viaErr := netip.ParseAddr(b.Host)
		want := expected[address]
		seen[address] = true
		if err == nil && viaErr == nil && want.via == via {
			continue
		}
		who := b.Host
		if id, ok := hosts[via]; ok {
			who = string(id)
		}
		stale = append(stale, drover.StaleRoute{Machine: want.machine, Address: b.Machine, Believed: who, Placed: want.host, Since: want.since})
	}
	for address, want := range expected {
		if !seen[address] {
			stale = append(stale, drover.StaleRoute{Machine: want.machine, Address: address.String(), Placed: want.host, Since: want.since})
		}
	}
	slices.SortFunc(stale, func(a, b drover.StaleRoute) int { return cmp.Compare(a.Address, b.Address) })
	return stale
}

// ways are where packets for each machine should go, by its address, and which hosts have which private addresses.
func (f *Fleet) ways() (map[netip.Addr]way, map[netip.Addr]drover.HostID) {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	r := f.state.routing
	expected, hosts := make(map[netip.Addr]way, len(r.ways)), make(map[netip.Addr]drover.HostID, len(r.addresses))
	for _, w := range r.ways {
		expected[w.address] = w
	}
	for id, a := range r.addresses {
		hosts[a] = id
	}
	return expected, hosts
}

// ReleaseHost takes a host's name away from it, so that another may join with it. Precondition while the host is heard: it would be cut off.
func (f *Fleet) ReleaseHost(ctx context.Context, host drover.HostID) (drover.HostIdentity, error) {
	if err := f.await(ctx); err != nil {
		return drover.HostIdentity{}, err
	}
	id, rev, err := f.state.identities.get(ctx, string(host))
	if drover.Is(err, drover.NotFound) {
		return id, drover.Errorf(drover.NotFound, "no host has joined with the name %q", host).WithField("host")
	}
	if err != nil {
		return id, err
	}
	if f.reachable(host) {
		return id, drover.Errorf(drover.Precondition, "host %q is heard: its name is its own", host).
			WithHint("switch it off first, if another host is to have the name")
	}
	// The key goes first: cut between the two, the name is still the host's, and this can be asked again.
	for _, key := range []string{id.PublicKey, id.NextKey} {
		if key == "" {
			continue
		}
		if err := f.state.identities.remove(ctx, natsbus.KeyOwner(key), 0); err != nil && !drover.Is(err, drover.NotFound) {
			return id, err
		}
	}
	return id, f.state.identities.remove(ctx, string(host), rev)
}

// RotateKey lets a host get another key. While it is getting one, that is what is told of.
func (f *Fleet) RotateKey(ctx context.Context, host drover.HostID, by string, people bool) (key drover.MeshKey, err error) {
	if err := f.await(ctx); err != nil {
		return key, err
	}
	if err := f.meshHost(host); err != nil {
		return key, err
	}
	return key, f.order(ctx, f.timing.Apply, host, drover.OrderMeshRotate, drover.MeshRotateRequest{By: by, People: people}, &key)
}

// CancelKey lets a host keep the key that it has. Precondition when it is about to have no other.
func (f *Fleet) CancelKey(ctx context.Context, host drover.HostID, by string) (key drover.MeshKey, err error) {
	if err := f.await(ctx); err != nil {
		return key, err
	}
	if err := f.meshHost(host); err != nil {
		return key, err
	}
	return key, f.order(ctx, f.timing.Apply, host, drover.OrderMeshCancel, drover.MeshCancelRequest{By: by}, &key)
}

// HostKey tells of a host's key, as the host says.
func (f *Fleet) HostKey(ctx context.Context, host drover.HostID) (drover.MeshKey, error) {
	var s drover.MeshStatus
	if err := f.await(ctx); err != nil {
		return drover.MeshKey{}, err
	}
	if err := f.meshHost(host); err != nil {
		return drover.MeshKey{}, err
	}
	if err := f.order(ctx, f.timing.Apply, host, drover.OrderMeshStatus, drover.Empty{}, &s); err != nil {
		return drover.MeshKey{}, err
	}
	if s.Key == nil {
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "host %q has no key yet: %s", host, s.Problem)
	}
	return *s.Key, nil
}

// meshHost says why a host cannot be asked about its mesh.
func (f *Fleet) meshHost(host drover.HostID) error {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	h, known := f.hostLocked(host)
	switch {
	case !known:
		return drover.Errorf(drover.NotFound, "host %q is not known", host).WithField("host").WithHint("'drover host list' shows the hosts")
	case !isWorker(h):
		return drover.Errorf(drover.Precondition, "host %q is no worker: it has no mesh", host).WithField("host")
	}
	return nil
}

// dropLinksToDeadLocked leaves out what a host says of its links to hosts that are unreachable: that is those hosts' condition, not this one's.
func (f *Fleet) dropLinksToDeadLocked(all []drover.Condition) []drover.Condition {
	return slices.DeleteFunc(all, func(c drover.Condition) bool {
		return c.Code == drover.MeshLinkBad && f.hostStatusLocked(drover.HostID(c.Subject)) == drover.HostUnreachable
	})
}

// serveIdentities lets hosts join until ctx ends.
func (f *Fleet) serveIdentities(ctx context.Context) {
	for ctx.Err() == nil {
		err := natsbus.ServeIdentities(ctx, f.conn)
		if ctx.Err() == nil {
			f.log.Warn("no host can join for a moment", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.timing.Repair):
		}
	}
}
