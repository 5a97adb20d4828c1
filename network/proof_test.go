package network

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"drover"
)

// A host that says to be at the address of another one, or to have its key, gets none of its packets, whoever of the two is heard first.
func TestAHostIsNotBelievedToBeAnother(t *testing.T) {
	stolen := map[string]*drover.HostMesh{"h3's address": hostMesh(3), "h3's key": hostMesh(4), "h3's key as its next": hostMesh(4), "a number of its own": hostMesh(9)}
	stolen["h3's key"].PublicKey = hostMesh(3).PublicKey
	stolen["h3's key as its next"].NextKey = hostMesh(3).PublicKey
	for what, m := range stolen {
		for _, first := range []drover.HostID{"a-first", "z-last"} {
			d := newDaemon(t, t.TempDir(), nil)
			bus := tell(t)
			hosts, placements := bus.hosts, bus.placements
			bus.hosts = func(fn func(drover.HostID, *drover.HostInfo) error) {
				rogue := func() {
					if err := fn(first, &drover.HostInfo{ID: first, Mesh: m}); err != nil {
						t.Error(err)
					}
				}
				if first == "a-first" {
					rogue()
				}
				hosts(fn)
				if first == "z-last" {
					rogue()
				}
			}
			bus.placements = placements
			follow(t, d, bus)
			if got := routesOf(d); got != both {
				t.Errorf("%s: routes are %q", what, got)
			}
			for _, h := range d.feed.table.Hosts() {
				if h.ID == first && h.Mesh != nil {
					t.Errorf("%s: it is met with %+v", what, h.Mesh)
				}
			}
			if p := d.feed.impostors[first]; p == "" || !strings.Contains(d.Status().Problem, string(first)) && !strings.Contains(d.Status().Problem, "joined") {
				t.Errorf("%s: %q, %q", what, p, d.Status().Problem)
			}
		}
	}
}

// What a host says of its keys, and what the fleet says of them, come in any order while it gets another one: it is a peer all the while.
func TestAHostThatGetsAnotherKeyIsBelievedInAnyOrder(t *testing.T) {
	d := newDaemon(t, t.TempDir(), nil)
	follow(t, d, tell(t))
	f := d.feed
	said := func(key, next string) {
		m := hostMesh(2)
		m.PublicKey, m.NextKey = key, next
		f.met("h2", &drover.HostInfo{ID: "h2", Mesh: m})
	}
	is := func(key, next string) {
		rec := identityOf("h2", 2)
		rec.PublicKey, rec.NextKey = key, next
		f.identified("h2", &rec)
	}
	want := func(key, next string) {
		t.Helper()
		for _, h := range f.table.Hosts() {
			if h.ID == "h2" && (h.Mesh == nil || h.Mesh.PublicKey != key || h.Mesh.NextKey != next) {
				t.Fatalf("it is met with %+v", h.Mesh)
			}
		}
	}
	old := hostMesh(2).PublicKey
	said(old, "new") // before the fleet says so
	want(old, "")
	is(old, "new")
	want(old, "new")
	is("new", "") // before the host says so
	want(old, "new")
	said("new", "")
	want("new", "")
	said("another", "")
	want("new", "")
	if f.impostors["h2"] == "" {
		t.Error("nothing is said of a key that is not its own")
	}
	// Its name was taken away from it.
	f.identified("h2", nil)
	for _, h := range f.table.Hosts() {
		if h.ID == "h2" && h.Mesh != nil {
			t.Errorf("a host that is gone is met with %+v", h.Mesh)
		}
	}
}

func TestADataDirectoryOfAnotherHostIsNotThisHosts(t *testing.T) {
	dir := t.TempDir()
	bus := &fakeBus{number: 7}
	d := newDaemon(t, dir, bus)
	if err := d.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	copied, err := New(Config{Host: "h2", Dir: dir, RunDir: dir, Listen: d.cfg.Listen, MTU: 1380, Bus: bus, Log: d.cfg.Log})
	if err != nil || copied.number() != 0 {
		t.Errorf("h2 begins as number %d with the data directory of h1, %v", copied.number(), err)
	}
}

// A host that has its network goes by what it is without asking, until it boots again; a copy of its data directory begins with a boot of its own.
func TestABootIsLetInBeforeItsNetworkOpens(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	begin := func(run string) *Daemon {
		d, err := New(Config{Host: "h1", Dir: dir, RunDir: run, Listen: netip.MustParseAddrPort("10.0.0.1:51820"), MTU: 1380, Bus: &fakeBus{number: 7}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := begin(run)
	if first.hasBegun() {
		t.Error("a host has joined that nobody has let in")
	}
	if again := begin(run); again.hasBegun() || again.boot.ID != first.boot.ID {
		t.Error("the next process has another boot, or has joined")
	}
	if err := first.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := begin(run); !again.hasBegun() || again.boot.ID != first.boot.ID {
		t.Error("the next process of the same boot has to join")
	}
	if other := begin(t.TempDir()); other.hasBegun() || other.boot.ID == first.boot.ID || other.number() != 7 {
		t.Error("another boot, or a copy, takes itself for the first")
	}
}

// What a host runs does not depend on the control side; who is refused then, or later, begins no more.
func TestAHostThatBootsAloneBeginsUnlessItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, run := t.TempDir(), t.TempDir()
		bus := &fakeBus{number: 7}
		begin := func() *Daemon {
			d, err := New(Config{Host: "h1", Dir: dir, RunDir: run, Listen: netip.MustParseAddrPort("10.0.0.1:51820"), MTU: 1380, Bus: bus, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		if err := begin().claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		run = t.TempDir() // it boots
		bus.refuse = drover.Errorf(drover.Unavailable, "there is no connection to the bus")
		if !begin().join(t.Context()) {
			t.Fatal("it does not begin")
		}
		d := begin()
		if !d.hasBegun() {
			t.Error("its next process has to wait again")
		}
		taken := drover.Errorf(drover.Conflict, `this host cannot join as "h1": that host runs`)
		if err := d.refused(taken); err != nil || !d.Status().NameTaken || begin().hasBegun() {
			t.Errorf("it was refused, and begins again: %v", err)
		}
		run = t.TempDir()
		bus.refuse = taken
		ctx, cancel := context.WithTimeout(t.Context(), 3*aloneAfter)
		defer cancel()
		if begin().join(ctx) || begin().hasBegun() {
			t.Error("a host that is refused begins by itself")
		}
	})
}

// The agent of a host does nothing in its name before the host's network may begin.
func TestAnAgentWaitsForItsHost(t *testing.T) {
	bus := &fakeBus{number: 7, refuse: drover.Errorf(drover.Conflict, `this host cannot join as "h1": that host runs`)}
	d := newDaemon(t, t.TempDir(), bus)
	ctx, cancel := context.WithCancel(t.Context())
	served, joined := make(chan error, 1), make(chan bool, 1)
	go func() { served <- d.serve(ctx) }()
	go func() { joined <- d.join(ctx) }()
	err := AwaitBegun(ctx, d.cfg.RunDir, d.cfg.Log)
	if !drover.Is(err, drover.Conflict) || !strings.Contains(err.Error(), "that host runs") {
		t.Errorf("the agent of a host that was refused: %v", err)
	}
	bus.mu.Lock()
	bus.refuse = nil
	bus.mu.Unlock()
	if !<-joined {
		t.Error("it did not join")
	}
	if err := AwaitBegun(ctx, d.cfg.RunDir, d.cfg.Log); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := AwaitBegun(ctx, t.TempDir(), d.cfg.Log); err == nil {
		t.Error("an agent begins whose host has no network yet")
	}
}
