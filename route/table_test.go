package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover"
)

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func mesh(number uint64) *drover.HostMesh {
	a, err := drover.HostAddress(number)
	if err != nil {
		panic(err)
	}
	return &drover.HostMesh{Number: number, PrivateAddress: a.String()}
}

// apply makes the routes what they are after changes.
func apply(kernel map[netip.Addr]netip.Addr, changes []Route) {
	for _, c := range changes {
		if c.Host.IsValid() {
			kernel[c.Machine] = c.Host
		} else {
			delete(kernel, c.Machine)
		}
	}
}

// Whatever the order of the news, the routes come out the same, and the same as those of a table that is loaded.
func TestRoutesAreTheSameInWhateverOrderTheNewsComes(t *testing.T) {
	type news func(*Table) []Route
	var all []news
	for n := range 3 {
		all = append(all, func(t *Table) []Route {
			id := drover.HostID(fmt.Sprintf("h%d", n))
			return t.Meet(id, &drover.HostInfo{ID: id, Region: "ams", Mesh: mesh(uint64(n + 1))})
		})
	}
	for n := range 12 {
		id := drover.MachineID(fmt.Sprintf("m%d", n))
		address, err := drover.MachineAddress(1+uint64(n)%2, uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all,
			func(t *Table) []Route {
				return t.Describe(id, &drover.Machine{ID: id, App: "a", Address: address.String()})
			},
			func(t *Table) []Route {
				return t.Place(id, &drover.Placement{Machine: id, Host: drover.HostID(fmt.Sprintf("h%d", n%3))})
			},
			func(t *Table) []Route {
				return t.Observe(id, &drover.MachineStatus{Machine: id, State: drover.StateStarted})
			})
	}
	var want map[netip.Addr]netip.Addr
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		order := slices.Clone(all)
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		table, kernel := NewTable(), map[netip.Addr]netip.Addr{}
		for _, tell := range order {
			apply(kernel, tell(table))
		}
		if want == nil {
			want = kernel
		}
		if len(kernel) != 12 || !cmp.Equal(kernel, want, compareAddrs) {
			t.Fatalf("seed %d: routes are %v, want %v", seed, kernel, want)
		}
		loaded := map[netip.Addr]netip.Addr{}
		apply(loaded, NewTable().Load(table.Hosts(), table.Machines(), table.Peers()))
		if !cmp.Equal(loaded, want, compareAddrs) {
			t.Fatalf("seed %d: loaded routes are %v, want %v", seed, loaded, want)
		}
	}
}

func TestAMachineThatGoesLeavesNothing(t *testing.T) {
	table, kernel := NewTable(), map[netip.Addr]netip.Addr{}
	apply(kernel, table.Meet("h1", &drover.HostInfo{ID: "h1", Mesh: mesh(1)}))
	apply(kernel, table.Describe("m", &drover.Machine{ID: "m", App: "a", Address: "fdaa:0:1:0:1::2"}))
	apply(kernel, table.Place("m", &drover.Placement{Machine: "m", Host: "h1"}))
	apply(kernel, table.Observe("m", &drover.MachineStatus{State: drover.StateStarted}))
	if len(kernel) != 1 {
		t.Fatalf("routes are %v", kernel)
	}
	apply(kernel, table.Describe("m", nil))
	apply(kernel, table.Observe("m", nil))
	apply(kernel, table.Place("m", nil))
	if len(kernel) != 0 || len(table.Machines()) != 0 || len(table.networks) != 0 {
		t.Errorf("left are routes %v, machines %v, networks %v", kernel, table.Machines(), table.networks)
	}
}
