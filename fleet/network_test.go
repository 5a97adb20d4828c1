package fleet

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
	"drover/natsbus"
)

func TestWhatAHostBelievesIsComparedWithPlacements(t *testing.T) {
	a := netip.MustParseAddr
	h1, h2 := a("fdaa:0:0:0:1::1"), a("fdaa:0:0:0:2::1")
	at := time.Unix(1e9, 0)
	to := func(id drover.MachineID, host drover.HostID) way {
		return way{machine: id, host: host, via: map[drover.HostID]netip.Addr{"h1": h1, "h2": h2}[host], since: at}
	}
	expected := map[netip.Addr]way{
		a("fdaa:0:1:0:1::2"): to("m1", "h1"), a("fdaa:0:1:0:2::2"): to("m2", "h2"), a("fdaa:0:1:0:3::2"): to("m3", "h2"), a("fdaa:0:1:0:4::2"): to("m4", "h2"),
	}
	believed := []drover.MeshRoute{{Machine: "fdaa:0:1:0:1::2", Host: h1.String()}, {Machine: "fdaa:0:1:0:2::2", Host: h1.String()},
		{Machine: "fdaa:0:1:0:4::2"}, {Machine: "fdaa:0:1:0:9::2", Host: "fdaa:0:0:0:7::1"}}
	want := []drover.StaleRoute{
		{Machine: "m2", Address: "fdaa:0:1:0:2::2", Believed: "h1", Placed: "h2", Since: at},
		{Machine: "m3", Address: "fdaa:0:1:0:3::2", Placed: "h2", Since: at},
		{Machine: "m4", Address: "fdaa:0:1:0:4::2", Placed: "h2", Since: at},
		{Address: "fdaa:0:1:0:9::2", Believed: "fdaa:0:0:0:7::1"},
	}
	if diff := cmp.Diff(want, compareRoutes(believed, expected, map[netip.Addr]drover.HostID{h1: "h1", h2: "h2"})); diff != "" {
		t.Error(diff)
	}
}

func TestANameIsReleasedOnlyOfAHostThatIsGone(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	bus := natsbus.NewHostBus(n.conn, "h9")
	want := drover.HostIdentity{Host: "h9", Instance: "old", PublicKey: "k1", Address: "10.0.0.9"}
	w.eventually("h9 has joined", func() bool {
		_, err := bus.ClaimIdentity(t.Context(), want)
		return err == nil
	})
	next := want
	next.Instance, next.PublicKey = "new", "k2"
	if _, err := bus.ClaimIdentity(t.Context(), next); !drover.Is(err, drover.Conflict) {
		t.Fatalf("another host got the name: %v", err)
	}
	w.eventually("h9 is unreachable", func() bool {
		_, err := n.Fleet.ReleaseHost(t.Context(), "h9")
		return err == nil
	})
	if _, err := bus.ClaimIdentity(t.Context(), next); err != nil {
		t.Errorf("the name was released, and is refused: %v", err)
	}
	if _, err := n.Fleet.ReleaseHost(t.Context(), "h77"); !drover.Is(err, drover.NotFound) {
		t.Errorf("a name that nobody has was released: %v", err)
	}
	if _, err := natsbus.NewHostBus(n.conn, "h1").ClaimIdentity(t.Context(), drover.HostIdentity{Host: "h1", Instance: "i", PublicKey: "k3"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Fleet.ReleaseHost(t.Context(), "h1"); !drover.Is(err, drover.Precondition) {
		t.Errorf("the name of a host that is heard was released: %v", err)
	}
}
