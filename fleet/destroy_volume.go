package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"drover"
)

// DestroyVolume destroys a volume that no machine has. It can be brought back for a time, hidden from lists; then it is wiped. One that was never
// made is removed at once.
func (f *Fleet) DestroyVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (VolumeView, error) {
	if err := f.await(ctx); err != nil {
		return VolumeView{}, err
	}
	v, err := f.changeVolume(ctx, id, func(v *drover.Volume) error {
		if app != "" && v.App != app {
			return noVolume(app, id)
		}
		if v.Machine != "" {
			return drover.Errorf(drover.Precondition, "volume %q is attached to machine %q", id, v.Machine).
				WithHint("destroy the machine first: drover machine destroy %s", v.Machine)
		}
		switch v.State {
		case drover.VolumeDestroyed, drover.VolumeDestroying: // asked again
		case drover.VolumeCreating:
			v.State = drover.VolumeDestroying
		default:
			v.State, v.DestroyedAt = drover.VolumeDestroyed, f.now().UTC()
			v.WipeAt = v.DestroyedAt.Add(f.timing.KeepVolumes)
			if f.timing.KeepVolumes <= 0 {
				v.State = drover.VolumeDestroying
			}
		}
		return nil
	})
	if drover.Is(err, drover.NotFound) {
		return VolumeView{}, noVolume(app, id)
	}
	if err != nil {
		return VolumeView{}, err
	}
	f.log.Info("volume destroyed", "volume", id, "app", v.App, "state", v.State, "wipe_at", v.WipeAt)
	view := f.volumeView(v)
	if v.State != drover.VolumeDestroying {
		return view, nil
	}
	if err := f.removeVolume(ctx, id); err != nil && !drover.Is(err, drover.Unavailable) {
		return view, err
	}
	return view, nil
}

// UndeleteVolume brings a destroyed volume back.
func (f *Fleet) UndeleteVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (VolumeView, error) {
	if err := f.await(ctx); err != nil {
		return VolumeView{}, err
	}
	v, err := f.changeVolume(ctx, id, func(v *drover.Volume) error {
		if app != "" && v.App != app {
			return noVolume(app, id)
		}
		switch v.State {
		case drover.VolumeDestroyed:
		case drover.VolumeDestroying:
			return drover.Errorf(drover.Precondition, "volume %q is being wiped: it cannot be brought back any more", id).
				WithHint("its snapshots are kept until their time is over: drover volume snapshot list %s", id)
		default:
			return drover.Errorf(drover.Precondition, "volume %q is in state %s: it was not destroyed", id, v.State)
		}
		v.State, v.DestroyedAt, v.WipeAt = drover.VolumeCreated, time.Time{}, time.Time{}
		if v.From != nil && !v.From.Released {
			v.State = drover.VolumeHydrating // it went on being filled; the next look tells how far it is
		}
		return nil
	})
	if drover.Is(err, drover.NotFound) {
		return VolumeView{}, noVolume(app, id)
	}
	if err != nil {
		return VolumeView{}, err
	}
	f.log.Info("volume brought back", "volume", id, "app", v.App)
	return f.volumeView(v), nil
}

// DestroyedVolumes lists the volumes of an app that can be brought back, the newest first.
func (f *Fleet) DestroyedVolumes(ctx context.Context, app drover.AppName) ([]VolumeView, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	views := f.volumeViews(app, func(v drover.Volume) bool { return v.State == drover.VolumeDestroyed })
	slices.SortFunc(views, func(a, b VolumeView) int {
		return cmp.Or(b.Volume.DestroyedAt.Compare(a.Volume.DestroyedAt), cmp.Compare(a.Volume.ID, b.Volume.ID))
	})
	return views, nil
}

// wipeVolume makes the end of a destroyed volume final, unless it was brought back just now.
func (f *Fleet) wipeVolume(ctx context.Context, v drover.Volume) error {
	v, err := f.changeVolume(ctx, v.ID, func(v *drover.Volume) error {
		if v.State == drover.VolumeDestroyed && !f.now().Before(v.WipeAt) {
			v.State = drover.VolumeDestroying
		}
		return nil
	})
	if err != nil || v.State != drover.VolumeDestroying {
		return err
	}
	f.hit("fleet.volume.wipe.after")
	return f.removeVolume(ctx, v.ID)
}

// removeVolume removes the layers, then the record, of a volume that is being destroyed. What is left on the host is made unreadable.
// It may be repeated.
func (f *Fleet) removeVolume(ctx context.Context, id drover.VolumeID) error {
	v, _, err := f.state.volumes.get(ctx, string(id))
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.order(ctx, f.timing.Apply, v.Host, drover.OrderVolumeDestroy, drover.VolumeRequest{Volume: v, Wipe: true}, nil)
	if err != nil && !drover.Is(err, drover.NotFound) {
		return err
	}
	f.hit("fleet.volume.removed.after")
	if err := f.releaseSource(ctx, v); err != nil && !drover.Is(err, drover.NotFound) {
		return err
	}
	for range casTries {
		_, rev, err := f.state.volumes.get(ctx, string(id))
		if drover.Is(err, drover.NotFound) {
			return nil // somebody else was at it, too
		}
		if err == nil {
			err = f.state.volumes.remove(ctx, string(id), rev)
		}
		if err == nil {
			f.dropKey(ctx, v.Cipher)
			f.log.Info("volume removed", "volume", id, "app", v.App, "host", v.Host)
		}
		if !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return tooBusy("volume", string(id))
}
