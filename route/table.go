package route

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"drover"
)

// Machine is what the network has to know of one.
type Machine struct {
	ID  drover.MachineID `json:"id"`
	App drover.AppName   `json:"app,omitempty"`
	// Address is not valid while only its placement is known.
	Address netip.Addr        `json:"address,omitzero"`
	Region  drover.Region     `json:"region,omitempty"`
	Meta    map[string]string `json:"metadata,omitempty"`
	// Host is empty for a machine without a placement.
	Host    drover.HostID `json:"host,omitempty"`
	Epoch   drover.Epoch  `json:"epoch,omitempty"`
	Started bool          `json:"started,omitempty"`
}

// Process is the name of the group of processes that the machine runs.
func (m Machine) Process() string {
	return cmp.Or(m.Meta["fly_process_group"], m.Meta["process_group"], "app")
}

// Host is what the network has to know of one.
type Host struct {
	ID     drover.HostID    `json:"id"`
	Region drover.Region    `json:"region"`
	Mesh   *drover.HostMesh `json:"mesh,omitempty"`
}

// Table is where everything is. Safe for concurrent use.
type Table struct {
	mu       sync.RWMutex
	machines map[drover.MachineID]*Machine
	hosts    map[drover.HostID]Host
	peers    map[string]Peer
	// networks has the machines with an address by network and app.
	networks map[netip.Prefix]map[drover.AppName]map[drover.MachineID]*Machine
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{machines: map[drover.MachineID]*Machine{}, hosts: map[drover.HostID]Host{}, peers: map[string]Peer{}, networks: map[netip.Prefix]map[drover.AppName]map[drover.MachineID]*Machine{}}
}

// Route is what is to be done with packets for an address: they go to a host's private address, which is not valid when they go nowhere.
type Route struct{ Machine, Host netip.Addr }

// Place takes in a placement, nil for none. It returns the routes that are different now.
func (t *Table) Place(id drover.MachineID, p *drover.Placement) []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changeLocked(id, func(m *Machine) {
		m.Host, m.Epoch = "", 0
		if p != nil {
			m.Host, m.Epoch = p.Host, p.Epoch
		}
	})
}

// Describe takes in a machine's record, nil when it is gone.
func (t *Table) Describe(id drover.MachineID, d *drover.Machine) []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changeLocked(id, func(m *Machine) {
		m.App, m.Address, m.Region, m.Meta = "", netip.Addr{}, "", nil
		if d == nil {
			return
		}
		m.App, m.Region, m.Meta = d.App, d.Region, maps.Clone(d.Config.Metadata)
		if a, err := netip.ParseAddr(d.Address); err == nil && drover.NetworkOf(a).IsValid() {
			m.Address = a
		}
	})
}

// Observe takes in a machine's state, nil when there is none.
func (t *Table) Observe(id drover.MachineID, s *drover.MachineStatus) []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changeLocked(id, func(m *Machine) { m.Started = s != nil && s.State == drover.StateStarted })
}

// changeLocked changes a machine and what is derived of it. One of which nothing is known any more is forgotten.
func (t *Table) changeLocked(id drover.MachineID, change func(*Machine)) []Route {
	m, ok := t.machines[id]
	if !ok {
		m = &Machine{ID: id}
		t.machines[id] = m
	}
	old := *m
	change(m)
	if old.Address != m.Address || old.App != m.App {
		t.unindexLocked(old)
		t.indexLocked(m)
	}
	if m.App == "" && m.Host == "" && !m.Started && !m.Address.IsValid() {
		delete(t.machines, id)
	}
	var changed []Route
	before, after := t.routeLocked(old), t.routeLocked(*m)
	if before.Machine != after.Machine && before.Machine.IsValid() {
		changed = append(changed, Route{Machine: before.Machine})
	}
	if after.Machine.IsValid() && before != after {
		changed = append(changed, after)
	}
	return changed
}

func (t *Table) routeLocked(m Machine) Route {
	return Route{Machine: m.Address, Host: t.hostAddressLocked(m.Host)}
}

func (t *Table) hostAddressLocked(id drover.HostID) netip.Addr {
	h := t.hosts[id]
	if h.Mesh == nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(h.Mesh.PrivateAddress)
	if err != nil || drover.NetworkOf(a) != drover.FleetNetwork() {
		return netip.Addr{}
	}
	return a
}

func (t *Table) indexLocked(m *Machine) {
	if !m.Address.IsValid() {
		return
	}
	network := drover.NetworkOf(m.Address)
	if t.networks[network] == nil {
		t.networks[network] = map[drover.AppName]map[drover.MachineID]*Machine{}
	}
	if t.networks[network][m.App] == nil {
		t.networks[network][m.App] = map[drover.MachineID]*Machine{}
	}
	t.networks[network][m.App][m.ID] = m
}

func (t *Table) unindexLocked(m Machine) {
	if !m.Address.IsValid() {
		return
	}
	network := drover.NetworkOf(m.Address)
	delete(t.networks[network][m.App], m.ID)
	if len(t.networks[network][m.App]) == 0 {
		delete(t.networks[network], m.App)
	}
	if len(t.networks[network]) == 0 {
		delete(t.networks, network)
	}
}

// Meet takes in a host, nil when it is gone. It returns the routes that are different now.
func (t *Table) Meet(id drover.HostID, info *drover.HostInfo) []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.hostAddressLocked(id)
	if info == nil {
		delete(t.hosts, id)
	} else {
		t.hosts[id] = Host{ID: id, Region: info.Region, Mesh: info.Mesh}
	}
	if t.hostAddressLocked(id) == before {
		return nil
	}
	var changed []Route
	for _, m := range t.machines {
		if m.Host == id && m.Address.IsValid() {
			changed = append(changed, t.routeLocked(*m))
		}
	}
	for _, p := range t.peers {
		if p.Host == id {
			changed = append(changed, t.wayLocked(p))
		}
	}
	return changed
}

// Hosts lists the hosts by name.
func (t *Table) Hosts() []Host {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.hosts), func(a, b Host) int { return cmp.Compare(a.ID, b.ID) })
}

// Machines lists the machines by name.
func (t *Table) Machines() []Machine {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Machine, 0, len(t.machines))
	for _, m := range t.machines {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b Machine) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Load fills an empty table with what another one had, and returns all routes.
func (t *Table) Load(hosts []Host, machines []Machine, peers []Peer) []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range hosts {
		t.hosts[h.ID] = h
	}
	var routes []Route
	for _, m := range machines {
		m.Meta = maps.Clone(m.Meta)
		t.machines[m.ID] = &m
		t.indexLocked(&m)
		if r := t.routeLocked(m); r.Machine.IsValid() {
			routes = append(routes, r)
		}
	}
	for _, p := range peers {
		t.peers[p.Key] = p
		routes = append(routes, t.wayLocked(p))
	}
	return routes
}
