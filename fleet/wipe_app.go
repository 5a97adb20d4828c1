package fleet

import (
	"context"
	"fmt"
	"time"

	"drover"
)

// wipeAppWait is how long the end of an app waits for its snapshots to be removed.
const wipeAppWait = 10 * time.Second

// wipeApp removes the data of a destroyed app without machines: volumes, in whatever state, and snapshots. It waits for the end as far as that is
// quick; what was begun goes on.
func (f *Fleet) wipeApp(ctx context.Context, name drover.AppName) error {
	all, err := f.state.volumes.bucket.All(ctx)
	if err != nil {
		return err
	}
	for _, i := range all {
		v := i.Value
		if v.App != name {
			continue
		}
		if _, err := f.changeVolume(ctx, v.ID, func(v *drover.Volume) error {
			v.State = drover.VolumeDestroying
			return nil
		}); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
		if err := f.removeVolume(ctx, v.ID); err != nil {
			return drover.AsError(fmt.Errorf("app %q is not gone yet, its volume %q is still to be wiped: %w", name, v.ID, err)).
				WithHint("ask again when host %s answers", v.Host)
		}
	}
	snapshots, err := f.state.snapshots.bucket.All(ctx)
	if err != nil {
		return err
	}
	for _, i := range snapshots {
		if i.Value.App != name {
			continue
		}
		if _, err := f.changeSnapshot(ctx, i.Value.ID, func(s *drover.Snapshot) error { s.State = drover.SnapshotDestroying; return nil }); err != nil &&
			!drover.Is(err, drover.NotFound) {
			return err
		}
	}
	return f.awaitNoSnapshots(ctx, name)
}

// awaitNoSnapshots waits until the lease holder has removed the snapshots of an app.
func (f *Fleet) awaitNoSnapshots(ctx context.Context, name drover.AppName) error {
	ctx, cancel := context.WithTimeout(ctx, wipeAppWait)
	defer cancel()
	for {
		changed := f.state.snapshots.next(anyKey)
		f.state.mu.RLock()
		left := len(f.state.snapsIn[name])
		f.state.mu.RUnlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return drover.Errorf(drover.Conflict, "app %q is not gone yet: %d snapshots of it are being removed", name, left).WithHint("ask again in a moment")
		}
	}
}
