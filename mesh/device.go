package mesh

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"drover"
	"drover/internal/netdev"
)

// Overhead is what a packet of a machine grows by on its way, for an underlay of IPv6: its header, UDP's, WireGuard's, and the header from host to host.
const Overhead = 40 + 8 + 32 + headerLen

// DefaultMTU is the largest packet of a machine on an underlay with packets of 1500 bytes.
const DefaultMTU = 1500 - Overhead

// Config is what a Device is made of; all fields are required.
type Config struct {
	// Name is the TUN device's.
	Name string
	// Key is the host's, Address its private address.
	Key     PrivateKey
	Address netip.Addr
	// Port is where WireGuard listens.
	Port uint16
	MTU  int
	Log  *slog.Logger
}

// Peer is another host.
type Peer struct {
	Host      drover.HostID
	Address   netip.Addr
	PublicKey string
	Endpoint  netip.AddrPort
}

// Device is this host's end of the mesh. Safe for concurrent use.
type Device struct {
	cfg   Config
	table *Table
	bind  *listener
	wg    *device.Device

	mu    sync.Mutex
	peers map[drover.HostID]Peer
	users map[string]User // by public key
}

// Open makes the TUN device, or takes over that of an earlier process, and starts WireGuard on it. Denied when the process may not, Conflict when
// the port is taken.
func Open(cfg Config, table *Table) (*Device, error) {
	if err := netdev.EnsureTUN(cfg.Name, cfg.MTU, cfg.Address); err != nil {
		return nil, err
	}
	dev, err := tun.CreateTUN(cfg.Name, cfg.MTU)
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "cannot take over the device %q: %w", cfg.Name, err).
			WithHint("does another process of this host serve the mesh?")
	}
	d := &Device{cfg: cfg, table: table, bind: newListener(), peers: map[drover.HostID]Peer{}, users: map[string]User{}}
	// What WireGuard says of single packets and handshakes is for those who look for a fault of it.
	log := &device.Logger{Verbosef: device.DiscardLogf, Errorf: func(format string, args ...any) {
		cfg.Log.Debug("wireguard: " + fmt.Sprintf(format, args...))
	}}
	d.wg = device.NewDevice(&tunnel{Device: dev, table: table, self: cfg.Address.As16(), log: cfg.Log}, d.bind, log)
	if err := d.wg.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", cfg.Key.hex(), cfg.Port)); err != nil {
		d.wg.Close()
		return nil, drover.Errorf(drover.Conflict, "cannot set up WireGuard on port %d: %w", cfg.Port, err)
	}
	if err := d.wg.Up(); err != nil {
		d.wg.Close()
		return nil, drover.Errorf(drover.Conflict, "cannot start WireGuard on port %d: %w", cfg.Port, err)
	}
	return d, nil
}

// Done is closed when the device is gone, by Close or because somebody took it away.
func (d *Device) Done() <-chan struct{} { return d.wg.Wait() }

// Close ends WireGuard. The TUN device stays, with its addresses and routes.
func (d *Device) Close() { d.wg.Close() }

// SetPeer makes a host a peer, or changes what it is. It may be repeated. Invalid for a key or an address that is none.
func (d *Device) SetPeer(p Peer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, had := d.peers[p.Host]
	if had && old == p {
		return nil
	}
	key, err := HexKey(p.PublicKey)
	if err != nil {
		return err
	}
	var b strings.Builder
	if had && old.PublicKey != p.PublicKey {
		if err := removal(&b, old.PublicKey); err != nil {
			return err
		}
	}
	d.forgetUserLocked(p.PublicKey) // a host's key is a host's
	fmt.Fprintf(&b, "public_key=%s\nendpoint=%s\nreplace_allowed_ips=true\nallowed_ip=%s/128\n", key, p.Endpoint, p.Address)
	if err := d.wg.IpcSet(b.String()); err != nil {
		return drover.Errorf(drover.Invalid, "cannot make host %q a peer at %s: %w", p.Host, p.Endpoint, err)
	}
	d.peers[p.Host] = p
	d.watchLocked()
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
	if err := d.removeKeyLocked(old.PublicKey); err != nil {
		return err
	}
	delete(d.peers, host)
	d.watchLocked()
	return nil
}

func removal(b *strings.Builder, publicKey string) error {
	key, err := HexKey(publicKey)
	if err == nil {
		fmt.Fprintf(b, "public_key=%s\nremove=true\n", key)
	}
	return err
}

func (d *Device) watchLocked() {
	var all []netip.Addr
	for _, p := range d.peers {
		all = append(all, p.Endpoint.Addr().Unmap())
	}
	d.bind.watch(all)
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
func (d *Device) Heard(p Peer) time.Time { return d.bind.last(p.Endpoint.Addr().Unmap()) }
