package netdev

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// link gives the test's namespace a link that it shares with neighbours in fd98::/64.
func link(t *testing.T) {
	t.Helper()
	if err := StartLoopback(); err != nil {
		t.Fatal(err)
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "w0"}, PeerName: "w1"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(pair); err != nil {
			t.Error(err)
		}
	})
	for _, args := range [][]string{{"addr", "add", "fd98::1/64", "dev", "w0", "nodad"}, {"link", "set", "w0", "up"}, {"link", "set", "w1", "up"}} {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
}

// way asks the kernel where it would send a packet.
func way(t *testing.T, to string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", "-6", "route", "get", to).CombinedOutput()
	if err != nil {
		t.Fatalf("no way to %s: %v: %s", to, err, out)
	}
	return string(out)
}

func TestARouteToAnotherHostGoesBeforeTheTap(t *testing.T) {
	taps := mustTaps(t)
	link(t)
	const address = "fdaa:0:1:0:7::2"
	machine, via, other := netip.MustParseAddr(address), netip.MustParseAddr("fd98::2"), netip.MustParseAddr("fd98::3")
	tap, err := taps.Attach(t.Context(), "0123456789abcd", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := taps.Detach(t.Context(), "0123456789abcd"); err != nil {
			t.Error(err)
		}
	})
	var r Routes
	for _, next := range []netip.Addr{via, via, other} {
		if err := r.Set(t.Context(), machine, next); err != nil {
			t.Fatal(err)
		}
		if got := way(t, address); !strings.Contains(got, "via "+next.String()) {
			t.Errorf("the machine that left goes %s", got)
		}
	}
	list, err := r.List(t.Context())
	if err != nil || !cmp.Equal(list, map[netip.Addr]netip.Addr{machine: other}, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("routes are %v, %v", list, err)
	}
	for range 2 {
		if err := r.Remove(t.Context(), machine); err != nil {
			t.Fatal(err)
		}
	}
	if got := way(t, address); !strings.Contains(got, "dev "+tap) {
		t.Errorf("the machine that is back goes %s", got)
	}
}

func TestARouteByAHostOnNoLinkIsRefused(t *testing.T) {
	link(t)
	err := Routes{}.Set(t.Context(), netip.MustParseAddr("fdaa::2"), netip.MustParseAddr("2001:db8::9"))
	if err == nil || !strings.Contains(err.Error(), "2001:db8::9") {
		t.Errorf("a host that cannot be reached was taken: %v", err)
	}
}
