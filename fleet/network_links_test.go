package fleet

import (
	"testing"

	"drover"
)

// That nothing comes from a host that is dead is that host's condition, not one of all others.
func TestLinksToADeadHostAreNotTold(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	all := []drover.Condition{{Code: drover.MeshLinkBad, Subject: "h1"}, {Code: drover.MeshLinkBad, Subject: "h77"}, {Code: drover.MeshDown}}
	told := func() (subjects []string) {
		n.Fleet.state.mu.RLock()
		defer n.Fleet.state.mu.RUnlock()
		for _, c := range n.Fleet.dropLinksToDeadLocked(append([]drover.Condition(nil), all...)) {
			subjects = append(subjects, string(c.Code)+c.Subject)
		}
		return subjects
	}
	w.eventually("h77 counts as unreachable", func() bool {
		got := told()
		return len(got) == 2 && got[0] == "mesh-link-badh1" && got[1] == "mesh-down"
	})
}
