package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

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
	app.CreatedAt = f.now().UTC()
	_, err := f.state.apps.create(ctx, string(app.Name), app)
	if drover.Is(err, drover.Exists) {
		return drover.App{}, f.nameOfAppTaken(ctx, app)
	}
	return app, err
}

// nameOfAppTaken says what helps against it; of a destroyed app only its own organisation is told.
func (f *Fleet) nameOfAppTaken(ctx context.Context, wanted drover.App) *drover.Error {
	taken := drover.Errorf(drover.Exists, "app name %q is taken", wanted.Name).WithField("app_name")
	other, _, err := f.readAnyApp(ctx, wanted.Name)
	switch d := other.Destroyed; {
	case err != nil, d == nil, other.Organization != wanted.Organization:
		return taken.WithHint("choose another name")
	case d.Wiping:
		return taken.WithHint("its app was destroyed and is being wiped: ask again in a moment, and see `drover app list --deleted`")
	default:
		return taken.WithHint("its app was destroyed and is kept until %s: bring it back (drover app undelete %s), or give it up (drover app destroy %s --now)",
			d.WipeAt.Format(time.RFC3339), wanted.Name, wanted.Name)
	}
}

func badName(what, name string) *drover.Error {
	return drover.Errorf(drover.Invalid, "%q cannot be the name of an %s: names have 1 to 63 lower-case letters, digits and hyphens, and neither begin nor end with a hyphen",
		name, what)
}

// Apps lists the apps by name, without those that were destroyed.
func (f *Fleet) Apps(ctx context.Context) ([]drover.App, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	apps := []drover.App{}
	for _, i := range f.state.apps.all() {
		if i.value.Destroyed == nil {
			apps = append(apps, i.value)
		}
	}
	slices.SortFunc(apps, func(a, b drover.App) int { return cmp.Compare(a.Name, b.Name) })
	return apps, nil
}

// App returns one app. NotFound for one that was destroyed.
func (f *Fleet) App(ctx context.Context, name drover.AppName) (drover.App, error) {
	app, err := f.AnyApp(ctx, name)
	if err == nil && app.Destroyed != nil {
		return drover.App{}, noApp(name)
	}
	return app, err
}

// AnyApp returns one app, also one that was destroyed and is not gone.
func (f *Fleet) AnyApp(ctx context.Context, name drover.AppName) (drover.App, error) {
	if err := f.await(ctx); err != nil {
		return drover.App{}, err
	}
	if app, _, ok := f.state.apps.seen(string(name)); ok {
		return app, nil
	}
	app, _, err := f.readAnyApp(ctx, name)
	return app, err
}

// readApp reads one app, that was not destroyed, from the store.
func (f *Fleet) readApp(ctx context.Context, name drover.AppName) (drover.App, error) {
	app, _, err := f.readAnyApp(ctx, name)
	if err == nil && app.Destroyed != nil {
		return drover.App{}, noApp(name)
	}
	return app, err
}

func (f *Fleet) readAnyApp(ctx context.Context, name drover.AppName) (drover.App, uint64, error) {
	if !drover.ValidName(string(name)) {
		return drover.App{}, 0, badName("app", string(name)).WithField("app_name")
	}
	app, rev, err := f.state.apps.get(ctx, string(name))
	if drover.Is(err, drover.NotFound) {
		return drover.App{}, 0, noApp(name)
	}
	return app, rev, err
}

func noApp(name drover.AppName) *drover.Error {
	return drover.Errorf(drover.NotFound, "app %q does not exist", name).WithHint("see `drover app list`, or make it: drover app create %s", name)
}

// changeApp is changeAnyApp for an app that was not destroyed.
func (f *Fleet) changeApp(ctx context.Context, name drover.AppName, change func(*drover.App) (bool, error)) (drover.App, error) {
	return f.changeAnyApp(ctx, name, func(app *drover.App) (bool, error) {
		if app.Destroyed != nil {
			return false, noApp(name)
		}
		return change(app)
	})
}

// changeAnyApp changes an app's record by compare-and-set, until it worked or change refuses; change reports whether there is anything to write.
func (f *Fleet) changeAnyApp(ctx context.Context, name drover.AppName, change func(*drover.App) (bool, error)) (drover.App, error) {
	for range casTries {
		app, rev, err := f.readAnyApp(ctx, name)
		if err != nil {
			return app, err
		}
		changed, err := change(&app)
		if err != nil || !changed {
			return app, err
		}
		if _, err = f.state.apps.update(ctx, string(name), app, rev); !drover.Is(err, drover.Conflict) {
			return app, err
		}
	}
	return drover.App{}, tooBusy("app", string(name))
}

// stays makes sure that an app is there and will be, for something that has just been claimed in it: the record says first that the app is
// destroyed, and claims are looked for then, so that one of the two sees the other.
func (f *Fleet) stays(ctx context.Context, name drover.AppName) error {
	_, err := f.readApp(ctx, name)
	return err
}

// clearEmptyApp removes what is left of a destroyed app that has no machines: volumes, snapshots, secrets, at last its record. Nothing of it is left
// for who gets the name next.
func (f *Fleet) clearEmptyApp(ctx context.Context, name drover.AppName) error {
	machines, err := f.state.machines.bucket.All(ctx)
	if err != nil {
		return err
	}
	for id, m := range machines {
		if m.Value.App == name && !f.gone(m.Value) {
			return drover.Errorf(drover.Conflict, "app %q is not gone yet: machine %q of it was made just before", name, id)
		}
	}
	names, err := f.state.claims.bucket.Keys(ctx, "name."+string(name)+".")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return drover.Errorf(drover.Conflict, "app %q is not gone yet: a machine of it is being created or destroyed", name)
	}
	for _, step := range []func(context.Context, drover.AppName) error{f.wipeApp, f.dropSecrets, f.removeReleases, f.dropPolicies} {
		if err := step(ctx, name); err != nil {
			return err
		}
	}
	f.hit("fleet.app.emptied.after")
	if err := f.state.apps.remove(ctx, string(name), 0); err != nil {
		return err
	}
	f.log.Info("app is gone", "app", name)
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
