package fleet

import (
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"drover"
)

// walkAll makes the walk take every combination. Without it some are taken, the same each time.
var walkAll = flag.Bool("walk-all", false, "walk every step of the controller and every strike")

// walkSome is how many combinations are taken without -walk-all: each costs the time in which the fleet notices that somebody is away.
const walkSome = 8

// TestABusOrHostMayGoAnywhereInAMove takes the bus, or a host, away at a step of the controller, for a time made from a seed. What the controller's own
// death leads to is walked in TestAControllerMayDieAnywhereInAMove; what that of a host does to itself, in package host.
func TestABusOrHostMayGoAnywhereInAMove(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	type combination struct{ point, strike string }
	var all []combination
	for _, point := range FaultPoints() {
		for _, strike := range []string{"bus", "source", "target"} {
			all = append(all, combination{point, strike})
		}
	}
	const seed = 4
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if !*walkAll {
		all = all[:walkSome]
	}
	at, other := drover.HostID("h1"), drover.HostID("h2")
	for _, c := range all {
		lasts := time.Duration(50+r.IntN(1500)) * time.Millisecond
		var once sync.Once
		back := make(chan struct{})
		n.kill()
		n = w.control("c1", func(p string) bool {
			if p == c.point {
				once.Do(func() { w.takeAway(c.strike, at, other, lasts, back) })
			}
			return false
		})
		w.eventually("the controller has heard of every host", func() bool { return n.reachable("h1") && n.reachable("h2") && n.reachable("h3") })
		m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: other})
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		m = w.ended(n, m.ID)
		<-back
		if m.Outcome == drover.Succeeded {
			at, other = other, at
		}
		if !slices.Contains([]drover.Outcome{drover.Succeeded, drover.Aborted}, m.Outcome) || m.Outcome == drover.Aborted && m.Problem == nil {
			t.Fatalf("%+v for %s: %s, %v", c, lasts, m.Outcome, m.Problem)
		}
		w.checkOwner(n, id, at, true)
		if m.Outcome == drover.Succeeded {
			w.checkLayers(other)
		}
	}
}

// takeAway takes somebody away now, and closes back when it is there again.
func (w *world) takeAway(who string, source, target drover.HostID, lasts time.Duration, back chan struct{}) {
	if who == "bus" {
		w.server.Shutdown()
		time.AfterFunc(lasts, func() {
			defer close(back)
			w.startBus()
		})
		return
	}
	h := w.hosts[map[string]drover.HostID{"source": source, "target": target}[who]]
	// Not here: the host may be at work on what it was just asked, which it ends first.
	go func() {
		h.halt()
		time.AfterFunc(lasts, func() {
			defer close(back)
			h.start()
		})
	}()
}
