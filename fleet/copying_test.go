package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

func TestALateMoveGoesInRounds(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	// The machine writes a lot at first: three rounds are needed.
	w.hosts["h1"].set(func() { w.hosts["h1"].dirty = func(round int) drover.Bytes { return drover.GiB >> (3 * round) } })
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Switch: drover.SwitchLate, Bandwidth: drover.MiB}})
	if err != nil {
		t.Fatal(err)
	}
	m = w.ended(n, m.ID)
	c := m.Convergence
	if m.Outcome != drover.Succeeded || !m.Late || c == nil || c.Round != 2 && c.Round != 3 || !c.Over || c.Remaining > c.Threshold || c.CopyRate == 0 || c.DirtyRate == 0 {
		t.Fatalf("%s, %v: %+v", m.Outcome, m.Problem, c)
	}
	if i := slices.IndexFunc(m.Steps, func(s drover.Step) bool { return s.Phase == drover.PhaseConverge }); i < 0 || m.Steps[i].Bytes < drover.GiB {
		t.Errorf("steps %+v", m.Steps)
	}
	if got := w.hosts["h2"].limit; got != drover.MiB {
		t.Errorf("the target was told of a limit of %d", got)
	}
	w.checkOwner(n, id, "h2", true)
	w.checkLayers("h1")
}

func TestAMoveThatDoesNotConvergeIsMadeAllTheSame(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	w.hosts["h1"].set(func() { w.hosts["h1"].dirty = func(int) drover.Bytes { return 100 * drover.GiB } })
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Switch: drover.SwitchLate}})
	if err != nil {
		t.Fatal(err)
	}
	m = w.ended(n, m.ID)
	if m.Outcome != drover.Succeeded || m.Convergence.Round != migrate.DefaultRules().Rounds || !strings.Contains(m.SwitchReason, "were still left") {
		t.Fatalf("%s, %v, %q: %+v", m.Outcome, m.Problem, m.SwitchReason, m.Convergence)
	}
}

func TestALiveMoveTakesTheMemory(t *testing.T) {
	t.Parallel()
	for _, mode := range []drover.SwitchMode{drover.SwitchEarly, drover.SwitchLate} {
		t.Run(string(mode), func(t *testing.T) {
			w, n := newWorld(t)
			id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
			m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Live: true, Switch: mode}})
			if err != nil {
				t.Fatal(err)
			}
			m = w.ended(n, m.ID)
			if m.Outcome != drover.Succeeded || !m.Live || m.Memory == nil || m.Memory.Transferred != drover.GiB || m.StoppedAt.IsZero() || !m.RunningAt.After(m.StoppedAt) ||
				m.Memory.PausedFor != m.RunningAt.Sub(m.StoppedAt) {
				t.Fatalf("%s, %v: %+v", m.Outcome, m.Problem, m)
			}
			t.Logf("paused for %v", m.Memory.PausedFor)
			w.checkOwner(n, id, "h2", true)
		})
	}
}

// What cannot be moved live is moved cold if that was allowed, and else stays where it is.
func TestALiveMoveThatFailsBeforeThePause(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	w.hosts["h1"].failing(drover.Internal, false, drover.OrderMoveLive)
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Live: true, Switch: drover.SwitchEarly}})
	if err != nil {
		t.Fatal(err)
	}
	if m = w.ended(n, m.ID); m.Outcome != drover.Aborted {
		t.Fatalf("%s", m.Outcome)
	}
	w.checkOwner(n, id, "h1", true)
	m, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Live: true, LiveOrCold: true, Switch: drover.SwitchEarly}})
	if err != nil {
		t.Fatal(err)
	}
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded || m.Live || m.ColdReason == "" {
		t.Fatalf("%s, %v: %+v", m.Outcome, m.Problem, m)
	}
	w.checkOwner(n, id, "h2", true)
}

func TestCopyingThatStandsAndADeadlineThatPasses(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	w.hosts["h2"].set(func() { w.hosts["h2"].stuck = true })
	for _, opts := range []drover.MoveOptions{{Switch: drover.SwitchLate, NoProgress: drover.Duration(200 * time.Millisecond)}, {Switch: drover.SwitchLate, Deadline: drover.Duration(200 * time.Millisecond)}} {
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: opts})
		if err != nil {
			t.Fatal(err)
		}
		if m = w.ended(n, m.ID); m.Outcome != drover.Aborted || m.Problem == nil || m.Problem.Hint == "" {
			t.Fatalf("%+v: %s, %v", opts, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, "h1", true)
		w.checkLayers("h2")
	}
}

// TestAControllerMayDieAnywhereInALateAndLiveMove kills the controller at every fault point that the others leave out.
func TestAControllerMayDieAnywhereInALateAndLiveMove(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	at, other := drover.HostID("h1"), drover.HostID("h2")
	points := slices.Concat(LateFaultPoints(), LiveFaultPoints(), []string{"fleet.move.commit.before", "fleet.move.switch.after", "fleet.move.start.before"})
	for _, point := range points {
		n.kill()
		n = w.control("c1", killOnce(point))
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: other, Options: drover.MoveOptions{Live: true, Switch: drover.SwitchLate}})
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		<-n.dead
		n.kill()
		n = w.control("c1", nil)
		if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded || !m.Live {
			t.Fatalf("%s: %s, %v", point, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, other, true)
		w.checkLayers(at)
		at, other = other, at
	}
}
