package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"drover"
)

// walk is a small world in which a drain is driven: hosts with room, machines, and migrations that go on, fail, or are aborted as the dice say.
type walk struct {
	t      *rapid.T
	d      drover.Drain
	now    time.Time
	where  map[drover.MachineID]drover.HostID
	who    map[drover.MachineID]Candidate
	moves  map[drover.MachineID][]drover.Migration
	begins map[drover.MachineID]*drover.Error
	hooks  map[drover.MachineID]*HookResult
	ill    map[drover.MachineID]string
	gone   map[drover.MachineID]bool
	rooms  []Room
	halted map[string]string
	marked bool
	stops  map[drover.MachineID]bool
	count  int
	// calm: nothing fails any more.
	calm bool
}

var walkStart = time.Date(2026, 5, 1, 3, 0, 0, 0, time.UTC)

func newWalk(t *rapid.T) *walk {
	candidates, rooms := fleetOf(t)
	w := &walk{t: t, now: walkStart, where: map[drover.MachineID]drover.HostID{}, who: map[drover.MachineID]Candidate{}, moves: map[drover.MachineID][]drover.Migration{},
		begins: map[drover.MachineID]*drover.Error{}, hooks: map[drover.MachineID]*HookResult{}, ill: map[drover.MachineID]string{}, gone: map[drover.MachineID]bool{},
		rooms: rooms, halted: map[string]string{}, stops: map[drover.MachineID]bool{}}
	o := drover.DrainOptions{PerSource: rapid.IntRange(1, 4).Draw(t, "per source"), PerApp: rapid.IntRange(1, 3).Draw(t, "per app"),
		Suspect: rapid.Bool().Draw(t, "suspect"), MinHealthy: drover.Duration(2 * time.Second), HealthyDeadline: drover.Duration(20 * time.Second)}
	if rapid.Bool().Draw(t, "deadline") {
		o.Deadline = drover.Duration(time.Duration(rapid.IntRange(5, 300).Draw(t, "seconds")) * time.Second)
		o.AtDeadline = drover.AtDeadline(rapid.SampledFrom([]string{"leave", "stop"}).Draw(t, "end"))
	}
	w.d = drover.Drain{ID: "drn_1", Kind: drover.DrainAway, Host: "h1", Region: "ams", Options: o.WithDefaults(), State: drover.DrainPlanned, CreatedAt: w.now}
	targets, _ := Assign(candidates, rooms)
	for _, c := range candidates {
		if rapid.IntRange(0, 5).Draw(t, "hooked") == 0 {
			c.Labels.PreMove = "true"
		}
		i := NewItem(c)
		i.Target = targets[c.Machine]
		w.d.Items = append(w.d.Items, i)
		w.where[c.Machine], w.who[c.Machine] = "h1", c
	}
	return w
}

// facts says what is so. Rooms are what is left besides what is there and what comes.
func (w *walk) facts() DrainFacts {
	f := DrainFacts{Marked: w.marked, Machines: map[drover.MachineID]MachineFacts{}, Halted: w.halted, Rates: DefaultRates()}
	f.Rooms = slices.Clone(w.rooms)
	for id, c := range w.who {
		if w.gone[id] {
			continue
		}
		host := w.where[id]
		c.Source = host
		m := MachineFacts{Candidate: c, Host: host, Ill: w.ill[id], Begin: w.begins[id], Hook: w.hooks[id], Stopped: w.stops[id]}
		for _, mig := range w.moves[id] {
			m.Moves = append(m.Moves, MoveFacts{Migration: mig})
			if !mig.Ended() && host != mig.Target {
				f.Rooms = Book(f.Rooms, c, mig.Target)
			}
		}
		f.Machines[id] = m
		if host == "h1" {
			f.There = append(f.There, c)
		} else {
			f.Rooms = Book(f.Rooms, c, host)
		}
	}
	return f
}

// do carries an act out, or not.
func (w *walk) do(a DrainAct) {
	c := w.who[a.Machine]
	switch a.Kind {
	case ActMark:
		w.marked = true
	case ActHook:
		switch w.dice(4) {
		case 0:
		case 1:
			w.hooks[a.Machine] = &HookResult{Err: w.failure(drover.Precondition)}
		default:
			c.Labels.Role = drover.RoleReplica
			w.who[a.Machine], w.hooks[a.Machine] = c, &HookResult{}
		}
	case ActBegin:
		if n := w.dice(6); n == 0 {
			w.begins[a.Machine] = w.failure(rapid.SampledFrom([]drover.Code{drover.Conflict, drover.Unavailable, drover.Exhausted, drover.Precondition}).Draw(w.t, "refusal"))
			return
		}
		w.checkTarget(c, a.Target)
		w.count++
		w.moves[a.Machine] = append(w.moves[a.Machine], drover.Migration{ID: drover.MigrationID(fmt.Sprintf("mig_%d", w.count)), Machine: a.Machine, Source: "h1",
			Target: a.Target, Outcome: drover.Running, Phase: drover.PhaseReserve, WasRunning: c.Running, CreatedAt: w.now})
	case ActStop:
		w.stops[a.Machine] = true
	}
}

// checkTarget makes sure that nothing goes where it must not, or where there is no room.
func (w *walk) checkTarget(c Candidate, target drover.HostID) {
	for _, r := range w.facts().Rooms {
		if r.Host == target && (r.Closed != "" || r.Region != "ams" || target == "h1" || r.Memory < c.memory() || r.Disk < c.Bytes) {
			w.t.Fatalf("machine %+v goes to %+v", c, r)
		}
	}
}

func (w *walk) dice(n int) int {
	if w.calm {
		return n - 1
	}
	return rapid.IntRange(0, n-1).Draw(w.t, "dice")
}

func (w *walk) failure(code drover.Code) *drover.Error {
	if w.calm {
		return nil
	}
	return drover.Errorf(code, "no")
}

// goOn lets the migrations go on.
func (w *walk) goOn() {
	for _, i := range w.d.Items {
		list := w.moves[i.Machine]
		if len(list) == 0 {
			continue
		}
		m := &list[len(list)-1]
		if m.Ended() {
			continue
		}
		at := slices.Index(drover.Phases, m.Phase)
		switch n := w.dice(12); {
		case n == 0 && !m.Phase.Committed():
			m.Outcome, m.Problem = drover.Aborted, w.failure(rapid.SampledFrom([]drover.Code{drover.Internal, drover.Canceled, drover.Conflict, drover.Exhausted}).Draw(w.t, "failure"))
		case n == 1:
			w.ill[i.Machine] = "it is failed"
		default:
			delete(w.ill, i.Machine)
			m.Phase = drover.Phases[min(at+1, len(drover.Phases)-1)]
			if m.Phase.Committed() {
				w.where[i.Machine] = m.Target
			}
			if m.Phase == drover.PhaseDone {
				m.Outcome = drover.Succeeded
			}
		}
	}
}

// step is one look at the drain.
func (w *walk) step() {
	f := w.facts()
	next, halts, acts := NextDrain(w.d, f, w.now)
	for _, h := range halts {
		w.halted[h.Class] = h.Reason
	}
	for _, i := range next.Items {
		if i.State != drover.ItemStarting {
			delete(w.begins, i.Machine)
		}
		if i.State != drover.ItemHook {
			delete(w.hooks, i.Machine)
		}
	}
	crash := w.dice(10) == 0
	if !crash || len(acts) == 0 || w.dice(2) == 0 {
		w.d = next // else the controller died before it could write
	}
	if !crash {
		for _, a := range acts {
			w.do(a)
		}
	}
	w.check()
}

// check holds what is under way against the limits.
func (w *walk) check() {
	var slots []Slot
	var all []Candidate
	for _, s := range SlotsOf(w.d) {
		c := w.who[s.Machine]
		slots, all = append(slots, s), append(all, c)
		slots[len(slots)-1].Group = "" // budgets are held against who was begun last, which a slot does not tell
		all[len(all)-1].Group = ""
	}
	if len(slots) > 0 {
		checkSlots(w.t, slots, all, w.d.Options)
	}
}

// TestADrainKeepsItsLimitsWhateverHappensAndEnds walks at random, then without faults, and looks at the end.
func TestADrainKeepsItsLimitsWhateverHappensAndEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(0, 80).Draw(t, "wild steps") {
			w.step()
			w.goOn()
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "seconds")) * time.Second)
		}
		if rapid.IntRange(0, 3).Draw(t, "abort") == 0 && !w.d.Ended() {
			w.d.State, w.d.AbortRunning = drover.DrainAborting, true
		}
		w.calm = true
		for range 600 {
			if w.d.Ended() {
				break
			}
			clear(w.halted) // somebody lifts the halts
			w.step()
			w.goOn()
			w.now = w.now.Add(time.Second)
		}
		for _, i := range w.d.Items {
			m := w.moves[i.Machine]
			on := w.where[i.Machine]
			switch {
			case i.State == drover.ItemMoved && on == "h1":
				t.Fatalf("%+v is moved, and is on h1", i)
			case (i.State == drover.ItemLeft || i.State == drover.ItemStuck) && on != "h1":
				t.Fatalf("%+v is on %s", i, on)
			case i.State == drover.ItemWaiting && i.Reason == "":
				t.Fatalf("%+v waits, and nobody knows for what", i)
			case i.State.InFlight():
				t.Fatalf("%+v is under way for ever: %+v", i, m)
			}
			if i.State.Over() && i.State != drover.ItemMoved && i.Reason == "" {
				t.Fatalf("%+v has ended without a reason", i)
			}
		}
		if !w.d.Ended() && w.d.Waits == "" {
			t.Fatalf("the drain goes on for ever, and does not say why: %+v", w.d)
		}
	})
}
