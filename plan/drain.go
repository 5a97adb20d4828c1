package plan

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"drover"
)

// Candidate is a machine that a drain is to move, as it is now.
type Candidate struct {
	Machine drover.MachineID
	Name    string
	App     drover.AppName
	// Network is the named private network of its app, empty for none; Group and Class are from its labels, made unique by whoever owns them.
	Network, Group, Class string
	Labels                drover.Labels
	Source                drover.HostID
	Region                drover.Region
	// Fixed is the only target that will do; empty for any in the region.
	Fixed    drover.HostID
	Running  bool
	MemoryMB int
	CPUs     int
	// Dedication is what the hosts must be dedicated to that it may be on.
	Dedication string
	Bytes      drover.Bytes
	// Cannot says why it cannot be moved whatever room there is.
	Cannot string
}

func (c Candidate) memory() drover.Bytes { return drover.Bytes(c.MemoryMB) * drover.MiB }

// Room is what a host has left.
type Room struct {
	Host   drover.HostID
	Region drover.Region
	// Closed says why nothing may come here: it is cordoned, suspect, being drained, or does not answer.
	Closed       string
	Memory, Disk drover.Bytes
	CPUs         int
	// Dedication is what the host is dedicated to.
	Dedication string
	// Apps counts the machines of each app that are there, or will be.
	Apps map[drover.AppName]int
}

// lacks says in words why the candidate does not fit; empty when it does.
func (r Room) lacks(c Candidate) string {
	switch {
	case r.Closed != "":
		return r.Closed
	case r.Dedication != c.Dedication && r.Dedication == "":
		return fmt.Sprintf("not dedicated to %q", c.Dedication)
	case r.Dedication != c.Dedication:
		return fmt.Sprintf("dedicated to %q", r.Dedication)
	case c.memory() > r.Memory:
		return fmt.Sprintf("%d MiB of memory free, %d MiB needed", max(r.Memory, 0)/drover.MiB, c.MemoryMB)
	case c.CPUs > r.CPUs:
		return fmt.Sprintf("%d CPUs, %d needed", r.CPUs, c.CPUs)
	case c.Bytes > r.Disk:
		return fmt.Sprintf("%d MiB of disk free, %d MiB needed", max(r.Disk, 0)/drover.MiB, c.Bytes/drover.MiB)
	}
	return ""
}

// take books the candidate.
func (r *Room) take(c Candidate) {
	r.Memory -= c.memory()
	r.Disk -= c.Bytes
	apps := maps.Clone(r.Apps)
	if apps == nil {
		apps = map[drover.AppName]int{}
	}
	apps[c.App]++
	r.Apps = apps
}

// Book returns the rooms with the candidate booked on a host: for what was promised elsewhere.
func Book(rooms []Room, c Candidate, host drover.HostID) []Room {
	rooms = slices.Clone(rooms)
	for i := range rooms {
		if rooms[i].Host == host {
			rooms[i].take(c)
		}
	}
	return rooms
}

// Assign gives each candidate a target, without putting more on a host than it has: what is given away counts. The largest are placed first, each
// where the fewest of its app are, then where the most memory is free. Where some find no place by that, the rooms are filled as tightly as can be
// instead. For those without a target, why has the reason of each host.
func Assign(candidates []Candidate, rooms []Room) (targets map[drover.MachineID]drover.HostID, why map[drover.MachineID]string) {
	spread, whyNot := assign(candidates, rooms, func(c Candidate, a, b Room) int {
		return cmp.Or(cmp.Compare(a.Apps[c.App], b.Apps[c.App]), cmp.Compare(b.Memory, a.Memory))
	})
	if len(whyNot) == 0 {
		return spread, whyNot
	}
	tight, stillNot := assign(candidates, rooms, func(_ Candidate, a, b Room) int {
		return cmp.Or(cmp.Compare(a.Memory, b.Memory), cmp.Compare(a.Disk, b.Disk))
	})
	if len(stillNot) < len(whyNot) {
		return tight, stillNot
	}
	return spread, whyNot
}

func assign(candidates []Candidate, rooms []Room, better func(Candidate, Room, Room) int) (map[drover.MachineID]drover.HostID, map[drover.MachineID]string) {
	targets, why := map[drover.MachineID]drover.HostID{}, map[drover.MachineID]string{}
	rooms = slices.Clone(rooms)
	largest := slices.Clone(candidates)
	slices.SortFunc(largest, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(b.MemoryMB, a.MemoryMB), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Machine, b.Machine))
	})
	for _, c := range largest {
		if c.Cannot != "" {
			continue
		}
		best, reason := pick(c, rooms, better)
		if best < 0 {
			why[c.Machine] = reason
			continue
		}
		rooms[best].take(c)
		targets[c.Machine] = rooms[best].Host
	}
	return targets, why
}

// pick returns the index of the best room for the candidate; -1 with the reasons of all when there is none.
func pick(c Candidate, rooms []Room, better func(Candidate, Room, Room) int) (int, string) {
	best := -1
	var reasons []string
	for i, r := range rooms {
		if r.Host == c.Source || r.Region != c.Region || (c.Fixed != "" && c.Fixed != r.Host) {
			continue
		}
		if no := r.lacks(c); no != "" {
			reasons = append(reasons, fmt.Sprintf("%s: %s", r.Host, no))
			continue
		}
		if best < 0 || cmp.Or(better(c, r, rooms[best]), cmp.Compare(r.Host, rooms[best].Host)) < 0 {
			best = i
		}
	}
	if best >= 0 {
		return best, ""
	}
	slices.Sort(reasons)
	if len(reasons) == 0 {
		return best, fmt.Sprintf("region %q has no other host", c.Region)
	}
	return best, "no host has room: " + strings.Join(reasons, "; ")
}

// Missing says what there would have to be for those that found no place: "2 more 512 MiB machines in region ams".
func Missing(candidates []Candidate, why map[drover.MachineID]string) string {
	count := map[drover.Region]map[int]int{}
	for _, c := range candidates {
		if _, no := why[c.Machine]; no {
			if count[c.Region] == nil {
				count[c.Region] = map[int]int{}
			}
			count[c.Region][c.MemoryMB]++
		}
	}
	var parts []string
	for _, region := range slices.Sorted(maps.Keys(count)) {
		var sizes []string
		for _, mb := range slices.Backward(slices.Sorted(maps.Keys(count[region]))) {
			noun := "machines"
			if count[region][mb] == 1 {
				noun = "machine"
			}
			sizes = append(sizes, fmt.Sprintf("%d more %d MiB %s", count[region][mb], mb, noun))
		}
		parts = append(parts, fmt.Sprintf("%s in region %s", strings.Join(sizes, " and "), region))
	}
	return strings.Join(parts, "; ")
}

// Order sorts candidates into the order in which a drain moves them.
//
// In general: replicas, then those without a role, then primaries; among equals those that have more to be copied, because they take the longest;
// then by ID.
//
// Off a suspect host: by value, the highest first; running ones before stopped ones; among equals those that have less to be copied, because a
// machine is safe when all of it is away, and more of them are when the host dies; then by ID.
func Order(candidates []Candidate, suspect bool) {
	slices.SortFunc(candidates, func(a, b Candidate) int {
		if suspect {
			return cmp.Or(cmp.Compare(b.Labels.Value, a.Labels.Value), rank(!a.Running)-rank(!b.Running), cmp.Compare(a.Bytes, b.Bytes), cmp.Compare(a.Machine, b.Machine))
		}
		return cmp.Or(roleRank(a.Labels.Role)-roleRank(b.Labels.Role), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Machine, b.Machine))
	})
}

func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

func roleRank(r drover.MoveRole) int {
	switch r {
	case drover.RoleReplica:
		return 0
	case drover.RolePrimary:
		return 2
	}
	return 1
}

// CheckHosts tells for each host of the region whether its machines would find room on the others now. Each host is looked at alone.
func CheckHosts(region drover.Region, candidates []Candidate, rooms []Room) []drover.HostCheck {
	checks := []drover.HostCheck{}
	for _, r := range rooms {
		if r.Region != region {
			continue
		}
		check := drover.HostCheck{Host: r.Host, OK: true}
		var there []Candidate
		var cannot []string
		for _, c := range candidates {
			if c.Source != r.Host {
				continue
			}
			check.Machines++
			if c.Cannot != "" {
				cannot = append(cannot, fmt.Sprintf("machine %s: %s", c.Machine, c.Cannot))
			}
			there = append(there, c)
		}
		_, why := Assign(there, rooms)
		if len(why) > 0 {
			cannot = append(cannot, Missing(there, why))
		}
		if len(cannot) > 0 {
			slices.Sort(cannot)
			check.OK, check.Missing = false, strings.Join(cannot, "; ")
		}
		checks = append(checks, check)
	}
	slices.SortFunc(checks, func(a, b drover.HostCheck) int { return cmp.Compare(a.Host, b.Host) })
	return checks
}

// Median returns the middle of the numbers; 0 for none.
func Median(numbers []float64) float64 {
	if len(numbers) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(numbers))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (middle + sorted[len(sorted)/2-1]) / 2
	}
	if math.IsNaN(middle) {
		return 0
	}
	return middle
}
