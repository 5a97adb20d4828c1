package mesh

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"drover"
	"drover/internal/netdev"
)

// Overhead is what a packet of a machine grows by on its way, for an underlay of IPv6: its header, UDP's, WireGuard's, and the header from host to host.
const Overhead = 40 + 8 + 32 + headerLen

// DefaultMTU is the largest packet of a machine on an underlay with packets of 1500 bytes.
const DefaultMTU = 1500 - Overhead

// Config is what a Device is made of; all fields are required but KeyNumber and PeopleKey.
type Config struct {
	// Name is the TUN device's.
	Name string
	// Key is the host's, Address its private address. KeyNumber is how many keys it had before.
	Key       PrivateKey
	KeyNumber uint64
	Address   netip.Addr
	// PeopleKey is the key by which people's peers know the host, where it is another.
	PeopleKey PrivateKey
	// Port is where WireGuard listens.
	Port uint16
	MTU  int
	Log  *slog.Logger
}

// Peer is another host.
type Peer struct {
	Host    drover.HostID
	Address netip.Addr
	// PublicKey is the host's key, KeyNumber how many it had before. NextKey is the one that it is about to have instead; empty for none.
	PublicKey string
	KeyNumber uint64
	NextKey   string
	Endpoint  netip.AddrPort
}

// peerKey is one key of a peer.
type peerKey struct {
	public string
	number uint64
}

func (p Peer) keys() []peerKey {
	var all []peerKey
	if p.PublicKey != "" {
		all = append(all, peerKey{p.PublicKey, p.KeyNumber})
	}
	if p.NextKey != "" {
		all = append(all, peerKey{p.NextKey, p.KeyNumber + 1})
	}
	return all
}

func hasKey(keys []peerKey, public string) bool {
	return slices.ContainsFunc(keys, func(k peerKey) bool { return k.public == public })
}

func (k peerKey) address(p Peer) netip.Addr {
	return netip.AddrFrom16(addressAs(p.Address.As16(), k.number))
}

// Device is this host's end of the mesh. Safe for concurrent use.
type Device struct {
	cfg     Config
	table   *Table
	tun     tun.Device
	lane    *lane // of the TUN device
	sockets *sockets
	gone    chan struct{}
	goneOne sync.Once

	mu    sync.Mutex
	peers map[drover.HostID]Peer
	// ways are what is known of the pairs of keys by which peers with more than one are reached.
	ways  map[drover.HostID]*ways
	users map[string]User // by public key
	// current is what this host is reached by, next what is to take its place; nil most of the time. people is what people reach it by: current, or an end of
	// their own.
	current, next, people *end
}

// Open makes the TUN device, or takes over that of an earlier process, and starts WireGuard on it. Denied when the process may not, Conflict when
// the port is taken.
func Open(cfg Config, table *Table) (*Device, error) {
	if err := netdev.EnsureTUN(cfg.Name, cfg.MTU, cfg.Address); err != nil {
		return nil, err
	}
	for _, s := range []slot{0, 1} {
		if err := netdev.AddLocal(pairAddress(cfg.Address.As16(), s)); err != nil {
			return nil, err
		}
	}
	dev, err := tun.CreateTUN(cfg.Name, cfg.MTU)
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "cannot take over the device %q: %w", cfg.Name, err).
			WithHint("does another process of this host serve the mesh?")
	}
	go discardEvents(dev, cfg.Log) // ends with the device
	d := &Device{cfg: cfg, table: table, tun: dev, lane: newLane(), gone: make(chan struct{}), peers: map[drover.HostID]Peer{},
		ways: map[drover.HostID]*ways{}, users: map[string]User{}}
	if d.sockets, err = openSockets(cfg.Port); err != nil {
		dev.Close()
		return nil, drover.Errorf(drover.Conflict, "cannot start WireGuard on port %d: %w", cfg.Port, err)
	}
	if err := d.openEnds(); err != nil {
		d.Close()
		return nil, drover.Errorf(drover.Conflict, "cannot set up WireGuard on port %d: %w", cfg.Port, err)
	}
	return d, nil
}

// openEnds starts WireGuard with the keys that the host has.
func (d *Device) openEnds() (err error) {
	if d.current, err = d.openEnd(d.cfg.Key, true, d.cfg.KeyNumber); err != nil {
		return err
	}
	d.people = d.current
	if d.cfg.PeopleKey.there() && d.cfg.PeopleKey.Public() != d.cfg.Key.Public() {
		if d.people, err = d.openEnd(d.cfg.PeopleKey, false, 0); err != nil {
			return err
		}
	}
	d.turnTo(d.current)
	d.table.mu.Lock()
	d.table.ends[slotOf(d.cfg.KeyNumber)], d.table.people = d.current, d.people
	d.table.mu.Unlock()
	for _, e := range d.endsLocked() {
		if err := e.start(d.sockets); err != nil {
			return err
		}
		go d.attend(e) // ends with the end
	}
	return nil
}

// attend notes that an end is gone which should not be: nobody carries packets then.
func (d *Device) attend(e *end) {
	<-e.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !e.retired {
		d.goneOne.Do(func() { close(d.gone) })
	}
}

// endsLocked lists the ends that there are.
func (d *Device) endsLocked() []*end {
	var all []*end
	for _, e := range []*end{d.current, d.next, d.people} {
		if e != nil && !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all
}

// hostEndsLocked lists the ends by which hosts are reached.
func (d *Device) hostEndsLocked() []*end {
	return slices.DeleteFunc(d.endsLocked(), func(e *end) bool { return !e.reach.Load() })
}

// Done is closed when the device is gone, by Close or because somebody took it away.
func (d *Device) Done() <-chan struct{} { return d.gone }

// Close ends WireGuard. The TUN device stays, with its addresses and routes.
func (d *Device) Close() {
	d.tun.Close()
	d.sockets.Bind.Close()
	d.mu.Lock()
	ends := d.endsLocked()
	d.mu.Unlock()
	for _, e := range ends {
		e.close()
	}
	d.goneOne.Do(func() { close(d.gone) })
}

// SetPeer makes a host a peer, or changes what it is. It may be repeated. Invalid for a key or an address that is none.
func (d *Device) SetPeer(p Peer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, had := d.peers[p.Host]
	if had && old == p {
		return nil
	}
	for _, k := range p.keys() {
		if err := d.forgetUserLocked(k.public); err != nil { // a host's key is a host's
			return err
		}
	}
	for _, e := range d.hostEndsLocked() {
		if err := e.setHost(p, old); err != nil {
			return drover.Errorf(drover.Invalid, "cannot make host %q a peer at %s: %w", p.Host, p.Endpoint, err)
		}
	}
	if had && old.Address != p.Address {
		d.table.dropHop(old.Address)
	}
	d.peers[p.Host] = p
	d.chooseLocked(p, time.Now())
	d.watchLocked()
	if !had {
		return nil
	}
	if old.Address == p.Address { // what is on its way by a key that goes arrives
		time.AfterFunc(lastPackets, func() { d.dropOld(old) })
	} else if err := d.dropLocked(old); err != nil {
		return err
	}
	return d.restoreLocked(old)
}

// lastPackets is how long a host's key that it has no more is kept for what was given to WireGuard for it before.
const lastPackets = time.Second

// dropOld removes the keys that a host had and nobody has any more.
func (d *Device) dropOld(old Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.gone:
		return
	default:
	}
	if err := d.dropLocked(old); err != nil {
		d.cfg.Log.Warn("cannot remove a key that a host has no more", "host", old.Host, "err", err)
	}
}

func (d *Device) dropLocked(old Peer) error {
	keys := old.keys()
	for _, p := range d.peers {
		keys = slices.DeleteFunc(keys, func(k peerKey) bool { return hasKey(p.keys(), k.public) })
	}
	for _, e := range d.hostEndsLocked() {
		if err := e.dropKeys(keys); err != nil {
			return drover.Errorf(drover.Internal, "cannot forget the key of host %q: %w", old.Host, err)
		}
	}
	return nil
}

// RemovePeer forgets a host; nothing to forget is no error.
func (d *Device) RemovePeer(host drover.HostID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, had := d.peers[host]
	if !had {
		return nil
	}
	delete(d.peers, host)
	delete(d.ways, host)
	if err := d.dropLocked(old); err != nil {
		return err
	}
	d.table.dropHop(old.Address)
	d.watchLocked()
	return d.restoreLocked(old)
}

// restoreLocked makes those peers anew that a host which is none any more has passed for: their keys, or their address, went with it.
func (d *Device) restoreLocked(gone Peer) error {
	for _, p := range d.peers {
		shared := slices.ContainsFunc(p.keys(), func(k peerKey) bool { return hasKey(gone.keys(), k.public) })
		if p.Host == gone.Host || !shared && p.Address != gone.Address {
			continue
		}
		for _, e := range d.hostEndsLocked() {
			if err := e.setHost(p, Peer{}); err != nil {
				return drover.Errorf(drover.Internal, "cannot make host %q a peer again: %w", p.Host, err)
			}
		}
		d.chooseLocked(p, time.Now())
	}
	return nil
}

func (d *Device) watchLocked() {
	var all []netip.Addr
	for _, p := range d.peers {
		all = append(all, p.Endpoint.Addr().Unmap())
	}
	d.sockets.watch(all)
}

// Peers lists the peers.
func (d *Device) Peers() []Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Peer, 0, len(d.peers))
	for _, p := range d.peers {
		all = append(all, p)
	}
	return all
}

// Heard tells when anything came from a peer's endpoint, whether or not it could be read.
func (d *Device) Heard(p Peer) time.Time { return d.sockets.last(p.Endpoint.Addr().Unmap()) }
