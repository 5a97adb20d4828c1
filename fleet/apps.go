package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"drover"
)

// CreateApp makes an app. Exists when the name is taken.
func (f *Fleet) CreateApp(ctx context.Context, app drover.App) (drover.App, error) {
	if err := f.await(ctx); err != nil {
		return drover.App{}, err
	}
	if app.Organization == "" {
		app.Organization = f.cfg.Organization
	}
	switch {
	case !drover.ValidName(string(app.Name)):
		return drover.App{}, badName("app", string(app.Name)).WithField("app_name")
	case !drover.ValidName(app.Organization):
		return drover.App{}, badName("organization", app.Organization).WithField("org_slug")
	case app.Network != "" && !drover.ValidName(app.Network):
		return drover.App{}, badName("network", app.Network).WithField("network")
	}
	if _, _, err := f.state.claims.get(ctx, leavingClaim(app.Name)); err == nil {
		return drover.App{}, drover.Errorf(drover.Conflict, "app %q is being deleted", app.Name).WithHint("ask again in a moment")
	} else if !drover.Is(err, drover.NotFound) {
		return drover.App{}, err
	}
	app.CreatedAt = f.now().UTC()
	_, err := f.state.apps.create(ctx, string(app.Name), app)
	if drover.Is(err, drover.Exists) {
		return drover.App{}, drover.Errorf(drover.Exists, "app name %q is taken", app.Name).WithField("app_name").WithHint("choose another name")
	}
	return app, err
}

func badName(what, name string) *drover.Error {
	return drover.Errorf(drover.Invalid, "%q cannot be the name of an %s: names have 1 to 63 lower-case letters, digits and hyphens, and neither begin nor end with a hyphen",
		name, what)
}

// Apps lists the apps by name.
func (f *Fleet) Apps(ctx context.Context) ([]drover.App, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	apps := []drover.App{}
	for _, i := range f.state.apps.all() {
		apps = append(apps, i.value)
	}
	slices.SortFunc(apps, func(a, b drover.App) int { return cmp.Compare(a.Name, b.Name) })
	return apps, nil
}

// App returns one app.
func (f *Fleet) App(ctx context.Context, name drover.AppName) (drover.App, error) {
	if err := f.await(ctx); err != nil {
		return drover.App{}, err
	}
	if app, _, ok := f.state.apps.seen(string(name)); ok {
		return app, nil
	}
	return f.readApp(ctx, name)
}

// readApp reads an app from the store.
func (f *Fleet) readApp(ctx context.Context, name drover.AppName) (drover.App, error) {
	if !drover.ValidName(string(name)) {
		return drover.App{}, badName("app", string(name)).WithField("app_name")
	}
	app, _, err := f.state.apps.get(ctx, string(name))
	if drover.Is(err, drover.NotFound) {
		return drover.App{}, drover.Errorf(drover.NotFound, "app %q does not exist", name).WithHint("see `drover app list`, or make it: drover app create %s", name)
	}
	return app, err
}

// stays makes sure that an app is there and will be, for something that has just been claimed in it: DeleteApp says first that the
// app is leaving and looks for claims then, so that one of the two sees the other.
func (f *Fleet) stays(ctx context.Context, name drover.AppName) error {
	if _, _, err := f.state.claims.get(ctx, leavingClaim(name)); err == nil {
		return drover.Errorf(drover.Conflict, "app %q is being deleted", name)
	} else if !drover.Is(err, drover.NotFound) {
		return err
	}
	_, err := f.readApp(ctx, name)
	return err
}

// DeleteApp deletes an app that has nothing left. Precondition while it has machines or volumes. Destroyed volumes that could be brought back
// are wiped with it, and its snapshots are removed: nothing of it is left for who gets the name next. Where that takes time, or a host does
// not answer, it is begun, and the app stays until it is done.
func (f *Fleet) DeleteApp(ctx context.Context, name drover.AppName) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	if _, err := f.readApp(ctx, name); err != nil {
		return err
	}
	key := leavingClaim(name)
	if _, err := f.state.claims.create(ctx, key, claim{At: f.now()}); err != nil && !drover.Is(err, drover.Exists) {
		return err
	}
	err := f.deleteEmptyApp(ctx, name)
	ctx, cancel := lastWord(ctx)
	defer cancel()
	if cerr := f.state.claims.remove(ctx, key, 0); cerr != nil {
		f.log.Warn("claim stays until it is old", "claim", key, "err", cerr)
	}
	return err
}

func (f *Fleet) deleteEmptyApp(ctx context.Context, name drover.AppName) error {
	machines, err := f.state.machines.bucket.All(ctx)
	if err != nil {
		return err
	}
	has := func(what, which, how string) *drover.Error {
		return drover.Errorf(drover.Precondition, "app %q cannot be deleted: it has %s %q", name, what, which).WithHint("%s", how)
	}
	for id, m := range machines {
		if m.Value.App == name && !f.gone(m.Value) {
			return has("machine", id, "destroy its machines first: drover machine destroy "+id)
		}
	}
	names, err := f.state.claims.bucket.Keys(ctx, "name."+string(name)+".")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return has("a machine that is being created or destroyed:", strings.TrimPrefix(names[0], "name."+string(name)+"."), "ask again in a moment")
	}
	volumes, err := f.state.volumes.bucket.All(ctx)
	if err != nil {
		return err
	}
	for id, v := range volumes {
		if s := v.Value.State; v.Value.App == name && s != drover.VolumeDestroyed && s != drover.VolumeDestroying {
			return has("volume", id, "destroy its volumes first: drover volume destroy "+id)
		}
	}
	if err := f.wipeApp(ctx, name); err != nil {
		return err
	}
	if err := f.dropSecrets(ctx, name); err != nil {
		return err
	}
	if err := f.removeReleases(ctx, name); err != nil {
		return err
	}
	if err := f.dropPolicies(ctx, name); err != nil {
		return err
	}
	if err := f.state.apps.remove(ctx, string(name), 0); err != nil {
		return err
	}
	return nil
}

// gone reports whether nothing of a machine is left but its record.
func (f *Fleet) gone(m drover.Machine) bool {
	if m.Goal != drover.GoalDestroyed {
		return false
	}
	_, _, placed := f.state.placements.seen(string(m.ID))
	return !placed
}
