package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Role is what a member is now.
type Role string

// The roles. A member that is stopped, or is being made, has none.
const (
	Primary Role = "primary"
	Replica Role = "replica"
)

// Member is one machine of the cluster, as repmgr knows it.
type Member struct {
	ID      int    `json:"id"`
	Address string `json:"address"`
	// Voter: it counts for majorities, and may become the primary.
	Voter bool `json:"voter"`
}

// State is what a member tells of itself.
type State struct {
	Member
	Role Role `json:"role,omitempty"`
	// WasPrimary: it has no role now, and was the primary when it had one.
	WasPrimary bool `json:"was_primary,omitempty"`
	// Timeline and LSN are how far what it has on its disk goes. Of a primary that is stopped the LSN is not known, and counts as all there is.
	Timeline uint32 `json:"timeline,omitempty"`
	LSN      uint64 `json:"lsn,omitempty"`
	// Upstream is whom a replica follows, Streaming whether it does.
	Upstream  string `json:"upstream,omitempty"`
	Streaming bool   `json:"streaming,omitempty"`
	// Problem says what is wrong, in words.
	Problem string `json:"problem,omitempty"`
}

// behind reports whether a has less than b.
func behind(a, b State) bool {
	if a.Timeline != b.Timeline {
		return a.Timeline < b.Timeline
	}
	return a.LSN < b.LSN
}

// voters counts them.
func voters(members []Member) int {
	n := 0
	for _, m := range members {
		if m.Voter {
			n++
		}
	}
	return n
}

// majority reports whether those who granted are more than half of the voters.
func majority(members []Member, granted map[int]bool) bool {
	n := 0
	for _, m := range members {
		if m.Voter && granted[m.ID] {
			n++
		}
	}
	return 2*n > voters(members)
}

// primaryOf finds the primary among what members told: with two of them the one whose timeline is newer, which was granted later.
func primaryOf(answers []State) (State, bool) {
	var found []State
	for _, a := range answers {
		if a.Role == Primary {
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		return State{}, false
	}
	return slices.MaxFunc(found, func(a, b State) int { return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(b.ID, a.ID)) }), true
}

// yields reports whether a primary gives way to another one: the newer timeline was granted later, by a majority.
func yields(me, other State) bool {
	return me.Role == Primary && other.Role == Primary && other.ID != me.ID && other.Timeline > me.Timeline
}

// Start is what a member with data does when it starts.
type Start string

// The starts.
const (
	// StartReplica: start and follow whoever is the primary.
	StartReplica Start = "replica"
	// StartRejoin: it was the primary, and another one is: rewind, and follow that one.
	StartRejoin Start = "rejoin"
	// StartAsk: it was the primary, and nobody else is: ask for grants.
	StartAsk Start = "ask"
)

// decideStart says how a member starts.
func decideStart(me State, answers []State) Start {
	if !me.WasPrimary {
		return StartReplica
	}
	if _, there := primaryOf(answers); there {
		return StartRejoin
	}
	return StartAsk
}

// grantFor is how long a grant keeps a voter from granting anybody else: longer than a promotion takes.
const grantFor = 20 * time.Second

// Given is the last grant of a voter. It is kept on disk.
type Given struct {
	To    int       `json:"to"`
	Until time.Time `json:"until"`
}

// grant says why a voter does not grant the candidate; empty when it does. alive: it follows a primary that is not the candidate, and hears of it.
// asking: it asks for grants itself.
func grant(me, candidate State, alive, asking bool, given Given, now time.Time) string {
	switch {
	case !candidate.Voter:
		return fmt.Sprintf("member %d is no voter", candidate.ID)
	case me.Role == Primary && me.ID != candidate.ID:
		return fmt.Sprintf("member %d is the primary", me.ID)
	case me.Role == "" && me.LSN == 0 && me.ID != candidate.ID:
		return fmt.Sprintf("member %d does not know yet what it has", me.ID)
	case alive:
		return fmt.Sprintf("member %d hears of its primary %s", me.ID, me.Upstream)
	case given.To != candidate.ID && now.Before(given.Until):
		return fmt.Sprintf("member %d has granted member %d until %s", me.ID, given.To, given.Until.Format(time.TimeOnly))
	case asking && me.ID < candidate.ID && !behind(me, candidate):
		return fmt.Sprintf("member %d asks for grants itself", me.ID) // or each would grant the other, and neither itself
	case behind(candidate, me):
		return fmt.Sprintf("member %d has timeline %d up to %X, and member %d has only timeline %d up to %X", me.ID, me.Timeline, me.LSN,
			candidate.ID, candidate.Timeline, candidate.LSN)
	}
	return ""
}

// answer is what another voter says to a candidate; why is empty when it grants.
type answer struct {
	id  int
	why string
}

// count counts the grants of a candidate until it has a majority: empty then, else why not. next is the answer of one more of the other voters. Its own grant comes last,
// when it is the one that is missing: were it given first, a member that is refused by one which has more, and asks again and again, would keep its grant from that one
// for ever.
func count(me int, members []Member, next func() answer, own func() string) string {
	granted, against := map[int]bool{me: true}, []string{}
	for asked := 1; !majority(members, granted); asked++ {
		if asked == voters(members) {
			delete(granted, me)
			return fmt.Sprintf("granted by %v of %d voters; %s", slices.Sorted(maps.Keys(granted)), voters(members), strings.Join(against, "; "))
		}
		if a := next(); a.why != "" {
			against = append(against, a.why)
		} else {
			granted[a.id] = true
		}
	}
	return own()
}

// orphanBound is how long a replica neither streams nor knows of a primary before it asks for grants by itself: repmgrd is quicker (see README.md, "What a
// failover is made of"), where it runs. One that is only starting when the primary goes away never does.
const orphanBound = 45 * time.Second

// stands reports whether a replica without a primary is the one to ask for grants: of the voters that answer it has the most. Two that asked at once would each
// keep its own grant from the other.
func stands(me State, answers []State) bool {
	if !me.Voter || me.Role != Replica || me.Streaming {
		return false
	}
	for _, a := range answers {
		switch {
		case a.ID == me.ID:
		case a.Role == Primary:
			return false
		case a.Voter && a.Role == Replica && (behind(me, a) || !behind(a, me) && a.ID < me.ID):
			return false
		}
	}
	return true
}

// mostLag is how far a replica may be behind to be handed the primary's role.
const mostLag = 16 << 20

// successor chooses to whom a primary hands over: the voter that streams from it and has the most.
func successor(me State, answers []State) (State, string) {
	why := "no other voter answers"
	var fit []State
	for _, a := range answers {
		switch {
		case !a.Voter || a.ID == me.ID:
		case a.Role != Replica || !a.Streaming:
			why = fmt.Sprintf("member %d (%s) does not stream: %s", a.ID, a.Address, cmp.Or(a.Problem, "it has no role"))
		case me.LSN > a.LSN && me.LSN-a.LSN > mostLag:
			why = fmt.Sprintf("member %d (%s) is %d MiB behind", a.ID, a.Address, (me.LSN-a.LSN)>>20)
		default:
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return State{}, why
	}
	return slices.MaxFunc(fit, func(a, b State) int { return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(b.ID, a.ID)) }), ""
}
