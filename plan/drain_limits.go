package plan

import (
	"fmt"

	"drover"
)

// Slot is a machine that is being moved, with what its move takes of the limits.
type Slot struct {
	Machine               drover.MachineID
	App                   drover.AppName
	Network, Group, Class string
	// Source and Target are busy with it as long as its migration has not ended; empty after that.
	Source, Target drover.HostID
	// Unsettled: it is not healthy on its target yet, so others of its app, network, class and group wait.
	Unsettled bool
	// Alone: others of its class wait whatever else the limits are.
	Alone bool
}

// SlotsOf returns the slots that the items of a drain take now.
func SlotsOf(d drover.Drain) []Slot {
	var slots []Slot
	for _, i := range d.Items {
		if i.State.InFlight() && i.State != drover.ItemStopping {
			slots = append(slots, slotOf(i))
		}
	}
	return slots
}

func slotOf(i drover.DrainItem) Slot {
	return Slot{Machine: i.Machine, App: i.App, Network: i.Network, Group: i.Group, Class: i.Class, Source: i.Source, Target: i.Target,
		Unsettled: i.State != drover.ItemHydrating, Alone: i.Alone}
}

// blocked says which limit keeps a machine from being moved to the target now; empty when none does. down lists the members of its group that are
// unavailable for other reasons than a move.
func blocked(c Candidate, target drover.HostID, slots []Slot, o drover.DrainOptions, down []string) string {
	var source, to, app, network int
	var group []string
	for _, s := range slots {
		if s.Machine == c.Machine {
			continue
		}
		if s.Source == c.Source {
			source++
		}
		if s.Target == target {
			to++
		}
		if !s.Unsettled {
			continue
		}
		if s.App == c.App {
			app++
		}
		if c.Network != "" && s.Network == c.Network {
			network++
		}
		if c.Group != "" && s.Group == c.Group {
			group = append(group, fmt.Sprintf("machine %s is being moved", s.Machine))
		}
		if s.Class == c.Class && (s.Alone || alone(c)) {
			return fmt.Sprintf("machine %s of class %q is moved first, one at a time", s.Machine, c.Class)
		}
	}
	switch {
	case source >= o.PerSource:
		return fmt.Sprintf("%d machines are leaving host %s already", source, c.Source)
	case to >= o.PerTarget:
		return fmt.Sprintf("%d machines are coming to host %s already", to, target)
	case app >= o.PerApp:
		return fmt.Sprintf("%s of app %q must be healthy again first", machines(app), c.App)
	case network >= o.PerNetwork:
		return fmt.Sprintf("%s of network %q must be healthy again first", machines(network), c.Network)
	}
	// One that does not run makes nothing less available by being moved.
	if c.Group != "" && c.Running {
		group = append(group, down...)
		if len(group)+1 > c.Labels.MaxUnavailable {
			return fmt.Sprintf("group %q may have %d unavailable, and %s", c.Labels.Group, c.Labels.MaxUnavailable, group[0])
		}
	}
	return ""
}

func machines(n int) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}

func alone(c Candidate) bool { return c.Labels.Policy == drover.MoveOneAtATime }

// Share is what one move of a drain may copy per second, so that all of them together stay within the bandwidth.
func Share(d drover.Drain) drover.Bytes {
	if d.Options.Bandwidth == 0 {
		return 0
	}
	o := d.Options.WithDefaults()
	at := o.PerSource
	if d.Kind == drover.DrainReturn {
		at = o.PerTarget
	}
	return max(d.Options.Bandwidth/drover.Bytes(max(min(at, len(d.Items)), 1)), 1)
}
