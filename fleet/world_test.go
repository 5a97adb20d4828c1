package fleet

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"drover"
	"drover/internal/fleetca"
	"drover/migrate"
	"drover/natsbus"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// nats-server keeps one of these per process after the first server.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// world is a whole control side with simulated hosts.
type world struct {
	t      *testing.T
	log    *slog.Logger
	server *natsbus.Server
	dir    string
	port   int
	// tune changes the timing of control hosts that are started from now on.
	tune  func(*Timing, *migrate.Rules)
	hosts map[drover.HostID]*fakeHost
	store *fakeStore
	// clock is what control hosts see as the time, if it is set.
	clock func() time.Time
	ca    *fleetca.CA
	// traces is where control hosts export traces that are started from now on.
	traces TraceExporter
	// power switches hosts off for control hosts that are started from now on; nil for no power command.
	power PowerSwitch
	// tlsDirs has the directories of certificates, by host.
	tlsDirs map[drover.HostID]string

	mu sync.Mutex
	// ranAt has the epochs at which each machine was started, by host.
	ranAt map[drover.MachineID]map[drover.HostID]drover.Epoch
	// dark are the hosts that nobody reaches; born is when the world began.
	dark map[drover.HostID]bool
	born time.Time
}

// quick is the timing of tests: everything that waits for a silence is short, but long enough for a busy machine to be heard.
func quick() (*Timing, *migrate.Rules) {
	timing := DefaultTiming()
	timing.Ready = 20 * time.Second
	timing.Unreachable = 2500 * time.Millisecond
	timing.LeaseTTL, timing.LeaseRenew = 1500*time.Millisecond, 200*time.Millisecond
	timing.Repair = 200 * time.Millisecond
	timing.Stale = 2 * time.Second
	timing.KeepVolumes, timing.Work = 0, 30*time.Millisecond
	timing.Drain = 20 * time.Millisecond
	rules := migrate.DefaultRules()
	rules.Silence = time.Second
	rules.Retry, rules.RetryMost = 20*time.Millisecond, 100*time.Millisecond
	rules.StartPoll, rules.HydratePoll = 10*time.Millisecond, 20*time.Millisecond
	rules.Down = 5 * time.Second
	// What fake hosts copy takes no time. A test that wants a late switch says so.
	rules.ThresholdTime, rules.LateOver, rules.CopyPoll = 0, drover.Bytes(1)<<50, time.Millisecond
	return &timing, &rules
}

// newWorld starts the bus, one control host, and hosts h1 and h2 in ams and h3 in fra.
func newWorld(t *testing.T) (*world, *node) {
	t.Helper()
	w := &world{t: t, log: slog.New(slog.NewTextHandler(io.Discard, nil)), hosts: map[drover.HostID]*fakeHost{},
		ranAt: map[drover.MachineID]map[drover.HostID]drover.Epoch{}, tlsDirs: map[drover.HostID]string{}, store: newFakeStore(t),
		dark: map[drover.HostID]bool{}, born: time.Now()}
	var err error
	if w.ca, err = fleetca.Ensure(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("FLEET_TEST_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.tune = func(*Timing, *migrate.Rules) {}
	w.dir = storeDir(t)
	w.startBus()
	t.Cleanup(func() { w.server.Shutdown() })
	for id, region := range map[drover.HostID]drover.Region{"h1": "ams", "h2": "ams", "h3": "fra"} {
		w.hosts[id] = newFakeHost(w, id, region)
	}
	n := w.control("c1", nil)
	w.eventually("three hosts are there", func() bool {
		hosts, err := n.Hosts(t.Context())
		return err == nil && len(hosts) == 3 && n.reachable("h1") && n.reachable("h2") && n.reachable("h3")
	})
	if _, err := n.CreateApp(t.Context(), drover.App{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	return w, n
}

// storeDir is a directory in memory where there is one: these tests are not about what a disk does.
func storeDir(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if st, err := os.Stat(shm); err != nil || !st.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "fleet-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// startBus starts the bus, on the port that it had before.
func (w *world) startBus() {
	w.t.Helper()
	srv, err := natsbus.StartServer(natsbus.ServerConfig{Name: "bus", Host: "127.0.0.1", Port: w.port, StoreDir: w.dir,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(srv.ClientURL())
	if err != nil {
		w.t.Fatal(err)
	}
	if w.port, err = strconv.Atoi(u.Port()); err != nil {
		w.t.Fatal(err)
	}
	w.server = srv
}

// tls returns the directory of a host's certificates.
func (w *world) tls(id drover.HostID, control bool) string {
	w.t.Helper()
	dir := w.tlsDirs[id]
	if dir == "" {
		dir = filepath.Join(w.t.TempDir(), "tls")
		w.tlsDirs[id] = dir
	}
	err := fleetca.IssueHost(w.ca, dir, id, nil, nil)
	if err == nil && control {
		err = fleetca.IssueControl(w.ca, dir, id)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// connect connects to the bus.
func (w *world) connect(ctx context.Context, name string) *natsbus.Conn {
	w.t.Helper()
	conn, err := natsbus.Connect(ctx, natsbus.Config{URLs: []string{w.server.ClientURL()}, Name: name, Log: w.log})
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// node is a control host.
type node struct {
	*Fleet
	kill func()
	// dead is closed when it was killed at a fault point.
	dead chan struct{}
}

// control starts a control host. killAt is the fault point at which it dies, nil for none.
func (w *world) control(id drover.HostID, killAt func(point string) bool) *node {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn := w.connect(ctx, string(id))
	timing, rules := quick()
	w.tune(timing, rules)
	f, err := New(Config{Conn: conn, Host: id, TLSDir: w.tls(id, true), Log: w.log.With("control", id), Timing: timing, Rules: rules, Snapshots: w.store, Clock: w.clock, Traces: w.traces, Power: w.power})
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{Fleet: f, dead: make(chan struct{})}
	var died sync.Once
	f.hit = func(point string) {
		if killAt != nil && killAt(point) {
			// As a SIGKILL: nothing is said any more, and nothing after this point is done.
			died.Do(func() {
				conn.Close()
				cancel()
				close(n.dead)
			})
			runtime.Goexit()
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	var once sync.Once
	n.kill = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				select {
				case <-n.dead: // it was killed: what it met without its connection is nobody's mistake
				default:
					w.t.Error(err)
				}
			}
			conn.Close()
		})
	}
	w.t.Cleanup(n.kill)
	return n
}

// ran notes that a host began to run a machine.
func (w *world) ran(id drover.MachineID, host drover.HostID, epoch drover.Epoch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ranAt[id] == nil {
		w.ranAt[id] = map[drover.HostID]drover.Epoch{}
	}
	w.ranAt[id][host] = epoch
	for _, h := range w.hosts {
		if h.id == host {
			continue
		}
		// The other hosts' locks are not taken here: a host calls with its own one held.
		if other := w.ranAt[id][h.id]; other > epoch {
			w.t.Errorf("machine %s is started on %s at epoch %d after %s had it at %d", id, host, epoch, h.id, other)
		}
	}
}

// eventuallyBound is for a machine that has other tests to run as well.
const eventuallyBound = 90 * time.Second

// eventually polls a condition, for eventuallyBound at most.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(eventuallyBound)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			w.t.Fatalf("did not happen within %s: %s", eventuallyBound, what)
		case <-tick.C:
		}
	}
}

// machine makes a machine and waits until it runs.
func (w *world) machine(n *node, req CreateMachine) MachineView {
	w.t.Helper()
	if req.App == "" {
		req.App = "shop"
	}
	if req.Config.Image == "" {
		req.Config.Image = "busybox"
	}
	v, err := n.CreateMachine(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	state := drover.StateStarted
	if req.SkipLaunch {
		state = drover.StateStopped
	}
	v, err = n.WaitMachine(w.t.Context(), req.App, v.Machine.ID, state, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) volume(n *node, host drover.HostID) VolumeView {
	w.t.Helper()
	v, err := n.CreateVolume(w.t.Context(), CreateVolume{App: "shop", Name: "data", Host: host, Size: drover.GiB})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// ended waits until a migration has ended.
func (w *world) ended(n *node, id drover.MigrationID) drover.Migration {
	w.t.Helper()
	var m drover.Migration
	w.eventually("migration "+string(id)+" ends", func() bool {
		var err error
		m, err = n.Migration(w.t.Context(), id)
		return err == nil && m.Ended()
	})
	return m
}

// checkOwner makes sure that a machine is where the placement says, runs there if it should, and nowhere else.
func (w *world) checkOwner(n *node, id drover.MachineID, want drover.HostID, running bool) {
	w.t.Helper()
	p, err := n.state.placementOf(w.t.Context(), id)
	if err != nil || p.Host != want {
		w.t.Fatalf("machine is placed on %q, %v; want %q", p.Host, err, want)
	}
	w.eventually("machine has come to rest on "+string(want), func() bool { return w.hosts[want].running(id) == running })
	for host, h := range w.hosts {
		if host != want && h.running(id) {
			w.t.Fatalf("machine %s runs on %s as well", id, host)
		}
	}
}

func wantError(t *testing.T, err error, code drover.Code, field, text string) {
	t.Helper()
	e := drover.AsError(err)
	if e == nil || e.Code != code || (field != "" && e.Field != field) || (text != "" && e.Text != text) {
		t.Fatalf("got %#v\nwant %s, field %q: %s", e, code, field, text)
	}
}
