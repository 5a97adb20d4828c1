package fleet

import (
	"context"
	"fmt"

	"drover"
)

// SuspendMachine suspends a machine that runs: it stands still, and its memory is kept on a disk until it is started. Precondition for one
// that does not run. One that is suspended, or about to be, is left alone; one whose host could not suspend it is asked again.
func (f *Fleet) SuspendMachine(ctx context.Context, app drover.AppName, id drover.MachineID) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	if _, err := f.view(app, id); err != nil {
		return MachineView{}, err
	}
	if err := f.still(ctx, id); err != nil {
		return MachineView{}, err
	}
	err := f.change(ctx, app, id, func(m *drover.Machine) error {
		st, _, known := f.state.status.seen(string(id))
		runs := known && st.State == drover.StateStarted && st.Run >= m.Run
		under := runs && st.Reason == "" || st.State == drover.StateSuspending || st.State == drover.StateSuspended
		switch {
		case m.Goal == drover.GoalSuspended && under:
			return nil
		case !runs || m.Goal != drover.GoalStarted && m.Goal != drover.GoalSuspended:
			return drover.Errorf(drover.Precondition, "machine %q is %s, not started: it has no memory to be kept", id, f.stateOf(st, known, *m)).
				WithHint("only a machine that runs can be suspended: drover machine start %s", id)
		case st.Instance != m.Instance:
			return drover.Errorf(drover.Precondition, "machine %q runs with an older config than it has now: its memory would be of no use to it", id).
				WithHint("restart it first: drover machine restart %s", id)
		}
		m.Goal, m.Stop, m.Resume = drover.GoalSuspended, drover.StopConfig{}, false
		m.Suspend++
		return nil
	})
	return f.told(ctx, app, id, err)
}

// stateOf is what is said of a machine that does not run.
func (f *Fleet) stateOf(st drover.MachineStatus, known bool, m drover.Machine) drover.MachineState {
	switch {
	case !known || st.State == "":
		return drover.StateCreated
	case st.State == drover.StateStarted && st.Run < m.Run:
		return drover.StateStarting
	case st.State == drover.StateStarted:
		return drover.StateStopping // it is to be stopped, and has not told yet that it does
	}
	return st.State
}

// rests reports whether a machine is not meant to run, and does not.
func rests(v MachineView) bool {
	return (v.Machine.Goal == drover.GoalStopped || v.Machine.Goal == drover.GoalSuspended) && !runs(v)
}

// compareSuspended tells whether a suspended machine could go on on the target, with what is known of both hosts. It moves in any case.
func (c *preflight) compareSuspended() {
	if c.v.Status.State != drover.StateSuspended {
		return
	}
	f := drover.MoveFinding{Check: "suspended", Host: c.target.ID, OK: true, Text: "the machine is suspended, and can go on there with its memory"}
	if c.source.Platform != c.target.Platform || c.source.CPU != c.target.CPU {
		f.OK, f.LiveOnly = false, true
		f.Text = fmt.Sprintf("the machine is suspended, and its next start boots there: guests see %q and %q on host %s, %q and %q on host %s",
			c.source.CPU, c.source.Platform, c.source.ID, c.target.CPU, c.target.Platform, c.target.ID)
		f.Hint = "choose a host with the same processor and VMM, or start the machine before the move"
	}
	c.findings = append(c.findings, f)
}
