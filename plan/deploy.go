package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"drover"
)

// deploySettles is how long a machine without checks must have run to count as well.
const deploySettles = 2 * time.Second

// deployRestarts is how often the restart policy may start a machine before it is given up.
const deployRestarts = 3

// DeployFact is what is known of one item's machine.
type DeployFact struct {
	// Machine is its ID; empty when there is none (any more). Applied: it has got what the deploy brings.
	Machine drover.MachineID
	Applied bool
	// Goal, Instance and Run are what it is to be, Status what it is; Reachable tells whether its host says so now.
	Goal      drover.Goal
	Instance  drover.InstanceID
	Run       uint64
	Status    drover.MachineStatus
	Reachable bool
	// Refused is what the last try to change it said; nil before there was one.
	Refused *drover.Error
	// Log is the last that a command wrote, once it was read.
	Log []drover.LogLine
}

// DeployFacts is what is known when a deploy is looked at. Rival is another one of the app that was there first.
type DeployFacts struct {
	Items []DeployFact
	Rival drover.DeployID
}

// NextDeploy returns what the record of a deploy is to be now, and the items that are to be changed once it is stored. It is asked again and again;
// an item is returned as long as its change has not been seen to be made.
func NextDeploy(d drover.Deploy, f DeployFacts, now time.Time) (next drover.Deploy, change []int) {
	if d.Ended() {
		return d, nil
	}
	now = now.UTC()
	n := &deployStep{d: d, f: f, now: now}
	n.d.Items = slices.Clone(d.Items)
	n.d.Waits = ""
	for k := range n.d.Items {
		n.follow(k)
	}
	if f.Rival != "" && n.d.State == drover.DeployRunning {
		n.fail(drover.Errorf(drover.Conflict, "app %q is being deployed by %s, which was there first", d.App, f.Rival))
	}
	if n.d.State == drover.DeployRunning && n.d.Problem == nil {
		n.begin()
	}
	n.end()
	for k, i := range n.d.Items {
		if i.State == drover.DeployItemChanging && !f.Items[k].Applied || i.State == drover.DeployItemClearing {
			change = append(change, k)
		}
	}
	return n.d, change
}

type deployStep struct {
	d   drover.Deploy
	f   DeployFacts
	now time.Time
}

// follow takes in what has become of an item whose turn has come.
func (n *deployStep) follow(k int) {
	i, f := &n.d.Items[k], n.f.Items[k]
	if !i.UnderWay() {
		return
	}
	if f.Machine != "" {
		i.Machine = f.Machine
	}
	patience := n.d.Options.WaitTimeout
	if i.Action == drover.DeployRun {
		patience = i.Timeout
	}
	late := n.now.Sub(i.BegunAt) >= time.Duration(patience)
	if i.State == drover.DeployItemChanging {
		switch {
		case f.Applied:
			i.State, i.Reason = drover.DeployItemChecking, ""
		case f.Machine == "" && i.Action != drover.DeployCreate && i.Action != drover.DeployRun:
			n.close(i, drover.DeployItemFailed, "it was destroyed")
			return
		case f.Refused != nil && !passing(f.Refused), f.Refused != nil && late:
			n.close(i, drover.DeployItemFailed, f.Refused.Text)
			return
		case f.Refused != nil:
			i.Reason = f.Refused.Text
			return
		default:
			return
		}
	}
	if i.Action == drover.DeployRun {
		n.followRun(i, f, late)
		return
	}
	done, bad, reason := n.judge(*i, f)
	switch {
	case done:
		n.close(i, drover.DeployItemDone, "")
	case bad:
		n.close(i, drover.DeployItemFailed, reason)
	case late:
		n.close(i, drover.DeployItemFailed, fmt.Sprintf("not well after %v: %s", time.Duration(n.d.Options.WaitTimeout), reason))
	default:
		i.Reason = reason
	}
}

// followRun takes in what has become of a command's machine. Whatever came of it, the machine is destroyed before the item ends.
func (n *deployStep) followRun(i *drover.DeployItem, f DeployFact, late bool) {
	s := f.Status
	current := f.Reachable && s.Instance == f.Instance && s.Run >= f.Run
	clear := func(reason string) { i.State, i.Reason = drover.DeployItemClearing, reason }
	switch {
	case i.State == drover.DeployItemClearing:
		if f.Log != nil && !i.LogRead {
			i.Log, i.LogRead = f.Log, true
		}
		if f.Machine != "" {
			return
		}
		state := drover.DeployItemFailed
		if i.Reason == "" {
			state = drover.DeployItemDone
		}
		n.close(i, state, i.Reason)
	case f.Machine == "":
		n.close(i, drover.DeployItemFailed, "it was destroyed")
	case current && s.State == drover.StateStopped && s.ExitCode != nil:
		i.ExitCode = s.ExitCode
		if *s.ExitCode != 0 {
			clear(fmt.Sprintf("its command ended with exit code %d", *s.ExitCode))
			return
		}
		clear("")
	case current && (s.State == drover.StateStopped || s.State == drover.StateFailed):
		clear(orText(s.Reason, "it has ended without an exit code"))
	case n.d.State == drover.DeployAborting:
		clear("the deploy was aborted")
	case late:
		clear(fmt.Sprintf("its command has not ended after %v", time.Duration(i.Timeout)))
	case !f.Reachable:
		i.Reason = "its host does not answer"
	case !current:
		i.Reason = "its host has not begun"
	default:
		i.Reason = "it is " + string(s.State)
	}
}

// passing tells whether a refusal may be another one in a moment.
func passing(e *drover.Error) bool {
	return e.Code == drover.Unavailable || e.Code == drover.Conflict || e.Code == drover.Canceled
}

// judge tells whether a machine that has got its change is well, or never will be.
func (n *deployStep) judge(i drover.DeployItem, f DeployFact) (done, bad bool, reason string) {
	s := f.Status
	switch {
	case i.Action == drover.DeployDestroy, n.d.Options.Strategy == drover.StrategyImmediate, f.Goal == drover.GoalStopped:
		return true, false, ""
	case f.Machine == "":
		return false, true, "it was destroyed"
	case !f.Reachable:
		return false, false, "its host does not answer"
	case s.Instance != f.Instance || s.Run < f.Run:
		return false, false, "its host has not begun"
	case s.State == drover.StateFailed:
		return false, true, orText(s.Reason, "it has failed")
	case s.State == drover.StateStopped && s.ExitCode != nil && *s.ExitCode == 0:
		return true, false, "" // its work is done
	case s.State == drover.StateStopped:
		return false, true, "it has stopped" + exitText(s)
	case s.Restarts >= deployRestarts:
		return false, true, fmt.Sprintf("it has ended and was started again %d times%s", s.Restarts, exitText(s))
	case s.State != drover.StateStarted:
		return false, false, "it is " + string(s.State) + exitText(s)
	}
	var not []string
	for _, c := range s.Checks {
		if c.Status != "passing" {
			not = append(not, strings.TrimSpace(fmt.Sprintf("check %q is %s: %s", c.Name, c.Status, firstLine(c.Output))))
		}
	}
	switch {
	case len(not) > 0:
		return false, false, strings.TrimSuffix(not[0], ":")
	case len(s.Checks) == 0 && n.now.Sub(s.StartedAt) < deploySettles:
		return false, false, "it has just started"
	}
	return true, false, ""
}

func orText(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func exitText(s drover.MachineStatus) string {
	if s.ExitCode == nil {
		return ""
	}
	return fmt.Sprintf(", its last exit code is %d", *s.ExitCode)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line[:min(len(line), 200)]
}

func (n *deployStep) close(i *drover.DeployItem, state drover.DeployItemState, reason string) {
	i.State, i.Reason, i.EndedAt = state, reason, n.now
	if state == drover.DeployItemFailed && n.d.Problem == nil {
		n.d.Problem = drover.Errorf(drover.Precondition, "machine %s: %s", i.Called(), reason)
	}
}

func (n *deployStep) fail(e *drover.Error) { n.d.Problem = e }

// begin gives the next machines their turn. Those that are to be destroyed come when all others are well.
func (n *deployStep) begin() {
	free := n.d.Options.MaxUnavailable
	if n.d.Options.Strategy == drover.StrategyImmediate {
		free = len(n.d.Items)
	}
	others, first := 0, -1
	for k, i := range n.d.Items {
		if i.Action == drover.DeployRun && i.State != drover.DeployItemDone {
			first = k
		}
		if i.UnderWay() {
			free--
		}
		if i.Action != drover.DeployDestroy && i.State != drover.DeployItemDone {
			others++
		}
	}
	for k := range n.d.Items {
		i := &n.d.Items[k]
		if free <= 0 || i.State != drover.DeployItemWaiting || (i.Action == drover.DeployDestroy && others > 0) || (first >= 0 && k != first) {
			continue
		}
		free--
		if i.Action == drover.DeployDestroy && n.f.Items[k].Machine == "" {
			n.close(i, drover.DeployItemDone, "") // somebody was faster
			continue
		}
		i.State, i.BegunAt, i.Run = drover.DeployItemChanging, n.now, n.f.Items[k].Run
	}
}

// end ends the deploy when nothing is under way and nothing will be.
func (n *deployStep) end() {
	var waiting []string
	open := 0
	for _, i := range n.d.Items {
		if i.UnderWay() {
			waiting = append(waiting, strings.TrimSuffix(fmt.Sprintf("machine %s: %s", i.Called(), i.Reason), ": "))
		}
		if i.State == drover.DeployItemWaiting {
			open++
		}
	}
	if len(waiting) > 0 {
		n.d.Waits = waiting[0]
		return
	}
	state := drover.DeployDone
	switch {
	case n.d.State == drover.DeployAborting:
		state = drover.DeployAborted
	case n.d.Problem != nil:
		state = drover.DeployFailed
	case open > 0:
		return
	}
	for k := range n.d.Items {
		if i := &n.d.Items[k]; i.State == drover.DeployItemWaiting {
			n.close(i, drover.DeployItemLeft, "the deploy ended before its turn")
		}
	}
	n.d.State, n.d.EndedAt = state, n.now
}
