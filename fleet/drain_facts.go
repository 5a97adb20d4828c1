package fleet

import (
	"cmp"
	"fmt"
	"slices"

	"drover"
	"drover/migrate"
	"drover/plan"
)

// candidateLocked describes a machine for a drain; false for one that is being destroyed, or has no place.
func (f *Fleet) candidateLocked(id string) (plan.Candidate, MachineView, bool) {
	v, ok := f.viewLocked(id)
	if !ok || v.Placement.Host == "" || v.Machine.Goal == drover.GoalDestroyed {
		return plan.Candidate{}, v, false
	}
	app := f.state.apps.items[string(v.Machine.App)].value
	labels := drover.LabelsOf(app, v.Machine)
	for _, check := range v.Status.Checks {
		if check.Role.Known() && v.HostStatus != drover.HostUnreachable { // what a silent host told last may be over
			labels.Role = check.Role // it knows better than whoever wrote the label
			break
		}
	}
	info := f.state.hosts.items[string(v.Placement.Host)].value
	c := plan.Candidate{
		Machine: v.Machine.ID, Name: v.Machine.Name, App: v.Machine.App, Class: labels.Class, Labels: labels,
		Source: v.Placement.Host, Region: info.Region, Running: runs(v) && v.Machine.Goal == drover.GoalStarted,
		MemoryMB: v.Machine.Config.Guest.MemoryMB, CPUs: v.Machine.Config.Guest.CPUs,
		Dedication: v.Machine.Config.Guest.HostDedicationID,
	}
	// Names that users choose are made unique by their organisation; the names of apps are so by themselves.
	if c.Class != string(c.App) {
		c.Class = app.Organization + "." + labels.Class
	}
	if labels.Group != "" {
		c.Group = app.Organization + "." + labels.Group
	}
	if app.Network != "" {
		c.Network = app.Organization + "." + app.Network
	}
	if labels.Policy == drover.MoveNever {
		c.Cannot = fmt.Sprintf("its label %s is %s", drover.LabelMove, drover.MoveNever)
	}
	return c, v, true
}

// drainedLocked is candidateLocked for a drain: off a host that is trusted it takes nothing whose move would not end.
func (f *Fleet) drainedLocked(id string, suspect bool) (plan.Candidate, MachineView, bool) {
	c, v, ok := f.candidateLocked(id)
	if ok && !suspect && c.Cannot == "" {
		c.Cannot = f.damagedLocked(c.Source, v.Machine)
	}
	return c, v, ok
}

// candidatesOn lists the machines on a host, or on all hosts, for a drain.
func (f *Fleet) candidatesOn(host drover.HostID, suspect bool) []plan.Candidate {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	var list []plan.Candidate
	add := func(id string) {
		if c, _, ok := f.drainedLocked(id, suspect); ok {
			list = append(list, c)
		}
	}
	if host != "" {
		for id := range f.state.placedOn[host] {
			add(id)
		}
	} else {
		for id := range f.state.placements.items {
			add(id)
		}
	}
	slices.SortFunc(list, func(a, b plan.Candidate) int { return cmp.Compare(a.Machine, b.Machine) })
	return list
}

// ill says why a machine that is meant to run is not healthy; empty when it is.
func ill(v MachineView) string {
	st := v.Status
	switch {
	case v.HostStatus == drover.HostUnreachable:
		return fmt.Sprintf("its host %q does not answer", v.Placement.Host)
	case v.Migration != nil && migrate.Blocks(*v.Migration):
		return fmt.Sprintf("it is being moved by migration %s", v.Migration.ID)
	case st.Epoch != v.Placement.Epoch || st.Run < v.Machine.Run:
		return fmt.Sprintf("host %q has not told of it yet", v.Placement.Host)
	case st.State != drover.StateStarted:
		if st.Reason != "" {
			return fmt.Sprintf("it is %s: %s", st.State, st.Reason)
		}
		return fmt.Sprintf("it is %s", st.State)
	}
	for name, check := range v.Machine.Config.AllChecks() {
		if check.Kind == "informational" {
			continue
		}
		i := slices.IndexFunc(st.Checks, func(c drover.CheckStatus) bool { return c.Name == name })
		if i < 0 {
			return fmt.Sprintf("its check %q was not made yet", name)
		}
		if st.Checks[i].Status != "passing" {
			return fmt.Sprintf("its check %q is %s: %s", name, st.Checks[i].Status, st.Checks[i].Output)
		}
	}
	return ""
}

// drainFacts is what memory knows about a drain.
func (f *Fleet) drainFacts(d drover.Drain) plan.DrainFacts {
	facts := plan.DrainFacts{Machines: map[drover.MachineID]plan.MachineFacts{}, Halted: map[string]string{}, Rates: f.measuredRates(d)}
	if d.Kind == drover.DrainAway {
		facts.There = f.candidatesOn(d.Host, d.Options.Suspect)
	}
	facts.Slots = f.slotsBeside(d)
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	mark, marked := f.state.marks.items[string(d.Host)]
	if facts.Marked = marked && mark.value.Drain == d.ID; d.Kind == drover.DrainReturn {
		facts.Marked = !marked || mark.value.Drain != d.Returns
	}
	for _, i := range d.Items {
		if m, ok := f.machineFactsLocked(d, i); ok {
			facts.Machines[i.Machine] = m
		}
	}
	for _, c := range facts.There {
		if _, known := facts.Machines[c.Machine]; !known {
			if m, ok := f.machineFactsLocked(d, drover.DrainItem{Machine: c.Machine, Source: d.Host}); ok {
				facts.Machines[c.Machine] = m
			}
		}
	}
	for class, h := range f.state.halts.items {
		facts.Halted[class] = fmt.Sprintf("migration %s of machine %s failed: %s", h.value.Migration, h.value.Machine, h.value.Reason)
	}
	facts.Down = f.downLocked(facts)
	if d.Kind == drover.DrainAway && f.hostStatusLocked(d.Host) == drover.HostUnreachable {
		facts.SourceDown = fmt.Sprintf("host %s does not answer: its machines can be moved when it is back", d.Host)
	}
	return facts
}

// machineFactsLocked is what is known of one machine of a drain; false when it does not exist.
func (f *Fleet) machineFactsLocked(d drover.Drain, i drover.DrainItem) (plan.MachineFacts, bool) {
	c, v, ok := f.drainedLocked(string(i.Machine), d.Options.Suspect)
	if !ok {
		if _, there := f.state.machines.items[string(i.Machine)]; !there {
			return plan.MachineFacts{}, false
		}
		return plan.MachineFacts{Doomed: true}, true
	}
	m := plan.MachineFacts{Candidate: c, Host: v.Placement.Host, Ill: ill(v), Stopped: rests(v)}
	if v.Migration != nil && migrate.Holds(*v.Migration) && v.Migration.Drain != d.ID {
		m.Held = fmt.Sprintf("it is being moved by migration %s", v.Migration.ID)
	}
	for id := range f.state.volumesOn[i.Machine] {
		if vol := f.state.volumes.items[id].value; vol.Filling() {
			m.Held = fmt.Sprintf("its volume %s is still being filled", vol.ID)
		}
	}
	for _, mig := range f.state.migrations.items {
		if mig.value.Drain == d.ID && mig.value.Machine == i.Machine && mig.value.Source != "" {
			m.Moves = append(m.Moves, plan.MoveFacts{Migration: mig.value, SourceDown: f.hostStatusLocked(mig.value.Source) == drover.HostUnreachable,
				TargetDown: f.hostStatusLocked(mig.value.Target) == drover.HostUnreachable})
		}
	}
	slices.SortFunc(m.Moves, func(a, b plan.MoveFacts) int { return a.Migration.CreatedAt.Compare(b.Migration.CreatedAt) })
	return m, true
}

// slotsBeside lists what is being moved, but not by the drain.
func (f *Fleet) slotsBeside(d drover.Drain) []plan.Slot {
	var slots []plan.Slot
	active := map[drover.DrainID]bool{d.ID: true}
	for _, other := range f.activeDrains() {
		active[other.ID] = true
		if other.ID != d.ID {
			slots = append(slots, plan.SlotsOf(other)...)
		}
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for _, mig := range f.state.migrations.items {
		m := mig.value
		if m.Ended() || m.Source == "" || active[m.Drain] {
			continue
		}
		c, _, _ := f.candidateLocked(string(m.Machine))
		slots = append(slots, plan.Slot{Machine: m.Machine, App: m.App, Network: c.Network, Group: c.Group, Class: c.Class, Source: m.Source, Target: m.Target,
			Unsettled: migrate.Blocks(m), Alone: c.Labels.Policy == drover.MoveOneAtATime})
	}
	return slots
}

// downLocked lists, for the groups of a drain's machines, the members that are meant to run and are not healthy, without those that a drain has in
// hand: these are counted as slots.
func (f *Fleet) downLocked(facts plan.DrainFacts) map[string][]string {
	groups := map[string]bool{}
	for _, m := range facts.Machines {
		if m.Candidate.Group != "" {
			groups[m.Candidate.Group] = true
		}
	}
	if len(groups) == 0 {
		return nil
	}
	inHand := map[drover.MachineID]bool{}
	for _, d := range f.state.drains.items {
		for _, i := range d.value.Items {
			inHand[i.Machine] = inHand[i.Machine] || i.State.InFlight()
		}
	}
	down := map[string][]string{}
	for id := range f.state.machines.items {
		c, v, ok := f.candidateLocked(id)
		if !ok || !groups[c.Group] || v.Machine.Goal != drover.GoalStarted || inHand[c.Machine] {
			continue
		}
		if why := ill(v); why != "" {
			down[c.Group] = append(down[c.Group], fmt.Sprintf("machine %s is not healthy: %s", c.Machine, why))
		}
	}
	for _, list := range down {
		slices.Sort(list)
	}
	return down
}
