package natsbus

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"drover"
	"drover/internal/fleetca"
	"drover/internal/frames"
)

// guarded is a server that knows hosts by their certificates.
type guarded struct {
	t   *testing.T
	ca  *fleetca.CA
	srv *Server
	// control is a connection of the control host itself.
	control *Conn
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	ca, err := fleetca.Ensure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{t: t, ca: ca}
	config, err := fleetca.ServerConfig(g.tls("c1", false))
	if err != nil {
		t.Fatal(err)
	}
	g.srv, err = StartServer(ServerConfig{Name: "c1", Host: "127.0.0.1", StoreDir: t.TempDir(), TLS: config, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.srv.Shutdown)
	g.control = g.dial(Config{InProcess: g.srv, Name: "c1"})
	return g
}

func (g *guarded) tls(id drover.HostID, control bool) string {
	g.t.Helper()
	dir := filepath.Join(g.t.TempDir(), "tls")
	err := fleetca.IssueHost(g.ca, dir, id, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil)
	if err == nil && control {
		err = fleetca.IssueControl(g.ca, dir, id)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return dir
}

func (g *guarded) dial(cfg Config) *Conn {
	g.t.Helper()
	cfg.Log = quiet()
	conn, err := Connect(g.t.Context(), cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(conn.Close)
	eventually(g.t, cfg.Name+" is connected", conn.Up)
	return conn
}

// host connects as a worker.
func (g *guarded) host(id drover.HostID) *Conn {
	g.t.Helper()
	config, err := fleetca.ClientConfig(g.tls(id, false), "")
	if err != nil {
		g.t.Fatal(err)
	}
	return g.dial(Config{URLs: []string{g.srv.ClientURL()}, TLS: config, Name: string(id)})
}

// refused does something as a host, and reports whether the server refused it: its word comes before the answer to the flush.
func (g *guarded) refused(conn *Conn, do func() error) bool {
	g.t.Helper()
	errs := make(chan error, 8)
	conn.nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err })
	if err := do(); err != nil {
		g.t.Fatal(err)
	}
	if err := conn.nc.FlushTimeout(5 * time.Second); err != nil {
		g.t.Fatal(err)
	}
	select {
	case <-errs:
		return true
	case <-time.After(500 * time.Millisecond):
		return false
	}
}

func TestAHostDoesItsWorkWithItsOwnRights(t *testing.T) {
	g := newGuarded(t)
	ctx := t.Context()
	placements := open[drover.Placement](t, g.control, BucketPlacements)
	statuses := open[drover.MachineStatus](t, g.control, BucketStatus)
	open[drover.Machine](t, g.control, BucketMachines)
	open[drover.Migration](t, g.control, BucketMigrations)
	hosts := open[drover.HostInfo](t, g.control, BucketHosts)
	open[drover.Volume](t, g.control, BucketVolumes)
	mustCreate(t, placements, "m1", drover.Placement{Machine: "m1", Host: "h1"})
	NewObjects(g.control, StreamSnapshots, ObjectOptions{}).Ensure(ctx)

	seen := make(chan drover.HostInfo, 8)
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- WatchSeen(watching, g.control, func(i drover.HostInfo) { seen <- i }) }()
	defer func() { stop(); <-ended }()

	conn := g.host("h1")
	bus := NewHostBus(conn, "h1")
	if p, err := bus.Placement(ctx, "m1"); err != nil || p.Host != "h1" {
		t.Fatalf("%+v, %v", p, err)
	}
	told := make(chan drover.MachineID, 8)
	following, stopFollowing := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() {
		followed <- bus.FollowPlacements(following, func(id drover.MachineID, _ *drover.Placement) error { told <- id; return nil })
	}()
	if id := <-told; id != "m1" {
		t.Errorf("told of %q", id)
	}
	stopFollowing()
	if err := <-followed; err != nil {
		t.Error(err)
	}
	if err := bus.PublishStatus(ctx, drover.MachineStatus{Machine: "m1", Host: "h1", Epoch: 1, State: drover.StateStarted}); err != nil {
		t.Fatal(err)
	}
	if s, _, err := statuses.Get(ctx, StatusKey("m1", "h1")); err != nil || s.State != drover.StateStarted {
		t.Errorf("%+v, %v", s, err)
	}
	eventually(t, "its sign of life is heard", func() bool {
		if err := bus.PublishInfo(ctx, drover.HostInfo{ID: "h1"}); err != nil {
			t.Fatal(err)
		}
		return len(seen) > 0
	})
	if _, _, err := hosts.Get(ctx, "h1"); err != nil {
		t.Error(err)
	}
	if list, err := bus.Hosts(ctx); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := bus.Machine(ctx, "m1"); !drover.Is(err, drover.NotFound) {
		t.Error(err)
	}
	serveEcho(t, bus)
	waitServed(t, g.control)
	objects := NewObjects(conn, StreamSnapshots, ObjectOptions{Made: true})
	if err := objects.Put(ctx, "volumes/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if data, err := objects.Get(ctx, "volumes/a"); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	if err := objects.List(ctx, "volumes/", func(string, drover.Bytes) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := objects.Delete(ctx, "volumes/a"); err != nil {
		t.Error(err)
	}
}

func TestAHostCannotSpeakForOthers(t *testing.T) {
	g := newGuarded(t)
	placements := open[drover.Placement](t, g.control, BucketPlacements)
	statuses := open[drover.MachineStatus](t, g.control, BucketStatus)
	open[drover.HostInfo](t, g.control, BucketHosts)
	open[string](t, g.control, BucketTokens)
	mustCreate(t, placements, "m1", drover.Placement{Machine: "m1", Host: "h2"})
	rev := mustCreate(t, statuses, StatusKey("m1", "h2"), drover.MachineStatus{Machine: "m1", Host: "h2"})
	evil := g.host("h1")
	rollup := nats.NewMsg("$KV.placements._confirm")
	for name, m := range map[string]*nats.Msg{
		"another's status":          nats.NewMsg("$KV.status.m1.h2"),
		"a status of no host":       nats.NewMsg("$KV.status.m1"),
		"a placement":               nats.NewMsg("$KV.placements.m1"),
		"a new placement":           nats.NewMsg("$KV.placements.m2"),
		"another's description":     nats.NewMsg("$KV.hosts.h2"),
		"another's sign of life":    nats.NewMsg("host.h2.seen"),
		"an order":                  nats.NewMsg("host.h2.order.machine.apply"),
		"a token":                   nats.NewMsg("$KV.tokens.x"),
		"an entry of the trail":     nats.NewMsg("audit._._._"),
		"a stream's configuration":  nats.NewMsg("$JS.API.STREAM.UPDATE.KV_placements"),
		"a new stream":              nats.NewMsg("$JS.API.STREAM.CREATE.mine"),
		"the end of a stream":       nats.NewMsg("$JS.API.STREAM.DELETE.KV_placements"),
		"a purge":                   nats.NewMsg("$JS.API.STREAM.PURGE.KV_placements"),
		"what tokens there are":     nats.NewMsg("$JS.API.STREAM.MSG.GET.KV_tokens"),
		"a follower of tokens":      nats.NewMsg("$JS.API.CONSUMER.CREATE.KV_tokens.x"),
		"an answer that is not its": nats.NewMsg("_INBOX.h2.x"),
	} {
		if !g.refused(evil, func() error { return evil.nc.PublishMsg(m) }) {
			t.Errorf("a host may write %s (%s)", name, m.Subject)
		}
	}
	for _, subject := range []string{"host.h2.order.>", "host.*.order.>", "_INBOX.>", "_INBOX.h2.>", "$KV.>", ">", "control.request.>", "audit.>"} {
		if !g.refused(evil, func() error { _, err := evil.nc.SubscribeSync(subject); return err }) {
			t.Errorf("a host may listen at %s", subject)
		}
	}
	if g.refused(evil, func() error { _, err := evil.nc.SubscribeSync("host.h1.order.x"); return err }) ||
		g.refused(evil, func() error { return evil.nc.Publish("host.h1.seen", nil) }) {
		t.Error("everything is refused")
	}
	// What it may write for a proof cannot be made to remove records.
	rollup.Header.Set("Nats-Rollup", "all")
	if _, err := evil.js.PublishMsg(t.Context(), rollup); err == nil {
		t.Error("a host may write a message that removes all others")
	}
	if p, _, err := placements.Get(t.Context(), "m1"); err != nil || p.Host != "h2" {
		t.Errorf("the placement is %+v, %v", p, err)
	}
	if _, now, err := statuses.Get(t.Context(), StatusKey("m1", "h2")); err != nil || now != rev {
		t.Errorf("the status was written: %v", err)
	}
}

// JetStream delivers what a host may follow where the host says, which it may not publish to itself. It is not taken for an order or a sign of life.
func TestADeliveryIsNoOrder(t *testing.T) {
	g := newGuarded(t)
	placements := open[drover.Placement](t, g.control, BucketPlacements)
	open[drover.HostInfo](t, g.control, BucketHosts)
	rev := mustCreate(t, placements, "m1", drover.Placement{Machine: "m1", Host: "h2"})
	victim := g.host("h2")
	obeyed := make(chan string, 8)
	serve(t, NewHostBus(victim, "h2"), "echo", func(_ context.Context, request []byte) (any, error) {
		obeyed <- string(request)
		return nil, nil
	})
	serveStream(t, NewHostBus(victim, "h2"), drover.OrderExecStream, func(_ context.Context, request []byte, _ func() (frames.Conn, error)) error {
		obeyed <- string(request)
		return drover.Errorf(drover.Precondition, "the test opens none")
	})
	seen := make(chan drover.HostInfo, 8)
	watching, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- WatchSeen(watching, g.control, func(i drover.HostInfo) { seen <- i }) }()
	defer func() { stop(); <-ended }()
	eventually(t, "orders and signs of life are heard", func() bool {
		if err := Order(t.Context(), g.control, "h2", "echo", drover.Empty{}, nil); err != nil {
			return false
		}
		if _, err := OpenStream(t.Context(), g.control, "h2", drover.OrderExecStream, drover.Empty{}); !drover.Is(err, drover.Precondition) {
			return false
		}
		if err := NewHostBus(g.host("h3"), "h3").PublishInfo(t.Context(), drover.HostInfo{ID: "h3"}); err != nil {
			t.Fatal(err)
		}
		return len(obeyed) > 0 && len(seen) > 0
	})

	for len(obeyed) > 0 {
		<-obeyed
	}
	evil := g.host("h1")
	if err := evil.nc.Publish("$KV.hosts.h1", []byte(`{"id":"h2","name":"KV_placements"}`)); err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{"host.h2.order.echo", "host.h2.order." + string(drover.OrderExecStream), "host.h2.seen", "$KV.placements.m1", "$JS.API.STREAM.DELETE.KV_placements"} {
		name := fmt.Sprintf("x%d", i)
		_, err := evil.js.CreateOrUpdatePushConsumer(t.Context(), "KV_hosts", jetstream.ConsumerConfig{Name: name, DeliverSubject: to,
			AckPolicy: jetstream.AckNonePolicy, FilterSubject: "$KV.hosts.h1", MemoryStorage: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"x0", "x1"} {
		eventually(t, "the record is delivered as an order", func() bool {
			c, err := g.control.js.PushConsumer(t.Context(), "KV_hosts", name)
			return err == nil && c.CachedInfo().Delivered.Consumer > 0
		})
	}
	for range 3 { // what was delivered came before
		if err := Order(t.Context(), g.control, "h2", "echo", "the end", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStream(t.Context(), g.control, "h2", drover.OrderExecStream, "the end"); !drover.Is(err, drover.Precondition) {
			t.Fatal(err)
		}
	}
	for len(obeyed) > 0 {
		if got := <-obeyed; got != `"the end"` {
			t.Errorf("obeyed: %s", got)
		}
	}
	for len(seen) > 0 {
		if got := <-seen; got.ID != "h3" {
			t.Errorf("believed to live: %+v", got)
		}
	}
	if _, now, err := placements.Get(t.Context(), "m1"); err != nil || now != rev {
		t.Errorf("the placement was written: %v", err)
	}
}

func TestControlHostsAreKnownByTheirCertificate(t *testing.T) {
	g := newGuarded(t)
	config, err := fleetca.ControlClientConfig(g.tls("c2", true), "")
	if err != nil {
		t.Fatal(err)
	}
	c2 := g.dial(Config{URLs: []string{g.srv.ClientURL()}, TLS: config, Name: "c2"})
	mustCreate(t, open[drover.Placement](t, c2, BucketPlacements), "m1", drover.Placement{Machine: "m1", Host: "h1"})
	if _, err := c2.js.Stream(t.Context(), "KV_"+BucketPlacements); err != nil {
		t.Error(err)
	}
	// The same host with the certificate of a worker is a worker.
	worker := g.host("c2")
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := worker.js.CreateStream(short, jetstream.StreamConfig{Name: "mine"}); err == nil {
		t.Error("a worker made a stream")
	}
}

func TestABucketThatAllowedRollupsDoesNotAnyMore(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[string](t, conn, "things")
	cfg := b.stream.CachedInfo().Config
	cfg.AllowRollup = true
	if _, err := conn.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b = open[string](t, conn, "things")
	if b.stream.CachedInfo().Config.AllowRollup {
		t.Error("it does")
	}
}
