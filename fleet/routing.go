package fleet

import (
	"net/netip"
	"time"

	"drover"
	"drover/natsbus"
)

// routing is by which hosts machines and people's peers are to be reached, kept as records come and go: what hosts believe is compared with it all the time, and to make it anew
// for each would cost more than all else. It is guarded by the state's lock.
type routing struct {
	// addresses are the private addresses of hosts that are reached by the mesh.
	addresses map[drover.HostID]netip.Addr
	// ways are by the machine's ID, or the peer's key.
	ways map[string]way
	// digest stands for all ways, told is how a host that believes them tells it.
	digest drover.RoutesDigest
	told   string
	// past has until when the digest was what it is not any more, pastOrder the same from the oldest to the newest.
	past      map[string]time.Time
	pastOrder []pastDigest
}

// way is where packets for an address should go: to the host of the machine, at its private address.
type way struct {
	machine      drover.MachineID
	address, via netip.Addr
	host         drover.HostID
	// since is when this was learnt; zero when it was so when this control host began.
	since time.Time
}

type pastDigest struct {
	digest string
	until  time.Time
}

// How much of the past is kept: longer than a host may be behind, and no more than a storm of moves would make in that time.
const (
	pastKept = time.Minute
	pastMost = 1 << 16
)

func newRouting() routing {
	return routing{addresses: map[drover.HostID]netip.Addr{}, ways: map[string]way{}, past: map[string]time.Time{}, told: drover.RoutesDigest(0).String()}
}

// routeMachineLocked looks anew by which host a machine is reached: it is once it has a record and a placement, whichever comes first.
func (s *state) routeMachineLocked(id string) {
	m, known := s.machines.items[id]
	p, placed := s.placements.items[id]
	if !known || !placed {
		s.putWayLocked(id, way{})
		return
	}
	s.putWayLocked(id, s.wayLocked(m.value.ID, m.value.Address, p.value.Host))
}

// routePeerLocked does the same for a person's peer.
func (s *state) routePeerLocked(key string) {
	p, known := s.peers.items[key]
	if !known || !natsbus.IsPeerKey(key) {
		s.putWayLocked(key, way{})
		return
	}
	s.putWayLocked(key, s.wayLocked("", p.value.Address, p.value.Host))
}

// wayLocked is the way to an address on a host; the zero way when there is none.
func (s *state) wayLocked(id drover.MachineID, address string, host drover.HostID) way {
	a, err := netip.ParseAddr(address)
	via, meshed := s.routing.addresses[host]
	if err != nil || !meshed || !drover.NetworkOf(a).IsValid() {
		return way{}
	}
	return way{machine: id, address: a, via: via, host: host}
}

// putWayLocked takes in the way of a machine or peer; one without an address is none.
func (s *state) putWayLocked(key string, is way) {
	r := &s.routing
	was := r.ways[key]
	if is.since = was.since; is == was {
		return
	}
	is.since = time.Time{}
	if s.followed() {
		is.since = s.now()
		r.keepPast(is.since)
	}
	if was.address.IsValid() {
		r.digest = r.digest.Without(was.address, was.via)
		delete(r.ways, key)
	}
	if is.address.IsValid() {
		r.digest = r.digest.With(is.address, is.via)
		r.ways[key] = is
	}
	r.told = r.digest.String()
}

// followed reports whether all that routing is made of was read once.
func (s *state) followed() bool {
	for _, t := range []follower{s.machines, s.placements, s.hosts, s.peers, s.identities} {
		select {
		case <-t.done():
		default:
			return false
		}
	}
	return true
}

// keepPast remembers until when the digest was what it is now.
func (r *routing) keepPast(until time.Time) {
	old := 0
	for old < len(r.pastOrder) && (len(r.pastOrder)-old >= pastMost || until.Sub(r.pastOrder[old].until) > pastKept) {
		if p := r.pastOrder[old]; r.past[p.digest].Equal(p.until) {
			delete(r.past, p.digest)
		}
		old++
	}
	r.past[r.told] = until
	r.pastOrder = append(r.pastOrder[old:], pastDigest{r.told, until})
}

// rightUntilLocked tells until when it was right to believe what a digest stands for: now when it is, zero when it never was, as far as is remembered.
func (s *state) rightUntilLocked(digest string, now time.Time) time.Time {
	if digest == s.routing.told {
		return now
	}
	return s.routing.past[digest]
}

// meetLocked looks anew at which private address a host is. What it says itself counts less than what was allotted to it, or to another one.
func (s *state) meetLocked(id drover.HostID) {
	address := s.meshAddressLocked(id)
	if s.routing.addresses[id] == address {
		return
	}
	if s.routing.addresses[id] = address; !address.IsValid() {
		delete(s.routing.addresses, id)
	}
	for key := range s.placedOn[id] {
		s.routeMachineLocked(key)
	}
	for key, p := range s.peers.items {
		if p.value.Host == id {
			s.routePeerLocked(key)
		}
	}
}

func (s *state) meetAllLocked() {
	for id := range s.hosts.items {
		s.meetLocked(drover.HostID(id))
	}
}

func (s *state) meshAddressLocked(id drover.HostID) netip.Addr {
	h, known := s.hosts.items[string(id)]
	if !known || h.value.Mesh == nil {
		return netip.Addr{}
	}
	said := h.value.Mesh.PrivateAddress
	if own, joined := s.identities.items[string(id)]; joined && own.value.PrivateAddress != said {
		return netip.Addr{}
	} else if !joined {
		for _, other := range s.identities.items {
			if other.value.PrivateAddress == said {
				return netip.Addr{}
			}
		}
	}
	a, err := netip.ParseAddr(said)
	if err != nil {
		return netip.Addr{}
	}
	return a
}
