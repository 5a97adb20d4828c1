package fleet

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
)

// newestDrain waits for the newest drain of a host that is made after those that are known.
func (w *world) newestDrain(n *node, host drover.HostID, known int) drover.Drain {
	w.t.Helper()
	var list []drover.Drain
	w.eventually("the drain of "+string(host)+" is on record", func() bool {
		var err error
		list, err = n.Drains(w.t.Context())
		return err == nil && len(list) == known+1
	})
	return list[0]
}

// dieInDrain starts a control host that dies at the point, lets it begin what begin does, and returns the next control host once it has died.
func (w *world) dieInDrain(n *node, point string, begin func(*node)) *node {
	w.t.Helper()
	n.kill()
	n = w.control("c1", killOnce(point))
	var group sync.WaitGroup
	group.Go(func() { begin(n) }) // it may be cut off in the middle, or not come back at all
	w.eventually("the death at "+point, n.isDead)
	n.kill()
	group.Wait()
	return w.control("c1", nil)
}

// TestAControllerMayDieAnywhereInADrain kills the controller at every fault point of a drain that goes well, and looks at the end.
func TestAControllerMayDieAnywhereInADrain(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	id := w.machine(n, CreateMachine{Config: drover.MachineConfig{Metadata: map[string]string{drover.LabelPreMove: "true"},
		Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID
	at, other := drover.HostID("h1"), drover.HostID("h2")
	known := 0
	for _, point := range DrainFaultPoints() {
		if strings.Contains(point, "drain.abort") || strings.Contains(point, "drain.stop") || strings.Contains(point, "drain.halt") {
			continue
		}
		n = w.dieInDrain(n, point, func(n *node) {
			_, _ = n.CreateDrain(t.Context(), StartDrain{Host: at, Actor: "ann", Reason: point, Options: brisk()})
		})
		d := w.drained(n, w.newestDrain(n, at, known).ID)
		known++
		if d.State != drover.DrainDone || len(d.Items) != 1 || d.Items[0].State != drover.ItemMoved || d.Reason != point {
			t.Fatalf("%s: %+v", point, d)
		}
		w.checkOwner(n, id, other, true)
		moves := w.movesOf(n, d.ID)
		if len(moves) != 1 {
			t.Errorf("%s: one machine was moved by %d migrations", point, len(moves))
		}
		if info, err := n.Host(t.Context(), at); err != nil || info.Mark == nil || info.Mark.Drain != d.ID {
			t.Fatalf("%s: the mark is %+v, %v", point, info.Mark, err)
		}
		if _, err := n.UncordonHost(t.Context(), at, "ann"); err != nil {
			t.Fatal(err)
		}
		at, other = other, at
	}
}

func (w *world) movesOf(n *node, id drover.DrainID) []drover.Migration {
	w.t.Helper()
	all, err := n.Migrations(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(m drover.Migration) bool { return m.Drain != id })
}

// TestAControllerMayDieInTheReturn does the same with the way back.
func TestAControllerMayDieInTheReturn(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, nil)[0]
	known := 0
	for _, point := range []string{"fleet.drain.record.after", "fleet.drain.mark.before", "fleet.drain.mark.after", "fleet.drain.begin.after"} {
		d := w.drained(n, w.drain(n, "h1", brisk()).ID)
		known++
		n = w.dieInDrain(n, point, func(n *node) {
			_, _ = n.CreateDrain(t.Context(), StartDrain{Returns: d.ID, Actor: "ann", Reason: point, Options: brisk()})
		})
		back := w.drained(n, w.newestDrain(n, "h1", known).ID)
		known++
		if back.State != drover.DrainDone || back.Kind != drover.DrainReturn || n.closed("h1") != "" {
			t.Fatalf("%s: %+v", point, back)
		}
		w.checkOwner(n, id, "h1", true)
	}
}

// TestAControllerMayDieInTheAbortOfADrain kills it while it aborts a migration of a drain.
func TestAControllerMayDieInTheAbortOfADrain(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, nil)[0]
	for _, point := range []string{"fleet.drain.abort.before", "fleet.drain.abort.after"} {
		w.hosts["h2"].failing(drover.Unavailable, false, drover.OrderMoveReserve)
		n = w.dieInDrain(n, point, func(n *node) {
			if err := n.await(t.Context()); err != nil {
				return
			}
			d, err := n.CreateDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: point, Options: brisk()})
			if err != nil {
				t.Errorf("%s: %v", point, err)
				return
			}
			w.eventually("it moves", func() bool {
				d, err := n.Drain(t.Context(), d.ID)
				return err == nil && d.Items[0].State == drover.ItemMoving
			})
			_, _ = n.AbortDrain(t.Context(), d.ID, true, "bob")
		})
		w.hosts["h2"].failing("", false)
		list, err := n.Drains(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d := w.drained(n, list[0].ID)
		if d.State != drover.DrainAborted || d.Items[0].State != drover.ItemLeft || d.Problem.Code != drover.Canceled {
			t.Fatalf("%s: %+v", point, d)
		}
		w.checkOwner(n, id, "h1", true)
		if _, err := n.UncordonHost(t.Context(), "h1", "ann"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAControllerMayDieAtTheDeadlineAndAtAHalt kills it while it stops a machine, and after it has halted a class.
func TestAControllerMayDieAtTheDeadlineAndAtAHalt(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, map[string]string{drover.LabelMove: "ask"})[0]
	known := 0
	for _, point := range []string{"fleet.drain.stop.before", "fleet.drain.stop.after"} {
		o := brisk()
		o.Deadline, o.AtDeadline = drover.Duration(time.Second), drover.DeadlineStop
		n = w.dieInDrain(n, point, func(n *node) {
			_, _ = n.CreateDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: point, Options: o})
		})
		d := w.drained(n, w.newestDrain(n, "h1", known).ID)
		known++
		if d.State != drover.DrainFailed || d.Items[0].State != drover.ItemStopped {
			t.Fatalf("%s: %+v", point, d)
		}
		if _, err := n.StartMachine(t.Context(), "shop", id); err != nil {
			t.Fatal(err)
		}
		w.checkOwner(n, id, "h1", true)
	}
	if _, err := n.SetMachineLabel(t.Context(), "shop", id, drover.LabelMove, ""); err != nil {
		t.Fatal(err)
	}
	w.hosts["h2"].failing(drover.Internal, false, drover.OrderMoveClone)
	n = w.dieInDrain(n, "fleet.drain.halt.after", func(n *node) {
		_, _ = n.CreateDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: "halt", Options: brisk()})
	})
	d := w.newestDrain(n, "h1", known)
	w.drainIs(n, d.ID, "has failed once", func(d drover.Drain) bool { return d.Items[0].State == drover.ItemFailed && d.Waits != "" })
	w.hosts["h2"].failing("", false)
	if _, err := n.ResumeDrain(t.Context(), d.ID, "shop"); err != nil {
		t.Fatal(err)
	}
	if d = w.drained(n, d.ID); d.State != drover.DrainDone {
		t.Fatalf("%+v", d)
	}
}

// TestADrainGoesToTheNextHolderOfTheLease starts a second control host and kills the first in the middle of a paused drain and of one that runs.
func TestADrainGoesToTheNextHolderOfTheLease(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ids := w.machines(n, "h1", 3, nil)
	second := w.control("c2", nil)
	if err := second.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := w.drain(n, "h1", brisk())
	w.drainIs(second, d.ID, "has moved one", func(d drover.Drain) bool { return d.Sum().Moved >= 1 })
	if _, err := second.PauseDrain(t.Context(), d.ID); err != nil && drover.CodeOf(err) != drover.Precondition {
		t.Fatal(err)
	}
	n.kill()
	if got, err := second.ResumeDrain(t.Context(), d.ID, ""); err != nil && !got.Ended() {
		t.Fatal(err)
	}
	d = w.drained(second, d.ID)
	if d.State != drover.DrainDone || len(w.movesOf(second, d.ID)) != 3 {
		t.Fatalf("%+v: %d migrations", d, len(w.movesOf(second, d.ID)))
	}
	for _, id := range ids {
		w.checkOwner(second, id, "h2", true)
	}
}
