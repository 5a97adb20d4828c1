package drover

import (
	"net/netip"
	"testing"
)

// An address is for life: what machines of older fleets have must be what is made today of the same numbers.
func TestAddressesAreMadeOfNumbersAlone(t *testing.T) {
	for _, c := range []struct {
		network, machine         uint64
		address, net, machine112 string
	}{
		{1, 7, "fdaa:0:1:0:7::2", "fdaa:0:1::/48", "fdaa:0:1:0:7::/112"},
		{0xabcdef, 0x12345678, "fdaa:ab:cdef:1234:5678::2", "fdaa:ab:cdef::/48", "fdaa:ab:cdef:1234:5678::/112"},
		{maxNumber, maxNumber, "fdaa:ffff:ffff:ffff:ffff::2", "fdaa:ffff:ffff::/48", "fdaa:ffff:ffff:ffff:ffff::/112"},
	} {
		a, err := MachineAddress(c.network, c.machine)
		if err != nil || a.String() != c.address {
			t.Errorf("network %d, machine %d: %s, %v, want %s", c.network, c.machine, a, err, c.address)
		}
		if got := NetworkOf(a).String(); got != c.net {
			t.Errorf("%s is in %s, want %s", a, got, c.net)
		}
		if got := MachinePrefix(a).String(); got != c.machine112 {
			t.Errorf("%s has %s, want %s", a, got, c.machine112)
		}
	}
	for _, c := range [][2]uint64{{0, 1}, {maxNumber + 1, 1}, {1, maxNumber + 1}} {
		if a, err := MachineAddress(c[0], c[1]); !Is(err, Exhausted) {
			t.Errorf("network %d, machine %d got %s, %v", c[0], c[1], a, err)
		}
	}
}

func TestHostsAndTheResolverAreInTheFleetsOwnNetwork(t *testing.T) {
	a, err := HostAddress(9)
	if err != nil || a.String() != "fdaa::9:0:0:1" {
		t.Fatal(a, err)
	}
	for _, a := range []netip.Addr{a, ResolverAddress()} {
		if NetworkOf(a) != FleetNetwork() {
			t.Errorf("%s is in %s", a, NetworkOf(a))
		}
	}
	if _, err := HostAddress(0); !Is(err, Exhausted) {
		t.Errorf("host 0 got an address: %v", err)
	}
	if NetworkOf(netip.MustParseAddr("2001:db8::1")).IsValid() || MachinePrefix(netip.MustParseAddr("10.0.0.1")).IsValid() {
		t.Error("an address of somebody else's is in a network of ours")
	}
}
