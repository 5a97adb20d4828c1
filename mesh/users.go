package mesh

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// User is a person's peer, which this host takes packets from: without a second header, from its own address only.
type User struct {
	PublicKey string
	Address   netip.Addr
	// Endpoint is where the person was last, when that is known: they are greeted there. Their client would find out by itself only after a quarter of a minute that a process of
	// this host which it knew is gone.
	Endpoint netip.AddrPort
}

// is reports whether two are let in by the same key and address.
func (u User) is(other User) bool {
	return u.PublicKey == other.PublicKey && u.Address == other.Address
}

// UserSeen is what was seen of a user. The counts begin when the user was set.
type UserSeen struct {
	PublicKey      string
	Endpoint       netip.AddrPort
	HandshakeAt    time.Time
	Received, Sent uint64
}

// SetUser lets a person's peer in. It may be repeated. Conflict when the key is a host's, Invalid when it is none, or the address is none of a network.
func (d *Device) SetUser(u User) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users[u.PublicKey].is(u) {
		return nil
	}
	if d.isOwnLocked(u.PublicKey) || d.isHostLocked(u.PublicKey) {
		return drover.Errorf(drover.Conflict, "the public key of the peer %s is that of a host", u.Address)
	}
	if n := drover.NetworkOf(u.Address); !n.IsValid() || n == drover.FleetNetwork() {
		return drover.Errorf(drover.Invalid, "%s is no address of a peer", u.Address)
	}
	if err := d.forgetUserLocked(u.PublicKey); err != nil {
		return err
	}
	if err := d.people.setUser(u); err != nil {
		return err
	}
	d.users[u.PublicKey] = u
	d.table.setUser(u.Address, true)
	return nil
}

// setUser lets a person's peer in at an end.
func (e *end) setUser(u User) error {
	key, err := HexKey(u.PublicKey)
	if err != nil {
		return err
	}
	if err := e.wg.IpcSet(fmt.Sprintf("public_key=%s\nreplace_allowed_ips=true\nallowed_ip=%s/128\n", key, u.Address)); err != nil {
		return drover.Errorf(drover.Internal, "cannot let in the peer %s: %w", u.Address, err)
	}
	if !u.Endpoint.IsValid() {
		return nil
	}
	// WireGuard greets a peer that is to be kept alive; from then on that is the person's business.
	for _, seconds := range []int{1, 0} {
		if err := e.wg.IpcSet(fmt.Sprintf("public_key=%s\nupdate_only=true\nendpoint=%s\npersistent_keepalive_interval=%d\n", key, u.Endpoint, seconds)); err != nil {
			return drover.Errorf(drover.Internal, "cannot greet the peer %s at %s: %w", u.Address, u.Endpoint, err)
		}
	}
	return nil
}

// RemoveUser shuts a person's peer out, from the next packet on; nothing to shut out is no error.
func (d *Device) RemoveUser(publicKey string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.forgetUserLocked(publicKey)
}

func (d *Device) forgetUserLocked(publicKey string) error {
	old, had := d.users[publicKey]
	if !had {
		return nil
	}
	var b strings.Builder
	err := removal(&b, publicKey)
	if err == nil {
		err = d.people.wg.IpcSet(b.String())
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot remove the peer with the key %s: %w", publicKey, err)
	}
	delete(d.users, publicKey)
	d.table.setUser(old.Address, false)
	return nil
}

func (d *Device) isHostLocked(publicKey string) bool {
	for _, p := range d.peers {
		if hasKey(p.keys(), publicKey) {
			return true
		}
	}
	return false
}

func (d *Device) isOwnLocked(publicKey string) bool {
	for _, e := range d.endsLocked() {
		if e.key.Public() == publicKey {
			return true
		}
	}
	return false
}

// Users tells what was seen of each user.
func (d *Device) Users() ([]UserSeen, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.users) == 0 {
		return nil, nil
	}
	text, err := d.people.wg.IpcGet()
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the state of WireGuard: %w", err)
	}
	var all []UserSeen
	var now *UserSeen
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if key == "public_key" {
			raw, err := hex.DecodeString(value)
			if err != nil {
				return nil, drover.Errorf(drover.Internal, "WireGuard tells a key that is none: %w", err)
			}
			now = nil
			if name := base64.StdEncoding.EncodeToString(raw); d.users[name].PublicKey != "" {
				all = append(all, UserSeen{PublicKey: name})
				now = &all[len(all)-1]
			}
			continue
		}
		if at, err := netip.ParseAddrPort(value); err == nil && now != nil && key == "endpoint" {
			now.Endpoint = at
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil && now != nil && n > 0 {
			switch key {
			case "last_handshake_time_sec":
				now.HandshakeAt = time.Unix(int64(n), 0).UTC()
			case "rx_bytes":
				now.Received = n
			case "tx_bytes":
				now.Sent = n
			}
		}
	}
	return all, nil
}

// setUser notes whether an address is that of a person's peer which this host has.
func (t *Table) setUser(a netip.Addr, here bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if here {
		t.users[a.As16()] = true
	} else {
		delete(t.users, a.As16())
	}
}

// networkLen is the length of what two addresses of one network have in common.
const networkLen = 6

func sameNetwork(a, b [16]byte) bool { return [networkLen]byte(a[:]) == [networkLen]byte(b[:]) }

// toUserLocked reports whether a user of this host is to have a packet: from its own network, the resolver, or a host.
func (t *Table) toUserLocked(from, to [16]byte) bool {
	return t.users[to] && private(from) && (sameNetwork(from, to) || inFleetNetwork(from))
}

// Where what is in a UDP or TCP header, and who is asked for names.
const (
	portAt     = headerLen + 2
	transports = headerLen + 8
	dnsPort    = 53
)

// fromUser reports whether a packet is one that a user may send: to its own network, or a question to the resolver. That its source is the user's own
// address WireGuard has seen to, which knows for each key which it may have.
func (t *Table) fromUser(b []byte) bool {
	if len(b) < headerLen || b[0]>>4 != 6 || int(binary.BigEndian.Uint16(b[lengthAt:]))+headerLen != len(b) {
		return false
	}
	from, to := [16]byte(b[sourceAt:destinationAt]), [16]byte(b[destinationAt:headerLen])
	t.mu.RLock()
	known := t.users[from]
	t.mu.RUnlock()
	if !known || sameNetwork(from, to) {
		return known
	}
	next := b[nextHeaderAt]
	return to == drover.ResolverAddress().As16() && (next == unix.IPPROTO_UDP || next == unix.IPPROTO_TCP) && len(b) >= transports &&
		binary.BigEndian.Uint16(b[portAt:]) == dnsPort
}
