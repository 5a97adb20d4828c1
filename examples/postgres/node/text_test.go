package main

import (
	"slices"
	"testing"
)

func TestAMembersNumberIsItsMachines(t *testing.T) {
	if id, err := memberID("fdaa:0:1:12:3456::2"); err != nil || id != 0x123456 {
		t.Errorf("%d, %v", id, err)
	}
	for _, bad := range []string{"", "10.0.0.1", "fdaa:0:1::2", "fdaa:0:1:8000:0::2"} {
		if id, err := memberID(bad); err == nil {
			t.Errorf("%q is %d", bad, id)
		}
	}
}

func TestParseControl(t *testing.T) {
	timeline, lsn, err := parseControl("pg_control version number:            1300\nLatest checkpoint location:           1/3000028\n" +
		"Latest checkpoint's REDO location:    0/3000028\nLatest checkpoint's TimeLineID:       7\nLatest checkpoint's PrevTimeLineID:   6\n")
	if err != nil || timeline != 7 || lsn != 1<<32|0x3000028 {
		t.Errorf("%d, %X, %v", timeline, lsn, err)
	}
	if _, _, err := parseControl("nothing"); err == nil {
		t.Error("nothing was taken for a checkpoint")
	}
}

func TestHostIn(t *testing.T) {
	for text, want := range map[string]string{"": "", "port=1 host=fdaa::2 user=x": "fdaa::2", "user=host=x": ""} {
		if got := hostIn(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestQuorum(t *testing.T) {
	for _, c := range []struct {
		members []Member
		want    string
	}{
		{nil, ""},
		{[]Member{one, four}, ""},
		{[]Member{one, two}, "ANY 1 (node2)"},
		{[]Member{one, two, three, four}, "ANY 1 (node2, node3)"},
		{[]Member{one, two, three, {ID: 5, Voter: true}, {ID: 6, Voter: true}}, "ANY 2 (node2, node3, node5, node6)"},
	} {
		if got := quorum(1, c.members); got != c.want {
			t.Errorf("%v: %q, want %q", c.members, got, c.want)
		}
	}
}

func TestTheTableIsMadeToSayWhatIs(t *testing.T) {
	me := State{Member: two, Role: Primary}
	have := []record{{one, "primary", true, 0}, {two, "standby", true, 1}, {three, "standby", true, 2}, {four, "standby", true, 1}}
	answers := []State{{Member: three, Role: Replica, Upstream: two.Address}, {Member: four, Role: Replica, Upstream: one.Address}}
	got := amends(me, have, answers)
	want := []string{
		"UPDATE repmgr.nodes SET type = 'standby', active = false, upstream_node_id = 2 WHERE node_id = 1",
		"UPDATE repmgr.nodes SET type = 'primary', active = true, upstream_node_id = NULL WHERE node_id = 2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// The old one has come back, and the reader has followed.
	answers = []State{{Member: one, Role: Replica, Upstream: two.Address}, answers[0], {Member: four, Role: Replica, Upstream: two.Address}}
	have = []record{{one, "standby", false, 2}, {two, "primary", true, 0}, {three, "standby", true, 2}, {four, "standby", true, 1}}
	if got := amends(me, have, answers); len(got) != 2 {
		t.Errorf("%q", got)
	}
}
