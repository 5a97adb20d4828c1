package host

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"drover"
)

// routeRetry is how long the loop waits before it tries again what the kernel refused, or begins again to follow.
const routeRetry = 2 * time.Second

// router keeps the routes to machines of other hosts as the placements say. What this host has itself goes before what the fleet tells:
// the news of a placement may be late.
type router struct {
	agent *Agent
	wake  chan struct{}

	mu         sync.Mutex
	placements map[drover.MachineID]drover.Placement
	addresses  map[drover.MachineID]netip.Addr
	// gone are machines without a record that have an address still, until their route is removed.
	gone  map[drover.MachineID]bool
	hosts map[drover.HostID]netip.Addr
	// dirty are the machines whose route is to be looked at; known what the kernel has, as far as this process made or found it.
	dirty map[drover.MachineID]bool
	known map[netip.Addr]netip.Addr
	// heard are the lists that were told in full: when all were, routes that nobody wants are an earlier agent's.
	heard map[string]bool
}

func newRouter(a *Agent) *router {
	return &router{agent: a, wake: make(chan struct{}, 1), placements: map[drover.MachineID]drover.Placement{},
		addresses: map[drover.MachineID]netip.Addr{}, gone: map[drover.MachineID]bool{}, hosts: map[drover.HostID]netip.Addr{}, dirty: map[drover.MachineID]bool{}, heard: map[string]bool{}}
}

// routeLoop follows the fleet and keeps the routes, until ctx ends. While the bus is away the routes stay what they are.
func (a *Agent) routeLoop(ctx context.Context) {
	if a.cfg.Routes == nil {
		return
	}
	r := a.routes
	var group sync.WaitGroup
	for _, follow := range []func(context.Context) error{
		func(ctx context.Context) error { return a.cfg.Bus.FollowPlacements(ctx, r.placed) },
		func(ctx context.Context) error {
			return a.cfg.Bus.FollowMachines(ctx, func(id drover.MachineID, m *drover.Machine) error {
				return errors.Join(a.policies.described(id, m), r.addressed(id, m))
			})
		},
		func(ctx context.Context) error { return a.cfg.Bus.FollowHosts(ctx, r.met) },
	} {
		group.Go(func() {
			for ctx.Err() == nil {
				if err := follow(ctx); err != nil && ctx.Err() == nil {
					a.cfg.Log.Warn("cannot follow where machines are", "err", err)
				}
				pause(ctx, routeRetry)
			}
		})
	}
	for ctx.Err() == nil {
		if err := r.apply(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("a route to a machine of another host cannot be made; it is tried again", "err", err)
			pause(ctx, routeRetry)
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		}
	}
	group.Wait()
}

// touch makes the loop look at a machine's route.
func (r *router) touch(id drover.MachineID) {
	r.mu.Lock()
	r.dirty[id] = true
	r.mu.Unlock()
	r.kick()
}

func (r *router) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// all notes that a list was told in full.
func (r *router) all(list string) error {
	r.mu.Lock()
	r.heard[list] = true
	r.mu.Unlock()
	r.kick()
	return nil
}

func (r *router) placed(id drover.MachineID, p *drover.Placement) error {
	if id == "" {
		return r.all("placements")
	}
	r.mu.Lock()
	if p == nil {
		delete(r.placements, id)
	} else {
		r.placements[id] = *p
	}
	r.mu.Unlock()
	r.touch(id)
	return nil
}

// addressed takes in a machine's record. The address of one that is gone is kept until its route is.
func (r *router) addressed(id drover.MachineID, m *drover.Machine) error {
	if id == "" {
		return r.all("machines")
	}
	if m == nil {
		r.mu.Lock()
		r.gone[id] = true
		r.mu.Unlock()
		r.touch(id)
		return nil
	}
	address, err := netip.ParseAddr(m.Address)
	if err != nil || !address.Is6() {
		return nil
	}
	r.mu.Lock()
	r.addresses[id] = address
	delete(r.gone, id)
	r.mu.Unlock()
	r.touch(id)
	return nil
}

func (r *router) met(id drover.HostID, info *drover.HostInfo) error {
	switch id {
	case "":
		return r.all("hosts")
	case r.agent.cfg.ID:
		return nil
	}
	var address netip.Addr
	if info != nil && info.RouteAddress != "" {
		parsed, err := netip.ParseAddr(info.RouteAddress)
		if err != nil {
			r.agent.cfg.Log.Warn("a host tells an address that is none", "peer", string(id), "address", info.RouteAddress)
			return nil
		}
		address = parsed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hosts[id] == address {
		return nil
	}
	r.hosts[id] = address
	for machine, p := range r.placements {
		if p.Host == id {
			r.dirty[machine] = true
		}
	}
	r.kick()
	return nil
}

// apply makes the routes that changed what they should be. What it could not do stays to be done.
func (r *router) apply(ctx context.Context) error {
	if err := r.find(ctx); err != nil {
		return err
	}
	for {
		id, machine, via, ok := r.next()
		if !ok {
			return r.tidy(ctx)
		}
		if err := r.put(ctx, machine, via); err != nil {
			r.mu.Lock()
			r.dirty[id] = true
			r.mu.Unlock()
			return err
		}
	}
}

// find learns what an earlier agent left, once.
func (r *router) find(ctx context.Context) error {
	if r.known != nil {
		return nil
	}
	known, err := r.agent.cfg.Routes.List(ctx)
	if err != nil {
		return err
	}
	r.known = known
	return nil
}

// next takes a machine whose route is to be looked at, and tells what it should be: via is not valid for none.
func (r *router) next() (id drover.MachineID, machine, via netip.Addr, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id = range r.dirty {
		delete(r.dirty, id)
		address, known := r.addresses[id]
		if !known {
			delete(r.gone, id)
			continue // its record, which has the address, is still to come, or nobody needs it
		}
		p, placed := r.placements[id]
		switch {
		case !placed && r.gone[id]:
			delete(r.addresses, id)
			delete(r.gone, id)
		case !placed: // its placement is still to come, or its record is still to go
		case p.Host != r.agent.cfg.ID && !r.agent.owns(id, p.Epoch):
			via = r.hosts[p.Host]
		}
		return id, address, via, true
	}
	return "", machine, via, false
}

func (r *router) put(ctx context.Context, machine, via netip.Addr) error {
	have, had := r.known[machine]
	switch {
	case had && have == via, !had && !via.IsValid():
		return nil
	case !via.IsValid():
		if err := r.agent.cfg.Routes.Remove(ctx, machine); err != nil {
			return err
		}
		delete(r.known, machine)
		return nil
	}
	if err := r.agent.cfg.Routes.Set(ctx, machine, via); err != nil {
		return err
	}
	r.known[machine] = via
	return nil
}

// tidy removes the routes of an earlier agent to machines that are gone.
func (r *router) tidy(ctx context.Context) error {
	r.mu.Lock()
	wanted := map[netip.Addr]bool{}
	for id, address := range r.addresses {
		if _, placed := r.placements[id]; placed {
			wanted[address] = true
		}
	}
	due := len(r.heard) == 3
	r.mu.Unlock()
	if !due {
		return nil
	}
	for address := range r.known {
		if wanted[address] {
			continue
		}
		if err := r.agent.cfg.Routes.Remove(ctx, address); err != nil {
			return err
		}
		delete(r.known, address)
	}
	return nil
}

// owns reports whether this host has the machine by a placement that is newer than the epoch.
func (a *Agent) owns(id drover.MachineID, than drover.Epoch) bool {
	m, err := a.machine(id)
	if err != nil {
		return false
	}
	r := m.rec.Load()
	src := r.source()
	return r.Desired != nil && r.Desired.Epoch > than && r.Obs.Lost == nil && (src == nil || src.Moved == 0)
}
