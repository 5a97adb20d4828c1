package mesh

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// Table says by which host a machine is reached: machine addresses to hosts' private addresses. Safe for concurrent use.
type Table struct {
	mu     sync.RWMutex
	routes map[[16]byte][16]byte
	// users are the addresses of the persons' peers that connect to this host.
	users map[[16]byte]bool

	unknown, malformed atomic.Uint64
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{routes: map[[16]byte][16]byte{}, users: map[[16]byte]bool{}} }

// Set routes a machine by way of a host, from now on.
func (t *Table) Set(machine, host netip.Addr) {
	t.mu.Lock()
	t.routes[machine.As16()] = host.As16()
	t.mu.Unlock()
}

// Remove forgets a machine.
func (t *Table) Remove(machine netip.Addr) {
	t.mu.Lock()
	delete(t.routes, machine.As16())
	t.mu.Unlock()
}

// All returns a copy of the table.
func (t *Table) All() map[netip.Addr]netip.Addr {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make(map[netip.Addr]netip.Addr, len(t.routes))
	for machine, host := range t.routes {
		all[netip.AddrFrom16(machine)] = netip.AddrFrom16(host)
	}
	return all
}

// Dropped tells how many packets were for nobody that the table knows, and how many were not what they should be.
func (t *Table) Dropped() (unknown, malformed uint64) {
	return t.unknown.Load(), t.malformed.Load()
}

// lookupLocked finds the host for a destination. Hosts themselves are reached by their own address.
func (t *Table) lookupLocked(to [16]byte) (host [16]byte, ok bool) {
	if inFleetNetwork(to) {
		return to, true
	}
	host, ok = t.routes[to]
	return host, ok
}

// The tests of addresses that are made for each packet; see drover.PrivateNetworks and drover.FleetNetwork.
func private(a [16]byte) bool { return a[0] == 0xfd && a[1] == 0xaa }

func inFleetNetwork(a [16]byte) bool {
	return private(a) && a[2] == 0 && a[3] == 0 && a[4] == 0 && a[5] == 0
}
