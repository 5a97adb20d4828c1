package network

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/route"
)

// fakeBus is the fleet as a test tells it.
type fakeBus struct {
	mu         sync.Mutex
	refuse     error
	number     uint64
	placements func(func(drover.MachineID, *drover.Placement, time.Time) error)
	machines   func(func(drover.MachineID, *drover.Machine) error)
	hosts      func(func(drover.HostID, *drover.HostInfo) error)
	peers      func(func(string, *drover.WireGuardPeer) error)
}

func (f *fakeBus) ClaimIdentity(_ context.Context, want drover.HostIdentity) (drover.HostIdentity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return drover.HostIdentity{}, f.refuse
	}
	a, err := drover.HostAddress(f.number)
	want.Number, want.PrivateAddress = f.number, a.String()
	return want, err
}

func (f *fakeBus) ServeBoot(ctx context.Context, _ string) error {
	<-ctx.Done()
	return nil
}

func (f *fakeBus) FollowMoves(ctx context.Context, fn func(drover.MachineID, *drover.Placement, time.Time) error) error {
	if f.placements != nil {
		f.placements(fn)
	}
	<-ctx.Done()
	return nil
}

func (f *fakeBus) FollowMachines(ctx context.Context, fn func(drover.MachineID, *drover.Machine) error) error {
	if f.machines != nil {
		f.machines(fn)
	}
	<-ctx.Done()
	return nil
}

func (f *fakeBus) FollowStatuses(ctx context.Context, fn func(drover.MachineID, *drover.MachineStatus) error) error {
	err := fn("", nil)
	<-ctx.Done()
	return err
}

func (f *fakeBus) FollowHosts(ctx context.Context, fn func(drover.HostID, *drover.HostInfo) error) error {
	if f.hosts != nil {
		f.hosts(fn)
	}
	<-ctx.Done()
	return nil
}

func (f *fakeBus) FollowPeers(ctx context.Context, fn func(string, *drover.WireGuardPeer) error) error {
	if f.peers != nil {
		f.peers(fn)
	}
	err := fn("", nil)
	<-ctx.Done()
	return err
}

func (f *fakeBus) FollowIdentities(ctx context.Context, fn func(drover.HostID, *drover.HostIdentity) error) error {
	var errs []error
	for id, number := range map[drover.HostID]uint64{"h2": 2, "h3": 3} {
		rec := identityOf(id, number)
		errs = append(errs, fn(id, &rec))
	}
	errs = append(errs, fn("", nil))
	<-ctx.Done()
	return errors.Join(errs...)
}

// identityOf is who a host is by the word of the fleet.
func identityOf(id drover.HostID, number uint64) drover.HostIdentity {
	m := hostMesh(number)
	return drover.HostIdentity{Host: id, Number: number, PrivateAddress: m.PrivateAddress, PublicKey: m.PublicKey}
}

func newDaemon(t *testing.T, dir string, bus Bus) *Daemon {
	t.Helper()
	d, err := New(Config{Host: "h1", Dir: dir, RunDir: dir, Listen: netip.MustParseAddrPort("10.0.0.1:51820"), MTU: 1380, Bus: bus, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func hostMesh(number uint64) *drover.HostMesh {
	a, err := drover.HostAddress(number)
	if err != nil {
		panic(err)
	}
	return &drover.HostMesh{Number: number, PrivateAddress: a.String(), PublicKey: "key of " + a.String()}
}

// tell tells the whole fleet: machine m1 on h2 and m2 on h3, less what is left out.
func tell(t *testing.T, without ...string) *fakeBus {
	gone := strings.Join(without, " ")
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	return &fakeBus{number: 7,
		hosts: func(fn func(drover.HostID, *drover.HostInfo) error) {
			must(fn("h2", &drover.HostInfo{ID: "h2", Mesh: hostMesh(2)}))
			must(fn("h3", &drover.HostInfo{ID: "h3", Mesh: hostMesh(3)}))
			must(fn("", nil))
		},
		machines: func(fn func(drover.MachineID, *drover.Machine) error) {
			for id, a := range map[drover.MachineID]string{"m1": "fdaa:0:1:0:1::2", "m2": "fdaa:0:1:0:2::2"} {
				if !strings.Contains(gone, string(id)) {
					must(fn(id, &drover.Machine{ID: id, App: "a", Address: a}))
				}
			}
			must(fn("", nil))
		},
		placements: func(fn func(drover.MachineID, *drover.Placement, time.Time) error) {
			for id, h := range map[drover.MachineID]drover.HostID{"m1": "h2", "m2": "h3"} {
				if !strings.Contains(gone, string(id)) {
					must(fn(id, &drover.Placement{Machine: id, Host: h}, time.Time{}))
				}
			}
			must(fn("", nil, time.Time{}))
		}}
}

// follow lets a daemon take in all that a bus tells, and store it.
func follow(t *testing.T, d *Daemon, bus Bus) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { d.feed.follow(ctx, bus, func() {}, func(string, error) {}); close(done) }()
		<-time.After(identitiesWait)
		synctest.Wait()
		cancel()
		<-done
	})
	if err := d.feed.save(); err != nil {
		t.Fatal(err)
	}
}

func routesOf(d *Daemon) string {
	var words []string
	for _, r := range d.Routes(netip.Addr{}).Routes {
		words = append(words, r.Machine+" by "+r.Host)
	}
	return strings.Join(words, ", ")
}

const both = "fdaa:0:1:0:1::2 by fdaa::2:0:0:1, fdaa:0:1:0:2::2 by fdaa::3:0:0:1"

func TestWhatWasKnownServesWithoutTheBus(t *testing.T) {
	dir := t.TempDir()
	d := newDaemon(t, dir, nil)
	follow(t, d, tell(t))
	if got := routesOf(d); got != both || d.Status().SyncedAt.IsZero() {
		t.Fatalf("routes are %q, %+v", got, d.Status())
	}
	again := newDaemon(t, dir, nil)
	if got := routesOf(again); got != both {
		t.Errorf("after a start without the bus routes are %q", got)
	}
	if !again.Status().SyncedAt.IsZero() {
		t.Error("it claims to know what the fleet agrees on now")
	}
	// A machine went while this process was not there.
	follow(t, again, tell(t, "m1"))
	if got := routesOf(again); got != "fdaa:0:1:0:2::2 by fdaa::3:0:0:1" {
		t.Errorf("the machine that went is still known: %q", got)
	}
}

func TestAPersonsPeerIsARouteThatIsKept(t *testing.T) {
	dir := t.TempDir()
	bus := tell(t)
	bus.peers = func(fn func(string, *drover.WireGuardPeer) error) {
		for _, p := range []drover.WireGuardPeer{{Name: "ann", Address: "fdaa:0:1:0:9::2", Host: "h2", PublicKey: "k"}, {Name: "bad", Address: "fdaa::2:0:0:1", Host: "h2"}} {
			if err := fn("peer.acme."+p.Name, &p); err != nil {
				t.Error(err)
			}
		}
	}
	d := newDaemon(t, dir, nil)
	follow(t, d, bus)
	const ann = ", fdaa:0:1:0:9::2 by fdaa::2:0:0:1"
	if got := routesOf(d); got != both+ann {
		t.Errorf("routes are %q", got)
	}
	d.feed.endpoints = map[string]netip.AddrPort{"k": netip.MustParseAddrPort("192.0.2.1:4000")}
	d.feed.touch()
	if err := d.feed.save(); err != nil {
		t.Fatal(err)
	}
	again := newDaemon(t, dir, nil)
	if got := routesOf(again); got != both+ann {
		t.Errorf("after a start without the bus routes are %q", got)
	}
	if at := again.feed.endpoints["k"].String(); at != "192.0.2.1:4000" {
		t.Errorf("the person was at %s", at)
	}
	follow(t, again, tell(t)) // it was removed meanwhile
	if got := routesOf(again); got != both {
		t.Errorf("routes are %q", got)
	}
}

// The lists are told side by side: whichever piece of news of a machine comes last, the mesh has what the table has.
func TestTheMeshHasWhatTheTableHasWhateverComesFirst(t *testing.T) {
	d := newDaemon(t, t.TempDir(), nil)
	f := d.feed
	const count = 2000
	address := func(i int) netip.Addr {
		a, err := drover.MachineAddress(1, uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var group sync.WaitGroup
	each := func(take func(id drover.MachineID, i int) []route.Route) {
		group.Go(func() {
			for i := range count {
				f.change(func() []route.Route { return take(drover.MachineID(address(i).String()), i) })
			}
		})
	}
	each(func(id drover.MachineID, _ int) []route.Route {
		return f.table.Describe(id, &drover.Machine{ID: id, App: "a", Address: string(id)})
	})
	each(func(id drover.MachineID, i int) []route.Route {
		return f.table.Place(id, &drover.Placement{Machine: id, Host: []drover.HostID{"h2", "h3"}[i%2]})
	})
	group.Go(func() {
		for i := range count {
			f.met([]drover.HostID{"h2", "h3"}[i%2], &drover.HostInfo{ID: []drover.HostID{"h2", "h3"}[i%2], Mesh: hostMesh(uint64(2 + i%2))})
		}
	})
	group.Wait()
	has := f.routes.All()
	for i := range count {
		if want := hostMesh(uint64(2 + i%2)).PrivateAddress; has[address(i)].String() != want {
			t.Fatalf("machine %d goes by %q, not by %s", i, has[address(i)], want)
		}
	}
}

func TestATableThatCannotBeReadIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	if err := durable.WriteFile(filepath.Join(dir, "tables.json"), []byte(`{"version": 1, "hosts": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, dir, nil)
	follow(t, d, tell(t))
	if got := routesOf(d); got != both {
		t.Errorf("routes are %q", got)
	}
}

func TestAHostKeepsWhoItIs(t *testing.T) {
	dir := t.TempDir()
	bus := &fakeBus{number: 7}
	d := newDaemon(t, dir, bus)
	if err := d.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "identity.json"))
	if err != nil || st.Mode().Perm() != fs.FileMode(0o600) {
		t.Errorf("who reads the private key: %v, %v", st.Mode(), err)
	}
	again := newDaemon(t, dir, bus)
	if !reflect.DeepEqual(again.id.file, d.id.file) || again.id.key.Public() != d.id.key.Public() {
		t.Errorf("it is another host after a restart: %+v, was %+v", again.id.file.Allotted, d.id.file.Allotted)
	}
}

func TestAHostWhoseNameIsTakenSaysSoAndJoinsWhenItIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &fakeBus{number: 7, refuse: drover.Errorf(drover.Conflict, `this host cannot join as "h1": that is the name of another host`)}
		d := newDaemon(t, t.TempDir(), bus)
		joined := make(chan bool, 1)
		go func() { joined <- d.join(t.Context()) }()
		<-time.After(3 * retryEvery)
		synctest.Wait()
		if s := d.Status(); !strings.Contains(s.Problem, `"h1"`) || !s.NameTaken {
			t.Errorf("its problem is %q, name taken %t", s.Problem, s.NameTaken)
		}
		bus.mu.Lock()
		bus.refuse = nil
		bus.mu.Unlock()
		if !<-joined || d.id.file.Allotted.Number != 7 {
			t.Errorf("it did not join: %+v", d.id.file.Allotted)
		}
	})
}

func TestTheListIsToldInPages(t *testing.T) {
	d := newDaemon(t, t.TempDir(), nil)
	host, err := drover.HostAddress(2)
	if err != nil {
		t.Fatal(err)
	}
	const count = drover.MaxMeshRoutes + 10
	for i := range uint64(count) {
		a, err := drover.MachineAddress(1, i)
		if err != nil {
			t.Fatal(err)
		}
		d.feed.routes.Set(a, host)
	}
	first := d.Routes(netip.Addr{})
	second := d.Routes(netip.MustParseAddr(first.Routes[len(first.Routes)-1].Machine))
	if !first.More || second.More || len(first.Routes)+len(second.Routes) != count {
		t.Errorf("pages of %d and %d", len(first.Routes), len(second.Routes))
	}
}

func TestTheAgentIsTold(t *testing.T) {
	d := newDaemon(t, t.TempDir(), nil)
	follow(t, d, tell(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.serve(ctx) }()
	c := NewClient(d.cfg.RunDir)
	defer c.http.CloseIdleConnections()
	var s drover.MeshStatus
	for {
		var err error
		if s, err = c.Status(t.Context()); !drover.Is(err, drover.Unavailable) || t.Context().Err() != nil {
			break
		}
	}
	if s.Routes != 2 || s.Problem == "" {
		t.Errorf("status is %+v", s)
	}
	if a, err := c.Routes(t.Context(), "fdaa:0:1:0:1::2"); err != nil || len(a.Routes) != 1 || a.Routes[0].Machine != "fdaa:0:1:0:2::2" {
		t.Errorf("routes are %+v, %v", a, err)
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); !drover.Is(err, drover.Unavailable) {
		t.Errorf("a process that is gone: %v", err)
	}
}

// BenchmarkNews takes in moves of machines in a fleet of 10,000, as they come from the bus.
func BenchmarkNews(b *testing.B) {
	f := newFeed("h1", b.TempDir(), time.Now)
	for i := range uint64(20) {
		id := drover.HostID("h" + string(rune('a'+i)))
		f.change(func() []route.Route { return f.table.Meet(id, &drover.HostInfo{ID: id, Mesh: hostMesh(i + 1)}) })
	}
	ids := make([]drover.MachineID, 10000)
	for i := range ids {
		a, err := drover.MachineAddress(1, uint64(i))
		if err != nil {
			b.Fatal(err)
		}
		ids[i] = drover.MachineID(a.String())
		f.change(func() []route.Route {
			return f.table.Describe(ids[i], &drover.Machine{ID: ids[i], App: "a", Address: a.String()})
		})
	}
	for i := 0; b.Loop(); i++ {
		f.change(func() []route.Route {
			return f.table.Place(ids[i%len(ids)], &drover.Placement{Host: drover.HostID("h" + string(rune('a'+i%20)))})
		})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "moves/s")
}
