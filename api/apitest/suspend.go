package apitest

import (
	"context"

	"drover"
	"drover/fleet"
)

// SuspendMachine suspends at once.
func (b *Backend) SuspendMachine(_ context.Context, app drover.AppName, id drover.MachineID) (fleet.MachineView, error) {
	if err := b.begin("SuspendMachine"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	return b.changeLocked(app, id, func(v *fleet.MachineView) error {
		if v.Status.State != drover.StateStarted {
			return drover.Errorf(drover.Precondition, "machine %q is %s", id, v.Status.State).WithHint("start it first")
		}
		v.Machine.Goal, v.Status.StoppedAt = drover.GoalSuspended, b.Now()
		b.setLocked(v, drover.StateSuspended, "suspend")
		return nil
	})
}
