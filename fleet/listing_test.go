package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"drover"
	"drover/natsbus"
)

// listed is a fleet without a store, with so many machines of the app "shop" dealt out to so many hosts.
func listed(hosts, machines int) *Fleet {
	f := &Fleet{state: newState(time.Now), now: time.Now, timing: DefaultTiming(), ready: make(chan struct{})}
	close(f.ready)
	f.state.apps.set("shop", drover.App{Name: "shop"}, 1, true)
	for h := range hosts {
		f.state.heard[drover.HostID(fmt.Sprintf("h%d", h))] = sign{at: time.Now().Add(time.Hour)}
	}
	begun := time.Now()
	for n := range machines {
		id, host, rev := fmt.Sprintf("%014x", n*7919), drover.HostID(fmt.Sprintf("h%d", n%hosts)), uint64(3*n+2)
		f.state.machines.set(id, drover.Machine{ID: drover.MachineID(id), App: "shop", CreatedAt: begun.Add(time.Duration(n) * time.Millisecond)}, rev, true)
		f.state.placements.set(id, drover.Placement{Machine: drover.MachineID(id), Host: host}, rev+1, true)
		report(f, id, host, rev+1, rev+2, drover.StateStarted)
	}
	return f
}

// report is what a host says of a machine.
func report(f *Fleet, id string, host drover.HostID, epoch, rev uint64, state drover.MachineState) {
	f.state.status.set(natsbus.StatusKey(drover.MachineID(id), host), drover.MachineStatus{Machine: drover.MachineID(id), Host: host, Epoch: drover.Epoch(epoch), State: state}, rev, true)
}

func BenchmarkKeysAfterAChange(b *testing.B) {
	f := listed(200, 10_000)
	rev := uint64(1_000_000)
	for b.Loop() {
		n := int(rev) % 10_000
		rev++
		report(f, fmt.Sprintf("%014x", n*7919), drover.HostID(fmt.Sprintf("h%d", n%200)), uint64(3*n+3), rev, drover.StateStarted)
		if keys, err := f.MachineKeys(b.Context(), "shop"); err != nil || len(keys) != 10_000 {
			b.Fatal(len(keys), err)
		}
	}
}

// TestListsFollowTheirMachines: whatever changes, in whatever order it comes, a list has what a look at every machine finds, and of those that have not changed
// the very keys that it had.
func TestListsFollowTheirMachines(t *testing.T) {
	const seed = 11
	random := rand.New(rand.NewPCG(seed, 0))
	f := listed(5, 40)
	now := time.Now()
	f.now = func() time.Time { return now }
	rev := uint64(1000)
	id := func() string { return fmt.Sprintf("%014x", random.IntN(45)*7919) } // some that are not there yet
	host := func() drover.HostID { return drover.HostID(fmt.Sprintf("h%d", random.IntN(6))) }
	machine := func() {
		key := id()
		m := drover.Machine{ID: drover.MachineID(key), App: "shop", CreatedAt: time.Unix(int64(len(key)), 0)}
		if old, ok := f.state.machines.items[key]; ok {
			m.CreatedAt = old.value.CreatedAt
		}
		if random.IntN(4) == 0 {
			m.Goal = drover.GoalDestroyed
		}
		f.state.machines.set(key, m, rev, true)
	}
	changes := []func(){
		machine,
		func() { f.state.machines.drop(id(), rev, true) },
		func() {
			key := id()
			f.state.placements.set(key, drover.Placement{Machine: drover.MachineID(key), Host: host()}, rev, true)
		},
		func() { f.state.placements.drop(id(), rev, true) },
		func() {
			key := id()
			report(f, key, host(), f.state.placements.items[key].rev, rev, drover.StateStopped)
		},
		func() { f.state.status.drop(natsbus.StatusKey(drover.MachineID(id()), host()), rev, true) },
		func() {
			m := drover.Migration{ID: drover.MigrationID(fmt.Sprintf("mig_%d", random.IntN(10))), Machine: drover.MachineID(id()), Phase: drover.Phases[random.IntN(3)], CreatedAt: time.Unix(int64(rev), 0)}
			f.state.migrations.set(string(m.ID), m, rev, true)
		},
		func() { f.state.migrations.drop(fmt.Sprintf("mig_%d", random.IntN(10)), rev, true) },
		func() { f.state.heard[host()] = sign{at: now.Add(-time.Duration(random.IntN(2)) * time.Hour)} },
		func() {},
	}
	var before []*MachineKey
	for step := range 5000 {
		for range random.IntN(4) {
			rev++
			changes[random.IntN(len(changes))]()
		}
		got, err := f.MachineKeys(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		views, err := f.Machines(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(views) {
			t.Fatalf("seed %d, step %d: %d machines, not %d", seed, step, len(got), len(views))
		}
		for i, v := range views {
			if *got[i] != v.Key() {
				t.Fatalf("seed %d, step %d: the key of number %d is %+v, not %+v", seed, step, i, *got[i], v.Key())
			}
			if at := slices.IndexFunc(before, func(k *MachineKey) bool { return *k == *got[i] }); at >= 0 && before[at] != got[i] {
				t.Fatalf("seed %d, step %d: machine %s has not changed, and its key is another one", seed, step, got[i].ID)
			}
		}
		before = got
	}
	for _, v := range before {
		f.state.machines.drop(string(v.ID), rev+1, true)
	}
	if got, err := f.MachineKeys(t.Context(), "shop"); err != nil || len(got) != 0 || len(f.state.listings.of) != 0 {
		t.Errorf("%d machines are listed, %d apps kept, of an app without any; %v", len(got), len(f.state.listings.of), err)
	}
}
