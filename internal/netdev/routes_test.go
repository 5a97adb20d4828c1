package netdev

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"drover"
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
	machine, via := netip.MustParseAddr(address), netip.MustParseAddr("fdaa:0:0:0:2::1")
	r := MeshRoutes{Device: MeshDevice}
	if err := r.Set(t.Context(), machine, via); !drover.Is(err, drover.Unavailable) {
		t.Errorf("a route into a device that is not there: %v", err)
	}
	if err := EnsureTUN(MeshDevice, 1380, netip.MustParseAddr("fdaa:0:0:0:1::1")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l, err := netlink.LinkByName(MeshDevice)
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil {
			t.Error(err)
		}
	})
	tap, err := taps.Attach(t.Context(), "0123456789abcd", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := taps.Detach(t.Context(), "0123456789abcd"); err != nil {
			t.Error(err)
		}
	})
	if got := way(t, address); !strings.Contains(got, "dev "+tap) {
		t.Errorf("a machine that is here goes %s", got)
	}
	if got := way(t, "fdaa:0:1:0:8::2"); !strings.Contains(got, "dev "+MeshDevice) || !strings.Contains(got, "src fdaa::1:0:0:1") {
		t.Errorf("a machine that is elsewhere goes %s", got)
	}
	for range 2 {
		if err := r.Set(t.Context(), machine, via); err != nil {
			t.Fatal(err)
		}
		if got := way(t, address); !strings.Contains(got, "dev "+MeshDevice) {
			t.Errorf("the machine that left goes %s", got)
		}
	}
	list, err := r.List(t.Context())
	want := map[netip.Addr]netip.Addr{machine: netip.IPv6Unspecified()}
	if err != nil || !cmp.Equal(list, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
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

// BenchmarkMeshRoutes leads machines of 10,000 into the mesh, one after the other.
func BenchmarkMeshRoutes(b *testing.B) {
	if err := EnsureTUN(MeshDevice, 1380, netip.MustParseAddr("fdaa:0:0:0:1::1")); err != nil {
		b.Skip(err)
	}
	r := MeshRoutes{Device: MeshDevice}
	for i := 0; b.Loop(); i++ {
		a, err := drover.MachineAddress(1, uint64(i%10000))
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Set(b.Context(), a, netip.Addr{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "routes/s")
}
