package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"drover"
)

// controlPoints begins the names of the steps that the control side comes by; workers come by all others.
const controlPoints = "fleet."

// control is the fleet's one control host.
const control = drover.HostID("c1")

// Event is one thing that is done to the fleet at a time.
type Event struct {
	// At is when, counted from the beginning of the load.
	At time.Duration
	// Fault is the kind of fault; empty for a move or a drain.
	Fault Fault
	// Host is who is hit, or drained. Empty where Machine tells it.
	Host drover.HostID
	// For is how long it holds; 0 for what is over at once. A drain that has not ended by then is aborted.
	For time.Duration

	// Service is the process that Kill ends: worker, storage, control, or vm for that of Machine, wherever it runs.
	Service string
	// Machine is the number of a machine, from 0; -1 for none.
	Machine int
	// Other is the host that Pair cuts Host from.
	Other drover.HostID
	// Only is the direction of OneWay: in or out.
	Only string
	// Rate and Delay are those of Slow, Leave is that of Full, Off that of Clock.
	Rate, Leave drover.Bytes
	Delay, Off  time.Duration
	// Point and Strike are those of Point: Strike is process or host.
	Point, Strike string

	// Move: the machine is moved to the Step-th of the hosts after its own. Flags is what the command gets besides, also that of a drain.
	Move  bool
	Step  int
	Flags string
	// AbortAfter is how long after the move its abort is asked for; negative for never.
	AbortAfter time.Duration
	// Drain: Host is drained.
	Drain bool
}

// Durations of faults: long enough to be noticed, and short enough that there are many in an hour.
const (
	shortest = 1 * time.Second
	longest  = 12 * time.Second
	// longestFull is longer: it takes a while until a guest needs new blocks.
	longestFull = 20 * time.Second
	// longestHang is longer than it takes a host to say that its disk hangs.
	longestHang = 40 * time.Second
)

// CheckedPlan makes the plan of options that may be wrong.
func CheckedPlan(o Options) ([]Event, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return PlanOf(o), nil
}

// PlanOf makes the plan of a run. It depends on the options alone.
func PlanOf(o Options) []Event {
	p := planner{o: o, r: rand.New(rand.NewPCG(o.Seed, 0xd20e)), free: map[string]time.Duration{}}
	for id := range o.Hosts {
		p.workers = append(p.workers, drover.HostID(fmt.Sprintf("h%d", id+1)))
	}
	end := time.Duration(o.Seconds) * time.Second
	if len(o.Faults) > 0 {
		for at := p.gap(); at < end; at += p.gap() {
			p.fault(at)
		}
	}
	for at := p.gap(); at < end; at += p.gap() {
		p.move(at)
	}
	for at := 6 * p.gap(); at < end; at += 6 * p.gap() {
		p.drain(at)
	}
	slices.SortStableFunc(p.events, func(a, b Event) int { return int(a.At - b.At) })
	return p.events
}

// planner makes a plan.
type planner struct {
	o       Options
	r       *rand.Rand
	workers []drover.HostID
	events  []Event
	// free says from when on something of a host ("link h1") may be hit again: the end of one fault must not be that of another.
	free map[string]time.Duration
}

// gap is the time to the next event: half to one and a half times the pace.
func (p *planner) gap() time.Duration { return p.between(p.o.Pace/2, p.o.Pace*3/2) }

func (p *planner) between(a, b time.Duration) time.Duration {
	return a + time.Duration(p.r.Int64N(int64(b-a)+1)).Round(time.Millisecond)
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// take reserves a part of a host for a time; false when another fault has it.
func (p *planner) take(what string, host drover.HostID, from, to time.Duration) bool {
	key := what + " " + string(host)
	if from < p.free[key] {
		return false
	}
	p.free[key] = to + shortest
	return true
}

// fault plans one fault, unless what it would hit is being hit.
func (p *planner) fault(at time.Duration) {
	e := Event{At: at, Fault: pick(p.r, p.o.Faults), Machine: -1}
	e.For = p.between(shortest, longest)
	everywhere := append(slices.Clone(p.workers), control)
	switch e.Fault {
	case Kill:
		p.kill(&e)
	case Power:
		e.Host = pick(p.r, everywhere)
		if !p.take("power", e.Host, at, at+e.For) {
			return
		}
	case Cut, OneWay, Slow, Pair:
		e.Host = pick(p.r, everywhere)
		p.link(&e, everywhere)
		if !p.take("link", e.Host, at, at+e.For) {
			return
		}
	case Full:
		e.Host, e.For = pick(p.r, p.workers), p.between(shortest, longestFull)
		e.Leave = pick(p.r, []drover.Bytes{0, 4 * drover.MiB, 64 * drover.MiB, 256 * drover.MiB})
		if !p.take("disk", e.Host, at, at+e.For) {
			return
		}
	case Hang:
		e.Host, e.For = pick(p.r, p.workers), p.between(shortest, longestHang)
		if !p.take("disk", e.Host, at, at+e.For) {
			return
		}
	case Clock:
		e.Host = pick(p.r, everywhere)
		e.Off = p.between(2*time.Second, 10*time.Minute)
		if p.r.IntN(2) == 0 {
			e.Off = -e.Off
		}
		if !p.take("clock", e.Host, at, at+e.For) {
			return
		}
	case Point:
		e.Point, e.Strike = pick(p.r, p.o.Points), pick(p.r, []string{"process", "process", "host"})
		if e.Host = pick(p.r, p.workers); strings.HasPrefix(e.Point, controlPoints) {
			e.Host = control
		}
		if !p.take("point", e.Host, at, at+e.For) {
			return
		}
	}
	p.events = append(p.events, e)
}

// kill chooses a process.
func (p *planner) kill(e *Event) {
	e.For = 0
	switch e.Service = pick(p.r, []string{"worker", "storage", "worker", "storage", "control", "vm"}); e.Service {
	case "control":
		e.Host = control
	case "vm":
		e.Machine = p.r.IntN(p.o.Machines)
	default:
		e.Host = pick(p.r, p.workers)
	}
}

// link chooses what is done to a link.
func (p *planner) link(e *Event, everywhere []drover.HostID) {
	switch e.Fault {
	case OneWay:
		e.Only = pick(p.r, []string{"in", "out"})
	case Pair:
		others := slices.DeleteFunc(slices.Clone(everywhere), func(id drover.HostID) bool { return id == e.Host })
		e.Other = pick(p.r, others)
	case Slow:
		e.Rate = drover.Bytes(1+p.r.IntN(32)) * drover.MiB / 4
		e.Delay = p.between(0, 150*time.Millisecond)
	}
}

// move plans a move, one in four with an abort.
func (p *planner) move(at time.Duration) {
	e := Event{At: at, Move: true, Machine: p.r.IntN(p.o.Machines), Step: 1 + p.r.IntN(max(p.o.Hosts-1, 1)), AbortAfter: -1}
	if len(p.o.MoveFlags) > 0 {
		e.Flags = pick(p.r, p.o.MoveFlags)
	}
	if p.r.IntN(4) == 0 {
		e.AbortAfter = p.between(0, 6*time.Second)
	}
	p.events = append(p.events, e)
}

func (p *planner) drain(at time.Duration) {
	e := Event{At: at, Drain: true, Host: pick(p.r, p.workers), Machine: -1, For: p.between(20*time.Second, 90*time.Second),
		Flags: pick(p.r, []string{"", "", "--suspect", "--cold", "--min-healthy 1s --max-per-app 3"})}
	if p.take("drain", e.Host, at, at+e.For) {
		p.events = append(p.events, e)
	}
}

// String writes an event for people.
func (e Event) String() string {
	text := ""
	switch {
	case e.Move:
		text = fmt.Sprintf("move machine %d, %d further", e.Machine, e.Step)
		if e.Flags != "" {
			text += ", " + e.Flags
		}
		if e.AbortAfter >= 0 {
			text += fmt.Sprintf(", abort after %.1f s", e.AbortAfter.Seconds())
		}
		return text
	case e.Drain:
		text = strings.TrimSpace(fmt.Sprintf("drain %s %s", e.Host, e.Flags))
	case e.Service == "vm":
		text = fmt.Sprintf("kill the VM of machine %d", e.Machine)
	default:
		text = fmt.Sprintf("%s %s%s", e.Fault, e.Host, e.details())
	}
	if e.For > 0 {
		text += fmt.Sprintf(" for %.1f s", e.For.Seconds())
	}
	return text
}

func (e Event) details() string {
	switch e.Fault {
	case Kill:
		return " " + e.Service
	case OneWay:
		return ", " + e.Only
	case Pair:
		return " from " + string(e.Other)
	case Slow:
		return fmt.Sprintf(" to %.2f MiB/s and %d ms", float64(e.Rate)/float64(drover.MiB), e.Delay.Milliseconds())
	case Full:
		return fmt.Sprintf(" but for %d MiB", e.Leave/drover.MiB)
	case Clock:
		return fmt.Sprintf(" %+.1f s off", e.Off.Seconds())
	case Point:
		return fmt.Sprintf(" at %s (%s)", e.Point, e.Strike)
	}
	return ""
}
