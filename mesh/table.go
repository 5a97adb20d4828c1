package mesh

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"drover"
)

// Table says by which host a machine is reached: machine addresses to hosts' private addresses. Safe for concurrent use.
type Table struct {
	mu     sync.RWMutex
	routes map[[16]byte]*hop
	// digest stands for the routes.
	digest drover.RoutesDigest
	// hops are the hosts.
	hops map[[16]byte]*hop
	// users are the addresses of the persons' peers that connect to this host, people the end that they connect to.
	users  map[[16]byte]bool
	people *end
	// ends are those by which hosts are reached, by the slots of their keys.
	ends [2]*end

	unknown, malformed atomic.Uint64
}

// hop is how packets go to a host: to which of its outer addresses, by which end of this host.
type hop struct {
	host, to [16]byte
	// by is nil for a host that is no peer yet.
	by *end
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{routes: map[[16]byte]*hop{}, hops: map[[16]byte]*hop{}, users: map[[16]byte]bool{}}
}

// Set routes a machine by way of a host, from now on.
func (t *Table) Set(machine, host netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hopLocked(host.As16())
	if t.routes[machine.As16()] == h {
		return
	}
	t.removeLocked(machine)
	t.routes[machine.As16()] = h
	t.digest = t.digest.With(machine, host)
}

// Remove forgets a machine.
func (t *Table) Remove(machine netip.Addr) {
	t.mu.Lock()
	t.removeLocked(machine)
	t.mu.Unlock()
}

func (t *Table) removeLocked(machine netip.Addr) {
	if h := t.routes[machine.As16()]; h != nil {
		t.digest = t.digest.Without(machine, netip.AddrFrom16(h.host))
		delete(t.routes, machine.As16())
	}
}

// Digest tells how many routes there are, and what stands for all of them.
func (t *Table) Digest() (int, drover.RoutesDigest) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.routes), t.digest
}

// All returns a copy of the table.
func (t *Table) All() map[netip.Addr]netip.Addr {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make(map[netip.Addr]netip.Addr, len(t.routes))
	for machine, h := range t.routes {
		all[netip.AddrFrom16(machine)] = netip.AddrFrom16(h.host)
	}
	return all
}

// Dropped tells how many packets were for nobody that the table knows, and how many were not what they should be.
func (t *Table) Dropped() (unknown, malformed uint64) {
	return t.unknown.Load(), t.malformed.Load()
}

// hopLocked finds how packets go to a host, or makes it up: by the address that it has for life.
func (t *Table) hopLocked(host [16]byte) *hop {
	h := t.hops[host]
	if h == nil {
		h = &hop{host: host, to: host}
		t.hops[host] = h
	}
	return h
}

// goTo lets packets for a host go to one of its outer addresses, by an end of this host.
func (t *Table) goTo(host, to [16]byte, by *end) {
	t.mu.Lock()
	h := t.hopLocked(host)
	h.to, h.by = to, by
	t.mu.Unlock()
}

// dropHop forgets how a host is reached. What is routed by it goes nowhere until it is a peer again.
func (t *Table) dropHop(host netip.Addr) {
	t.mu.Lock()
	if h := t.hops[host.As16()]; h != nil {
		h.to, h.by = h.host, nil
	}
	t.mu.Unlock()
}

// lookupLocked finds how a packet goes; nil when it goes nowhere. Hosts themselves are reached by their own address, and by those that stand for a pair of keys.
func (t *Table) lookupLocked(from, to *[16]byte) *hop {
	if !inFleetNetwork(*to) {
		return t.routes[*to]
	}
	if !isPair(*from) || !isPair(*to) {
		return t.hops[*to]
	}
	host, by := hostOf(*to), t.ends[from[15]&1]
	if by == nil {
		return nil
	}
	return &hop{host: host, to: addressAs(host, uint64(to[15]&1)), by: by}
}

// The tests of addresses that are made for each packet; see drover.PrivateNetworks and drover.FleetNetwork.
func private(a [16]byte) bool { return a[0] == 0xfd && a[1] == 0xaa }

func inFleetNetwork(a [16]byte) bool {
	return private(a) && a[2] == 0 && a[3] == 0 && a[4] == 0 && a[5] == 0
}

// pairs is what the addresses end in by which hosts ask each other with a certain pair of keys: from this one of the asker's, to that one of the other's. No
// other packets go there.
const pairs = 0x10

func pairAddress(host [16]byte, s slot) netip.Addr {
	host[15] = pairs | byte(s)
	return netip.AddrFrom16(host)
}

func isPair(a [16]byte) bool { return a[15]&^1 == pairs }

// hostOf is the host that a pair's address is of.
func hostOf(a [16]byte) [16]byte {
	a[15] = 1
	return a
}
