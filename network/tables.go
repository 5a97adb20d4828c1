package network

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/mesh"
	"drover/route"
)

// tablesVersion is the version of tables.json.
const tablesVersion = 1

// tablesFile is the table as it last was.
type tablesFile struct {
	Version  int             `json:"version"`
	Hosts    []route.Host    `json:"hosts"`
	Machines []route.Machine `json:"machines"`
	Peers    []route.Peer    `json:"peers,omitempty"`
	// Endpoints are where the people were last whose peers connect to this host, by public key.
	Endpoints map[string]netip.AddrPort `json:"endpoints,omitempty"`
}

// newsKept is how many moves' news are remembered.
const newsKept = 1000

// feed takes in what the fleet tells, and makes the mesh what it should be.
type feed struct {
	self   drover.HostID
	path   string
	table  *route.Table
	routes *mesh.Table
	now    func() time.Time

	// changing is held while the table changes and the mesh follows. mu is taken under it.
	changing sync.Mutex
	// meeting is held while a host is judged and becomes a peer. The others are taken under it.
	meeting sync.Mutex

	mu sync.Mutex
	// device is nil until the host has joined.
	device *mesh.Device
	// said is what hosts say of themselves, identities who they are by the word of the control side.
	said       map[drover.HostID]*drover.HostInfo
	identities map[drover.HostID]drover.HostIdentity
	// impostors are hosts that say to be what they are not, and what.
	impostors map[drover.HostID]string
	// troubles are hosts that cannot be peers, and why.
	troubles map[drover.HostID]string
	// endpoints are where the people were last whose peers connect here.
	endpoints map[string]netip.AddrPort
	// refused are people's peers that cannot be let in here, and why.
	refused map[string]string
	// lists are those of the fleet's lists that were told in full, since when.
	lists map[string]time.Time
	// moved are the times that the last news of moves took.
	moved []time.Duration
	dirty bool
}

func newFeed(self drover.HostID, dir string, now func() time.Time) *feed {
	return &feed{self: self, path: filepath.Join(dir, "tables.json"), table: route.NewTable(), routes: mesh.NewTable(), now: now,
		said: map[drover.HostID]*drover.HostInfo{}, identities: map[drover.HostID]drover.HostIdentity{}, impostors: map[drover.HostID]string{},
		troubles: map[drover.HostID]string{}, refused: map[string]string{}, lists: map[string]time.Time{}}
}

// load begins with what an earlier process knew. A file that cannot be read is as good as none: the fleet tells all of it.
func (f *feed) load() error {
	var file tablesFile
	err := durable.ReadJSON(f.path, &file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || file.Version != tablesVersion {
		return drover.Errorf(drover.Precondition, "%s cannot be used (version %d): the table begins empty: %w", f.path, file.Version, err)
	}
	f.change(func() []route.Route { return f.table.Load(file.Hosts, file.Machines, file.Peers) })
	f.endpoints = file.Endpoints
	return nil
}

// look learns where people are, so that the next process finds them.
func (f *feed) look() error {
	f.mu.Lock()
	device := f.device
	f.mu.Unlock()
	if device == nil {
		return nil
	}
	users, err := device.Users()
	if err != nil {
		return err
	}
	seen := map[string]netip.AddrPort{}
	for _, u := range users {
		seen[u.PublicKey] = u.Endpoint
	}
	peers := f.table.Peers()
	f.mu.Lock()
	defer f.mu.Unlock()
	endpoints := map[string]netip.AddrPort{}
	for _, p := range peers {
		at := seen[p.PublicKey]
		if !at.IsValid() {
			at = f.endpoints[p.PublicKey] // nothing has come from them yet
		}
		if p.Host == f.self && at.IsValid() {
			endpoints[p.PublicKey] = at
		}
	}
	if !maps.Equal(endpoints, f.endpoints) {
		f.endpoints, f.dirty = endpoints, true
	}
	return nil
}

// save stores the table if it has changed.
func (f *feed) save() error {
	f.mu.Lock()
	dirty, endpoints := f.dirty, f.endpoints
	f.dirty = false
	f.mu.Unlock()
	if !dirty {
		return nil
	}
	err := durable.WriteJSON(f.path, tablesFile{Version: tablesVersion, Hosts: f.table.Hosts(), Machines: f.table.Machines(), Peers: f.table.Peers(), Endpoints: endpoints}, 0o600)
	if err != nil {
		f.touch()
		return drover.Errorf(drover.Internal, "cannot store the table: %w", err)
	}
	return nil
}

func (f *feed) touch() {
	f.mu.Lock()
	f.dirty = true
	f.mu.Unlock()
}

// change changes the table and makes the mesh follow. The lists are told side by side: of two changes of one machine the one that the table took last is the
// last for the mesh too.
func (f *feed) change(take func() []route.Route) {
	f.changing.Lock()
	defer f.changing.Unlock()
	for _, r := range take() {
		if r.Host.IsValid() {
			f.routes.Set(r.Machine, r.Host)
		} else {
			f.routes.Remove(r.Machine)
		}
	}
	f.touch()
}

// start gives the feed its device, and the device the hosts that are known.
func (f *feed) start(d *mesh.Device) {
	f.mu.Lock()
	f.device = d
	f.mu.Unlock()
	for _, h := range f.table.Hosts() {
		f.peer(h.ID, h.Mesh)
	}
	for _, p := range f.table.Peers() {
		f.user(route.Peer{}, p)
	}
}

// admitted takes in a person's peer.
func (f *feed) admitted(key string, w *drover.WireGuardPeer) {
	var before route.Peer
	f.change(func() (changed []route.Route) {
		before, changed = f.table.Admit(key, w)
		return changed
	})
	now := route.Peer{Key: key}
	if w != nil {
		now.PublicKey, now.Host = w.PublicKey, w.Host
		if a, err := netip.ParseAddr(w.Address); err == nil {
			now.Address = a
		}
	}
	f.user(before, now)
}

// user lets a person's peer in where it belongs to this host, and shuts out what was there before.
func (f *feed) user(before, now route.Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.device == nil {
		return
	}
	var err error
	if before.Host == f.self && (now.Host != f.self || now.PublicKey != before.PublicKey) {
		err = f.device.RemoveUser(before.PublicKey)
	}
	if err == nil && now.Host == f.self {
		err = f.device.SetUser(mesh.User{PublicKey: now.PublicKey, Address: now.Address, Endpoint: f.endpoints[now.PublicKey]})
	}
	delete(f.refused, now.Key)
	if err != nil {
		f.refused[now.Key] = err.Error()
	}
}

// peer makes a host a peer, or none.
func (f *feed) peer(id drover.HostID, m *drover.HostMesh) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.device == nil || id == f.self {
		return
	}
	err := error(nil)
	if m == nil {
		err = f.device.RemovePeer(id)
	} else {
		var p mesh.Peer
		if p, err = peerOf(id, *m); err == nil {
			err = f.device.SetPeer(p)
		}
	}
	delete(f.troubles, id)
	if err != nil {
		f.troubles[id] = err.Error()
	}
}

func peerOf(id drover.HostID, m drover.HostMesh) (mesh.Peer, error) {
	address, err := netip.ParseAddr(m.PrivateAddress)
	if err != nil || drover.NetworkOf(address) != drover.FleetNetwork() {
		return mesh.Peer{}, drover.Errorf(drover.Invalid, "host %q has the private address %q, which is none of a host", id, m.PrivateAddress)
	}
	endpoint, err := netip.ParseAddrPort(m.Endpoint)
	if err != nil {
		return mesh.Peer{}, drover.Errorf(drover.Invalid, "host %q has the endpoint %q, which is no address and port", id, m.Endpoint)
	}
	return mesh.Peer{Host: id, Address: address, PublicKey: m.PublicKey, KeyNumber: m.KeyNumber, NextKey: m.NextKey, Endpoint: endpoint}, nil
}

// follow takes in all of the fleet's lists until ctx ends.
func (f *feed) follow(ctx context.Context, bus Bus, hit func(), failed func(list string, err error)) {
	var group sync.WaitGroup
	defer group.Wait()
	for list, follow := range map[string]func() error{
		"placements": func() error { return f.followPlacements(ctx, bus, hit) },
		"machines": func() error {
			return bus.FollowMachines(ctx, listed(f, "machines", func(id drover.MachineID, m *drover.Machine) {
				f.change(func() []route.Route { return f.table.Describe(id, m) })
			}))
		},
		"statuses": func() error {
			return bus.FollowStatuses(ctx, listed(f, "statuses", func(id drover.MachineID, s *drover.MachineStatus) {
				f.change(func() []route.Route { return f.table.Observe(id, s) })
			}))
		},
		"peers": func() error { return bus.FollowPeers(ctx, listed(f, "peers", f.admitted)) },
		"hosts": func() error {
			f.awaitIdentities(ctx)
			return bus.FollowHosts(ctx, listed(f, "hosts", f.met))
		},
		"identities": func() error {
			take := listed(f, "identities", f.identified)
			return bus.FollowIdentities(ctx, func(id drover.HostID, rec *drover.HostIdentity) error {
				err := take(id, rec)
				if id == "" {
					f.meetAll()
				}
				return err
			})
		},
	} {
		group.Go(func() {
			for ctx.Err() == nil {
				if err := follow(); err != nil && ctx.Err() == nil {
					failed(list, err)
				}
				pause(ctx, retryEvery)
			}
		})
	}
}

func (f *feed) followPlacements(ctx context.Context, bus Bus, hit func()) error {
	take := listed(f, "placements", func(id drover.MachineID, p *drover.Placement) {
		f.change(func() []route.Route { return f.table.Place(id, p) })
	})
	return bus.FollowMoves(ctx, func(id drover.MachineID, p *drover.Placement, stored time.Time) error {
		hit()
		if err := take(id, p); err != nil || p == nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.lists["placements"].IsZero() { // what was there before is no news
			f.moved = append(f.moved, max(0, f.now().Sub(stored)))
			f.moved = f.moved[max(0, len(f.moved)-newsKept):]
		}
		return nil
	})
}

// listed makes a function that takes in one of the fleet's lists. When it was told in full, what an earlier process knew and nobody told is gone.
func listed[K ~string, T any](f *feed, list string, take func(K, *T)) func(K, *T) error {
	told := map[K]bool{}
	return func(id K, v *T) error {
		if id != "" {
			if told != nil {
				told[id] = true
			}
			take(id, v)
			return nil
		}
		if told != nil {
			for _, old := range f.known(list) {
				if !told[K(old)] {
					take(K(old), nil)
				}
			}
			told = nil
		}
		f.mu.Lock()
		f.lists[list] = f.now()
		f.mu.Unlock()
		return nil
	}
}

// known lists what the table has of a list.
func (f *feed) known(list string) []string {
	var ids []string
	if list == "peers" {
		for _, p := range f.table.Peers() {
			ids = append(ids, p.Key)
		}
		return ids
	}
	if list == "identities" {
		f.mu.Lock()
		defer f.mu.Unlock()
		for id := range f.identities {
			ids = append(ids, string(id))
		}
		return ids
	}
	if list == "hosts" {
		for _, h := range f.table.Hosts() {
			ids = append(ids, string(h.ID))
		}
		return ids
	}
	for _, m := range f.table.Machines() {
		ids = append(ids, string(m.ID))
	}
	return ids
}

// syncedAt is when all lists were last told in full; zero before.
func (f *feed) syncedAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lists) < followed {
		return time.Time{}
	}
	var oldest time.Time
	for _, at := range f.lists {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// knows reports whether one of the lists was told in full.
func (f *feed) knows(list string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.lists[list].IsZero()
}

// news sums up how long the news of the last moves took.
func (f *feed) news() drover.MeshNews {
	f.mu.Lock()
	sorted := slices.Sorted(slices.Values(f.moved))
	f.mu.Unlock()
	if len(sorted) == 0 {
		return drover.MeshNews{}
	}
	at := func(percent int) drover.Duration { return drover.Duration(sorted[(len(sorted)-1)*percent/100]) }
	return drover.MeshNews{Count: len(sorted), P50: at(50), P99: at(99), Max: at(100)}
}
