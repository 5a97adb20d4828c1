package chaos

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"drover"
)

func options(seed uint64) Options {
	return Options{Seed: seed, Seconds: 600, Hosts: 3, Machines: 3, Faults: Faults(), Points: []string{"fleet.move.switch.before", "host.freeze.after"}, Pace: 2 * time.Second}
}

func TestThePlanIsAFunctionOfTheOptions(t *testing.T) {
	first := PlanOf(options(7))
	if again := PlanOf(options(7)); !reflect.DeepEqual(first, again) {
		t.Error("the same seed made two plans")
	}
	if other := PlanOf(options(8)); reflect.DeepEqual(first, other) {
		t.Error("another seed made the same plan")
	}
}

func TestAPlanHasEveryFaultAndKeepsInTime(t *testing.T) {
	o := options(1)
	made := map[Fault]int{}
	moves, aborts, drains := 0, 0, 0
	var last time.Duration
	for _, e := range PlanOf(o) {
		made[e.Fault]++
		if e.At < last || e.At > time.Duration(o.Seconds)*time.Second {
			t.Errorf("%s at %s", e, e.At)
		}
		last = e.At
		switch {
		case e.Move:
			moves++
			if e.AbortAfter >= 0 {
				aborts++
			}
		case e.Drain:
			drains++
		case e.Fault == Point && (e.Host == control) != strings.HasPrefix(e.Point, controlPoints):
			t.Errorf("nobody comes by: %s", e)
		case e.Fault != Kill && (e.For < shortest || e.For > longestHang):
			t.Errorf("%s holds for %s", e, e.For)
		}
	}
	for _, f := range Faults() {
		if made[f] == 0 {
			t.Errorf("no %s in ten minutes", f)
		}
	}
	if moves == 0 || aborts == 0 || aborts == moves || drains == 0 {
		t.Errorf("%d moves, %d aborts, %d drains", moves, aborts, drains)
	}
}

// The end of one fault must not be that of another, or a link that is cut for ten seconds is healed after one.
func TestFaultsOfOneKindDoNotOverlapOnAHost(t *testing.T) {
	parts := map[Fault]string{Power: "power", Cut: "link", OneWay: "link", Pair: "link", Slow: "link", Full: "disk", Hang: "disk", Clock: "clock", Point: "point"}
	for seed := range uint64(20) {
		until := map[string]time.Duration{}
		for _, e := range PlanOf(options(seed)) {
			part := parts[e.Fault]
			if part == "" {
				continue
			}
			key := part + string(e.Host)
			if e.At < until[key] {
				t.Errorf("seed %d: %s at %s, while another holds until %s", seed, e, e.At, until[key])
			}
			until[key] = e.At + e.For
		}
	}
}

func TestAPlanWithoutFaultsHasMovesOnly(t *testing.T) {
	o := options(1)
	o.Faults = nil
	for _, e := range PlanOf(o) {
		if e.Fault != "" {
			t.Errorf("%s", e)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"no time": func(o *Options) { o.Seconds = 0 }, "one host": func(o *Options) { o.Hosts = 1 }, "no machine": func(o *Options) { o.Machines = 0 },
		"no pace": func(o *Options) { o.Pace = 0 }, "a flood": func(o *Options) { o.Faults = []Fault{"flood"} }, "no steps": func(o *Options) { o.Points = nil },
	} {
		o := options(1)
		change(&o)
		if _, err := CheckedPlan(o); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := CheckedPlan(options(1)); err != nil {
		t.Error(err)
	}
}

func TestParseFaults(t *testing.T) {
	for text, want := range map[string]int{"all": len(Faults()), "": len(Faults()), "none": 0, "kill,power": 2, "kill, kill": 1} {
		if got, err := ParseFaults(text); err != nil || len(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := ParseFaults("kill,flood"); !drover.Is(err, drover.Invalid) {
		t.Error(err)
	}
	o := options(3)
	if got, want := fmt.Sprint(o), "--seed 3 --seconds 600 --hosts 3 --machines 3 --faults all --pace 2s"; got != want {
		t.Errorf("%s", got)
	}
}

func TestVerdict(t *testing.T) {
	if err := (Report{Acked: 5, Moves: 2}).Verdict(); err != nil {
		t.Error(err)
	}
	for _, r := range []Report{{Lost: 1}, {Corrupt: 1}, {TwoRunners: 1}, {Leftovers: 1}} {
		if r.Verdict() == nil {
			t.Errorf("%+v is taken for good", r)
		}
	}
}
