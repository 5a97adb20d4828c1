package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"drover"
)

// NextDrain returns what the record of a drain is to be now, the classes that a failed move halts, and what is to be done once both are stored. It is
// asked again and again; when it returns the record as it was, and no acts, there is nothing to do but wait.
func NextDrain(d drover.Drain, f DrainFacts, now time.Time) (drover.Drain, []drover.ClassHalt, []DrainAct) {
	if d.Ended() {
		return d, nil, nil
	}
	n := drainStep{d: d, f: f, now: now.UTC()}
	n.d.Items = slices.Clone(d.Items)
	n.arrive()
	for i := range n.d.Items {
		n.follow(&n.d.Items[i])
	}
	switch n.d.State {
	case drover.DrainPlanned:
		n.plan()
	case drover.DrainRunning:
		n.run()
	case drover.DrainPaused:
		n.d.Waits = "it is paused"
		n.deadline()
	case drover.DrainAborting:
		n.abort()
	default:
		n.d.Waits = fmt.Sprintf("its state %q is unknown to this version: it goes on when a newer one takes over", d.State)
		return n.d, nil, nil
	}
	n.end()
	n.d.Totals = n.d.Sum()
	return n.d, n.halts, n.acts
}

// drainStep is one run of NextDrain.
type drainStep struct {
	d     drover.Drain
	f     DrainFacts
	now   time.Time
	halts []drover.ClassHalt
	acts  []DrainAct
}

func (n *drainStep) act(a DrainAct) { n.acts = append(n.acts, a) }

// plan waits for the mark.
func (n *drainStep) plan() {
	if n.f.Rival != "" {
		n.d.State, n.d.EndedAt = drover.DrainFailed, n.now
		n.d.Problem = drover.Errorf(drover.Conflict, "host %q is being drained by %s, which was there first", n.d.Host, n.f.Rival)
		for k := range n.d.Items {
			n.close(&n.d.Items[k], drover.ItemLeft, n.d.Problem.Text)
		}
		return
	}
	if !n.f.Marked {
		n.act(DrainAct{Kind: ActMark})
		return
	}
	n.d.State, n.d.StartedAt = drover.DrainRunning, n.now
}

// arrive takes in what came to the host since: machines that were being made, or were on their way to it.
func (n *drainStep) arrive() {
	if n.d.Kind != drover.DrainAway || n.d.State == drover.DrainAborting {
		return
	}
	for _, c := range n.f.There {
		item := n.d.Item(c.Machine)
		if item != nil && item.State != drover.ItemMoved && item.State != drover.ItemGone {
			continue
		}
		if item == nil {
			n.d.Items = append(n.d.Items, NewItem(c))
			continue
		}
		fresh := NewItem(c)
		fresh.Tried = append(slices.Clone(item.Tried), item.Migration)
		*item = fresh
	}
}

// NewItem makes the item of a candidate.
func NewItem(c Candidate) drover.DrainItem {
	i := drover.DrainItem{Machine: c.Machine, Name: c.Name, Source: c.Source, State: drover.ItemWaiting, Bytes: c.Bytes}
	if c.Cannot != "" {
		i.State, i.Reason = drover.ItemStuck, c.Cannot
	}
	describe(&i, c)
	if i.Ask && i.Reason == "" {
		i.Reason = asks(c) + ": it goes when somebody approves it" // a plan is to say so, too
	}
	return i
}

// describe takes over what may change while the machine waits.
func describe(i *drover.DrainItem, c Candidate) {
	i.App, i.Network, i.Class, i.Group = c.App, c.Network, c.Class, c.Group
	i.MemoryMB, i.CPUs, i.Running = c.MemoryMB, c.CPUs, c.Running
	i.Ask, i.Alone = c.Labels.Policy == drover.MoveAsk, alone(c)
}

// deadline ends the waiting of everything once the time is over; it reports whether it is.
func (n *drainStep) deadline() bool {
	limit := time.Duration(n.d.Options.Deadline)
	if limit == 0 || n.now.Before(n.d.StartedAt.Add(limit)) {
		return false
	}
	for k := range n.d.Items {
		i := &n.d.Items[k]
		if i.State != drover.ItemWaiting {
			continue
		}
		if n.d.Options.AtDeadline == drover.DeadlineStop && i.Running {
			i.State, i.Reason = drover.ItemStopping, fmt.Sprintf("the deadline of %v is over", limit)
			continue
		}
		n.close(i, drover.ItemLeft, fmt.Sprintf("the deadline of %v was over before its turn (%s)", limit, orElse(i.Reason, "it had to wait for others")))
	}
	n.d.Waits = ""
	return true
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// abort lets what is under way come to its end, or takes it along.
func (n *drainStep) abort() {
	n.d.Waits = ""
	for k := range n.d.Items {
		i := &n.d.Items[k]
		switch {
		case i.State == drover.ItemWaiting, i.State == drover.ItemHook, i.State == drover.ItemStarting && i.Migration == "":
			n.close(i, drover.ItemLeft, "the drain was aborted")
		case i.State == drover.ItemMoving && n.d.AbortRunning && i.Migration != "" && !i.Phase.Committed():
			n.act(DrainAct{Kind: ActAbort, Machine: i.Machine, Migration: i.Migration})
		}
	}
	if flying := n.d.Sum().InFlight; flying > 0 {
		n.d.Waits = fmt.Sprintf("%s under way when it was aborted", machines(flying))
	}
}

// end closes the record when nothing is left to be done.
func (n *drainStep) end() {
	if n.d.State == drover.DrainPlanned || n.d.Ended() {
		return
	}
	for _, i := range n.d.Items {
		if !i.State.Over() || (n.d.State != drover.DrainAborting && n.resumable(i)) {
			return
		}
	}
	n.d.EndedAt, n.d.Waits, n.d.ExpectedEnd = n.now, "", n.now
	if n.d.State == drover.DrainAborting {
		n.d.State = drover.DrainAborted
		return
	}
	n.d.State = drover.DrainDone
	if problem := notMoved(n.d); problem != nil {
		n.d.State, n.d.Problem = drover.DrainFailed, problem
	}
}

// resumable reports whether an item that failed may be begun again: its class is halted, and somebody will say what becomes of it. After the
// deadline nobody is waited for.
func (n *drainStep) resumable(i drover.DrainItem) bool {
	if limit := time.Duration(n.d.Options.Deadline); limit > 0 && !n.now.Before(n.d.StartedAt.Add(limit)) {
		return false
	}
	if i.State != drover.ItemFailed {
		return false
	}
	return n.halted(i.Class) != ""
}

// halted says why the machines of a class are not moved; empty when they are.
func (n *drainStep) halted(class string) string {
	if why := n.f.Halted[class]; why != "" {
		return why
	}
	for _, h := range n.halts {
		if h.Class == class {
			return h.Reason
		}
	}
	return ""
}

// notMoved says what a drain that has ended did not do; nil when it did all.
func notMoved(d drover.Drain) *drover.Error {
	var parts []string
	total := d.Sum()
	for _, i := range d.Items {
		switch i.State {
		case drover.ItemStuck, drover.ItemFailed, drover.ItemLeft, drover.ItemStopped:
			parts = append(parts, fmt.Sprintf("machine %s is %s on host %s: %s", i.Machine, i.State, i.Source, i.Reason))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	const most = 5
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], fmt.Sprintf("and %d more", more))
	}
	return drover.Errorf(drover.Precondition, "%d of %s not moved: %s", total.NotMoved, machines(total.Machines), strings.Join(parts, "; ")).
		WithHint("see `drover drain show %s`", d.ID)
}

// close ends an item, and leaves out what this look was about to do for it: an abort may come just when a move is to begin.
func (n *drainStep) close(i *drover.DrainItem, state drover.ItemState, reason string) {
	n.acts = slices.DeleteFunc(n.acts, func(a DrainAct) bool { return a.Machine == i.Machine })
	i.State, i.Reason, i.EndedAt, i.Rate, i.Phase = state, reason, n.now, 0, ""
}
