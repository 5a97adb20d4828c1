package mesh

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"drover"
)

// end is WireGuard with one key of this host. All ends share the TUN device and the port; most of the time there is one.
type end struct {
	key PrivateKey
	// reach: other hosts reach this one by it, as the outer address; else only people do.
	reach   atomic.Bool
	number  uint64
	address [16]byte
	// host is the host's own address, which stays.
	host [16]byte

	wg      *device.Device
	tun     *reader
	sockets []*reader
	shutOne sync.Once
	// retired: it was closed because it is not needed any more. Guarded by Device.mu, as are the next.
	retired bool
	// withdrawn is when it was decided that its key is not to be the host's; zero for never. used is when hosts last said that they send by it.
	withdrawn time.Time
	used      map[drover.HostID]time.Time
}

// addressAs is a host's outer address with the key of a number: two keys that follow each other have two addresses, by which what is sent with the one
// is told from what is sent with the other.
func addressAs(host [16]byte, number uint64) [16]byte {
	host[15] = 1 + byte(slotOf(number))
	return host
}

// slot is which of the two addresses a key has.
type slot uint8

func slotOf(number uint64) slot { return slot(number % 2) }

// openEnd starts WireGuard with a key, on what the device shares.
func (d *Device) openEnd(key PrivateKey, hosts bool, number uint64) (*end, error) {
	e := &end{key: key, number: number, host: d.cfg.Address.As16()}
	e.reach.Store(hosts)
	if hosts {
		e.address = addressAs(e.host, number)
	}
	e.tun = newReader(d.lane, e)
	for _, l := range d.sockets.lanes {
		e.sockets = append(e.sockets, newReader(l, e))
	}
	// What WireGuard says of single packets and handshakes is for those who look for a fault of it.
	log := &device.Logger{Verbosef: device.DiscardLogf, Errorf: func(format string, args ...any) {
		d.cfg.Log.Debug("wireguard: "+fmt.Sprintf(format, args...), "key", key.Public())
	}}
	t := &tunnel{Device: d.tun, table: d.table, end: e, log: d.cfg.Log, events: make(chan tun.Event)}
	e.wg = device.NewDevice(t, &endBind{sockets: d.sockets, end: e}, log)
	if err := e.wg.IpcSet("private_key=" + key.hex() + "\n"); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// start lets packets in.
func (e *end) start(s *sockets) error {
	s.mu.Lock()
	s.ends = append(s.ends, e)
	s.mu.Unlock()
	return e.wg.Up()
}

// shut ends what waits for packets.
func (e *end) shut() {
	e.shutOne.Do(func() {
		close(e.tun.closed)
		for _, r := range e.sockets {
			close(r.closed)
		}
	})
}

func (e *end) close() {
	e.shut()
	e.wg.Close()
}

// dropKeys removes keys of a host.
func (e *end) dropKeys(keys []peerKey) error {
	var b strings.Builder
	for _, k := range keys {
		if err := removal(&b, k.public); err != nil {
			return err
		}
	}
	return e.wg.IpcSet(b.String())
}

// setHost makes a host a peer, with each of its keys for the outer address that goes with it. A key that stays is not touched: packets come by it all the while. Those
// that it has no more stay, too: dropKeys.
func (e *end) setHost(p, old Peer) error {
	var b strings.Builder
	now, had := p.keys(), old.keys()
	for _, k := range now {
		key, err := HexKey(k.public)
		if err != nil {
			return err
		}
		stays := slices.Contains(had, k) && p.Address == old.Address
		if stays && p.Endpoint == old.Endpoint {
			continue
		}
		fmt.Fprintf(&b, "public_key=%s\nendpoint=%s\n", key, p.Endpoint)
		if !stays {
			fmt.Fprintf(&b, "replace_allowed_ips=true\nallowed_ip=%s/128\n", k.address(p))
		}
	}
	return e.wg.IpcSet(b.String())
}

func removal(b *strings.Builder, publicKey string) error {
	key, err := HexKey(publicKey)
	if err == nil {
		fmt.Fprintf(b, "public_key=%s\nremove=true\n", key)
	}
	return err
}

// discardEvents takes the TUN device's events: no end needs them.
func discardEvents(dev tun.Device, log *slog.Logger) {
	for e := range dev.Events() {
		log.Debug("the TUN device has changed", "event", int(e))
	}
}
