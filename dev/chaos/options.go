package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"drover"
	"drover/internal/testkit"
)

// Fault is one kind of fault.
type Fault string

// The kinds of faults.
const (
	// Kill ends a process by SIGKILL: an agent, a storage daemon, the control process or a VM.
	Kill Fault = "kill"
	// Power cuts the power of a host, for a time.
	Power Fault = "power"
	// Cut drops everything that a host sends and receives, for a time; OneWay only one direction; Pair only what goes between two hosts.
	Cut    Fault = "cut"
	OneWay Fault = "oneway"
	Pair   Fault = "pair"
	// Slow bounds and delays a host's link, for a time.
	Slow Fault = "slow"
	// Full fills a host's disk, for a time.
	Full Fault = "full"
	// Hang lets nothing end that a host's disk is asked for, for a time.
	Hang Fault = "hang"
	// Clock makes a host's clock wrong, for a time.
	Clock Fault = "clock"
	// Point kills a process, or cuts its host's power, the next time it comes by a named step.
	Point Fault = "point"
)

// Faults lists all kinds.
func Faults() []Fault { return []Fault{Kill, Power, Cut, OneWay, Pair, Slow, Full, Hang, Clock, Point} }

// Options describe a run.
type Options struct {
	// Seed makes the plan. 0 is a seed like any other.
	Seed uint64
	// Seconds is how long faults go on.
	Seconds int
	// Hosts is how many workers the fleet has, Machines how many machines run on it.
	Hosts, Machines int
	// Faults are the kinds that are made; empty for none.
	Faults []Fault
	// Points are the steps at which Point strikes.
	Points []string
	// Pace is the mean time between two faults, and between two moves.
	Pace time.Duration
	// MoveFlags are what `machine move` is called with, one of them at random each time: "" for a plain move.
	MoveFlags []string

	// CLI types the commands; its directory is that of the fleet, which must not exist yet.
	CLI testkit.CLI
	// Image is an OCI layout with the demo's writer.
	Image string
	// Keep leaves the fleet as it is at the end.
	Keep bool
	// Progress gets lines for people.
	Progress io.Writer
}

// Bounds of a run.
const (
	maxHosts    = 20
	maxMachines = 200
	maxSeconds  = 7 * 24 * 3600
	minPace     = 500 * time.Millisecond
)

// check returns Invalid for options that make no run.
func (o Options) check() error {
	bad := func(field, format string, args ...any) error {
		return drover.Errorf(drover.Invalid, "%s", fmt.Sprintf(format, args...)).WithField(field)
	}
	switch {
	case o.Seconds < 1 || o.Seconds > maxSeconds:
		return bad("seconds", "%d seconds are not between 1 and %d", o.Seconds, maxSeconds)
	case o.Hosts < 2 || o.Hosts > maxHosts:
		return bad("hosts", "%d hosts are not between 2 and %d: machines must have somewhere to go", o.Hosts, maxHosts)
	case o.Machines < 1 || o.Machines > maxMachines:
		return bad("machines", "%d machines are not between 1 and %d", o.Machines, maxMachines)
	case o.Pace < minPace:
		return bad("pace", "a fault every %s is not possible: at least %s", o.Pace, minPace)
	}
	for _, f := range o.Faults {
		if !slices.Contains(Faults(), f) {
			return bad("faults", "there is no fault %q", f)
		}
	}
	if slices.Contains(o.Faults, Point) && len(o.Points) == 0 {
		return bad("faults", "there is no step at which a fault could strike")
	}
	return nil
}

// ParseFaults reads a list such as "kill,power"; "all" is all of them, "none" is none.
func ParseFaults(text string) ([]Fault, error) {
	switch text {
	case "all", "":
		return Faults(), nil
	case "none":
		return nil, nil
	}
	var out []Fault
	for word := range strings.SplitSeq(text, ",") {
		f := Fault(strings.TrimSpace(word))
		if !slices.Contains(Faults(), f) {
			return nil, drover.Errorf(drover.Invalid, "there is no fault %q", word).WithHint("there are %v, all and none", Faults()).WithField("faults")
		}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out, nil
}

// String writes the options that make the plan as they are typed, so that a run can be made again.
func (o Options) String() string {
	var faults []string
	for _, f := range o.Faults {
		faults = append(faults, string(f))
	}
	list := strings.Join(faults, ",")
	switch {
	case len(faults) == 0:
		list = "none"
	case len(faults) == len(Faults()):
		list = "all"
	}
	return fmt.Sprintf("--seed %d --seconds %d --hosts %d --machines %d --faults %s --pace %s", o.Seed, o.Seconds, o.Hosts, o.Machines, list, o.Pace)
}
