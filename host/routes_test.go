package host

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"testing"

	"drover"
)

// fakeRoutes is a kernel's table.
type fakeRoutes struct {
	table map[netip.Addr]netip.Addr
	fail  error
}

func (f *fakeRoutes) Set(_ context.Context, machine, via netip.Addr) error {
	if f.fail == nil {
		f.table[machine] = via
	}
	return f.fail
}

func (f *fakeRoutes) Remove(_ context.Context, machine netip.Addr) error {
	if f.fail == nil {
		delete(f.table, machine)
	}
	return f.fail
}

func (f *fakeRoutes) List(context.Context) (map[netip.Addr]netip.Addr, error) {
	return maps.Clone(f.table), nil
}

// routed is a host's router with its table, and what a test tells it.
type routed struct {
	t      *testing.T
	r      *router
	kernel *fakeRoutes
}

var (
	m1Address = netip.MustParseAddr("fdaa:0:1:0:1::2")
	h2Address = netip.MustParseAddr("fd98::2")
	h3Address = netip.MustParseAddr("fd98::3")
)

func newRouted(t *testing.T) *routed {
	kernel := &fakeRoutes{table: map[netip.Addr]netip.Addr{}}
	a := &Agent{cfg: Config{ID: "h1", Routes: kernel, Log: slog.New(slog.DiscardHandler)}, machines: map[drover.MachineID]*machine{}}
	return &routed{t: t, r: newRouter(a), kernel: kernel}
}

func (w *routed) hosts() {
	w.must(w.r.met("h1", &drover.HostInfo{RouteAddress: "fd98::1"}))
	w.must(w.r.met("h2", &drover.HostInfo{RouteAddress: h2Address.String()}))
	w.must(w.r.met("h3", &drover.HostInfo{RouteAddress: h3Address.String()}))
	w.must(w.r.met("", nil))
}

func (w *routed) machine(id drover.MachineID) {
	w.must(w.r.addressed(id, &drover.Machine{ID: id, Address: m1Address.String()}))
}

func (w *routed) place(id drover.MachineID, on drover.HostID, epoch drover.Epoch) {
	w.must(w.r.placed(id, &drover.Placement{Machine: id, Host: on, Epoch: epoch}))
}

// have makes this host the owner of a machine, by its own records.
func (w *routed) have(id drover.MachineID, epoch drover.Epoch) {
	m := &machine{id: id, agent: w.r.agent}
	m.rec.Store(&records{Desired: &drover.ApplyRequest{Epoch: epoch}})
	w.r.agent.machines[id] = m
	w.r.touch(id)
}

func (w *routed) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// check compares the table; no address is no route.
func (w *routed) check(what string, via netip.Addr) {
	w.t.Helper()
	w.must(w.r.apply(w.t.Context()))
	want := map[netip.Addr]netip.Addr{}
	if via.IsValid() {
		want[m1Address] = via
	}
	if !maps.Equal(w.kernel.table, want) {
		w.t.Errorf("%s: routes are %v, want %v", what, w.kernel.table, want)
	}
}

func TestRoutesFollowAMachineInWhateverOrderTheNewsComes(t *testing.T) {
	w := newRouted(t)
	w.place("m1", "h2", 5)
	w.check("its address is not known", netip.Addr{})
	w.machine("m1")
	w.check("its host is not known", netip.Addr{})
	w.hosts()
	w.check("all is known", h2Address)
	w.place("m1", "h3", 6)
	w.check("it moved", h3Address)
	w.place("m1", "h1", 7)
	w.check("it came here", netip.Addr{})
	w.place("m1", "h2", 8)
	w.check("it left", h2Address)
	w.must(w.r.met("h2", &drover.HostInfo{RouteAddress: "fd98::22"}))
	w.check("its host has another address", netip.MustParseAddr("fd98::22"))
	w.must(w.r.placed("m1", nil))
	w.must(w.r.addressed("m1", nil))
	w.check("it was destroyed", netip.Addr{})
}

// Each piece of news is acted upon before the next one comes.
func TestARouteIsMadeWhenThePlacementComesAfterTheRecord(t *testing.T) {
	w := newRouted(t)
	w.hosts()
	w.machine("m1")
	w.check("a record without a placement", netip.Addr{})
	w.place("m1", "h2", 1)
	w.check("the placement after its record", h2Address)
	w.must(w.r.placed("m1", nil))
	w.check("no placement", netip.Addr{})
	w.place("m1", "h3", 2)
	w.check("placed again", h3Address)
	w.must(w.r.addressed("m1", nil))
	w.must(w.r.placed("m1", nil))
	w.check("destroyed", netip.Addr{})
	if len(w.r.addresses) != 0 || len(w.r.gone) != 0 {
		t.Errorf("of a machine that is gone there are left %v %v", w.r.addresses, w.r.gone)
	}
}

func TestWhatAHostHasItselfGoesBeforeOldNews(t *testing.T) {
	w := newRouted(t)
	w.hosts()
	w.machine("m1")
	w.place("m1", "h2", 5)
	w.check("on its way here", h2Address)
	w.have("m1", 6)
	w.check("handed over, and the placement's news is late", netip.Addr{})
	w.place("m1", "h3", 9)
	w.check("it left again", h3Address)
}

func TestRoutesOfAnEarlierAgentAreFoundAndCleared(t *testing.T) {
	w := newRouted(t)
	gone := netip.MustParseAddr("fdaa:0:1:0:9::2")
	w.kernel.table[m1Address], w.kernel.table[gone] = h2Address, h2Address
	w.machine("m1")
	w.must(w.r.addressed("", nil))
	w.place("m1", "h3", 5)
	w.hosts()
	w.must(w.r.apply(t.Context()))
	if len(w.kernel.table) != 2 {
		t.Fatalf("routes were cleared before all placements were told: %v", w.kernel.table)
	}
	w.must(w.r.placed("", nil))
	w.check("all was told", h3Address)
}

func TestARouteThatTheKernelRefusesIsTriedAgain(t *testing.T) {
	w := newRouted(t)
	w.hosts()
	w.machine("m1")
	w.place("m1", "h2", 5)
	w.kernel.fail = errors.New("no")
	if err := w.r.apply(t.Context()); !errors.Is(err, w.kernel.fail) {
		t.Fatal(err)
	}
	w.kernel.fail = nil
	w.check("the kernel takes it now", h2Address)
}
