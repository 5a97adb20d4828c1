package fleet

import (
	"testing"

	"drover"
)

// tells makes a machine's health check tell a role, as the guest would.
func (h *fakeHost) tells(id drover.MachineID, role drover.MoveRole) {
	h.set(func() {
		h.machines[id].status.Checks = []drover.CheckStatus{{Name: "pg", Status: "passing", Role: role}}
	})
}

func TestTheRoleThatACheckTellsCountsBeforeTheLabel(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	hook := map[string]string{drover.LabelGroup: "pg", drover.LabelRole: "primary", drover.LabelPreMove: "handover"}
	// The labels say it the wrong way round: they were written before the last switch.
	replica := w.machines(n, "h1", 1, hook)[0]
	primary := w.machines(n, "h1", 1, map[string]string{drover.LabelGroup: "pg", drover.LabelRole: "replica", drover.LabelPreMove: "handover"})[0]
	w.hosts["h1"].tells(replica, drover.RoleReplica)
	w.hosts["h1"].tells(primary, drover.RolePrimary)
	w.eventually("the roles are known", func() bool {
		n.state.mu.RLock()
		defer n.state.mu.RUnlock()
		a, _, _ := n.candidateLocked(string(replica))
		b, _, _ := n.candidateLocked(string(primary))
		return a.Labels.Role == drover.RoleReplica && b.Labels.Role == drover.RolePrimary
	})
	d := w.drain(n, "h1", brisk())
	d = w.drainIs(n, d.ID, "waits for the role", func(d drover.Drain) bool { return !d.Item(primary).HookDoneAt.IsZero() })
	if d.Item(replica).HealthySince.IsZero() || d.Item(primary).HookAt.Before(d.Item(replica).HealthySince) {
		t.Errorf("the primary was touched at %v, its replica was healthy at %v", d.Item(primary).HookAt, d.Item(replica).HealthySince)
	}
	w.checkOwner(n, primary, "h1", true)
	w.hosts["h1"].tells(primary, drover.RoleReplica)
	if d = w.drained(n, d.ID); d.State != drover.DrainDone || d.Totals.Moved != 2 {
		t.Fatalf("%+v", d)
	}
}

func TestAHookForColdMovesIsNotRunBeforeLiveOnes(t *testing.T) {
	t.Parallel()
	labels := map[string]string{drover.LabelPreMove: "handover", drover.LabelPreMoveFor: "cold"}
	for name, c := range map[string]struct {
		prepare func(w *world)
		cold    bool
		want    bool // the hook is run, and the move is cold
	}{
		"live":                       {prepare: func(*world) {}},
		"cold by order":              {prepare: func(*world) {}, cold: true, want: true},
		"the host knows it cannot":   {prepare: func(w *world) { w.hosts["h1"].cannotMoveLive() }, want: true},
		"it turns out that it fails": {prepare: func(w *world) { w.hosts["h2"].failing(drover.Precondition, false, drover.OrderMoveIncoming) }, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, n := newWorld(t)
			id := w.machines(n, "h1", 1, labels)[0]
			c.prepare(w)
			o := brisk()
			o.Cold = c.cold
			d := w.drained(n, w.drain(n, "h1", o).ID)
			i := d.Item(id)
			if d.State != drover.DrainDone || i.Live == c.want || i.HookDoneAt.IsZero() == c.want {
				t.Fatalf("%+v", d)
			}
		})
	}
}

func TestTheRoleThatASilentHostToldDoesNotCount(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, map[string]string{drover.LabelRole: "replica"})[0]
	role := func() drover.MoveRole {
		n.state.mu.RLock()
		defer n.state.mu.RUnlock()
		c, _, _ := n.candidateLocked(string(id))
		return c.Labels.Role
	}
	w.hosts["h1"].tells(id, drover.RolePrimary)
	w.eventually("the role is known", func() bool { return role() == drover.RolePrimary })
	w.powerOff("h1")
	w.eventually("the role is the label's", func() bool { return role() == drover.RoleReplica })
}

// cannotMoveLive makes the host find something against live moves.
func (h *fakeHost) cannotMoveLive() {
	h.set(func() {
		h.findings = []drover.MoveFinding{{Check: "cpu", Host: h.id, Text: "it has a device that cannot move", LiveOnly: true}}
	})
}
