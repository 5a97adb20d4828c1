package fleet

import (
	"slices"
	"testing"

	"drover"
)

// onTheWay moves a machine and lets its data be on the way for ever.
func (w *world) onTheWay(n *node, id drover.MachineID, target drover.HostID) drover.Migration {
	w.t.Helper()
	w.hosts[target].set(func() { w.hosts[target].polls = 1 << 30 })
	m, err := n.MoveMachine(w.t.Context(), Move{Machine: id, Target: target})
	if err != nil {
		w.t.Fatal(err)
	}
	w.eventually("it hydrates", func() bool {
		m, err = n.Migration(w.t.Context(), m.ID)
		return err == nil && m.Phase == drover.PhaseHydrate && m.Hydration != nil
	})
	w.hosts[target].set(func() { w.hosts[target].polls = 2 })
	return m
}

// arrives lets the data of a migration arrive.
func (w *world) arrives(m drover.Migration) {
	h := w.hosts[m.Target]
	h.set(func() { h.moves[m.ID].left = 1 })
}

// takenBack makes sure that a migration was taken back by another one, and that nothing holds the machine any more.
func (w *world) takenBack(n *node, m, back drover.Migration) {
	w.t.Helper()
	if back = w.ended(n, back.ID); back.Outcome != drover.Succeeded {
		w.t.Fatalf("%s: %v", back.Outcome, back.Problem)
	}
	m = w.ended(n, m.ID)
	if m.Outcome != drover.Aborted || m.UndoneBy != back.ID || m.Problem == nil || m.Problem.Code != drover.Canceled {
		w.t.Fatalf("%s, %+v, %v", m.Outcome, m.UndoneBy, m.Problem)
	}
	w.checkOwner(n, m.Machine, m.Source, true)
	if _, err := n.WaitMachine(w.t.Context(), "shop", m.Machine, drover.StateStarted, ""); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the claim is gone", func() bool {
		_, _, err := n.state.claims.get(w.t.Context(), moveClaim(m.Machine))
		return drover.Is(err, drover.NotFound)
	})
}

func TestAMigrationIsTakenBackWhileItsDataIsOnTheWay(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	id := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID
	m := w.onTheWay(n, id, "h2")
	asked, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID})
	if err != nil || asked.Migration != nil || !asked.Unfinished || asked.To != "h1" || asked.SwitchedAt != m.StoppedAt {
		t.Fatalf("%+v, %v", asked, err)
	}
	done, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Actor: "ann", Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	w.takenBack(n, m, *done.Migration)
	w.checkLayers("h2")
	if got, err := n.Volume(t.Context(), "shop", vol.Volume.ID); err != nil || got.Volume.Host != "h1" || got.Volume.State != drover.VolumeCreated {
		t.Fatalf("volume is %+v, %v", got, err)
	}
	_, err = n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	wantError(t, err, drover.Precondition, "", "")
	_, err = n.UndoMigration(t.Context(), Undo{Migration: done.Migration.ID, Confirm: true})
	if err == nil {
		t.Error("what was given up is there again, though it never had all of the data")
	}
	w.moved(n, Move{Machine: id, Target: "h2"})
}

// A machine that fails where it came to is what an undo is for: it runs again where it was.
func TestAMachineThatFailedOnItsTargetRunsAgainWhenItIsTakenBack(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	m := w.onTheWay(n, id, "h2")
	h := w.hosts["h2"]
	h.set(func() { h.machines[id].running, h.machines[id].status.State = false, drover.StateFailed })
	w.eventually("it has failed", func() bool {
		v, err := n.Machine(t.Context(), "shop", id)
		return err == nil && v.Status.State == drover.StateFailed
	})
	done, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	w.takenBack(n, m, *done.Migration)
	h1 := w.hosts["h1"]
	h1.set(func() {
		if got := h1.told.State; got != drover.StateStarted {
			t.Errorf("its host is told that it was %s at the switch", got)
		}
	})
}

func TestAControllerMayDieAnywhereInAnUndoWhileTheDataIsOnTheWay(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	for _, point := range slices.Concat(InterruptFaultPoints(), UndoFaultPoints(), []string{"fleet.move.export.after", "fleet.move.quiesce.after", "fleet.move.commit.after",
		"fleet.move.switch.before", "fleet.move.switch.after", "fleet.move.start.after", "fleet.move.hydrate.after", "fleet.move.done.after"}) {
		m := w.onTheWay(n, id, "h2")
		next, undo := w.undoneByTwo(n, m, point)
		n = next
		w.takenBack(n, m, undo)
		w.checkLayers("h2")
	}
}

// An undo that comes to nothing leaves the migration as it was, whoever dies: it goes on, holds the machine as before, and ends well.
func TestAnUndoThatComesToNothingLetsTheMigrationGoOn(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	for _, c := range []struct {
		order drover.Order
		at    drover.HostID
		point string
	}{
		{drover.OrderMoveReserve, "h1", ""}, {drover.OrderMoveUndo, "h1", "fleet.move.end-undone.after"}, {drover.OrderMoveExport, "h2", "fleet.move.abort.after"},
		{drover.OrderMoveFreeze, "h2", "fleet.move.end-undone.before"},
	} {
		m := w.onTheWay(n, id, "h2")
		n.kill()
		n = w.control("c1", killOnce(c.point))
		w.hosts[c.at].failing(drover.Precondition, false, c.order)
		undo, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
		if err != nil {
			t.Fatalf("%s: %v", c.order, err)
		}
		if c.point != "" {
			<-n.dead
			n.kill()
			n = w.control("c1", nil)
		}
		back := w.ended(n, undo.Migration.ID)
		if back.Outcome != drover.Aborted || back.UndoneBy != "" {
			t.Fatalf("%s: %s, %v", c.order, back.Outcome, back.Problem)
		}
		w.hosts[c.at].failing("", false)
		w.checkOwner(n, id, "h2", true)
		_, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h3"})
		wantError(t, err, drover.Conflict, "", "")
		w.arrives(m)
		if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded || m.UndoneBy != "" {
			t.Fatalf("%s: %s, %q, %v", c.order, m.Outcome, m.UndoneBy, m.Problem)
		}
		w.checkOwner(n, id, "h2", true)
		w.checkLayers("h1")
		w.moved(n, Move{Machine: id, Target: "h1"})
	}
}

// A maker that dies between its claim and its record leaves the machine to the migration that was to be taken back.
func TestAnUndoThatWasNeverBegunGivesTheMachineBack(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	m := w.onTheWay(n, id, "h2")
	n.kill()
	n = w.control("c1", killOnce("fleet.begin.claim.after"))
	go func() {
		_, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
		t.Errorf("the maker lived on: %v", err)
	}()
	<-n.dead
	n.kill()
	n = w.control("c1", nil)
	if err := n.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the machine is the migration's again", func() bool {
		c, _, err := n.state.claims.get(t.Context(), moveClaim(id))
		return err == nil && c.Migration == m.ID
	})
	done, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	w.takenBack(n, m, *done.Migration)
}

// The target dies while the data is on the way: its source has all that there was at the switch. But only a fence makes sure that the target runs
// nothing.
func TestAMachineIsTakenBackFromADeadTargetOnceTheFenceIsCertain(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h2")
	id := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID
	m := w.onTheWay(n, id, "h1")
	w.dead(n)
	_, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	if !drover.Is(err, drover.Precondition) {
		t.Fatalf("taken back without a fence: %v", err)
	}
	w.confirmed(n)
	asked, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID})
	if err != nil || !asked.SourceOff || !asked.Unfinished {
		t.Fatalf("%+v, %v", asked, err)
	}
	n.kill()
	n = w.control("c1", killOnce("fleet.move.check-fence.after"))
	w.knownOff(n)
	undo, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	<-n.dead
	n.kill()
	n = w.control("c1", nil)
	w.takenBack(n, m, *undo.Migration)
	if got, err := n.Volume(t.Context(), "shop", vol.Volume.ID); err != nil || got.Volume.Host != "h2" || got.Volume.State != drover.VolumeCreated {
		t.Fatalf("volume is %+v, %v", got, err)
	}
	w.powerOn(n, "h1")
	w.checkOwner(n, id, "h2", true)
}

// A target that comes back in the moment in which its machine is taken from it keeps it: the change that may be under way fails.
func TestATargetThatComesBackInTimeKeepsItsMachine(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h2"}).Machine.ID
	m := w.onTheWay(n, id, "h1")
	w.dead(n)
	w.confirmed(n)
	n.kill()
	n = w.control("c1", killOnce("fleet.move.commit.after"))
	w.knownOff(n)
	undo, err := n.UndoMigration(t.Context(), Undo{Migration: m.ID, Confirm: true})
	if err != nil {
		t.Fatal(err)
	}
	<-n.dead
	n.kill()
	w.cutOff("h1", false)
	w.hosts["h1"].start()
	n = w.control("c1", nil)
	if back := w.ended(n, undo.Migration.ID); back.Outcome != drover.Aborted {
		t.Fatalf("%s: %v", back.Outcome, back.Problem)
	}
	p, err := n.state.placementOf(t.Context(), id)
	if err != nil || p.Host != "h1" || p.Epoch == undo.Migration.FromEpoch {
		t.Fatalf("%+v, %v", p, err)
	}
	w.arrives(m)
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
}

// knownOff waits until a control host that has just started knows that h1 is off.
func (w *world) knownOff(n *node) {
	w.t.Helper()
	w.eventually("h1 is known to be off", func() bool {
		h, err := n.Host(w.t.Context(), "h1")
		return err == nil && h.Reach == drover.ReachNone && h.Status == drover.HostUnreachable
	})
}
