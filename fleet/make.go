package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"drover"
	"drover/plan"
)

// makeTries bounds on how many hosts a machine is tried when the chosen one turns out to have no room.
const makeTries = 3

// CreateMachine makes a machine and answers when its host has it on record, in the state created. Whatever fails before that leaves
// nothing behind.
func (f *Fleet) CreateMachine(ctx context.Context, req CreateMachine) (MachineView, error) {
	if err := f.await(ctx); err != nil {
		return MachineView{}, err
	}
	if err := checkTTL("lease_ttl", req.LeaseTTL); err != nil {
		return MachineView{}, err
	}
	if req.Once != nil {
		return f.createOnce(ctx, req)
	}
	req.id = drover.NewMachineID()
	return f.createMachine(ctx, req)
}

func (f *Fleet) createMachine(ctx context.Context, req CreateMachine) (MachineView, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timing.Make)
	defer cancel()
	app, err := f.App(ctx, req.App) // that it stays is made sure of when the name is claimed
	if err != nil {
		return MachineView{}, err
	}
	req.Config = req.Config.WithDefaults()
	madeUp := req.Name == ""
	if err := checkRequest(&req); err != nil {
		return MachineView{}, err
	}
	if err := f.checkSize("config.guest", req.Config.Guest, nil); err != nil {
		return MachineView{}, err
	}
	err = f.nameFree(ctx, req.App, req.Name)
	for madeUp && drover.Is(err, drover.Exists) { // an app with thousands of machines meets a name that it has
		req.Name = newName()
		err = f.nameFree(ctx, req.App, req.Name)
	}
	if err != nil {
		return MachineView{}, err
	}
	if req.MinSecretsVersion > 0 { // refused before anything is claimed; what the start needs is read with the claims
		if _, err := f.secretsFor(ctx, req.App, req.SecretsWish); err != nil {
			return MachineView{}, err
		}
	}
	volumes, err := f.freeVolumes(ctx, req.App, req.Config.Mounts)
	if err != nil {
		return MachineView{}, err
	}
	req.Config.Mounts = f.namedMounts(req.Config.Mounts)
	pinned, err := f.pin(req, volumes)
	if err != nil {
		return MachineView{}, err
	}
	exclude := map[drover.HostID]string{}
	for try := 1; ; try++ {
		host, err := f.chooseFor(ctx, req, pinned, exclude)
		if err != nil {
			return MachineView{}, err
		}
		view, err := f.makeOn(ctx, req, app, host)
		// Another machine may have taken the room between the offer and the order.
		if !drover.Is(err, drover.Exhausted) || pinned != "" || try == makeTries {
			return view, err
		}
		req.id = drover.NewMachineID() // the record of the first one says destroyed
		if req.keep != nil {
			if err := req.keep(ctx, req.id); err != nil {
				return MachineView{}, err
			}
		}
		exclude[host] = err.Error()
	}
}

// checkRequest checks what needs no look-up, and makes up a name.
func checkRequest(req *CreateMachine) error {
	data, err := json.Marshal(req.Config)
	if err != nil {
		return drover.Errorf(drover.Invalid, "config: %w", err).WithField("config")
	}
	if req.Name == "" {
		req.Name = newName()
	}
	if !drover.ValidName(req.Name) {
		return badName("machine", req.Name).WithField("name")
	}
	return checkConfig(req.Config, len(data))
}

func nameTaken(app drover.AppName, name string, by drover.MachineID) *drover.Error {
	return drover.Errorf(drover.Exists, "name: %q is taken by machine %q of app %q", name, by, app).WithField("name").
		WithHint("choose another name, or none")
}

// nameFree refuses early what the claim of the name would refuse. Only what memory knows as taken is asked of the store.
func (f *Fleet) nameFree(ctx context.Context, app drover.AppName, name string) error {
	if _, _, known := f.state.claims.seen(nameClaim(app, name)); !known {
		return nil
	}
	c, _, err := f.state.claims.get(ctx, nameClaim(app, name))
	if err == nil {
		return nameTaken(app, name, c.Machine)
	}
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	return err
}

// freeVolumes reads the mounted volumes and makes sure that they can be had.
func (f *Fleet) freeVolumes(ctx context.Context, app drover.AppName, mounts []drover.Mount) ([]drover.Volume, error) {
	var volumes []drover.Volume
	for i, m := range mounts {
		field := fmt.Sprintf("config.mounts[%d].volume", i)
		v, _, err := f.state.volumes.get(ctx, string(m.Volume))
		if drover.Is(err, drover.NotFound) || (err == nil && v.App != app) {
			return nil, drover.Errorf(drover.NotFound, "%s: volume %q does not exist in app %q", field, m.Volume, app).WithField(field).
				WithHint("see `drover volume list --app %s`", app)
		}
		if err != nil {
			return nil, err
		}
		if err := attachable(v, field); err != nil {
			return nil, err
		}
		volumes = append(volumes, v)
	}
	return volumes, nil
}

// namedMounts are mounts with the names of their volumes, by which clients know them.
func (f *Fleet) namedMounts(mounts []drover.Mount) []drover.Mount {
	named := slices.Clone(mounts)
	for i, m := range named {
		if v, _, ok := f.state.volumes.seen(string(m.Volume)); ok {
			named[i].Name = v.Name
		}
	}
	return named
}

// attachable tells why a volume cannot be given to a machine; nil when it can.
func attachable(v drover.Volume, field string) error {
	if v.Machine != "" {
		return drover.Errorf(drover.Conflict, "%s: volume %q is attached to machine %q", field, v.ID, v.Machine).WithField(field).
			WithHint("destroy that machine first, or use another volume")
	}
	switch v.State {
	case drover.VolumeCreated, drover.VolumeHydrating: // usable while it is filled
		return nil
	case drover.VolumeDestroyed:
		return drover.Errorf(drover.Conflict, "%s: volume %q was destroyed", field, v.ID).WithField(field).
			WithHint("bring it back first: drover volume undelete %s", v.ID)
	}
	return drover.Errorf(drover.Conflict, "%s: volume %q is in state %s", field, v.ID, v.State).WithField(field)
}

// pin returns the host that the machine must be on: that of its volumes, or the one asked for; empty when it may be anywhere.
func (f *Fleet) pin(req CreateMachine, volumes []drover.Volume) (drover.HostID, error) {
	pinned := req.Host
	wanted := placeRequest(req)
	if req.Region != "" { // to look at every host for nothing would cost a large fleet a tenth of the placement
		if err := wanted.CheckRegions(f.regions()); err != nil {
			return "", err
		}
	}
	for i, v := range volumes {
		field := fmt.Sprintf("config.mounts[%d].volume", i)
		switch {
		case pinned == "":
			pinned = v.Host
		case pinned != v.Host && req.Host != "":
			return "", drover.Errorf(drover.Invalid, "%s: volume %q is on host %q, not on %q", field, v.ID, v.Host, req.Host).WithField(field)
		case pinned != v.Host:
			return "", drover.Errorf(drover.Invalid, "%s: volume %q is on host %q, but volume %q is on %q: a machine's volumes are on one host",
				field, v.ID, v.Host, volumes[0].ID, pinned).WithField(field)
		}
	}
	if pinned == "" {
		return "", nil
	}
	f.state.mu.RLock()
	info, ok := f.hostLocked(pinned)
	f.state.mu.RUnlock()
	switch {
	case !ok || !slices.Contains(info.Roles, drover.RoleWorker):
		return "", f.noHost(pinned, "host")
	case req.Region != "" && !slices.Contains(wanted.Regions(), info.Region):
		return "", drover.Errorf(drover.Invalid, "region: host %q, where the machine has to be, is in region %q, not in %q", pinned, info.Region, req.Region).
			WithField("region")
	case info.Status == drover.HostUnreachable:
		return "", drover.Errorf(drover.Unavailable, "host %q, where the machine has to be, does not answer", pinned).WithField("host")
	}
	return pinned, nil
}

func (f *Fleet) chooseFor(ctx context.Context, req CreateMachine, pinned drover.HostID, exclude map[drover.HostID]string) (drover.HostID, error) {
	return f.choose(ctx, placeRequest(req), pinned, offerForNew(req), plan.Options{Exclude: exclude, SameApp: f.spread(req.App)})
}

// spread tells how many machines of an app each host has.
func (f *Fleet) spread(app drover.AppName) map[drover.HostID]int {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return maps.Clone(f.state.loads.apps[app])
}

// resolve pins the image, by asking a host, which has the way to the registry.
func (f *Fleet) resolve(ctx context.Context, host drover.HostID, image string) (drover.ImageRef, error) {
	var ref drover.ImageRef
	err := f.order(ctx, f.timing.Resolve, host, drover.OrderResolve, drover.ResolveRequest{Image: image}, &ref)
	if drover.Is(err, drover.Invalid) || drover.Is(err, drover.NotFound) || drover.Is(err, drover.Denied) {
		return ref, drover.AsError(err).WithField("config.image")
	}
	return ref, err
}

// makeOn makes the machine on a host: claims first, then the record, then the order. The comment of the package says why.
func (f *Fleet) makeOn(ctx context.Context, req CreateMachine, app drover.App, host drover.HostID) (MachineView, error) {
	ref, err := f.resolve(ctx, host, req.Config.Image)
	if err != nil {
		return MachineView{}, err
	}
	m := f.newMachine(req, host)
	m.Image = ref
	if why := f.closed(host); why != "" { // since it was chosen: to look at the image may take a minute
		return MachineView{}, drover.Errorf(drover.Exhausted, "host %q %s", host, why).WithHint("ask again: another host is chosen")
	}
	got, err := f.claimAll(ctx, req, app, &m, host)
	if err != nil {
		f.unmake(ctx, m)
		return MachineView{}, err
	}
	if err := f.record(ctx, m, got.placement); err != nil {
		f.unmake(ctx, m)
		return MachineView{}, err
	}
	f.log.Info("machine created", "machine", m.ID, "app", m.App, "host", host)
	v, err := f.view(m.App, m.ID)
	v.Status.State, v.Nonce = drover.StateCreated, got.lease.Nonce
	return v, err
}

// record writes the record of a machine for which everything is claimed, and tells its host.
func (f *Fleet) record(ctx context.Context, m drover.Machine, p drover.Placement) error {
	defer f.tellsFirst(m.ID)() // over before it is taken back, where that has to be: this is the repair's work
	f.hit("fleet.make.record.before")
	rev, err := f.state.machines.create(ctx, string(m.ID), m)
	if drover.Is(err, drover.Exists) { // the ID is new: the repair took this making for one whose control host died, and fenced it
		return drover.Errorf(drover.Unavailable, "machine %q was not created: what it needs took longer than %v to claim, and was taken back", m.Name, f.timing.Stale).WithHint("ask again")
	}
	if err != nil {
		return err
	}
	f.hit("fleet.make.record.after")
	if _, err := f.tell(ctx, m, rev, p); err != nil {
		return drover.AsError(fmt.Errorf("machine %q was not created: %w", m.Name, err))
	}
	return nil
}

// newMachine makes up the record but for what has to be claimed.
func (f *Fleet) newMachine(req CreateMachine, host drover.HostID) drover.Machine {
	now := f.now().UTC()
	m := drover.Machine{
		ID: req.id, App: req.App, Name: req.Name, Region: f.regionOf(host), Config: req.Config,
		Instance: drover.NewInstanceID(), Goal: drover.GoalStarted, Run: 1, CreatedAt: now, UpdatedAt: now, ScheduledAt: now,
	}
	if req.SkipLaunch || len(req.Config.Standbys) > 0 { // one that stands in for others waits for its turn
		m.Goal, m.Run = drover.GoalStopped, 0
	}
	m.SkipSecrets, m.Cordoned = req.SkipSecrets, req.Cordoned
	return m
}

// casTries bounds how often a record is read again because it changed between reading and writing.
const casTries = 20

func tooBusy(what, id string) *drover.Error {
	return drover.Errorf(drover.Conflict, "%s %q was changed by others %d times in a row", what, id, casTries).WithHint("ask again")
}

// unmake takes a machine back that could not be made, and waits a moment for its host to do the same. What cannot be undone now, the
// repair finds: it begins by making sure that there is a record, which says that the machine is destroyed.
func (f *Fleet) unmake(ctx context.Context, m drover.Machine) {
	ctx, cancel := lastWord(ctx)
	defer cancel()
	err := f.fence(ctx, m)
	if err == nil {
		err = f.repairMachine(ctx, m.ID)
	}
	if err == nil {
		_, err = f.WaitMachine(ctx, m.App, m.ID, drover.StateDestroyed, "")
	}
	if err != nil {
		f.log.Warn("machine that was not made is cleared away later", "machine", m.ID, "err", err)
	}
}

// fence makes sure that the machine's record exists and says destroyed, so that nobody can make the machine any more.
func (f *Fleet) fence(ctx context.Context, m drover.Machine) error {
	m.Goal, m.UpdatedAt = drover.GoalDestroyed, f.now().UTC()
	_, err := f.state.machines.create(ctx, string(m.ID), m)
	if !drover.Is(err, drover.Exists) {
		return err
	}
	_, err = f.changeRecord(ctx, m.ID, func(m *drover.Machine) error { m.Goal = drover.GoalDestroyed; return nil })
	return err
}
