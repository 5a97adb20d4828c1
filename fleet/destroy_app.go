package fleet

import (
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
)

const (
	// destroyAppWait is how long DestroyApp waits for an app that is cleared away at once.
	destroyAppWait = 10 * time.Second
	// maxClearings bounds how many apps are cleared away at once.
	maxClearings = 8
)

// DestroyApp is what is asked of the end of an app.
type DestroyApp struct {
	App drover.AppName
	// Now gives up the time in which it could be brought back.
	Now   bool
	Actor string
}

// DestroyApp destroys an app with all that it has. The write of its record decides it; the rest goes on by itself, whoever dies. One with volumes is kept
// for Timing.KeepVolumes: its machines are stopped, nobody finds it, and UndeleteApp brings it back as it was. Any other, and each with req.Now, is
// cleared away at once. gone tells that nothing is left of it and its name is free; else the app says in Destroyed how far it is.
func (f *Fleet) DestroyApp(ctx context.Context, req DestroyApp) (app drover.App, gone bool, err error) {
	if err := f.await(ctx); err != nil {
		return app, false, err
	}
	keep, err := f.keepsData(ctx, req.App)
	if err != nil {
		return app, false, err
	}
	app, err = f.changeAnyApp(ctx, req.App, func(app *drover.App) (bool, error) {
		now := f.now().UTC()
		switch d := app.Destroyed; {
		case d == nil && keep && !req.Now:
			app.Destroyed = &drover.AppDestroyed{At: now, By: req.Actor, WipeAt: now.Add(f.timing.KeepVolumes)}
		case d == nil:
			app.Destroyed = &drover.AppDestroyed{At: now, By: req.Actor, WipeAt: now}
		case req.Now && !d.Wiping && d.WipeAt.After(now):
			app.Destroyed = &drover.AppDestroyed{At: d.At, By: req.Actor, WipeAt: now}
		default:
			return false, nil // asked again
		}
		return true, nil
	})
	if err != nil {
		return app, false, err
	}
	f.hit("fleet.app.destroyed.after")
	f.log.Info("app destroyed", "app", app.Name, "by", app.Destroyed.By, "wipe_at", app.Destroyed.WipeAt)
	if app.Destroyed.WipeAt.After(f.now()) {
		return app, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, destroyAppWait)
	defer cancel()
	for {
		changed := f.state.apps.next(string(app.Name))
		now, _, ok := f.state.apps.seen(string(app.Name))
		if !ok || !now.CreatedAt.Equal(app.CreatedAt) {
			return app, true, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, false, nil
		}
	}
}

// keepsData reports whether an app has volumes that nobody has destroyed.
func (f *Fleet) keepsData(ctx context.Context, name drover.AppName) (bool, error) {
	volumes, err := f.state.volumes.bucket.All(ctx)
	for _, v := range volumes {
		if s := v.Value.State; v.Value.App == name && s != drover.VolumeDestroyed && s != drover.VolumeDestroying {
			return true, err
		}
	}
	return false, err
}

// UndeleteApp brings a destroyed app back: its machines that ran are started again.
func (f *Fleet) UndeleteApp(ctx context.Context, name drover.AppName) (drover.App, error) {
	if err := f.await(ctx); err != nil {
		return drover.App{}, err
	}
	app, err := f.changeAnyApp(ctx, name, func(app *drover.App) (bool, error) {
		switch d := app.Destroyed; {
		case d == nil:
			return false, drover.Errorf(drover.Precondition, "app %q was not destroyed", name)
		case d.Wiping || !f.now().Before(d.WipeAt):
			return false, drover.Errorf(drover.Precondition, "app %q is being wiped: it cannot be brought back any more", name)
		}
		app.Destroyed = nil
		return true, nil
	})
	if err == nil {
		f.log.Info("app brought back", "app", name)
	}
	return app, err
}

// DestroyedApps lists the apps that were destroyed and are not gone, the newest first.
func (f *Fleet) DestroyedApps(ctx context.Context) ([]drover.App, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	apps := []drover.App{}
	for _, i := range f.state.apps.all() {
		if i.value.Destroyed != nil {
			apps = append(apps, i.value)
		}
	}
	slices.SortFunc(apps, func(a, b drover.App) int { return b.Destroyed.At.Compare(a.Destroyed.At) })
	return apps, nil
}

// keepApps carries out what was decided of whole apps, until ctx ends.
func (f *Fleet) keepApps(ctx context.Context) {
	for {
		changed := f.state.apps.next(anyKey)
		f.settleMachines(ctx)
		clearings, work := errgroup.WithContext(ctx)
		clearings.SetLimit(maxClearings)
		for _, i := range f.state.apps.all() {
			if d := i.value.Destroyed; d != nil && !f.now().Before(d.WipeAt) {
				clearings.Go(func() error {
					// One that waits for a host is asked for in vain for as long as the host is away; lists tell.
					if err := f.clearApp(work, i.value.Name); !drover.Is(err, drover.Unavailable) {
						f.trouble(work, "app", string(i.value.Name), err)
					}
					return nil
				})
			}
		}
		_ = clearings.Wait() // each has told its own
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(f.timing.Work):
		}
	}
}

// settleMachines stops the machines of destroyed apps, and starts those again that ran when an app was destroyed which is there again.
func (f *Fleet) settleMachines(ctx context.Context) {
	var ids []drover.MachineID
	f.state.mu.RLock()
	for id, m := range f.state.machines.items {
		if f.unsettledLocked(m.value) {
			ids = append(ids, drover.MachineID(id))
		}
	}
	f.state.mu.RUnlock()
	var orders errgroup.Group
	orders.SetLimit(maxRepairs)
	for _, id := range ids {
		orders.Go(func() error {
			f.trouble(ctx, "machine of a destroyed app", string(id), f.settleMachine(ctx, id))
			return nil
		})
	}
	_ = orders.Wait() // each has told its own
}

func (f *Fleet) unsettledLocked(m drover.Machine) bool {
	app, known := f.state.apps.items[string(m.App)]
	switch {
	case !known, m.Goal == drover.GoalDestroyed:
		return false
	case app.value.Destroyed != nil:
		return m.Goal == drover.GoalStarted
	}
	return m.GoalBefore != ""
}

// settleMachine gives a machine the goal that its app's end, or return, asks for. A move that holds it comes first: it takes it as it is.
func (f *Fleet) settleMachine(ctx context.Context, id drover.MachineID) error {
	if err := f.still(ctx, id); err != nil {
		return err
	}
	_, err := f.changeRecord(ctx, id, func(m *drover.Machine) error {
		f.state.mu.RLock()
		unsettled, destroyed := f.unsettledLocked(*m), f.state.apps.items[string(m.App)].value.Destroyed != nil
		f.state.mu.RUnlock()
		switch {
		case !unsettled:
			return drover.Errorf(drover.Conflict, "machine %q was changed meanwhile", id)
		case destroyed && f.upOrComing(*m):
			m.GoalBefore = m.Goal
			fallthrough
		case destroyed:
			m.Goal, m.Stop, m.Resume = drover.GoalStopped, drover.StopConfig{}, false
		default:
			m.Goal, m.GoalBefore, m.Stop = m.GoalBefore, "", drover.StopConfig{}
			m.Run++
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.hit("fleet.app.settled.after")
	if _, err = f.apply(ctx, id); drover.Is(err, drover.Unavailable) {
		return nil // its host learns of it when it is back
	}
	return err
}

// clearApp takes a destroyed app away for good, with its machines, volumes, snapshots and secrets. It may be repeated, and is, until nothing is left.
func (f *Fleet) clearApp(ctx context.Context, name drover.AppName) error {
	_, err := f.changeAnyApp(ctx, name, func(app *drover.App) (bool, error) {
		d := app.Destroyed
		if d == nil || f.now().Before(d.WipeAt) {
			return false, drover.Errorf(drover.Conflict, "app %q was brought back", name)
		}
		app.Destroyed = &drover.AppDestroyed{At: d.At, By: d.By, WipeAt: d.WipeAt, Wiping: true}
		return !d.Wiping, nil
	})
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	f.hit("fleet.app.wiping.after")
	f.state.mu.RLock()
	ids := slices.Collect(maps.Keys(f.state.machinesOf[name]))
	f.state.mu.RUnlock()
	for _, id := range ids {
		m, _, ok := f.state.machines.seen(id)
		if !ok || m.Goal == drover.GoalDestroyed {
			continue
		}
		if err := f.DestroyMachine(ctx, name, drover.MachineID(id), true); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	f.hit("fleet.app.machines.after")
	if err := f.awaitNoMachines(ctx, name); err != nil {
		return err
	}
	return f.clearEmptyApp(ctx, name)
}

// awaitNoMachines waits for a moment until nothing runs of an app and nothing is placed.
func (f *Fleet) awaitNoMachines(ctx context.Context, name drover.AppName) error {
	late := time.After(f.timing.Work)
	for {
		changed := f.state.placements.next(anyKey)
		f.state.mu.RLock()
		left := slices.DeleteFunc(slices.Collect(maps.Keys(f.state.machinesOf[name])), func(id string) bool {
			_, placed := f.state.placements.items[id]
			return !placed
		})
		f.state.mu.RUnlock()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return drover.Errorf(drover.Unavailable, "app %q is not gone yet: %d machines of it are still to be destroyed, such as %q", name, len(left), left[0])
		}
	}
}
