package fleet

import (
	"errors"
	"testing"

	"drover"
	"drover/migrate"
)

func TestAKeyMakesOneMachineHoweverOftenItIsAsked(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	other := w.control("c2", nil)
	w.eventually("the second control host is ready", func() bool { _, err := other.Machines(t.Context(), "shop"); return err == nil })
	req := CreateMachine{App: "shop", Name: "web", Config: drover.MachineConfig{Image: "busybox"}, Once: &Once{Scope: "ann", Key: "k", Body: "b"}}
	type made struct {
		id  drover.MachineID
		err error
	}
	results := make(chan made, 4)
	for i := range 4 {
		at := n
		if i%2 == 1 {
			at = other
		}
		go func() {
			v, err := at.CreateMachine(t.Context(), req)
			results <- made{v.Machine.ID, err}
		}()
	}
	first := <-results
	for range 3 {
		if r := <-results; r.err != nil || r != first {
			t.Errorf("made %+v and %+v", first, r)
		}
	}
	if all, err := n.Machines(t.Context(), "shop"); err != nil || len(all) != 1 {
		t.Errorf("%d machines, %v", len(all), err)
	}
	different := req
	different.Once = &Once{Scope: "ann", Key: "k", Body: "c"}
	_, err := n.CreateMachine(t.Context(), different)
	wantError(t, err, drover.Invalid, "Idempotency-Key", "")
}

func TestARefusedRequestCanBeAskedAgainWithItsKey(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	req := CreateMachine{App: "shop", Host: "h1", Config: drover.MachineConfig{Image: "busybox"}, Once: &Once{Scope: "ann", Key: "k", Body: "b"}}
	w.hosts["h1"].failing(drover.Exhausted, false, drover.OrderApply)
	_, err := n.CreateMachine(t.Context(), req)
	wantError(t, err, drover.Exhausted, "", "")
	w.hosts["h1"].failing("", false)
	if _, err := n.CreateMachine(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	// Another host is tried when the first has no room after all: the key finds the machine that was made there.
	free := CreateMachine{App: "shop", Region: "ams", Config: drover.MachineConfig{Image: "busybox"}, Once: &Once{Scope: "ann", Key: "l", Body: "b"}}
	refused := false
	for _, id := range []drover.HostID{"h1", "h2"} {
		h := w.hosts[id]
		h.set(func() {
			h.fail = func(o drover.Order) (error, bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if o == drover.OrderApply && !refused {
					refused = true
					return drover.Errorf(drover.Exhausted, "the room is gone"), false
				}
				return nil, false
			}
		})
	}
	one, err := n.CreateMachine(t.Context(), free)
	if err != nil || !refused {
		t.Fatal(err, refused)
	}
	two, err := n.CreateMachine(t.Context(), free)
	if err != nil || two.Machine.ID != one.Machine.ID {
		t.Fatalf("%s and %s, %v", one.Machine.ID, two.Machine.ID, err)
	}
}

// TestAKeyIsNotAnsweredWithWhatWasTakenBack: the control host dies before the machine's record is there, and nobody asks again until the repair has
// taken back what was claimed. Then a machine is made: the one that was taken back never was one.
func TestAKeyIsNotAnsweredWithWhatWasTakenBack(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	n = w.control("c1", func(point string) bool { return point == "fleet.make.record.before" })
	req := CreateMachine{App: "shop", Name: "web", Config: drover.MachineConfig{Image: "busybox"}, Once: &Once{Scope: "ann", Key: "k", Body: "b"}}
	died := make(chan struct{})
	go func() {
		defer close(died)
		_, _ = n.CreateMachine(t.Context(), req) // it does not return
	}()
	<-died
	n.kill()
	n = w.control("c1", nil)
	var id drover.MachineID
	w.eventually("what was claimed is taken back, and the host has nothing of it", func() bool {
		for _, i := range n.state.requests.snapshot() {
			id = i.value.Machine
		}
		m, _, ok := n.state.machines.seen(string(id))
		return ok && m.Goal == drover.GoalDestroyed && m.Last != nil
	})
	var view MachineView
	w.eventually("a machine is made", func() bool {
		var err error
		view, err = n.CreateMachine(t.Context(), req)
		return err == nil
	})
	if view.Machine.ID == id || view.Machine.Goal != drover.GoalStarted {
		t.Errorf("answered with what was taken back: %+v", view)
	}
	if all, err := n.Machines(t.Context(), "shop"); err != nil || len(all) != 1 || all[0].Machine.ID != view.Machine.ID {
		t.Errorf("%d machines, %v", len(all), err)
	}
}

// TestAKeyOutlivesADeathAtEveryStep kills the control host at each fault point of a create, and asks the next one again with the same key
// until there is a machine: there is never a second one.
func TestAKeyOutlivesADeathAtEveryStep(t *testing.T) {
	t.Parallel()
	for step := 1; ; step++ {
		w, n := newWorld(t)
		w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Make = timing.Stale }
		n.kill()
		points := 0
		n = w.control("c1", func(point string) bool {
			if len(point) > 11 && (point[:11] == "fleet.make." || point[:11] == "fleet.once.") {
				points++
			}
			return points == step
		})
		req := CreateMachine{App: "shop", Name: "web", Config: drover.MachineConfig{Image: "busybox"}, Once: &Once{Scope: "ann", Key: "k", Body: "b"}}
		done := make(chan error, 1)
		go func() {
			err := errors.New("it died")
			defer func() { done <- err }()
			_, err = n.CreateMachine(t.Context(), req)
		}()
		if err := <-done; err == nil {
			if step < 4 {
				t.Fatalf("only %d fault points", step)
			}
			return
		}
		n.kill()
		n = w.control("c1", nil)
		var view MachineView
		w.eventually("the machine is made", func() bool {
			var err error
			view, err = n.CreateMachine(t.Context(), req)
			return err == nil
		})
		if again, err := n.CreateMachine(t.Context(), req); err != nil || again.Machine.ID != view.Machine.ID {
			t.Fatalf("step %d: %s and %s, %v", step, view.Machine.ID, again.Machine.ID, err)
		}
		if all, err := n.Machines(t.Context(), "shop"); err != nil || len(all) != 1 {
			t.Fatalf("step %d: %d machines, %v", step, len(all), err)
		}
	}
}
