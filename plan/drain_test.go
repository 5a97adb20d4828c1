package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"drover"
)

// fleetOf draws a region: hosts with room, some of them closed, and machines on the first.
func fleetOf(t *rapid.T) ([]Candidate, []Room) {
	var rooms []Room
	for i := range rapid.IntRange(1, 6).Draw(t, "hosts") {
		r := Room{Host: drover.HostID(fmt.Sprintf("h%d", i+1)), Region: drover.Region(rapid.SampledFrom([]string{"ams", "ams", "fra"}).Draw(t, "region")),
			Memory: drover.Bytes(rapid.IntRange(0, 20).Draw(t, "memory")) * 128 * drover.MiB, Disk: drover.Bytes(rapid.IntRange(0, 50).Draw(t, "disk")) * drover.GiB,
			CPUs: rapid.IntRange(1, 4).Draw(t, "cpus")}
		if rapid.IntRange(0, 3).Draw(t, "closed") == 0 {
			r.Closed = rapid.SampledFrom([]string{"is cordoned", "is suspect", "is being drained"}).Draw(t, "why")
		}
		if i == 0 {
			r.Region, r.Closed = "ams", "is being drained"
		}
		rooms = append(rooms, r)
	}
	var candidates []Candidate
	for i := range rapid.IntRange(0, 12).Draw(t, "machines") {
		app := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "app")
		c := Candidate{Machine: drover.MachineID(fmt.Sprintf("m%02d", i)), App: drover.AppName(app), Class: app, Source: "h1", Region: "ams",
			Running: rapid.Bool().Draw(t, "running"), MemoryMB: 128 * rapid.IntRange(1, 4).Draw(t, "size"), CPUs: rapid.IntRange(1, 3).Draw(t, "need"),
			Bytes: drover.Bytes(rapid.IntRange(0, 4).Draw(t, "data")) * drover.GiB, Labels: drover.Labels{Policy: drover.MoveAny, MaxUnavailable: 1}}
		c.Network = rapid.SampledFrom([]string{"", "net"}).Draw(t, "network")
		if rapid.Bool().Draw(t, "grouped") {
			c.Group, c.Labels.Group = "g", "g"
			c.Labels.MaxUnavailable = rapid.IntRange(1, 3).Draw(t, "budget")
		}
		c.Labels.Role = drover.MoveRole(rapid.SampledFrom([]string{"", "primary", "replica"}).Draw(t, "role"))
		c.Labels.Value = float64(rapid.IntRange(-1, 2).Draw(t, "value"))
		if rapid.IntRange(0, 4).Draw(t, "alone") == 0 {
			c.Labels.Policy = drover.MoveOneAtATime
		}
		candidates = append(candidates, c)
	}
	return candidates, rooms
}

func TestAssignNeverPromisesMoreThanThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		candidates, rooms := fleetOf(t)
		targets, why := Assign(candidates, rooms)
		for _, c := range candidates {
			if (targets[c.Machine] == "") == (why[c.Machine] == "") {
				t.Fatalf("machine %s: target %q, reason %q", c.Machine, targets[c.Machine], why[c.Machine])
			}
		}
		for _, r := range rooms {
			memory, disk := drover.Bytes(0), drover.Bytes(0)
			for _, c := range candidates {
				if targets[c.Machine] != r.Host {
					continue
				}
				memory, disk = memory+c.memory(), disk+c.Bytes
				if r.Closed != "" || r.Host == c.Source || r.Region != c.Region || c.CPUs > r.CPUs {
					t.Fatalf("machine %+v goes to %+v", c, r)
				}
			}
			if memory > r.Memory || disk > r.Disk {
				t.Fatalf("host %s gets %d bytes of memory and %d of disk, and has %d and %d", r.Host, memory, disk, r.Memory, r.Disk)
			}
		}
		if (len(why) == 0) != (Missing(candidates, why) == "") {
			t.Fatalf("%d without a place, and missing is %q", len(why), Missing(candidates, why))
		}
	})
}

func TestAScheduleKeepsTheLimitsAndEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		candidates, rooms := fleetOf(t)
		targets, _ := Assign(candidates, rooms)
		o := drover.DrainOptions{PerSource: rapid.IntRange(1, 5).Draw(t, "per source"), PerTarget: rapid.IntRange(1, 3).Draw(t, "per target"),
			PerApp: rapid.IntRange(1, 3).Draw(t, "per app"), PerNetwork: rapid.IntRange(1, 3).Draw(t, "per network"),
			Suspect: rapid.Bool().Draw(t, "suspect")}.WithDefaults()
		Order(candidates, o.Suspect)
		rates := DefaultRates()
		rates.LateOver = drover.Bytes(rapid.Int64Range(0, 1<<30).Draw(t, "late over"))
		s := simulation{o: o, rates: rates, plans: make([]Planned, len(candidates)), trace: func(slots []Slot) { checkSlots(t, slots, candidates, o) }}
		for i, c := range candidates {
			s.plans[i] = Planned{Candidate: c, Target: targets[c.Machine]}
			if targets[c.Machine] != "" {
				s.waiting = append(s.waiting, i)
			}
		}
		for range 10_000 {
			s.begin()
			if !s.advance() {
				break
			}
		}
		if len(s.flying) > 0 || len(s.waiting) > 0 {
			t.Fatalf("%d moves wait and %d fly for ever", len(s.waiting), len(s.flying))
		}
	})
}

// A machine whose data is copied first runs on its target afterwards; the others run there first. Both take as long, but the next of the app waits longer.
func TestASchedulePutsTheCopyWhereTheSwitchHasIt(t *testing.T) {
	rates := Rates{Before: 4 * time.Second, After: time.Second, Copy: 100, LateOver: 500}
	for bytes, want := range map[drover.Bytes][2]float64{400: {6, 9}, 600: {12, 11}} {
		c := Candidate{Machine: "m", Source: "h1", Bytes: bytes, Running: true}
		p := Schedule([]Candidate{c}, map[drover.MachineID]drover.HostID{"m": "h2"}, drover.DrainOptions{MinHealthy: drover.Duration(2 * time.Second)}, rates)[0]
		if math.Abs(p.Settled-want[0]) > 0.01 || math.Abs(p.End-max(want[0], want[1])) > 0.01 {
			t.Errorf("%d bytes: %+v, want settled and ended at %v", bytes, p, want)
		}
	}
}

// checkSlots holds what is under way against the limits.
func checkSlots(t *rapid.T, slots []Slot, candidates []Candidate, o drover.DrainOptions) {
	count := map[string]int{}
	alone, classes := map[string]bool{}, map[string]int{}
	budget := 1000
	for _, s := range slots {
		count["source "+string(s.Source)]++
		count["target "+string(s.Target)]++
		if !s.Unsettled {
			continue
		}
		count["app "+string(s.App)]++
		count["network "+s.Network]++
		classes[s.Class]++
		alone[s.Class] = alone[s.Class] || s.Alone
		c := candidates[slices.IndexFunc(candidates, func(c Candidate) bool { return c.Machine == s.Machine })]
		if c.Group != "" && c.Running {
			count["group"]++
			budget = min(budget, max(c.Labels.MaxUnavailable, 1))
		}
	}
	for what, n := range count {
		kind, name, _ := strings.Cut(what, " ")
		most := map[string]int{"source": o.PerSource, "target": o.PerTarget, "app": o.PerApp, "network": o.PerNetwork}[kind]
		if name != "" && kind != "group" && n > most {
			t.Fatalf("%d moves at once of %s; %d are allowed", n, what, most)
		}
	}
	for class, n := range classes {
		if alone[class] && n > 1 {
			t.Fatalf("%d moves of class %s, of which one is to be moved alone", n, class)
		}
	}
	last := slots[len(slots)-1]
	c := candidates[slices.IndexFunc(candidates, func(c Candidate) bool { return c.Machine == last.Machine })]
	if c.Group != "" && c.Running && count["group"] > c.Labels.MaxUnavailable {
		t.Fatalf("%d of the group at once; machine %s allows %d", count["group"], c.Machine, c.Labels.MaxUnavailable)
	}
}

func TestARefusalSaysWhatIsMissing(t *testing.T) {
	c := func(id string, mb int) Candidate {
		return Candidate{Machine: drover.MachineID(id), App: "a", Source: "h1", Region: "ams", MemoryMB: mb, CPUs: 1}
	}
	candidates := []Candidate{c("m1", 512), c("m2", 512), c("m3", 512), c("m4", 256)}
	rooms := []Room{{Host: "h1", Region: "ams", Closed: "is being drained"}, {Host: "h2", Region: "ams", Memory: 512 * drover.MiB, Disk: 1, CPUs: 2},
		{Host: "h3", Region: "fra", Memory: drover.GiB, Disk: 1, CPUs: 2}}
	_, why := Assign(candidates, rooms)
	if got := Missing(candidates, why); got != "2 more 512 MiB machines and 1 more 256 MiB machine in region ams" {
		t.Fatalf("%q, %v", got, why)
	}
}

func TestTightRoomsAreFilledWhenSpreadingFails(t *testing.T) {
	c := func(id string, mb int) Candidate {
		return Candidate{Machine: drover.MachineID(id), App: "a", Source: "h1", Region: "ams", MemoryMB: mb, CPUs: 1}
	}
	rooms := []Room{{Host: "h2", Region: "ams", Memory: 600 * drover.MiB, CPUs: 1}, {Host: "h3", Region: "ams", Memory: 400 * drover.MiB, CPUs: 1}}
	if targets, why := Assign([]Candidate{c("m1", 400), c("m2", 600)}, rooms); len(why) > 0 || targets["m2"] != "h2" {
		t.Fatalf("%v, %v", targets, why)
	}
	if targets, why := Assign([]Candidate{c("m1", 300), c("m2", 300), c("m3", 400)}, rooms); len(why) > 0 {
		t.Fatalf("%v, %v", targets, why)
	}
}

func TestOrder(t *testing.T) {
	c := func(id string, role drover.MoveRole, value float64, running bool, bytes drover.Bytes) Candidate {
		return Candidate{Machine: drover.MachineID(id), Labels: drover.Labels{Role: role, Value: value}, Running: running, Bytes: bytes}
	}
	list := []Candidate{c("m1", "primary", 5, true, 9), c("m2", "", 0, true, 1), c("m3", "replica", 0, false, 3), c("m4", "replica", 0, true, 4), c("m5", "", 0, true, 8)}
	ids := func() (out []string) {
		for _, c := range list {
			out = append(out, string(c.Machine))
		}
		return out
	}
	Order(list, false)
	if got := ids(); !slices.Equal(got, []string{"m4", "m3", "m5", "m2", "m1"}) {
		t.Errorf("in general: %v", got)
	}
	Order(list, true)
	if got := ids(); !slices.Equal(got, []string{"m1", "m2", "m4", "m5", "m3"}) {
		t.Errorf("off a suspect host: %v", got)
	}
}

func TestCheckHosts(t *testing.T) {
	rooms := []Room{{Host: "h1", Region: "ams", Memory: 256 * drover.MiB, CPUs: 1}, {Host: "h2", Region: "ams", Memory: drover.GiB, CPUs: 1}}
	candidates := []Candidate{{Machine: "m1", Source: "h1", Region: "ams", MemoryMB: 512, CPUs: 1}, {Machine: "m2", Source: "h2", Region: "ams", MemoryMB: 512, CPUs: 1}}
	checks := CheckHosts("ams", candidates, rooms)
	if len(checks) != 2 || !checks[0].OK || checks[1].OK || checks[1].Missing != "1 more 512 MiB machine in region ams" {
		t.Fatalf("%+v", checks)
	}
}

// A plan that is only shown says which machines would wait for a person.
func TestAPlanSaysWhoMustBeAsked(t *testing.T) {
	for _, c := range []struct {
		labels drover.Labels
		want   string
	}{
		{drover.Labels{Policy: drover.MoveAny}, ""},
		{drover.Labels{Policy: drover.MoveAsk}, "its label drover.move is ask: it goes when somebody approves it"},
		{drover.Labels{Policy: drover.MoveAsk, Problem: "its label drover.group is empty"}, "its label drover.group is empty: it goes when somebody approves it"},
	} {
		if got := NewItem(Candidate{Machine: "m1", Labels: c.labels}); got.Reason != c.want || got.State != drover.ItemWaiting {
			t.Errorf("%+v: %q, %s", c.labels, got.Reason, got.State)
		}
	}
}
