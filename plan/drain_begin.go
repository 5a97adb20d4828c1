package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"drover"
)

// run begins what may be begun now, and says why nothing is when that is so.
func (n *drainStep) run() {
	if n.deadline() {
		return
	}
	n.d.Waits = ""
	window, e := drover.ParseWindow(n.d.Options.Window)
	if e != nil {
		n.d.Waits = e.Text
		return
	}
	if open, next := window.Open(n.now); !open {
		n.d.Waits = fmt.Sprintf("it is outside its window %s UTC, which opens at %s", n.d.Options.Window, next.Format("2006-01-02 15:04 UTC"))
		return
	}
	if n.f.SourceDown != "" {
		n.d.Waits = n.f.SourceDown
		return
	}
	n.promise()
	for _, i := range n.turns() {
		if i.State == drover.ItemWaiting {
			n.begin(i)
		}
	}
	n.explain()
}

// promise takes the room of those whose target is chosen already, and who have no migration yet that would count for them: an earlier run has said
// that they begin, and the controller may have died before they did.
func (n *drainStep) promise() {
	for _, i := range n.d.Items {
		if i.State == drover.ItemStarting || i.State == drover.ItemHook {
			n.f.Rooms = Book(n.f.Rooms, n.candidate(i), i.Target)
		}
	}
}

// turns returns the items in the order in which they are begun: what is under way first, then those whose hook has run, then as Order says.
func (n *drainStep) turns() []*drover.DrainItem {
	var items []*drover.DrainItem
	var candidates []Candidate
	for k := range n.d.Items {
		items = append(items, &n.d.Items[k])
		candidates = append(candidates, n.candidate(n.d.Items[k]))
	}
	Order(candidates, n.d.Options.Suspect)
	place := map[drover.MachineID]int{}
	for k, c := range candidates {
		place[c.Machine] = k
	}
	slices.SortStableFunc(items, func(a, b *drover.DrainItem) int {
		return cmp.Or(rank(!a.State.InFlight())-rank(!b.State.InFlight()), rank(a.HookDoneAt.IsZero())-rank(b.HookDoneAt.IsZero()), place[a.Machine]-place[b.Machine])
	})
	return items
}

// candidate is the machine of an item, as it is now.
func (n *drainStep) candidate(i drover.DrainItem) Candidate {
	c := n.f.Machines[i.Machine].Candidate
	c.Machine, c.Source, c.Region, c.Bytes = i.Machine, i.Source, n.d.Region, max(i.Bytes, c.Bytes)
	if n.d.Kind == drover.DrainReturn {
		c.Fixed = n.d.Host
	}
	return c
}

// begin begins one move, or says in the item why not.
func (n *drainStep) begin(i *drover.DrainItem) {
	m := n.f.Machines[i.Machine]
	c := n.candidate(*i)
	if c.Cannot != "" {
		n.close(i, drover.ItemStuck, c.Cannot)
		return
	}
	if wait := n.waits(*i, c, m); wait != "" {
		i.Reason = wait
		return
	}
	if n.f.Rooms == nil {
		return // hosts are asked before the next look
	}
	target, why := n.target(*i, c)
	if target == "" {
		i.Reason = why
		return
	}
	slots := append(slices.Clone(n.f.Slots), SlotsOf(n.d)...)
	if why := blocked(c, target, slots, n.d.Options.WithDefaults(), n.f.Down[c.Group]); why != "" {
		i.Reason = why
		return
	}
	i.Target, i.Reason = target, ""
	n.f.Rooms = Book(n.f.Rooms, c, target)
	if hooked(n.d, *i, c) {
		i.State, i.HookAt, i.WasPrimary = drover.ItemHook, n.now, c.Labels.Role == drover.RolePrimary
		n.act(DrainAct{Kind: ActHook, Machine: i.Machine})
		return
	}
	i.State, i.StartedAt = drover.ItemStarting, n.now
	n.act(DrainAct{Kind: ActBegin, Machine: i.Machine, Target: target, Options: MoveOptions(n.d, *i, c)})
}

// hooked reports whether the command of the machine is to be run before it is moved now.
func hooked(d drover.Drain, i drover.DrainItem, c Candidate) bool {
	return c.Labels.PreMove != "" && c.Running && i.HookDoneAt.IsZero() && (!c.Labels.PreMoveCold || d.Options.Cold || i.Cold)
}

// liveFirst reports whether the machine's command is left out because it is moved live: then it must not come to a cold move by itself.
func liveFirst(d drover.Drain, i drover.DrainItem, c Candidate) bool {
	return c.Labels.PreMove != "" && c.Labels.PreMoveCold && c.Running && i.HookDoneAt.IsZero() && !d.Options.Cold && !i.Cold
}

// asks says why the machine is not moved before somebody has approved it.
func asks(c Candidate) string {
	if c.Labels.Problem != "" {
		return c.Labels.Problem
	}
	return fmt.Sprintf("its label %s is ask", drover.LabelMove)
}

// waits says what the machine itself waits for, before any limit is looked at; empty for nothing.
func (n *drainStep) waits(i drover.DrainItem, c Candidate, m MachineFacts) string {
	switch {
	case m.Held != "":
		return m.Held
	case i.Ask && i.ApprovedBy == "":
		return asks(c) + fmt.Sprintf(": approve it by `drover drain approve %s %s`", n.d.ID, i.Machine)
	case n.halted(i.Class) != "":
		return fmt.Sprintf("class %q is halted: %s", i.Class, n.halted(i.Class))
	case n.now.Before(i.RetryAt):
		return orElse(i.Reason, "its move was refused just now")
	}
	if c.Labels.Role != drover.RolePrimary || n.d.Options.Suspect {
		return ""
	}
	for _, other := range n.d.Items {
		o := n.candidate(other)
		if other.Machine == i.Machine || o.Labels.Role != drover.RoleReplica || !together(c, o) || other.State.Over() || other.State == drover.ItemHydrating {
			continue
		}
		return fmt.Sprintf("it is the primary, and replica %s goes first", other.Machine)
	}
	return ""
}

// target keeps the planned target when it will do still, else it chooses another: one that was tried before only when there is no other.
func (n *drainStep) target(i drover.DrainItem, c Candidate) (drover.HostID, string) {
	for _, r := range n.f.Rooms {
		if r.Host == i.Target && !slices.Contains(i.Avoid, r.Host) && r.Region == c.Region && r.lacks(c) == "" && (c.Fixed == "" || c.Fixed == r.Host) {
			return r.Host, ""
		}
	}
	best, why := pick(c, n.f.Rooms, func(c Candidate, a, b Room) int {
		return cmp.Or(rank(slices.Contains(i.Avoid, a.Host))-rank(slices.Contains(i.Avoid, b.Host)),
			cmp.Compare(a.Apps[c.App], b.Apps[c.App]), cmp.Compare(b.Memory, a.Memory))
	})
	if best < 0 {
		return "", why
	}
	return n.f.Rooms[best].Host, ""
}

// explain says why nothing goes on, when nothing does.
func (n *drainStep) explain() {
	total := n.d.Sum()
	if total.InFlight > 0 {
		return
	}
	for _, i := range n.d.Items {
		if i.State == drover.ItemWaiting {
			n.d.Waits = fmt.Sprintf("machine %s: %s", i.Machine, orElse(i.Reason, "its turn comes now"))
			return
		}
		if n.resumable(i) {
			n.d.Waits = fmt.Sprintf("class %q is halted: %s; `drover drain resume %s --class %s` lets it go on, `drover drain abort %s` ends the drain",
				i.Class, n.halted(i.Class), n.d.ID, i.Class, n.d.ID)
		}
	}
}

// Estimate fills in when each item is expected to begin and to end, as things are now, and returns when all of them are expected to be moved.
func Estimate(d *drover.Drain, f DrainFacts, now time.Time) time.Time {
	n := drainStep{d: *d, f: f, now: now.UTC()}
	var candidates []Candidate
	targets := map[drover.MachineID]drover.HostID{}
	items := map[drover.MachineID]*drover.DrainItem{}
	for _, i := range n.turns() {
		if i.State.Over() {
			continue
		}
		c := n.candidate(*i)
		candidates = append(candidates, c)
		targets[i.Machine], items[i.Machine] = i.Target, i
	}
	end := now
	for _, p := range Schedule(candidates, targets, d.Options, f.Rates) {
		i := items[p.Candidate.Machine]
		if p.Target == "" || p.Candidate.Cannot != "" {
			continue
		}
		i.ExpectedInterruption = drover.Duration(f.Rates.interruption(p.Candidate).Round(time.Millisecond))
		i.ExpectedStart = now.Add(seconds(p.Begin)).UTC()
		i.ExpectedEnd = now.Add(seconds(max(p.End, p.Settled))).UTC()
		if i.ExpectedEnd.After(end) {
			end = i.ExpectedEnd
		}
	}
	return end.UTC()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
