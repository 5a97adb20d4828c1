package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// waitSettled is the word for any state in which a machine stays by itself.
const waitSettled = "settled"

// waitable are the states that a client may wait for, or ask a list for.
func waitable() []drover.MachineState {
	return []drover.MachineState{drover.StateCreated, drover.StateStarting, drover.StateStarted, drover.StateStopping, drover.StateStopped,
		drover.StateSuspending, drover.StateSuspended, drover.StateFailed, drover.StateDestroying, drover.StateDestroyed}
}

// isState reports whether a text is a state of machines: one of Drover's, or one that the Machines API has besides and that no machine here is ever in.
// To wait for such a one is in vain, and a list has none in it, but clients that name it among others are not wrong.
func isState(s drover.MachineState) bool {
	return slices.Contains(waitable(), s) ||
		slices.Contains([]drover.MachineState{"creating", "restarting", "updating", "replacing", "replaced", "launch_failed", "migrated"}, s)
}

// maxWaitStates bounds how many states one request may name.
const maxWaitStates = 16

// waitStates reads the states to wait for.
func waitStates(asked []string) (states []drover.MachineState, settled bool, err error) {
	if len(asked) == 0 || (len(asked) == 1 && asked[0] == "") {
		return []drover.MachineState{drover.StateStarted}, false, nil
	}
	if len(asked) > maxWaitStates {
		return nil, false, badField("state", "is given %d times; expected %d at most", len(asked), maxWaitStates)
	}
	for _, s := range asked {
		switch state := drover.MachineState(s); {
		case s == waitSettled:
			settled = true
		case isState(state):
			states = append(states, state)
		default:
			return nil, false, badField("state", "is %q; expected one of %q, or %q", s, waitable(), waitSettled)
		}
	}
	slices.Sort(states)
	return slices.Compact(states), settled, nil
}

// waitOf reads a wait's parameters.
func waitOf(c *call, q url.Values) (w fleet.Wait, seconds int64, err error) {
	if seconds, err = queryInt(q, "timeout", maxWaitSeconds, 1, maxWaitSeconds); err != nil {
		return w, 0, err
	}
	if w.States, w.Settled, err = waitStates(q["state"]); err != nil {
		return w, 0, err
	}
	instance, field := q.Get("instance_id"), "instance_id"
	if instance == "" {
		instance, field = q.Get("version"), "version"
	}
	if err := needInstance(field, instance); err != nil {
		return w, 0, err
	}
	w.App, w.Instance, w.After = c.app.Name, drover.InstanceID(instance), q.Get("from_event_id")
	w.Machine, err = machineID(c)
	return w, seconds, err
}

func (h *handler) waitMachine(c *call) (any, error) {
	w, seconds, err := waitOf(c, c.r.URL.Query())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx(), time.Duration(seconds)*time.Second)
	defer cancel()
	view, err := h.backend.WaitFor(ctx, w)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && c.ctx().Err() == nil {
		return nil, waitTimeout(view, w, seconds)
	}
	if err != nil {
		return nil, machineGone(c, err)
	}
	return apiv1.OK{OK: true}, nil
}

// waitTimeout says what the machine is instead. Clients look for the word timeout.
func waitTimeout(view fleet.MachineView, w fleet.Wait, seconds int64) error {
	states := w.States
	if w.Settled {
		states = append(slices.Clone(states), waitSettled)
	}
	text := "timeout: machine %q is %q after %d s, not %q"
	if view.HostStatus != drover.HostOK && view.HostStatus != "" {
		text = "timeout: machine %q was %q when its host last answered, and after %d s not %q"
	}
	err := drover.Errorf(drover.Unavailable, text, w.Machine, view.Status.State, seconds, states)
	if w.Instance != "" && w.Instance != view.Machine.Instance {
		err = drover.Errorf(drover.Unavailable, "%w with version %q: it has version %q", err, w.Instance, view.Machine.Instance)
	}
	return withStatus(http.StatusRequestTimeout, err.
		WithHint("ask again to go on waiting"))
}
