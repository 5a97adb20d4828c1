package main

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	one   = Member{ID: 1, Address: "fdaa:0:1:0:1::2", Voter: true}
	two   = Member{ID: 2, Address: "fdaa:0:1:0:2::2", Voter: true}
	three = Member{ID: 3, Address: "fdaa:0:1:0:3::2", Voter: true}
	four  = Member{ID: 4, Address: "fdaa:0:1:0:4::2"}
)

func TestWhoIsGranted(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	candidate := State{Member: two, Role: Replica, Timeline: 3, LSN: 100}
	for name, c := range map[string]struct {
		me     State
		as     State
		alive  bool
		asking bool
		given  Given
		want   string
	}{
		"a replica that has the same":         {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 100}},
		"itself":                              {me: candidate},
		"a replica that has more":             {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 101}, want: "has only timeline 3"},
		"a replica on a newer timeline":       {me: State{Member: three, Role: Replica, Timeline: 4, LSN: 1}, want: "has only timeline 3"},
		"a primary":                           {me: State{Member: one, Role: Primary, Timeline: 3, LSN: 1}, want: "is the primary"},
		"one that hears of its primary":       {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 1}, alive: true, want: "hears of its primary"},
		"one that granted another":            {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 1}, given: Given{To: 1, Until: now.Add(time.Second)}, want: "has granted member 1"},
		"one whose grant is over":             {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 1}, given: Given{To: 1, Until: now}},
		"one that granted it before":          {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 1}, given: Given{To: 2, Until: now.Add(time.Second)}},
		"one that starts":                     {me: State{Member: three}, want: "does not know yet"},
		"a primary that was stopped in order": {me: State{Member: one, WasPrimary: true, Timeline: 3, LSN: 99}},
		"a primary that lost its power":       {me: State{Member: one, WasPrimary: true, Timeline: 3}, want: "does not know yet"},
		"one that asks, too, and goes first":  {me: State{Member: one, Role: Replica, Timeline: 3, LSN: 100}, asking: true, want: "asks for grants itself"},
		"one that asks, too, and comes later": {me: State{Member: three, Role: Replica, Timeline: 3, LSN: 100}, asking: true},
		"one that asks, and lacks something":  {me: State{Member: one, Role: Replica, Timeline: 3, LSN: 99}, asking: true},
		"for a reader":                        {me: State{Member: three, Role: Replica}, as: State{Member: four, Role: Replica, Timeline: 9}, want: "is no voter"},
	} {
		as := c.as
		if as.ID == 0 {
			as = candidate
		}
		got := grant(c.me, as, c.alive, c.asking, c.given, now)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A candidate that is refused must not keep its own grant from the member that has more than it.
func TestACandidateGrantsItselfLast(t *testing.T) {
	refuses, grants := answer{id: 3, why: "member 3 has more"}, answer{id: 3}
	for name, c := range map[string]struct {
		answers []answer
		own     string
		asked   bool
		want    string
	}{
		"refused and unreachable": {answers: []answer{refuses, {id: 1, why: "member 1: connection refused"}}, want: "granted by [] of 3 voters; member 3 has more; member 1"},
		"granted by one":          {answers: []answer{grants}, asked: true},
		"granted by the second":   {answers: []answer{{id: 1, why: "member 1: connection refused"}, grants}, asked: true},
		"granted, but not itself": {answers: []answer{grants}, own: "member 2 has granted member 3", asked: true, want: "has granted member 3"},
	} {
		asked := false
		next := func() answer {
			a := c.answers[0]
			c.answers = c.answers[1:]
			return a
		}
		got := count(2, []Member{one, two, three, four}, next, func() string { asked = true; return c.own })
		if asked != c.asked || (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: asked itself is %v, %q, want %q", name, asked, got, c.want)
		}
	}
	if got := count(1, []Member{one}, nil, func() string { return "" }); got != "" {
		t.Errorf("the only member: %q", got)
	}
}

func TestMajority(t *testing.T) {
	for _, c := range []struct {
		members []Member
		granted map[int]bool
		want    bool
	}{
		{[]Member{one}, map[int]bool{1: true}, true},
		{[]Member{one, two}, map[int]bool{1: true}, false},
		{[]Member{one, two, three, four}, map[int]bool{1: true, 3: true}, true},
		{[]Member{one, two, three, four}, map[int]bool{1: true, 4: true}, false},
	} {
		if got := majority(c.members, c.granted); got != c.want {
			t.Errorf("%v of %v: %v", c.granted, c.members, got)
		}
	}
}

// TestWhoIsGrantedHasEveryAcknowledgedCommit draws how far each voter got, and which of them answer, and grants a candidate by the rules.
func TestWhoIsGrantedHasEveryAcknowledgedCommit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 5).Draw(t, "voters")
		var members []Member
		var states []State
		for i := range count {
			m := Member{ID: i + 1, Voter: true}
			members = append(members, m)
			states = append(states, State{Member: m, Role: Replica, Timeline: 1, LSN: uint64(rapid.IntRange(0, 9).Draw(t, "lsn"))})
		}
		// What was acknowledged: what the primary and as many others as its quorum names have.
		old := rapid.IntRange(0, count-1).Draw(t, "primary")
		need := strings.TrimPrefix(quorum(old+1, members), "ANY ")
		acked := uint64(0)
		for lsn := uint64(1); lsn <= states[old].LSN; lsn++ {
			have := 0
			for i, s := range states {
				if i != old && s.LSN >= lsn {
					have++
				}
			}
			if need == "" || have >= int(need[0]-'0') {
				acked = lsn
			}
		}
		candidate := states[rapid.IntRange(0, count-1).Draw(t, "candidate")]
		granted := map[int]bool{}
		for _, s := range states {
			if rapid.Bool().Draw(t, "answers") && grant(s, candidate, false, false, Given{}, time.Now()) == "" {
				granted[s.ID] = true
			}
		}
		if majority(members, granted) && candidate.LSN < acked {
			t.Fatalf("member %d has %d and is granted by %v; %d was acknowledged", candidate.ID, candidate.LSN, granted, acked)
		}
	})
}

func TestHowAMemberStarts(t *testing.T) {
	primary := State{Member: two, Role: Primary, Timeline: 2}
	for name, c := range map[string]struct {
		me      State
		answers []State
		want    Start
	}{
		"a replica":                             {State{Member: one}, nil, StartReplica},
		"the old primary when there is another": {State{Member: one, WasPrimary: true, Timeline: 1}, []State{primary}, StartRejoin},
		"the primary when nobody else is":       {State{Member: one, WasPrimary: true, Timeline: 1}, []State{{Member: two, Role: Replica}}, StartAsk},
		"the primary when nobody answers":       {State{Member: one, WasPrimary: true, Timeline: 1}, nil, StartAsk},
	} {
		if got := decideStart(c.me, c.answers); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	older := State{Member: one, Role: Primary, Timeline: 1}
	if p, ok := primaryOf([]State{older, primary}); !ok || p.ID != 2 || !yields(older, primary) || yields(primary, older) {
		t.Errorf("of two primaries %d is the one", p.ID)
	}
}

func TestWhoInherits(t *testing.T) {
	me := State{Member: one, Role: Primary, LSN: 100 << 20}
	fit := State{Member: two, Role: Replica, Streaming: true, LSN: 99 << 20}
	better := State{Member: three, Role: Replica, Streaming: true, LSN: 100 << 20}
	if heir, why := successor(me, []State{fit, better, {Member: four, Role: Replica, Streaming: true, LSN: 100 << 20}}); heir.ID != 3 || why != "" {
		t.Errorf("%d inherits: %s", heir.ID, why)
	}
	late := fit
	late.LSN = 1
	cut := better
	cut.Streaming, cut.Problem = false, "does not stream from x"
	for want, answers := range map[string][]State{"no other voter": nil, "MiB behind": {late}, "does not stream": {cut}} {
		if heir, why := successor(me, answers); heir.ID != 0 || !strings.Contains(why, want) {
			t.Errorf("%d inherits: %q, want %q", heir.ID, why, want)
		}
	}
}

func TestWhoAsksForGrantsByItself(t *testing.T) {
	me := State{Member: two, Role: Replica, Timeline: 3, LSN: 100}
	other := func(m Member, change func(*State)) State {
		s := State{Member: m, Role: Replica, Timeline: 3, LSN: 100}
		if change != nil {
			change(&s)
		}
		return s
	}
	for name, c := range map[string]struct {
		me      State
		answers []State
		want    bool
	}{
		"alone":                            {me, nil, true},
		"one that has less":                {me, []State{other(one, func(s *State) { s.LSN = 99 })}, true},
		"one that has more":                {me, []State{other(three, func(s *State) { s.LSN = 101 })}, false},
		"one that has the same, before":    {me, []State{other(one, nil)}, false},
		"one that has the same, after":     {me, []State{other(three, nil)}, true},
		"a reader that has more":           {me, []State{other(four, func(s *State) { s.LSN = 101 })}, true},
		"one that starts":                  {me, []State{{Member: one}}, true},
		"a primary":                        {me, []State{other(one, func(s *State) { s.Role = Primary })}, false},
		"while it streams":                 {other(two, func(s *State) { s.Streaming = true }), nil, false},
		"a reader":                         {other(four, nil), nil, false},
		"itself, as another host knows it": {me, []State{me}, true},
	} {
		if got := stands(c.me, c.answers); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
