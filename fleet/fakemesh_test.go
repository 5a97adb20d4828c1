package fleet

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	"drover"
	"drover/natsbus"
	"drover/route"
)

// fakeMesh is what a fake host believes of where machines are: it follows the fleet as the mesh of a host does, unless it is frozen.
type fakeMesh struct {
	mu     sync.Mutex
	table  *route.Table
	routes map[netip.Addr]netip.Addr
	digest drover.RoutesDigest
	// frozen is closed when news are taken in again; nil when they are.
	frozen chan struct{}
	// asked is how often the host was asked for all of it.
	asked int
}

// believer gives a host a mesh with a number.
func (w *world) believer(id drover.HostID, number uint64) *fakeMesh {
	w.t.Helper()
	a, err := drover.HostAddress(number)
	if err != nil {
		w.t.Fatal(err)
	}
	m := &fakeMesh{table: route.NewTable(), routes: map[netip.Addr]netip.Addr{}}
	h := w.hosts[id]
	h.mu.Lock()
	h.mesh, h.believes = &drover.HostMesh{Number: number, PrivateAddress: a.String()}, m
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	bus := natsbus.NewHostBus(w.connect(ctx, string(id)+"-mesh"), id)
	var group sync.WaitGroup
	w.t.Cleanup(func() { cancel(); group.Wait() })
	for _, follow := range []func() error{
		func() error {
			return bus.FollowPlacements(ctx, func(id drover.MachineID, p *drover.Placement) error {
				m.await(ctx)
				return m.take(id != "", func() []route.Route { return m.table.Place(id, p) })
			})
		},
		func() error {
			return bus.FollowMachines(ctx, func(id drover.MachineID, d *drover.Machine) error {
				return m.take(id != "", func() []route.Route { return m.table.Describe(id, d) })
			})
		},
		func() error {
			return bus.FollowHosts(ctx, func(id drover.HostID, i *drover.HostInfo) error {
				return m.take(id != "", func() []route.Route { return m.table.Meet(id, i) })
			})
		},
	} {
		group.Go(func() {
			if err := follow(); err != nil && ctx.Err() == nil {
				w.t.Error(err)
			}
		})
	}
	return m
}

func (m *fakeMesh) take(told bool, news func() []route.Route) error {
	if !told {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range news() {
		if old, had := m.routes[r.Machine]; had {
			m.digest = m.digest.Without(r.Machine, old)
			delete(m.routes, r.Machine)
		}
		if r.Host.IsValid() {
			m.digest = m.digest.With(r.Machine, r.Host)
			m.routes[r.Machine] = r.Host
		}
	}
	return nil
}

// freeze lets no more news of placements in, until thaw.
func (m *fakeMesh) freeze() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = make(chan struct{})
}

func (m *fakeMesh) thaw() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.frozen)
	m.frozen = nil
}

func (m *fakeMesh) await(ctx context.Context) {
	m.mu.Lock()
	frozen := m.frozen
	m.mu.Unlock()
	if frozen == nil {
		return
	}
	select {
	case <-frozen:
	case <-ctx.Done():
	}
}

// tells is the digest that its host tells; empty of a host without a mesh.
func (m *fakeMesh) tells() string {
	if m == nil {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.digest.String()
}

func (m *fakeMesh) list([]byte) (any, error) {
	if m == nil {
		return nil, drover.Errorf(drover.Precondition, "there is no mesh")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	answer := drover.MeshRoutesAnswer{}
	for machine, host := range m.routes {
		answer.Routes = append(answer.Routes, drover.MeshRoute{Machine: machine.String(), Host: host.String()})
	}
	return answer, nil
}

// conditionsOf lists the conditions of one code that a host has.
func conditionsOf(t *testing.T, n *node, id drover.HostID, code drover.ConditionCode) (found []drover.Condition) {
	t.Helper()
	h, err := n.Host(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range h.Conditions {
		if c.Code == code {
			found = append(found, c)
		}
	}
	return found
}
