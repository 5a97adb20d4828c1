package drover

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// RoutesDigest stands for a table of routes: by which hosts, named by their private addresses, machines are reached. Two tables that are the same have the same
// digest, in whatever order they came to be, and two that are not have different ones, but for a chance of nothing. It follows a change without a look at the others.
type RoutesDigest uint64

// With is the digest of the table with one more route.
func (d RoutesDigest) With(machine, host netip.Addr) RoutesDigest { return d + routeSum(machine, host) }

// Without is the digest of the table with one route less.
func (d RoutesDigest) Without(machine, host netip.Addr) RoutesDigest {
	return d - routeSum(machine, host)
}

// String is how hosts tell it.
func (d RoutesDigest) String() string { return fmt.Sprintf("%016x", uint64(d)) }

func routeSum(machine, host netip.Addr) RoutesDigest {
	var route [32]byte
	m, h := machine.As16(), host.As16()
	copy(route[:16], m[:])
	copy(route[16:], h[:])
	sum := sha256.Sum256(route[:])
	return RoutesDigest(binary.BigEndian.Uint64(sum[:8]))
}
