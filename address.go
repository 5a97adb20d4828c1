package drover

import (
	"encoding/binary"
	"net/netip"
)

// Private addresses are in fdaa::/16. The next 32 bits are the number of a network, which has the /48; the next 32 are the number of a machine
// in it, which has the /112; the machine's own address ends in 2. Nothing of it says where the machine is. Network 0 is the fleet's: its numbers
// are those of hosts, whose own addresses end in 1.
const (
	networkBits = 48
	machineBits = 112
	// maxNumber is the highest number of a network, a machine or a host.
	maxNumber = 1<<32 - 1
)

// PrivateNetworks is where every private address is.
func PrivateNetworks() netip.Prefix { return netip.MustParsePrefix("fdaa::/16") }

// ResolverAddress is where each host answers questions for names to its machines.
func ResolverAddress() netip.Addr { return netip.MustParseAddr("fdaa::3") }

// FleetNetwork is the /48 of the hosts' own addresses.
func FleetNetwork() netip.Prefix { return netip.MustParsePrefix("fdaa::/48") }

// MachineAddress makes the address of a machine. Exhausted for a number that has no address.
func MachineAddress(network, machine uint64) (netip.Addr, error) {
	if network < 1 || network > maxNumber || machine > maxNumber {
		return netip.Addr{}, Errorf(Exhausted, "no address left: network %d, machine %d", network, machine)
	}
	return numbered(uint32(network), uint32(machine), 2), nil
}

// HostAddress makes the private address of a host. Exhausted for a number that has none.
func HostAddress(number uint64) (netip.Addr, error) {
	if number < 1 || number > maxNumber {
		return netip.Addr{}, Errorf(Exhausted, "no address left for host number %d", number)
	}
	return numbered(0, uint32(number), 1), nil
}

func numbered(network, number uint32, last byte) netip.Addr {
	a := [16]byte{0: 0xfd, 1: 0xaa, 15: last}
	binary.BigEndian.PutUint32(a[2:], network)
	binary.BigEndian.PutUint32(a[6:], number)
	return netip.AddrFrom16(a)
}

// NetworkOf returns the /48 that a private address is in; not valid for an address that is no private one.
func NetworkOf(a netip.Addr) netip.Prefix { return privatePrefix(a, networkBits) }

// MachinePrefix returns the /112 of the machine that has the address; not valid for an address that is no private one.
func MachinePrefix(a netip.Addr) netip.Prefix { return privatePrefix(a, machineBits) }

func privatePrefix(a netip.Addr, bits int) netip.Prefix {
	if !PrivateNetworks().Contains(a) {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// ParsePrivate reads a private address. Invalid for one that is none.
func ParsePrivate(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !PrivateNetworks().Contains(a) {
		return netip.Addr{}, Errorf(Invalid, "%q is no private address", text)
	}
	return a, nil
}
