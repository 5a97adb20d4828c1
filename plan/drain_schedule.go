package plan

import (
	"math"
	"slices"
	"time"

	"drover"
)

// Rates is what moves take, measured from those that were made.
type Rates struct {
	// Before is from the beginning of a move until the machine runs on its target, After what its end takes, both besides the copying.
	Before, After time.Duration
	// LateOver is from how many bytes on they are copied before the machine runs on its target, by a late switch; 0 is never.
	LateOver drover.Bytes
	// Copy is what one host copies to others, in bytes per second, shared by all moves off it.
	Copy float64
	// Interruption is what a move interrupts a machine for; Of has machines whose own moves tell.
	Interruption time.Duration
	Of           map[drover.MachineID]time.Duration
}

// DefaultRates are those of a fleet that has not moved anything yet.
func DefaultRates() Rates {
	return Rates{Before: 8 * time.Second, After: 2 * time.Second, Copy: 100 << 20, Interruption: 3 * time.Second}
}

func (r Rates) interruption(c Candidate) time.Duration {
	if !c.Running {
		return 0
	}
	if own, ok := r.Of[c.Machine]; ok {
		return own
	}
	return r.Interruption
}

// Planned is when a move is expected to begin and to end, in seconds from now.
type Planned struct {
	Candidate Candidate
	Target    drover.HostID
	Begin     float64
	// Settled is when the next of its app may go, End when its data is there.
	Settled, End float64
}

// flight is a move in the simulation.
type flight struct {
	Planned
	index int
	// left is what is to be copied yet, from copying on.
	copying, left float64
	// arrived is when the machine runs on its target, ends when the move is over; never, until that is known.
	arrived, ends float64
	late, copied  bool
	settled, done bool
	slot          Slot
}

// never is the time of what is not known yet.
var never = math.Inf(1)

// Schedule simulates the moves of candidates, in their order, under the limits, and returns when each is expected to begin and to end; slots are
// taken by what is under way already and stay taken. What never gets its turn because of them is expected after everything else.
func Schedule(candidates []Candidate, targets map[drover.MachineID]drover.HostID, o drover.DrainOptions, r Rates) []Planned {
	o = o.WithDefaults()
	s := simulation{o: o, rates: r, plans: make([]Planned, len(candidates))}
	for i, c := range candidates {
		s.plans[i] = Planned{Candidate: c, Target: targets[c.Machine]}
		if c.Cannot == "" && s.plans[i].Target != "" {
			s.waiting = append(s.waiting, i)
		}
	}
	for len(s.waiting) > 0 || len(s.flying) > 0 {
		s.begin()
		if !s.advance() {
			break
		}
	}
	return s.plans
}

// simulation is moves in a world where everything takes as long as it did before.
type simulation struct {
	o       drover.DrainOptions
	rates   Rates
	now     float64
	plans   []Planned
	waiting []int
	flying  []*flight
	// trace, when it is set, is told the slots after each change.
	trace func([]Slot)
}

func (s *simulation) slots() []Slot {
	var slots []Slot
	for _, f := range s.flying {
		slots = append(slots, f.slot)
	}
	return slots
}

// begin begins what the limits allow.
func (s *simulation) begin() {
	for _, i := range slices.Clone(s.waiting) {
		p := s.plans[i]
		if s.held(i) || blocked(p.Candidate, p.Target, s.slots(), s.o, nil) != "" {
			continue
		}
		s.waiting = slices.DeleteFunc(s.waiting, func(j int) bool { return j == i })
		s.plans[i].Begin = s.now
		c := p.Candidate
		f := &flight{index: i, Planned: p, left: float64(c.Bytes), copying: s.now, arrived: never, ends: never,
			late: s.rates.LateOver > 0 && c.Bytes > s.rates.LateOver,
			slot: Slot{Machine: c.Machine, App: c.App, Network: c.Network, Group: c.Group, Class: c.Class, Source: c.Source, Target: p.Target,
				Unsettled: true, Alone: alone(c)}}
		if !f.late {
			f.arrived = s.now + s.rates.Before.Seconds()
			f.copying = f.arrived
		}
		s.flying = append(s.flying, f)
		if s.trace != nil {
			s.trace(s.slots())
		}
	}
}

// held reports whether a primary waits for replicas of its group that have not settled.
func (s *simulation) held(i int) bool {
	c := s.plans[i].Candidate
	if c.Labels.Role != drover.RolePrimary || s.o.Suspect {
		return false
	}
	for _, j := range s.waiting {
		if other := s.plans[j].Candidate; other.Labels.Role == drover.RoleReplica && together(c, other) {
			return true
		}
	}
	return slices.ContainsFunc(s.flying, func(f *flight) bool {
		return !f.settled && f.Candidate.Labels.Role == drover.RoleReplica && together(c, f.Candidate)
	})
}

// together reports whether two machines belong to one group, or to one app where they have none.
func together(a, b Candidate) bool { return a.Group == b.Group && (a.Group != "" || a.App == b.App) }

// advance goes to the next moment at which something changes; false when nothing will.
func (s *simulation) advance() bool {
	if len(s.flying) == 0 {
		return false
	}
	rates := s.copyRates()
	step := never
	for i, f := range s.flying {
		step = min(step, s.until(f, rates[i]))
	}
	step = max(step, 1e-6)
	for i, f := range s.flying {
		if s.copies(f) {
			f.left = max(0, f.left-rates[i]*step)
		}
	}
	s.now += step
	for _, f := range s.flying {
		s.settle(f)
	}
	s.flying = slices.DeleteFunc(s.flying, func(f *flight) bool { return f.done && f.settled })
	return true
}

// copyRates shares each source's rate, and the bandwidth, among the moves that copy now.
func (s *simulation) copyRates() []float64 {
	copying := map[drover.HostID]int{}
	for _, f := range s.flying {
		if s.copies(f) {
			copying[f.Candidate.Source]++
		}
	}
	rates := make([]float64, len(s.flying))
	share := never
	if s.o.Bandwidth > 0 {
		share = float64(s.o.Bandwidth) / float64(max(min(s.o.PerSource, len(s.plans)), 1))
	}
	for i, f := range s.flying {
		rates[i] = min(share, max(s.rates.Copy, 1)/float64(max(copying[f.Candidate.Source], 1)))
	}
	return rates
}

// until is how long it is to the next change of a move.
func (s *simulation) until(f *flight, rate float64) float64 {
	next := never
	for _, at := range []float64{f.copying, f.arrived, f.arrived + s.healthyAfter(f), f.ends} {
		if at > s.now+1e-9 {
			next = min(next, at-s.now)
		}
	}
	if s.copies(f) {
		next = min(next, f.left/rate)
	}
	return next
}

// copies reports whether a move copies now.
func (s *simulation) copies(f *flight) bool { return s.now >= f.copying-1e-9 && !f.copied }

func (s *simulation) healthyAfter(f *flight) float64 {
	if !f.Candidate.Running {
		return 0
	}
	return time.Duration(s.o.MinHealthy).Seconds()
}

// settle notes what a move has reached.
func (s *simulation) settle(f *flight) {
	if s.copies(f) && f.left < 1 {
		f.copied = true
		if f.late {
			f.arrived = s.now + s.rates.Before.Seconds()
		}
		f.ends = max(s.now, f.arrived) + s.rates.After.Seconds()
	}
	if !f.done && s.now >= f.ends-1e-9 {
		f.done = true
		f.slot.Source, f.slot.Target = "", ""
		s.plans[f.index].End = s.now
	}
	if !f.settled && s.now >= f.arrived+s.healthyAfter(f)-1e-9 && (f.done || !f.Candidate.Labels.Hydrated) {
		f.settled, f.slot.Unsettled = true, false
		s.plans[f.index].Settled = s.now
		s.plans[f.index].End = max(s.plans[f.index].End, s.now)
	}
}
