package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

// A host that does not hear of a move any more is named by itself, by the condition and by the command alike, and is not when it has caught up.
func TestAHostThatBelievesSomethingOldIsNamed(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t)
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Behind = 200 * time.Millisecond }
	n := w.control("c2", nil)
	meshes := map[drover.HostID]*fakeMesh{}
	for id, number := range map[drover.HostID]uint64{"h1": 1, "h2": 2, "h3": 3} {
		meshes[id] = w.believer(id, number)
	}
	m := w.machine(n, CreateMachine{Host: "h1"}).Machine
	agree := func() bool {
		for _, mesh := range meshes {
			n.Fleet.state.mu.RLock()
			right := n.Fleet.state.routing.digest
			n.Fleet.state.mu.RUnlock()
			if right == 0 || mesh.tells() != right.String() {
				return false
			}
		}
		return true
	}
	w.eventually("all hosts know the machine", agree)

	meshes["h3"].freeze()
	moved, err := n.MoveMachine(t.Context(), Move{Machine: m.ID, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	if ended := w.ended(n, moved.ID); ended.Outcome != drover.Succeeded {
		t.Fatalf("migration %+v", ended)
	}
	var told []drover.Condition
	w.eventually("h3 is named", func() bool {
		told = conditionsOf(t, n, "h3", drover.MeshStale)
		return len(told) == 1
	})
	at := told[0].Since.Format(time.DateTime)
	for _, part := range []string{`host "h3"`, string(m.ID), m.Address, "has been on h2 since " + at, "to h1"} {
		if !strings.Contains(told[0].Text, part) {
			t.Errorf("it does not say %q: %s", part, told[0].Text)
		}
	}
	if told[0].Severity != drover.SeverityCritical || told[0].Since.Before(moved.CreatedAt.Truncate(time.Second)) {
		t.Errorf("condition %+v of a move that began at %s", told[0], moved.CreatedAt)
	}
	check, err := n.CheckNetwork(t.Context())
	if err != nil || check.OK || len(check.Hosts) != 3 {
		t.Fatalf("%+v, %v", check, err)
	}
	for _, h := range check.Hosts {
		if h.Host != "h3" {
			continue
		}
		if len(h.Stale) != 1 || h.Stale[0].Machine != m.ID || h.Stale[0].Believed != "h1" || h.Stale[0].Placed != "h2" || !h.Stale[0].Since.Equal(told[0].Since) {
			t.Errorf("the command says %+v, the condition %+v", h.Stale, told[0])
		}
	}

	meshes["h3"].thaw()
	w.eventually("h3 has caught up", func() bool { return agree() && len(conditionsOf(t, n, "h3", drover.MeshStale)) == 0 })
}

// What a host that is not heard believes nobody knows: it is not named for it, and given its time anew when it is back.
func TestAHostThatIsNotHeardIsNotNamed(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.beliefs.note("h3", []drover.StaleRoute{{Machine: "m1", Address: "fdaa:0:1:0:1::2", Believed: "h1", Placed: "h2"}}, nil, time.Now())
	w.hosts["h3"].halt()
	w.eventually("h3 is not named, and forgotten", func() bool {
		named := len(conditionsOf(t, n, "h3", drover.MeshStale)) > 0
		n.beliefs.mu.Lock()
		defer n.beliefs.mu.Unlock()
		return !named && n.beliefs.of["h3"] == nil
	})
}

func TestAControlHostThatIsBehindItselfAccusesNobody(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	m := w.machine(n, CreateMachine{Host: "h1"}).Machine
	if err := n.confirmStale(t.Context(), []drover.StaleRoute{{Machine: m.ID, Believed: "h2", Placed: "h1"}}); err != nil {
		t.Errorf("what is so is not confirmed: %v", err)
	}
	for what, s := range map[string]drover.StaleRoute{"a machine that is elsewhere": {Machine: m.ID, Believed: "h1", Placed: "h2"}, "one that is gone": {Machine: "x", Believed: "h1", Placed: "h2"}} {
		if err := n.confirmStale(t.Context(), []drover.StaleRoute{s}); !drover.Is(err, drover.Unavailable) {
			t.Errorf("of %s: %v", what, err)
		}
	}
}

// fleetOf is a state with hosts h1 and so on, and machines that are spread over them.
func fleetOf(tb testing.TB, hosts, machines int, now func() time.Time) *state {
	tb.Helper()
	s := newState(now)
	for _, synced := range []chan struct{}{s.machines.synced, s.placements.synced, s.hosts.synced, s.peers.synced, s.identities.synced} {
		close(synced)
	}
	for i := range hosts {
		a, err := drover.HostAddress(uint64(i + 1))
		if err != nil {
			tb.Fatal(err)
		}
		id := drover.HostID(fmt.Sprintf("h%d", i+1))
		info := drover.HostInfo{ID: id, Roles: []drover.Role{drover.RoleWorker}, Mesh: &drover.HostMesh{PrivateAddress: a.String()}}
		s.hosts.set(string(id), info, 1, true)
	}
	for i := range machines {
		a, err := drover.MachineAddress(1, uint64(i+1))
		if err != nil {
			tb.Fatal(err)
		}
		id := drover.MachineID(fmt.Sprintf("m%d", i+1))
		s.machines.set(string(id), drover.Machine{ID: id, Address: a.String()}, 1, true)
		s.placements.set(string(id), drover.Placement{Machine: id, Host: drover.HostID(fmt.Sprintf("h%d", i%hosts+1))}, 1, true)
	}
	return s
}

// A host may believe for a while what was so until a moment ago. One that goes on with it, or believes what never was so, is asked, and not all the time.
func TestAHostIsAskedWhenItStaysBehind(t *testing.T) {
	t.Parallel()
	const behind = 4 * time.Second
	now := time.Unix(1e9, 0)
	s, b := fleetOf(t, 2, 3, func() time.Time { return now }), newBeliefs()
	epoch := uint64(1)
	move := func(to drover.HostID) {
		epoch++
		s.placements.set("m1", drover.Placement{Machine: "m1", Host: to}, epoch, true)
	}
	asked := func(digest string) bool { return b.hearLocked("h9", s.rightUntilLocked(digest, now), now, behind) }
	first := s.routing.digest.String()
	if asked(first) {
		t.Fatal("a host that is right is asked")
	}
	now = now.Add(time.Hour)
	move("h2")
	for range 40 { // it is told by and by
		if now = now.Add(100 * time.Millisecond); asked(first) {
			t.Fatal("a host that may be behind is asked")
		}
	}
	if now = now.Add(100 * time.Millisecond); !asked(first) {
		t.Fatal("a host that stays behind is not asked")
	}
	if now = now.Add(time.Second); asked(first) {
		t.Error("it is asked while it is being asked")
	}
	b.note("h9", []drover.StaleRoute{{Machine: "m1", Believed: "h1", Placed: "h2"}}, nil, now)
	if now = now.Add(lookAgain - 1); asked(first) {
		t.Error("it is asked all the time")
	}
	if now = now.Add(1); !asked(first) {
		t.Error("it is not asked again")
	}
	b.note("h9", []drover.StaleRoute{{Machine: "m1", Believed: "h1", Placed: "h2"}}, nil, now)
	if now = now.Add(settleTime); !asked(s.routing.digest.String()) {
		t.Error("whether it has caught up is not looked at when it says so")
	}
	if b.note("h9", nil, nil, now); b.condition("h9") != nil {
		t.Error("the condition stays")
	}
	// Machines move all the time, and it is a moment behind all the time.
	for i := range 100 {
		before := s.routing.digest.String()
		move([]drover.HostID{"h1", "h2"}[i%2])
		if now = now.Add(behind / 2); asked(before) {
			t.Fatal("a host that is a moment behind is asked")
		}
	}
	// What nobody ever told.
	if asked(s.routing.digest.String()) {
		t.Error("a host that is right again is asked")
	}
	now = now.Add(behind)
	if asked("0123456789abcdef") {
		t.Error("a host that tells of what never was so is asked at once")
	}
	if now = now.Add(1); !asked("0123456789abcdef") {
		t.Error("a host that tells of what never was so is not asked")
	}
}

// Whatever changes, and in whatever order, the digest is that of the ways that there are.
func TestTheDigestFollowsWhatChanges(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	s := fleetOf(t, 3, 9, func() time.Time { return now })
	check := func(what string, ways int) {
		t.Helper()
		var want drover.RoutesDigest
		for _, w := range s.routing.ways {
			want = want.With(w.address, w.via)
		}
		if s.routing.digest != want || len(s.routing.ways) != ways {
			t.Errorf("%s: digest %s, of %d ways %s", what, s.routing.digest, len(s.routing.ways), want)
		}
	}
	check("at first", 9)
	h2, _, _ := s.hosts.seen("h2")
	gone := h2
	gone.Mesh = nil
	s.hosts.set("h2", gone, 2, true)
	check("of a host without a mesh", 6)
	s.identities.set("h2", drover.HostIdentity{Host: "h2", PrivateAddress: "fdaa::7:0:0:1"}, 1, true)
	s.hosts.set("h2", h2, 3, true)
	check("of a host that says it is another one", 6)
	s.identities.set("h2", drover.HostIdentity{Host: "h2", PrivateAddress: h2.Mesh.PrivateAddress}, 2, true)
	check("of a host that is believed", 9)
	s.identities.set("h9", drover.HostIdentity{Host: "h9", PrivateAddress: "fdaa::3:0:0:1"}, 1, true)
	check("of a host that has the address of another one", 6)
	s.identities.drop("h9", 2, true)
	check("of one whose address is its own again", 9)
	s.peers.set("peer.acme.ann", drover.WireGuardPeer{Address: "fdaa:0:1:0:77::2", Host: "h1"}, 1, true)
	check("with a person", 10)
	s.machines.drop("m1", 2, true)
	s.placements.drop("m2", 2, true)
	check("with two machines less", 8)
	s.placements.drop("m1", 2, true)
	s.machines.drop("m2", 2, true)
	check("with nothing left of them", 8)
}

// BenchmarkBeliefs is what it costs to look whether 200 hosts with 12,000 machines believe what is so, and to follow a move.
func BenchmarkBeliefs(b *testing.B) {
	const hosts, machines = 200, 12000
	s := fleetOf(b, hosts, machines, time.Now)
	f := &Fleet{state: s, beliefs: newBeliefs(), now: time.Now, timing: DefaultTiming()}
	for id, i := range s.hosts.items {
		i.value.RoutesDigest = s.routing.digest.String()
		s.heard[drover.HostID(id)] = sign{at: time.Now().Add(time.Hour), info: i.value}
	}
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			if ask := f.toLook(); len(ask) > 0 {
				b.Fatalf("%d hosts are to be asked", len(ask))
			}
		}
	})
	rev := uint64(1)
	b.Run("move", func(b *testing.B) {
		for b.Loop() {
			rev++
			s.placements.set(fmt.Sprintf("m%d", rev%machines+1), drover.Placement{Host: drover.HostID(fmt.Sprintf("h%d", rev%hosts+1))}, rev, true)
		}
	})
}
