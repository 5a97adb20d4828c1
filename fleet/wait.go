package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"drover"
)

// Wait says what to wait for. A state that the machine went through meanwhile counts, also when it is over.
type Wait struct {
	App     drover.AppName
	Machine drover.MachineID
	// States are those of which one is enough.
	States []drover.MachineState
	// Settled waits for any state in which the machine stays by itself, of what was asked last.
	Settled bool
	// Instance is the version of the config that counts; empty for what was asked last.
	Instance drover.InstanceID
	// After is the event from which on is waited; what was before it does not count. Empty for all.
	After string
}

// resting reports whether a machine stays in the state by itself.
func resting(s drover.MachineState) bool {
	switch s {
	case drover.StateStarted, drover.StateStopped, drover.StateSuspended, drover.StateFailed, drover.StateDestroyed:
		return true
	}
	return false
}

// WaitFor returns when the machine is, or was, in one of the states. When ctx ends first: Unavailable, with the view as it is.
func (f *Fleet) WaitFor(ctx context.Context, w Wait) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	if w.After != "" && !strings.HasPrefix(w.After, string(w.Machine)+"-") {
		return MachineView{}, drover.Errorf(drover.Invalid, "from_event_id: %q is not an event of machine %q", w.After, w.Machine).WithField("from_event_id")
	}
	key := string(w.Machine)
	for {
		machine, placement, status := f.state.machines.next(key), f.state.placements.next(key), f.state.status.next(key)
		v, err := f.view(w.App, w.Machine)
		if err != nil {
			return MachineView{}, err
		}
		if w.Reached(v) {
			return v, nil
		}
		select {
		case <-machine:
		case <-placement:
		case <-status:
		case <-ctx.Done():
			return v, notYet(v, w)
		}
	}
}

func notYet(v MachineView, w Wait) error {
	want := make([]string, 0, len(w.States)+1)
	for _, s := range w.States {
		want = append(want, string(s))
	}
	if w.Settled {
		want = append(want, "settled")
	}
	e := drover.Errorf(drover.Unavailable, "machine %q is %s, not %s yet", v.Machine.ID, v.Status.State, strings.Join(want, " or "))
	if v.Status.Reason != "" {
		e = drover.Errorf(drover.Unavailable, "%s: %s", e.Text, v.Status.Reason)
	}
	if v.HostStatus == drover.HostUnreachable {
		e = e.WithHint("its host %q is unreachable", v.Placement.Host)
	}
	return e
}

// Reached reports whether a machine is where one waits for it to be.
func (w Wait) Reached(v MachineView) bool {
	if w.Settled && v.settled(w.Instance) && w.news(v) {
		return true
	}
	for _, s := range w.States {
		if v.reached(s, w.Instance) && w.news(v) {
			return true
		}
	}
	return w.passed(v)
}

// news reports whether something happened after the event that the wait names.
func (w Wait) news(v MachineView) bool {
	events := v.Status.Events
	return w.After == "" || len(events) > 0 && events[len(events)-1].ID != w.After
}

// passed looks for the states among what happened: by the run that was asked for last, or, with an instance, by that instance.
func (w Wait) passed(v MachineView) bool {
	if slices.Contains(w.States, drover.StateCreated) && w.After == "" && w.Instance == "" && v.Status.Host != "" {
		return true // every machine was
	}
	// Who stopped a machine does not want to hear that it had been started.
	stopped := v.Machine.Goal == drover.GoalStopped
	for _, e := range slices.Backward(v.Status.Events) {
		if e.ID == w.After {
			return false
		}
		if !slices.Contains(w.States, e.Status) || e.Type == "update" || stopped && e.Status == drover.StateStarted {
			continue
		}
		if e.Instance == w.Instance && w.Instance != "" || w.Instance == "" && e.Run == v.Machine.Run {
			return true
		}
	}
	return false
}

// settled reports whether the machine has come to rest in what was asked of it last.
func (v MachineView) settled(instance drover.InstanceID) bool {
	s, m := v.Status, v.Machine
	switch {
	case s.State == drover.StateDestroyed:
		return true
	case !resting(s.State), m.Goal == drover.GoalDestroyed, s.Run < m.Run, s.Instance != m.Instance && m.Goal == drover.GoalStarted,
		m.Goal == drover.GoalStopped && s.State == drover.StateStarted:
		return false
	}
	return instance == "" || cmp.Or(s.Instance, m.Instance) == instance
}
