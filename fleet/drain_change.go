package fleet

import (
	"context"

	"drover"
)

// PauseDrain keeps a drain from beginning anything new. What is under way goes on.
func (f *Fleet) PauseDrain(ctx context.Context, id drover.DrainID) (drover.Drain, error) {
	return f.changeDrain(ctx, id, func(d *drover.Drain) error {
		switch d.State {
		case drover.DrainPlanned, drover.DrainRunning, drover.DrainPaused:
			d.State, d.Waits = drover.DrainPaused, "it is paused"
			if d.StartedAt.IsZero() {
				d.StartedAt = f.now().UTC()
			}
			return nil
		case drover.DrainAborting:
			return drover.Errorf(drover.Precondition, "drain %s cannot be paused: it is being aborted", d.ID)
		}
		return endedDrain(*d, "paused")
	})
}

// ResumeDrain lets a drain go on: one that is paused, and what failed in it is tried again. With a class it lifts the halt of that class first, for
// all drains, and tries again what failed of the class only.
func (f *Fleet) ResumeDrain(ctx context.Context, id drover.DrainID, class string) (drover.Drain, error) {
	d, err := f.Drain(ctx, id)
	if err != nil {
		return d, err
	}
	if class != "" {
		if err := f.liftHalt(ctx, class, d); err != nil {
			return d, err
		}
	}
	if class != "" && d.Ended() {
		return d, nil
	}
	return f.changeDrain(ctx, id, func(d *drover.Drain) error {
		switch d.State {
		case drover.DrainPlanned, drover.DrainRunning, drover.DrainPaused:
		case drover.DrainAborting:
			return drover.Errorf(drover.Precondition, "drain %s cannot be resumed: it is being aborted", d.ID)
		default:
			return endedDrain(*d, "resumed").WithHint("begin another one: drover host drain %s", d.Host)
		}
		if class == "" && d.State == drover.DrainPaused {
			d.State, d.Waits = drover.DrainRunning, ""
		}
		for k := range d.Items {
			i := &d.Items[k]
			if i.State != drover.ItemFailed && i.State != drover.ItemStuck || (class != "" && i.Class != class) {
				continue
			}
			if i.Migration != "" {
				i.Tried = append(i.Tried[:len(i.Tried):len(i.Tried)], i.Migration)
			}
			fresh := drover.DrainItem{Machine: i.Machine, Name: i.Name, App: i.App, Network: i.Network, Class: i.Class, Group: i.Group, Source: i.Source,
				MemoryMB: i.MemoryMB, CPUs: i.CPUs, Bytes: i.Bytes, Running: i.Running, State: drover.ItemWaiting, Ask: i.Ask, ApprovedBy: i.ApprovedBy,
				Alone: i.Alone, Tried: i.Tried, ExpectedInterruption: i.ExpectedInterruption}
			*i = fresh
		}
		return nil
	})
}

// liftHalt takes the halt of a class away. One that is not there is only fine when the drain has machines of the class.
func (f *Fleet) liftHalt(ctx context.Context, class string, d drover.Drain) error {
	for range casTries {
		_, rev, err := f.state.halts.get(ctx, class)
		if drover.Is(err, drover.NotFound) {
			for _, i := range d.Items {
				if i.Class == class {
					return nil
				}
			}
			return drover.Errorf(drover.NotFound, "class: %q is not halted, and drain %s has no machine of it", class, d.ID).WithField("class")
		}
		if drover.Is(err, drover.Invalid) {
			return drover.Errorf(drover.Invalid, "class: %.60q cannot be the name of a class", class).WithField("class")
		}
		if err != nil {
			return err
		}
		if err = f.state.halts.remove(ctx, class, rev); !drover.Is(err, drover.Conflict) {
			if err == nil {
				f.log.Info("class may be moved again", "class", class, "drain", d.ID)
			}
			return err
		}
	}
	return tooBusy("halt of class", class)
}

// AbortDrain ends a drain. What was moved stays where it is; what is under way comes to its end, or, with running, is aborted where it has not
// reached its switch. The mark of the host stays. It is acknowledged when it is on record.
func (f *Fleet) AbortDrain(ctx context.Context, id drover.DrainID, running bool, actor string) (drover.Drain, error) {
	return f.changeDrain(ctx, id, func(d *drover.Drain) error {
		if d.Ended() {
			if d.State == drover.DrainAborted {
				return nil
			}
			return endedDrain(*d, "aborted")
		}
		d.State, d.AbortRunning = drover.DrainAborting, d.AbortRunning || running
		if d.Problem == nil {
			d.Problem = drover.Errorf(drover.Canceled, "it was aborted by %s", actor)
		}
		if d.StartedAt.IsZero() {
			d.StartedAt = f.now().UTC()
		}
		return nil
	})
}

// ApproveMove lets a drain move a machine whose label asks for it.
func (f *Fleet) ApproveMove(ctx context.Context, id drover.DrainID, machine drover.MachineID, actor string) (drover.Drain, error) {
	return f.changeDrain(ctx, id, func(d *drover.Drain) error {
		i := d.Item(machine)
		switch {
		case d.Ended():
			return endedDrain(*d, "changed")
		case i == nil:
			return drover.Errorf(drover.NotFound, "machine: drain %s has no machine %q", d.ID, machine).WithField("machine")
		}
		if i.ApprovedBy == "" {
			i.ApprovedBy = actor
		}
		return nil
	})
}
