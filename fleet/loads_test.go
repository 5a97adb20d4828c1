package fleet

import (
	"maps"
	"testing"
	"time"

	"drover"
)

// What is counted as machines come, move and go is what a count of all of them finds, in whatever order records come.
func TestLoadsAreWhatIsThere(t *testing.T) {
	s := newState(time.Now)
	machine := func(id string, rev uint64, app drover.AppName, mb int) {
		s.machines.set(id, drover.Machine{ID: drover.MachineID(id), App: app, Config: drover.MachineConfig{Guest: drover.Guest{MemoryMB: mb}}}, rev, true)
	}
	placed := func(id string, rev uint64, host drover.HostID) {
		s.placements.set(id, drover.Placement{Machine: drover.MachineID(id), Host: host}, rev, true)
	}
	check := func(apps map[drover.HostID]int, memory map[drover.HostID]drover.Bytes) {
		t.Helper()
		if !maps.Equal(s.loads.apps["shop"], apps) || !maps.Equal(s.loads.memory, memory) {
			t.Fatalf("%v, %v", s.loads.apps, s.loads.memory)
		}
	}
	placed("m1", 1, "h1")
	machine("m1", 2, "shop", 256)
	machine("m2", 3, "shop", 512)
	check(map[drover.HostID]int{"h1": 1}, map[drover.HostID]drover.Bytes{"h1": 256 * drover.MiB})
	placed("m2", 4, "h1")
	machine("m2", 5, "shop", 1024)
	check(map[drover.HostID]int{"h1": 2}, map[drover.HostID]drover.Bytes{"h1": 1280 * drover.MiB})
	placed("m2", 6, "h2")
	check(map[drover.HostID]int{"h1": 1, "h2": 1}, map[drover.HostID]drover.Bytes{"h1": 256 * drover.MiB, "h2": drover.GiB})
	s.placements.drop("m1", 7, true)
	s.machines.drop("m2", 8, true)
	check(nil, nil)
	if len(s.loads.counted) != 0 || len(s.loads.apps) != 0 {
		t.Errorf("%+v is left", s.loads)
	}
}
