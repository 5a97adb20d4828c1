package fleet

import (
	"slices"
	"testing"
	"time"

	"drover"
)

// moved moves a machine and waits for the end.
func (w *world) moved(n *node, req Move) drover.Migration {
	w.t.Helper()
	m, err := n.MoveMachine(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		w.t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	return m
}

func TestAMigrationIsTakenBack(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	id := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID
	m := w.moved(n, Move{Machine: id, Target: "h2"})
	asked, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID})
	if err != nil || asked.Migration != nil || asked.To != "h1" || asked.From != "h2" || asked.SwitchedAt != m.StoppedAt {
		t.Fatalf("%+v, %v", asked, err)
	}
	w.checkOwner(n, id, "h2", true)
	done, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Actor: "ann", Confirm: true})
	if err != nil || done.Migration == nil {
		t.Fatalf("%+v, %v", done, err)
	}
	back := w.ended(n, done.Migration.ID)
	if back.Outcome != drover.Succeeded || back.Undoes != m.ID || back.Actor != "ann" || back.ToEpoch <= m.ToEpoch {
		t.Fatalf("%+v, %v", back, back.Problem)
	}
	w.checkOwner(n, id, "h1", true)
	_, err = n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	wantError(t, err, drover.Precondition, "", "")
	// And what was given up can be had again.
	done, err = n.UndoMigration(t.Context(), Undo{Migration: back.ID, Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	if again := w.ended(n, done.Migration.ID); again.Outcome != drover.Succeeded {
		t.Fatalf("%+v", again)
	}
	w.checkOwner(n, id, "h2", true)
}

func TestAControllerMayDieAnywhereInAnUndo(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	for _, point := range slices.Concat(UndoFaultPoints(), []string{"fleet.move.switch.after", "fleet.move.start.after"}) {
		m := w.moved(n, Move{Machine: id, Target: "h2"})
		next, undo := w.undoneByTwo(n, m, point)
		n = next
		if m = w.ended(n, undo.ID); m.Outcome != drover.Succeeded {
			t.Fatalf("%s: %s, %v", point, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, "h1", true)
		w.checkLayers("h2")
	}
}

// TestAnAbortDoesNotWaitForAHostThatHangs gives moves up while a host hangs at an order, and moves again at once.
func TestAnAbortDoesNotWaitForAHostThatHangs(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	for _, c := range []struct {
		order drover.Order
		at    drover.HostID
		opts  drover.MoveOptions
	}{
		{drover.OrderMoveReserve, "h2", drover.MoveOptions{}}, {drover.OrderMoveExport, "h1", drover.MoveOptions{}}, {drover.OrderMoveClone, "h2", drover.MoveOptions{}},
		{drover.OrderMoveRound, "h1", drover.MoveOptions{Switch: drover.SwitchLate}}, {drover.OrderMoveCopy, "h2", drover.MoveOptions{Switch: drover.SwitchLate}},
		{drover.OrderMoveIncoming, "h2", drover.MoveOptions{Live: true}}, {drover.OrderMoveLive, "h1", drover.MoveOptions{Live: true}},
		{drover.OrderMoveQuiesce, "h1", drover.MoveOptions{}}, {drover.OrderMoveFreeze, "h1", drover.MoveOptions{}},
	} {
		hangs, release := make(chan struct{}, 100), make(chan struct{})
		h := w.hosts[c.at]
		h.set(func() {
			h.fail = func(o drover.Order) (error, bool) {
				if o == c.order {
					hangs <- struct{}{}
					<-release
				}
				return nil, false
			}
		})
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: c.opts})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-hangs:
		case <-time.After(time.Minute):
			m, err = n.Migration(t.Context(), m.ID)
			t.Fatalf("%s was never asked: %+v, %v", c.order, m, err)
		}
		asked := time.Now()
		if m, err = n.AbortMigration(t.Context(), m.ID); err != nil || m.Outcome != drover.Aborting && m.Outcome != drover.Aborted {
			t.Fatalf("%s: %s, %v", c.order, m.Outcome, err)
		}
		m = w.ended(n, m.ID)
		t.Logf("%s: aborted after %v", c.order, time.Since(asked).Round(time.Millisecond))
		if m.Outcome != drover.Aborted {
			t.Fatalf("%s: %s", c.order, m.Outcome)
		}
		h.set(func() { h.fail = func(drover.Order) (error, bool) { return nil, false } })
		close(release)
		w.checkOwner(n, id, "h1", true)
		w.checkLayers("h2")
	}
	w.moved(n, Move{Machine: id, Target: "h2"})
}

// TestAHundredMovesLeaveNothingBehind moves there and back in every way.
func TestAHundredMovesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	ways := []drover.MoveOptions{{Switch: drover.SwitchEarly}, {Switch: drover.SwitchLate}, {Live: true, Switch: drover.SwitchEarly}, {Live: true, Switch: drover.SwitchLate}}
	hosts := []drover.HostID{"h1", "h2"}
	for i := range 100 {
		w.moved(n, Move{Machine: id, Target: hosts[(i+1)%2], Options: ways[i/2%len(ways)]})
		w.checkLayers(hosts[i%2])
		if _, err := n.WaitMachine(t.Context(), "shop", id, drover.StateStarted, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.checkOwner(n, id, "h1", true)
	h := w.hosts["h1"]
	h.set(func() {
		if len(h.layers) != 1 || len(h.machines) != 1 || len(w.hosts["h2"].machines) != 0 {
			t.Errorf("left: %v, %v", h.layers, h.machines)
		}
	})
	n.state.mu.RLock()
	defer n.state.mu.RUnlock()
	for key := range n.state.claims.items {
		if key == moveClaim(id) {
			t.Errorf("the claim %q is left", key)
		}
	}
}

// undoneByTwo takes a migration back by a controller that dies at the point, and starts the one that has to go on.
func (w *world) undoneByTwo(n *node, m drover.Migration, point string) (*node, drover.Migration) {
	w.t.Helper()
	n.kill()
	n = w.control("c1", killOnce(point))
	undo, err := n.UndoMigration(w.t.Context(), Undo{Migration: m.ID, Confirm: true})
	if err != nil {
		w.t.Fatalf("%s: %v", point, err)
	}
	<-n.dead
	n.kill()
	w.t.Log(point)
	return w.control("c1", nil), *undo.Migration
}
