package apitest

import (
	"context"
	"maps"
	"slices"

	"drover"
	"drover/fleet"
)

// Apps lists the apps.
func (b *Backend) Apps(context.Context) ([]drover.App, error) { return b.appsThat("Apps", false) }

// DestroyedApps lists those that were destroyed.
func (b *Backend) DestroyedApps(context.Context) ([]drover.App, error) {
	return b.appsThat("DestroyedApps", true)
}

func (b *Backend) appsThat(method string, destroyed bool) ([]drover.App, error) {
	if err := b.begin(method); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(b.apps)), func(app drover.App) bool { return (app.Destroyed != nil) != destroyed }), nil
}

// AnyApp returns an app.
func (b *Backend) AnyApp(_ context.Context, name drover.AppName) (drover.App, error) {
	return b.withApp("AnyApp", name, func(*drover.App) error { return nil })
}

func (b *Backend) withApp(method string, name drover.AppName, do func(*drover.App) error) (drover.App, error) {
	if err := b.begin(method); err != nil {
		return drover.App{}, err
	}
	defer b.mu.Unlock()
	app, ok := b.apps[name]
	if !ok {
		return drover.App{}, drover.Errorf(drover.NotFound, "no app %q", name)
	}
	if err := do(&app); err != nil {
		return drover.App{}, err
	}
	b.apps[name] = app
	return app, nil
}

// DestroyApp keeps an app with volumes, and removes any other.
func (b *Backend) DestroyApp(_ context.Context, req fleet.DestroyApp) (drover.App, bool, error) {
	gone := false
	app, err := b.withApp("DestroyApp", req.App, func(app *drover.App) error {
		gone = req.Now
		if !gone {
			gone = true
			for _, v := range b.volumes {
				gone = gone && v.Volume.App != req.App
			}
		}
		app.Destroyed = &drover.AppDestroyed{At: b.Now(), By: req.Actor, WipeAt: b.Now()}
		if !gone {
			app.Destroyed.WipeAt = b.Now().Add(undeleteWindow)
		}
		return nil
	})
	if err != nil || !gone {
		return app, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.apps, req.App)
	maps.DeleteFunc(b.machines, func(_ drover.MachineID, v fleet.MachineView) bool { return v.Machine.App == req.App })
	maps.DeleteFunc(b.volumes, func(_ drover.VolumeID, v fleet.VolumeView) bool { return v.Volume.App == req.App })
	return app, true, nil
}

// UndeleteApp brings a destroyed app back.
func (b *Backend) UndeleteApp(_ context.Context, name drover.AppName) (drover.App, error) {
	return b.withApp("UndeleteApp", name, func(app *drover.App) error {
		if app.Destroyed == nil {
			return drover.Errorf(drover.Precondition, "app %q was not destroyed", name)
		}
		app.Destroyed = nil
		return nil
	})
}
