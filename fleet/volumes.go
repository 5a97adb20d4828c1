package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

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
	v.Host = f.hostOfVolumeLocked(v)
	view := VolumeView{Volume: v, HostStatus: f.hostStatusLocked(v.Host), Conditions: append(f.snapshotConditionsLocked(v), f.standbyConditionsLocked(v)...)}
	if v.State == drover.VolumeHydrating && v.Machine != "" {
		if m := f.state.moveLocked(v.Machine); m != nil {
			view.Hydration = m.Hydration
		}
	}
	return view
}

// take takes over what the host says of the volume's layer.
func (v *VolumeView) take(status drover.LayerStatus) {
	v.Layer = &status
	// What a migration says is of all disks together, and as old as its record.
	if h := status.Hydration; h != nil && (v.Hydration != nil || !h.Done) {
		v.Hydration = h
	}
}

// volumeViews returns the volumes of an app that are wanted, oldest first.
func (f *Fleet) volumeViews(app drover.AppName, want func(drover.Volume) bool) []VolumeView {
	f.state.mu.RLock()
	views := make([]VolumeView, 0, len(f.state.volumesOf[app]))
	for id := range f.state.volumesOf[app] {
		if v := f.state.volumes.items[id].value; want(v) {
			views = append(views, f.volumeViewLocked(v))
		}
	}
	f.state.mu.RUnlock()
	slices.SortFunc(views, func(a, b VolumeView) int {
		return cmp.Or(a.Volume.CreatedAt.Compare(b.Volume.CreatedAt), cmp.Compare(a.Volume.ID, b.Volume.ID))
	})
	return views
}

// Volumes lists the volumes of an app, oldest first, without those that are destroyed. Of those that are being filled it tells how far they are, as
// far as their hosts answer in a moment.
func (f *Fleet) Volumes(ctx context.Context, app drover.AppName) ([]VolumeView, error) {
	if _, err := f.AnyApp(ctx, app); err != nil {
		return nil, err
	}
	views := f.volumeViews(app, func(v drover.Volume) bool { return v.State != drover.VolumeDestroyed })
	var group sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i := range views {
		if views[i].Volume.Filling() {
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				f.askLayer(ctx, &views[i])
			})
		}
	}
	group.Wait()
	return views, nil
}

// askLayer asks the host of a volume for its layer. A host that does not answer in a moment is no error: the view says less then.
func (f *Fleet) askLayer(ctx context.Context, view *VolumeView) {
	v := view.Volume
	if view.HostStatus == drover.HostUnreachable || v.State == drover.VolumeCreating || v.State == drover.VolumeDestroying {
		return
	}
	var status drover.LayerStatus
	if err := f.order(ctx, f.timing.Offer, v.Host, drover.OrderVolumeStatus, drover.VolumeRequest{Volume: v}, &status); err != nil {
		f.log.Debug("host does not tell of a layer", "volume", v.ID, "host", v.Host, "err", err)
		return
	}
	view.take(status)
}

// readVolume reads a volume of an app from the store; an empty app stands for any.
func (f *Fleet) readVolume(ctx context.Context, app drover.AppName, id drover.VolumeID) (drover.Volume, error) {
	v, _, err := f.state.volumes.get(ctx, string(id))
	if drover.Is(err, drover.NotFound) || err == nil && app != "" && v.App != app {
		return v, noVolume(app, id)
	}
	return v, err
}

// inState refuses something that the state of a volume does not allow.
func inState(v drover.Volume) *drover.Error {
	err := drover.Errorf(drover.Precondition, "volume %q is in state %s", v.ID, v.State)
	if v.State == drover.VolumeDestroyed {
		return err.WithHint("bring it back first: drover volume undelete %s", v.ID)
	}
	return err
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
	view := f.volumeView(v)
	f.askLayer(ctx, &view)
	return view, nil
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

// CreateVolume makes a volume on a host with room for it, and answers when its layer is there: a blank one, or one that is filled from a
// snapshot or from another volume and can be used at once. The record comes first, in the state creating, so that the lease holder finishes
// what a crash left.
func (f *Fleet) CreateVolume(ctx context.Context, req CreateVolume) (VolumeView, error) {
	if _, err := f.App(ctx, req.App); err != nil {
		return VolumeView{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timing.Make)
	defer cancel()
	made, err := f.originOf(ctx, &req)
	if err != nil {
		return VolumeView{}, err
	}
	if err := checkVolume(req); err != nil {
		return VolumeView{}, err
	}
	if err := f.checkCompute(&req); err != nil {
		return VolumeView{}, err
	}
	if _, err := f.pin(CreateMachine{Region: req.Region, Fallback: req.Fallback, Host: req.Host}, nil); err != nil {
		return VolumeView{}, err
	}
	host, err := f.choose(ctx, plan.Request{What: fmt.Sprintf("volume %q", req.Name), Region: req.Region, Fallback: req.Fallback, Volume: true}, req.Host,
		offerForVolume(req, made.data), plan.Options{SameApp: f.volumeSpread(req.App)})
	if err != nil {
		return VolumeView{}, err
	}
	cipher := made.cipher
	if made.from == nil {
		if cipher, err = f.newCipher(ctx, req); err != nil {
			return VolumeView{}, drover.AsError(fmt.Errorf("volume %q was not created: %w", req.Name, err))
		}
	}
	v := f.newVolume(req, made, cipher, host)
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
	f.log.Info("volume created", "volume", v.ID, "app", v.App, "host", host, "of", v.From)
	return f.Volume(ctx, req.App, v.ID)
}

// newVolume makes up the record.
func (f *Fleet) newVolume(req CreateVolume, made origin, cipher *drover.Cipher, host drover.HostID) drover.Volume {
	v := drover.Volume{ID: drover.NewVolumeID(), App: req.App, Name: req.Name, Region: f.regionOf(host), Size: req.Size,
		State: drover.VolumeCreating, Host: host, Cipher: cipher, Limits: req.Limits, From: made.from, AutoBackup: !req.NoAutoBackup,
		SnapshotInterval: orDefault(req.SnapshotInterval, drover.DefaultSnapshotInterval),
		RetentionDays:    orDefault(req.RetentionDays, drover.DefaultRetentionDays), CreatedAt: f.now().UTC()}
	if req.Compute != nil {
		v.Compute, v.ReservedUntil = req.Compute, v.CreatedAt.Add(f.timing.Reserve)
	}
	if forks(v) {
		v.From.Layer = drover.ForkLayer(v.From.Volume, v.ID)
	}
	return v
}

func checkVolume(req CreateVolume) error {
	var p problems
	if !drover.ValidVolumeName(req.Name) {
		p.add("name", "%q cannot be the name of a volume: 1 to 30 lower-case letters, digits and underscores", req.Name)
	}
	switch {
	case req.Size < minVolume && req.Snapshot == "" && req.Source == "":
		p.add("size_gb", "%d MiB are too few: a volume has 1 GiB at least", req.Size/drover.MiB)
	case req.Size > maxVolume:
		p.add("size_gb", "%d GiB are too many: at most %d", req.Size/drover.GiB, maxVolume/drover.GiB)
	case req.Size%drover.BlockSize != 0:
		p.add("size_gb", "%d bytes are no multiple of %d", req.Size, drover.BlockSize)
	}
	checkLimits(&p, req.Limits)
	checkSchedule(&p, req.SnapshotInterval, req.RetentionDays)
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
	if v.State != drover.VolumeCreating {
		return nil
	}
	if err := errors.Join(f.originStays(ctx, v), f.claimKey(ctx, v.Cipher)); err != nil {
		return err
	}
	parent, err := f.freezeSource(ctx, v)
	if err != nil {
		return err
	}
	if err := f.order(ctx, f.timing.Apply, v.Host, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: v, Parent: parent}, nil); err != nil {
		return err
	}
	f.hit("fleet.volume.made.after")
	_, err = f.changeVolume(ctx, id, func(v *drover.Volume) error {
		switch v.State {
		case drover.VolumeCreating:
			v.State = drover.VolumeCreated
			if v.From != nil {
				v.State = drover.VolumeHydrating
			}
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
