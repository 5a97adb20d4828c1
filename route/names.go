package route

import (
	"net/netip"

	"drover"
)

// View is a network as its machines see it: those that are started, and nothing of any other network. It holds the table: use it for one question.
type View struct {
	table   *Table
	network netip.Prefix
	apps    map[drover.AppName]map[drover.MachineID]*Machine
}

// Look calls fn with the network's view. fn must neither keep it nor change the table.
func (t *Table) Look(network netip.Prefix, fn func(View)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	fn(View{t, network, t.networks[network]})
}

// Has reports whether the network has an app with machines, started or not.
func (v View) Has(app drover.AppName) bool { return len(v.apps[app]) > 0 }

// Each calls fn with every started machine of an app, in no order, until it returns false. Those that run a release command are left out: they serve nobody.
func (v View) Each(app drover.AppName, fn func(m *Machine, region drover.Region) bool) {
	for _, m := range v.apps[app] {
		if m.Started && m.Host != "" && m.Process() != drover.ReleaseGroup && !fn(m, v.region(m)) {
			return
		}
	}
}

// Find returns a started machine of an app by its ID.
func (v View) Find(app drover.AppName, id drover.MachineID) (*Machine, bool) {
	m, ok := v.apps[app][id]
	return m, ok && m.Started && m.Host != ""
}

// At returns the started machine of the network that has an address.
func (v View) At(address netip.Addr) (*Machine, bool) {
	for _, machines := range v.apps {
		for _, m := range machines {
			if m.Address == address {
				return m, m.Started && m.Host != ""
			}
		}
	}
	return nil, false
}

// Apps calls fn with every app of the network.
func (v View) Apps(fn func(drover.AppName)) {
	for app := range v.apps {
		fn(app)
	}
}

// region is where a machine is: its host's.
func (v View) region(m *Machine) drover.Region {
	if h, ok := v.table.hosts[m.Host]; ok {
		return h.Region
	}
	return m.Region
}
