package fleet

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"

	"drover"
	"drover/plan"
)

// Limits of a volume.
const (
	minVolume = drover.GiB
	maxVolume = 64 << 10 * drover.GiB
)

// volumeViewLocked puts together what is known of a volume.
func (f *Fleet) volumeViewLocked(v drover.Volume) VolumeView {
	if p, ok := f.state.placements.items[string(v.Machine)]; ok && v.Machine != "" {
		v.Host = p.value.Host
	}
	view := VolumeView{Volume: v, HostStatus: f.hostStatusLocked(v.Host)}
	if v.State == drover.VolumeHydrating && v.Machine != "" {
		if m := f.state.moveLocked(v.Machine); m != nil {
			view.Hydration = m.Hydration
		}
	}
	return view
}

// Volumes lists the volumes of an app, oldest first.
func (f *Fleet) Volumes(ctx context.Context, app drover.AppName) ([]VolumeView, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	f.state.mu.RLock()
	views := make([]VolumeView, 0, len(f.state.volumesOf[app]))
	for id := range f.state.volumesOf[app] {
		views = append(views, f.volumeViewLocked(f.state.volumes.items[id].value))
	}
	f.state.mu.RUnlock()
	slices.SortFunc(views, func(a, b VolumeView) int {
		return cmp.Or(a.Volume.CreatedAt.Compare(b.Volume.CreatedAt), cmp.Compare(a.Volume.ID, b.Volume.ID))
	})
	return views, nil
}

// Volume returns one volume.
func (f *Fleet) Volume(ctx context.Context, app drover.AppName, id drover.VolumeID) (VolumeView, error) {
	if err := f.await(ctx); err != nil {
		return VolumeView{}, err
	}
	v, _, ok := f.state.volumes.seen(string(id))
	if !ok || (app != "" && v.App != app) {
		return VolumeView{}, noVolume(app, id)
	}
	return f.volumeView(v), nil
}

func (f *Fleet) volumeView(v drover.Volume) VolumeView {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.volumeViewLocked(v)
}

func noVolume(app drover.AppName, id drover.VolumeID) *drover.Error {
	if app == "" {
		return drover.Errorf(drover.NotFound, "volume %q does not exist", id)
	}
	return drover.Errorf(drover.NotFound, "volume %q does not exist in app %q", id, app).WithHint("see `drover volume list --app %s`", app)
}

// CreateVolume makes a volume on a host with room for it, and answers when its layer is there. The record comes first, in the
// state creating, so that the repair finishes what a crash left.
func (f *Fleet) CreateVolume(ctx context.Context, req CreateVolume) (VolumeView, error) {
	if _, err := f.App(ctx, req.App); err != nil {
		return VolumeView{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timing.Make)
	defer cancel()
	if err := checkVolume(req); err != nil {
		return VolumeView{}, err
	}
	if _, err := f.pin(CreateMachine{Region: req.Region, Host: req.Host}, nil); err != nil {
		return VolumeView{}, err
	}
	host, err := f.choose(ctx, plan.Request{What: fmt.Sprintf("volume %q", req.Name), Region: req.Region, Volume: true}, req.Host,
		drover.OfferRequest{Provision: req.Size}, plan.Options{SameApp: f.volumeSpread(req.App)})
	if err != nil {
		return VolumeView{}, err
	}
	f.state.mu.RLock()
	info, _ := f.hostLocked(host)
	f.state.mu.RUnlock()
	v := drover.Volume{ID: drover.NewVolumeID(), App: req.App, Name: req.Name, Region: info.Region, Size: req.Size,
		State: drover.VolumeCreating, Host: host, CreatedAt: f.now().UTC()}
	_, err = f.state.volumes.create(ctx, string(v.ID), v)
	if err == nil {
		f.hit("fleet.volume.record.after")
		err = f.stays(ctx, req.App)
	}
	if err == nil {
		err = f.makeVolume(ctx, v.ID)
	}
	if err != nil {
		f.unmakeVolume(ctx, v.ID)
		return VolumeView{}, drover.AsError(fmt.Errorf("volume %q was not created: %w", req.Name, err))
	}
	f.log.Info("volume created", "volume", v.ID, "app", v.App, "host", host)
	return f.Volume(ctx, req.App, v.ID)
}

func checkVolume(req CreateVolume) error {
	var p problems
	if !drover.ValidVolumeName(req.Name) {
		p.add("name", "%q cannot be the name of a volume: 1 to 30 lower-case letters, digits and underscores", req.Name)
	}
	switch {
	case req.Size < minVolume:
		p.add("size_gb", "%d bytes are too few: at least 1 GiB", req.Size)
	case req.Size > maxVolume:
		p.add("size_gb", "%d GiB are too many: at most %d", req.Size/drover.GiB, maxVolume/drover.GiB)
	case req.Size%drover.BlockSize != 0:
		p.add("size_gb", "%d bytes are no multiple of %d", req.Size, drover.BlockSize)
	}
	return p.err()
}

// volumeSpread counts the volumes of an app on each host.
func (f *Fleet) volumeSpread(app drover.AppName) map[drover.HostID]int {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	count := map[drover.HostID]int{}
	for id := range f.state.volumesOf[app] {
		count[f.state.volumes.items[id].value.Host]++
	}
	return count
}

// changeVolume changes a volume's record by compare-and-set, until it worked or change refuses.
func (f *Fleet) changeVolume(ctx context.Context, id drover.VolumeID, change func(*drover.Volume) error) (drover.Volume, error) {
	for range casTries {
		v, rev, err := f.state.volumes.get(ctx, string(id))
		if err != nil {
			return v, err
		}
		old := v
		if err := change(&v); err != nil {
			return v, err
		}
		if reflect.DeepEqual(v, old) {
			return v, nil
		}
		if _, err = f.state.volumes.update(ctx, string(id), v, rev); !drover.Is(err, drover.Conflict) {
			return v, err
		}
	}
	return drover.Volume{}, tooBusy("volume", string(id))
}

// makeVolume makes the layer of a volume whose record is there, and says so in the record. It may be repeated.
func (f *Fleet) makeVolume(ctx context.Context, id drover.VolumeID) error {
	v, _, err := f.state.volumes.get(ctx, string(id))
	if err != nil {
		return err
	}
	if err := f.order(ctx, f.timing.Apply, v.Host, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: v}, nil); err != nil {
		return err
	}
	_, err = f.changeVolume(ctx, id, func(v *drover.Volume) error {
		switch v.State {
		case drover.VolumeCreating:
			v.State = drover.VolumeCreated
		case drover.VolumeDestroying:
			return drover.Errorf(drover.Conflict, "volume %q is being destroyed", id)
		}
		return nil
	})
	return err
}

// unmakeVolume takes a volume back that could not be made.
func (f *Fleet) unmakeVolume(ctx context.Context, id drover.VolumeID) {
	ctx, cancel := lastWord(ctx)
	defer cancel()
	_, err := f.changeVolume(ctx, id, func(v *drover.Volume) error { v.State = drover.VolumeDestroying; return nil })
	if err == nil {
		err = f.removeVolume(ctx, id)
	}
	if err != nil && !drover.Is(err, drover.NotFound) {
		f.log.Warn("volume that was not made is cleared away later", "volume", id, "err", err)
	}
}

// DestroyVolume destroys a volume that no machine has. While its host does not answer it stays in the state pending_destroy.
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
		v.State = drover.VolumeDestroying
		return nil
	})
	if drover.Is(err, drover.NotFound) {
		return VolumeView{}, noVolume(app, id)
	}
	if err != nil {
		return VolumeView{}, err
	}
	view := f.volumeView(v)
	if err := f.removeVolume(ctx, id); err != nil && !drover.Is(err, drover.Unavailable) {
		return view, err
	}
	return view, nil
}

// removeVolume removes the layers, then the record, of a volume that is being destroyed. It may be repeated.
func (f *Fleet) removeVolume(ctx context.Context, id drover.VolumeID) error {
	v, rev, err := f.state.volumes.get(ctx, string(id))
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.order(ctx, f.timing.Apply, v.Host, drover.OrderVolumeDestroy, drover.VolumeRequest{Volume: v}, nil)
	if err != nil && !drover.Is(err, drover.NotFound) {
		return err
	}
	if err := f.state.volumes.remove(ctx, string(id), rev); err != nil {
		return err
	}
	f.log.Info("volume destroyed", "volume", id, "app", v.App, "host", v.Host)
	return nil
}

// repairVolumes goes on with volumes that are half made or half destroyed, where the host answers.
func (f *Fleet) repairVolumes(ctx context.Context) {
	for _, i := range f.state.volumes.all() {
		v := i.value
		if !f.reachable(v.Host) {
			continue
		}
		switch {
		case v.State == drover.VolumeDestroying:
			f.trouble(ctx, "volume", string(v.ID), f.removeVolume(ctx, v.ID))
		case v.State == drover.VolumeCreating && f.now().Sub(v.CreatedAt) > f.timing.Stale:
			f.trouble(ctx, "volume", string(v.ID), f.makeVolume(ctx, v.ID))
		}
	}
}
