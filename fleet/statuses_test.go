package fleet

import (
	"testing"
	"time"

	"drover"
	"drover/natsbus"
)

// What a host says of a machine that is not its own changes nothing.
func TestAStatusOfAHostThatDoesNotHaveTheMachineDoesNotCount(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	v := w.machine(n, CreateMachine{})
	id := v.Machine.ID
	thief := drover.HostID("h3")
	if v.Placement.Host == thief {
		thief = "h1"
	}
	lie := drover.MachineStatus{Machine: id, State: drover.StateFailed, Reason: "a lie"}
	for key, status := range map[string]drover.MachineStatus{
		natsbus.StatusKey(id, thief):               {Host: thief, Epoch: v.Placement.Epoch + 1000},
		natsbus.StatusKey(id, thief+"-b"):          {Host: thief + "-b", Epoch: v.Placement.Epoch},
		natsbus.StatusKey(id, thief+"-c"):          {Host: v.Placement.Host, Epoch: v.Placement.Epoch}, // in another's name
		natsbus.StatusKey("0000000000000f", thief): {Host: thief, Epoch: v.Placement.Epoch},
	} {
		status.Machine, status.State, status.Reason = lie.Machine, lie.State, lie.Reason
		rev, err := n.state.status.bucket.Put(t.Context(), key, status)
		if err != nil {
			t.Fatal(err)
		}
		w.eventually("it is heard of", func() bool { return n.state.status.heard() >= rev })
	}
	got, err := n.Machine(t.Context(), "shop", id)
	if err != nil || got.Status.State != drover.StateStarted || got.Status.Host != v.Placement.Host {
		t.Errorf("%+v, %v", got.Status, err)
	}
	if status, _, err := n.state.status.get(t.Context(), string(id)); err != nil || status.Host != v.Placement.Host {
		t.Errorf("from the store: %+v, %v", status, err)
	}
	// They are cleared away, and the machine's own stays.
	w.eventually("only its own host's is left", func() bool {
		keys, err := n.state.status.bucket.Keys(t.Context(), string(id))
		return err == nil && len(keys) == 1 && keys[0] == natsbus.StatusKey(id, v.Placement.Host)
	})
}

// A record of the first versions, whose key names no host, counts until the host writes one of its own.
func TestAStatusOfTheFirstVersionsCounts(t *testing.T) {
	s := newState(time.Now)
	s.placements.set("m1", drover.Placement{Machine: "m1", Host: "h1"}, 7, true)
	s.status.set("m1", drover.MachineStatus{Machine: "m1", Host: "h1", Epoch: 7, State: drover.StateStarted}, 8, true)
	if got, _, ok := s.status.seen("m1"); !ok || got.State != drover.StateStarted {
		t.Errorf("%+v", got)
	}
	s.status.set("m1.h1", drover.MachineStatus{Machine: "m1", Host: "h1", Epoch: 7, State: drover.StateStopped}, 9, true)
	if got, _, ok := s.status.seen("m1"); !ok || got.State != drover.StateStopped {
		t.Errorf("%+v", got)
	}
	if former := s.status.former(); len(former) != 1 || former[0] != "m1" {
		t.Errorf("%v", former)
	}
}
