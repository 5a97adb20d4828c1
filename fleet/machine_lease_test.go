package fleet

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover"
)

// leaseOf asks for the lease of a machine.
func leaseOf(n *node, id drover.MachineID, owner, nonce string, ttl time.Duration) (drover.MachineLease, error) {
	return n.LeaseMachine(context.Background(), LeaseMachine{App: "shop", Machine: id, Owner: owner, Nonce: nonce, TTL: ttl})
}

func TestOneOfManyGetsTheLeaseAndEveryControlHostKnows(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	other := w.control("c2", nil)
	v := w.machine(n, CreateMachine{Name: "web"})
	id := v.Machine.ID
	var got atomic.Int32
	var holder drover.MachineLease
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range 8 {
		at := n
		if i%2 == 1 {
			at = other
		}
		group.Go(func() {
			l, err := leaseOf(at, id, "ann", "", time.Minute)
			switch {
			case err == nil:
				got.Add(1)
				mu.Lock()
				holder = l
				mu.Unlock()
			case !drover.Is(err, drover.Conflict):
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got.Load() != 1 || holder.Version != v.Machine.Instance {
		t.Fatalf("%d got it: %+v", got.Load(), holder)
	}
	for _, at := range []*node{n, other} {
		wantError(t, at.GuardMachine(t.Context(), "shop", id, ""), drover.Conflict, "",
			"machine ID "+string(id)+" lease currently held by ann, expires at "+holder.ExpiresAt.Format(time.RFC3339))
		wantError(t, at.GuardMachine(t.Context(), "shop", id, "wrong"), drover.Conflict, "", "")
		if err := at.GuardMachine(t.Context(), "shop", id, holder.Nonce); err != nil {
			t.Fatal(err)
		}
	}
	longer, err := leaseOf(other, id, "bob", holder.Nonce, time.Hour)
	if err != nil || longer.Nonce != holder.Nonce || longer.Owner != "ann" || !longer.ExpiresAt.After(holder.ExpiresAt) {
		t.Fatalf("%+v, %v", longer, err)
	}
	// It is durable: a control host that knows nothing yet finds it.
	n.kill()
	third := w.control("c3", nil)
	w.eventually("the lease is found again", func() bool {
		l, err := third.MachineLease(t.Context(), "shop", id)
		return err == nil && l.Nonce == holder.Nonce
	})
	wantError(t, third.ReleaseMachine(t.Context(), "shop", id, "wrong"), drover.Conflict, "", "")
	if err := third.ReleaseMachine(t.Context(), "shop", id, holder.Nonce); err != nil {
		t.Fatal(err)
	}
	wantError(t, third.ReleaseMachine(t.Context(), "shop", id, holder.Nonce), drover.NotFound, "", "machine ID "+string(id)+" lease not found")
	if err := third.GuardMachine(t.Context(), "shop", id, holder.Nonce); err != nil {
		t.Fatalf("a nonce of a lease that is over: %v", err)
	}
}

func TestALeaseIsOverByItself(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Name: "web", LeaseTTL: time.Hour, Owner: "ann"}).Machine.ID
	l, err := n.MachineLease(t.Context(), "shop", id)
	if err != nil || l.Owner != "ann" {
		t.Fatalf("%+v, %v", l, err)
	}
	if again, err := leaseOf(n, id, "ann", l.Nonce, time.Second); err != nil || again.Nonce != l.Nonce {
		t.Fatalf("%+v, %v", again, err)
	}
	w.eventually("somebody else gets it", func() bool {
		_, err := leaseOf(n, id, "bob", "", time.Minute)
		return err == nil
	})
	_, err = leaseOf(n, id, "ann", l.Nonce, time.Minute)
	wantError(t, err, drover.Conflict, "", "")
	_, err = leaseOf(n, id, "ann", "", 25*time.Hour)
	wantError(t, err, drover.Invalid, "ttl", "")
	// Nothing of it stays with a machine that is gone.
	if err := n.DestroyMachine(t.Context(), "shop", id, true); err != nil {
		t.Fatal(err)
	}
	w.eventually("the lease is gone", func() bool { return len(n.state.machineLeases.all()) == 0 })
	_, err = leaseOf(n, id, "ann", "", time.Minute)
	wantError(t, err, drover.Precondition, "", "")
	_, err = n.CreateMachine(t.Context(), CreateMachine{App: "shop", Config: drover.MachineConfig{Image: "busybox"}, LeaseTTL: time.Millisecond})
	wantError(t, err, drover.Invalid, "lease_ttl", "")
}

func TestVersionsOutliveControlHosts(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	v := w.machine(n, CreateMachine{Name: "web", Config: drover.MachineConfig{Image: "busybox:1"}})
	id, first := v.Machine.ID, v.Machine.Instance
	for _, image := range []string{"busybox:2", "busybox:3"} {
		if _, err := n.UpdateMachine(t.Context(), UpdateMachine{App: "shop", Machine: id, Config: drover.MachineConfig{Image: image}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.SetMachineLabel(t.Context(), "shop", id, "role", "web"); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.control("c2", nil)
	list, err := n.Versions(t.Context(), "shop", id)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, image := range []string{"busybox:3", "busybox:2", "busybox:1"} {
		if list[i].Config.Image != image || list[i].ReplacedAt.IsZero() != (i == 0) || (i > 0 && !list[i].ReplacedAt.Equal(list[i-1].CreatedAt)) {
			t.Errorf("version %d is %+v", i, list[i])
		}
	}
	if list[2].Instance != first || list[0].Config.Metadata["role"] != "web" {
		t.Errorf("%+v", list)
	}
}

func TestACordonOfAMachineChangesNothingElse(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	v := w.machine(n, CreateMachine{Name: "web"})
	for _, cordoned := range []bool{true, true, false} {
		got, err := n.CordonMachine(t.Context(), "shop", v.Machine.ID, cordoned)
		if err != nil || got.Machine.Cordoned != cordoned || got.Serves() == cordoned || got.Machine.Instance != v.Machine.Instance || got.Machine.Run != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
}

// TestAMachineThatIsDestroyedKeepsItsExit: who comes late still reads how it ended.
func TestAMachineThatIsDestroyedKeepsItsExit(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	v := w.machine(n, CreateMachine{Name: "web"})
	id, code := v.Machine.ID, 7
	h := w.hosts[v.Placement.Host]
	h.set(func() {
		m := h.machines[id]
		m.status.State, m.status.ExitCode = drover.StateStopped, &code
		m.status.Events = []drover.Event{{ID: string(id) + "-1-1", Type: "start", Status: drover.StateStarted, Run: 1, Instance: v.Machine.Instance},
			{ID: string(id) + "-1-2", Type: "exit", Status: drover.StateStopped, Run: 1, Instance: v.Machine.Instance, Request: map[string]any{"exit_code": 7}}}
	})
	if _, err := n.WaitMachine(t.Context(), "shop", id, drover.StateStopped, ""); err != nil {
		t.Fatal(err)
	}
	if err := n.DestroyMachine(t.Context(), "shop", id, false); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WaitMachine(t.Context(), "shop", id, drover.StateDestroyed, ""); err != nil {
		t.Fatal(err)
	}
	got, err := n.Machine(t.Context(), "shop", id)
	if err != nil || got.Status.State != drover.StateDestroyed || got.Status.ExitCode == nil || *got.Status.ExitCode != 7 || len(got.Status.Events) != 2 {
		t.Fatalf("%+v, %v", got.Status, err)
	}
	if _, err := n.WaitMachine(t.Context(), "shop", id, drover.StateStarted, ""); err != nil {
		t.Fatalf("that it was started is not known any more: %v", err)
	}
	all, err := n.AllMachines(t.Context(), "shop")
	if err != nil || len(all) != 1 || all[0].Machine.ID != id {
		t.Fatalf("%+v, %v", all, err)
	}
}
