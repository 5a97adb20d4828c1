package route

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"drover"
)

// Peer is a person's way into a network: packets for its address go to the host that it connects to.
type Peer struct {
	Key       string        `json:"key"`
	Name      string        `json:"name"`
	PublicKey string        `json:"public_key"`
	Address   netip.Addr    `json:"address"`
	Host      drover.HostID `json:"host"`
}

// Admit takes in a peer, nil when it is gone; one whose address is none of a network is as good as gone. It returns what the table had before, and the
// routes that are different now.
func (t *Table) Admit(key string, w *drover.WireGuardPeer) (before Peer, changed []Route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, had := t.peers[key]
	delete(t.peers, key)
	now := Peer{Key: key}
	if w != nil {
		a, err := netip.ParseAddr(w.Address)
		if n := drover.NetworkOf(a); err == nil && n.IsValid() && n != drover.FleetNetwork() {
			now = Peer{Key: key, Name: w.Name, PublicKey: w.PublicKey, Address: a, Host: w.Host}
			t.peers[key] = now
		}
	}
	if had && before.Address != now.Address {
		changed = append(changed, Route{Machine: before.Address})
	}
	if now.Address.IsValid() && (before.Address != now.Address || before.Host != now.Host) {
		changed = append(changed, t.wayLocked(now))
	}
	return before, changed
}

func (t *Table) wayLocked(p Peer) Route {
	return Route{Machine: p.Address, Host: t.hostAddressLocked(p.Host)}
}

// Peers lists the peers by key.
func (t *Table) Peers() []Peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.peers), func(a, b Peer) int { return cmp.Compare(a.Key, b.Key) })
}

// Peers calls fn with every peer of the network.
func (v View) Peers(fn func(Peer)) {
	for _, p := range v.table.peers {
		if drover.NetworkOf(p.Address) == v.network {
			fn(p)
		}
	}
}
