package host

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
)

// walkAll makes the walk take every combination with every seed. Without it each combination is taken once, with one of the seeds, and under the
// race detector a part of them.
var walkAll = flag.Bool("walk-all", false, "walk every step, party and strike with every seed")

// walkSeeds is how many seeds there are.
const walkSeeds = 20

// A walk is: when one host comes by a step of a move, something happens to a party of the move. The steps are those that a move and an abort
// hit, so that a new step is walked without anybody's doing; the seed decides how often the step is passed before, how long it lasts, and whether
// the move is given up on the way.
type combination struct {
	at     drover.HostID
	point  string
	party  string
	strike string
}

// strikes lists what can happen to whom. The power of a host takes agent and storage daemon at once; a controller and a bus have no network but
// the one to the hosts.
var strikes = map[string][]string{
	"source agent":   {"crash", "power", "cut"},
	"source storage": {"crash", "cut"},
	"target agent":   {"crash", "power", "cut"},
	"target storage": {"crash", "cut"},
	"controller":     {"crash", "power", "cut"},
	"bus":            {"crash", "power", "cut"},
}

// combinations lists all, in an order that depends on nothing.
func combinations(t *testing.T) []combination {
	var out []combination
	for _, at := range []drover.HostID{"a", "b"} {
		for _, point := range passed(t, at) {
			for party, kinds := range strikes {
				for _, strike := range kinds {
					out = append(out, combination{at, point, party, strike})
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y combination) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	return out
}

// passed lists the steps that a host comes by in a move from a to b, and in one that is given up before the switch.
func passed(t *testing.T, at drover.HostID) []string {
	seen := map[string]bool{}
	for _, abort := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			mv := movingWorld(w)
			w.onHit = func(h *fakeHost, p string) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if h.id == at {
					seen[p] = true
				}
			}
			giveUp := -1
			if abort {
				giveUp = len(mv.before())
			}
			if _, err := mv.runOrGiveUp(giveUp); err != nil {
				t.Fatal(err)
			}
		}, "a", "b")
	}
	var out []string
	for p := range seen {
		out = append(out, p)
	}
	return out
}

// movingWorld is a world in which a machine is to be moved from a to b.
func movingWorld(w *world) *mover {
	a, b := w.host["a"], w.host["b"]
	a.up(0)
	b.up(0)
	req := a.create(machineSpec("m1"))
	w.awaitState("m1", drover.StateStarted)
	pass(5 * time.Second)
	return newMover(w, a, b, req)
}

// runOrGiveUp makes the whole move, or aborts it after so many steps; negative for never. It tells whether the machine moved.
func (mv *mover) runOrGiveUp(after int) (moved bool, err error) {
	if after < 0 {
		return mv.run()
	}
	for _, step := range mv.before()[:after] {
		if err := step(); err != nil {
			if !drover.Is(err, drover.Canceled) && !drover.Is(err, drover.Precondition) {
				return false, err
			}
			break
		}
	}
	return false, mv.abort()
}

func TestEveryStepEveryPartyEveryStrike(t *testing.T) {
	all := combinations(t)
	t.Logf("%d combinations of a step, a party and a strike, %d seeds", len(all), walkSeeds)
	r := rand.New(rand.NewPCG(1, 0))
	for i, c := range all {
		seeds := []uint64{uint64(r.IntN(walkSeeds))}
		if !*walkAll && i%walkShare != 0 {
			continue
		}
		if *walkAll {
			seeds = nil
			for s := range uint64(walkSeeds) {
				seeds = append(seeds, s)
			}
		}
		for _, seed := range seeds {
			name := fmt.Sprintf("%d at %s %s: %s %s", seed, c.at, c.point, c.strike, c.party)
			bubble(t, func(t *testing.T, w *world) {
				walkOne(t, w, c, rand.New(rand.NewPCG(seed, uint64(i))), name)
			}, "a", "b")
			if t.Failed() {
				t.Fatalf("the walk ends at seed %s", name)
			}
		}
	}
}

// walkOne walks one combination.
func walkOne(t *testing.T, w *world, c combination, r *rand.Rand, name string) {
	mv := movingWorld(w)
	skip, lasts, giveUp := r.IntN(2), time.Duration(1+r.IntN(40))*time.Second, -1
	if r.IntN(3) == 0 {
		giveUp = r.IntN(len(mv.before()) + 1)
	}
	w.onHit = func(h *fakeHost, p string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if h.id != c.at || p != c.point || skip < 0 {
			return
		}
		if skip--; skip < 0 {
			w.strikeLocked(mv, c, lasts)
		}
	}
	moved, err := mv.runOrGiveUp(giveUp)
	if err != nil {
		t.Errorf("%s: %v\n%s\n%s", name, err, mv.src.describe(), mv.dst.describe())
		return
	}
	pass(lasts) // whatever still holds ends
	on := mv.src
	if moved {
		on = mv.dst
	}
	mv.settled(on)
	walked(t, int(lasts/time.Second), name, moved)
}

// strikeLocked strikes a party, for a time.
func (w *world) strikeLocked(mv *mover, c combination, lasts time.Duration) {
	h := mv.src
	if strings.HasPrefix(c.party, "target") {
		h = mv.dst
	}
	hold := func(flag *bool, after func()) {
		*flag = true
		w.wg.Go(func() {
			<-time.After(lasts)
			w.mu.Lock()
			defer w.mu.Unlock()
			*flag = false
			after()
		})
	}
	reconnect := func() {
		close(w.connected)
		w.connected = make(chan struct{})
	}
	switch c.party + " " + c.strike {
	case "source agent crash", "target agent crash":
		h.dieLocked()
	case "source agent power", "target agent power":
		h.power = true
		h.dieLocked()
		h.darkLocked()
	case "source agent cut", "target agent cut":
		hold(&h.away, reconnect)
	case "source storage crash", "target storage crash":
		hold(&h.noStorage, func() {})
	case "source storage cut", "target storage cut":
		hold(&h.noPeers, func() {})
	case "controller crash":
		w.silence = time.Second
	case "controller power", "controller cut":
		w.silence = 4 * lasts // longer than a source waits for its controller, often
	case "bus crash", "bus power":
		hold(&w.busDown, reconnect)
	case "bus cut":
		hold(&w.host[c.at].away, reconnect)
	}
}

// dieLocked lets the present agent die, where it is.
func (h *fakeHost) dieLocked() {
	s := h.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	s.cancel()
}

// darkLocked takes what a power cut takes at once.
func (h *fakeHost) darkLocked() {
	for _, vm := range h.vms {
		vm.endLocked("power cut")
	}
	for _, l := range h.layers {
		l.status.Writer = 0
	}
	clear(h.taps)
	clear(h.keys)
}
