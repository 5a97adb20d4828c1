package fleet

import (
	"context"
	"slices"
	"time"

	"drover"
)

// CordonMachine keeps a machine out of what gets traffic from outside, or, with cordoned false, lets it in again. It runs on either way, and
// its host need not know.
func (f *Fleet) CordonMachine(ctx context.Context, app drover.AppName, id drover.MachineID, cordoned bool) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	if v, err := f.view(app, id); err != nil || (v.Machine.Cordoned == cordoned && v.Machine.Goal != drover.GoalDestroyed) {
		return v, err
	}
	if err := f.change(ctx, app, id, func(m *drover.Machine) error { m.Cordoned = cordoned; return nil }); err != nil {
		return MachineView{}, err
	}
	return f.view(app, id)
}

// Serves reports whether traffic from outside is to go to a machine: it runs, nobody wants it gone or left out, and its host answers.
func (v MachineView) Serves() bool {
	return v.Machine.Goal == drover.GoalStarted && !v.Machine.Cordoned && v.Status.State == drover.StateStarted && v.HostStatus != drover.HostUnreachable
}

// psWait bounds how long a guest may take to list its processes.
const psWait = 15 * time.Second

// Processes lists the processes of a started machine, by their numbers.
func (f *Fleet) Processes(ctx context.Context, app drover.AppName, id drover.MachineID) ([]drover.Process, error) {
	host, err := f.hostOf(ctx, app, id)
	if err != nil {
		return nil, err
	}
	var list []drover.Process
	err = f.order(ctx, psWait, host, drover.OrderPs, drover.PsRequest{Machine: id}, &list)
	slices.SortFunc(list, func(a, b drover.Process) int { return a.PID - b.PID })
	return list, err
}
