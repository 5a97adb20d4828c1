package host

import (
	"context"
	"fmt"

	"drover"
)

// moveWriteOff gives up what has not come from the source of a migration, which is lost. The storage daemon remembers it; asked again, it names the same.
func (a *Agent) moveWriteOff(ctx context.Context, req drover.MoveRequest) (drover.MoveProgress, error) {
	m, err := a.machine(req.Machine)
	if err != nil {
		return drover.MoveProgress{}, err
	}
	m.asked()
	mv := m.rec.Load().target()
	switch {
	case mv == nil || mv.Migration != req.Migration || !mv.adopted():
		return drover.MoveProgress{}, drover.Errorf(drover.Precondition, "machine %q was not handed over to host %q by migration %s", req.Machine, a.cfg.ID, req.Migration)
	case !mv.Cloned:
		return drover.MoveProgress{}, drover.Errorf(drover.Unavailable, "the disks of machine %q are not made yet on host %q", req.Machine, a.cfg.ID)
	}
	a.hit("host.write-off.before")
	err = eachDisk(ctx, mv.clones(), false, func(ctx context.Context, d diskRecord) error {
		if mv.Hydrated {
			return nil
		}
		_, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.WriteOff(ctx, d.Layer) })
		if drover.Is(err, drover.NotFound) {
			return nil // the disk was replaced meanwhile
		}
		if err != nil {
			return fmt.Errorf("cannot write off what is missing of the disk %q: %w", d.Disk, err)
		}
		a.hit("host.write-off.after")
		return nil
	})
	if err != nil {
		return drover.MoveProgress{}, err
	}
	m.nudge()
	return a.moveProgress(ctx, req)
}
