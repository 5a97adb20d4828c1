package fleet

import (
	"strings"
	"testing"
	"time"

	"drover"
)

func TestWhoIsDeadAndWhoIsOnlyNotHeard(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	yes := func(by drover.HostID) witness {
		return witness{by, drover.Observation{Host: "h1", Reached: true, Since: at.Add(-time.Hour)}}
	}
	no := func(by drover.HostID) witness {
		return witness{by, drover.Observation{Host: "h1", Since: at, Problem: "connection refused"}}
	}
	for _, c := range []struct {
		name  string
		heard drover.HostStatus
		said  []witness
		reach drover.HostReach
		code  drover.ConditionCode
		text  []string
	}{
		{"well", drover.HostOK, []witness{yes("h2"), yes("h3")}, drover.ReachOK, "", nil},
		{"heard, observed by nobody", drover.HostOK, nil, drover.ReachOK, "", nil},
		{"nothing is known yet", drover.HostUnknown, []witness{no("h2")}, drover.ReachOK, "", nil},
		{"one link is cut", drover.HostOK, []witness{yes("h2"), no("h3")}, drover.ReachPartitioned, drover.HostIsPartitioned,
			[]string{"h3 does not reach h1", "h2 reaches h1"}},
		{"all links but the bus are cut", drover.HostOK, []witness{no("h2"), no("h3")}, drover.ReachPartitioned, drover.HostIsPartitioned,
			[]string{"h2, h3 do not reach h1", "it is heard on the bus"}},
		{"the agent is dead", drover.HostUnreachable, []witness{yes("h2"), yes("h3")}, drover.ReachSilent, drover.HostIsSilent,
			[]string{"h2, h3 reach h1", "run on"}},
		{"cut off from some", drover.HostUnreachable, []witness{yes("h2"), no("h3")}, drover.ReachPartitioned, drover.HostIsPartitioned,
			[]string{"not dead", "h2 reaches h1", "h3 does not"}},
		{"dead", drover.HostUnreachable, []witness{no("h2"), no("h3")}, drover.ReachNone, drover.HostIsUnreachable,
			[]string{"h2, h3 do not reach h1 since 03:04:05 (connection refused)"}},
		{"dead, and alone", drover.HostUnreachable, nil, drover.ReachNone, drover.HostIsUnreachable, []string{"no other host observes it"}},
	} {
		v := judge("h1", c.heard, at.Add(-time.Minute), c.said)
		if v.reach != c.reach || v.code != c.code {
			t.Errorf("%s: %s and condition %q, want %s and %q", c.name, v.reach, v.code, c.reach, c.code)
		}
		for _, text := range c.text {
			if !strings.Contains(v.text, text) {
				t.Errorf("%s: %q does not say %q", c.name, v.text, text)
			}
		}
		if c.code != "" && v.since.IsZero() {
			t.Errorf("%s: since when is not told", c.name)
		}
	}
}
