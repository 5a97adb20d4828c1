package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"drover"
)

// keepReleases is how many releases of an app are kept. maxDefinition bounds a release's definition, maxReleaseText its other texts.
const (
	keepReleases   = 50
	maxDefinition  = 256 << 10
	maxReleaseText = 1024
)

// CreateRelease asks for a new release.
type CreateRelease struct {
	App                          drover.AppName
	Strategy, Image, Description string
	// Definition is a JSON object, or empty.
	Definition json.RawMessage
	Actor      string
}

// UpdateRelease says how a release goes. Metadata is a JSON object, or empty to leave what is there.
type UpdateRelease struct {
	ID       drover.ReleaseID
	Status   drover.ReleaseStatus
	Metadata json.RawMessage
}

// releaseKey is made of the number, so that no two releases of an app can get one.
func releaseKey(app drover.AppName, version int) string { return fmt.Sprintf("%s.%d", app, version) }

// CreateRelease gives an app its next release. Older ones than are kept are removed.
func (f *Fleet) CreateRelease(ctx context.Context, req CreateRelease) (drover.Release, error) {
	if err := f.await(ctx); err != nil {
		return drover.Release{}, err
	}
	if err := checkRelease(req); err != nil {
		return drover.Release{}, err
	}
	if _, err := f.readApp(ctx, req.App); err != nil {
		return drover.Release{}, err
	}
	now := f.now().UTC()
	r := drover.Release{ID: drover.NewReleaseID(), App: req.App, Status: drover.ReleasePending, Strategy: req.Strategy, Image: req.Image,
		Definition: req.Definition, Description: req.Description, Actor: req.Actor, CreatedAt: now, UpdatedAt: now}
	r.Version = 1
	if all := f.releases(req.App); len(all) > 0 {
		r.Version = all[0].Version + 1
	}
	for range casTries {
		_, err := f.state.releases.create(ctx, releaseKey(r.App, r.Version), r)
		if drover.Is(err, drover.Exists) { // by another client, perhaps on another control host
			r.Version++
			continue
		}
		if err != nil {
			return drover.Release{}, err
		}
		f.hit("fleet.release.create.after")
		if err := f.stays(ctx, r.App); err != nil {
			return drover.Release{}, errors.Join(err, f.state.releases.remove(ctx, releaseKey(r.App, r.Version), 0))
		}
		f.pruneReleases(ctx, r.App)
		return r, nil
	}
	return drover.Release{}, drover.Errorf(drover.Conflict, "app %q gets releases from many clients at once", req.App).WithHint("ask again in a moment")
}

func checkRelease(req CreateRelease) error {
	if len(req.Definition) > maxDefinition {
		return drover.Errorf(drover.Invalid, "definition has %d bytes; at most %d are kept", len(req.Definition), maxDefinition).WithField("definition")
	}
	if d := bytes.TrimSpace(req.Definition); len(d) > 0 && d[0] != '{' {
		return drover.Errorf(drover.Invalid, "definition: expected an object").WithField("definition")
	}
	for field, text := range map[string]string{"image": req.Image, "strategy": req.Strategy, "description": req.Description} {
		if len(text) > maxReleaseText {
			return drover.Errorf(drover.Invalid, "%s has %d bytes; expected at most %d", field, len(text), maxReleaseText).WithField(field)
		}
	}
	return nil
}

// pruneReleases removes what is older than what is kept. What stays because of an error goes with the next release.
func (f *Fleet) pruneReleases(ctx context.Context, app drover.AppName) {
	all := f.releases(app)
	for _, r := range all[min(keepReleases, len(all)):] {
		if err := f.state.releases.remove(ctx, releaseKey(app, r.Version), 0); err != nil {
			f.log.Warn("an old release is kept", "app", app, "version", r.Version, "err", err)
			return
		}
	}
}

// removeReleases removes all of an app that is being deleted, as the store has them.
func (f *Fleet) removeReleases(ctx context.Context, app drover.AppName) error {
	keys, err := f.state.releases.bucket.Keys(ctx, string(app)+".")
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := f.state.releases.remove(ctx, key, 0); err != nil {
			return err
		}
	}
	return nil
}

// releases returns an app's, newest first.
func (f *Fleet) releases(app drover.AppName) []drover.Release {
	f.state.mu.RLock()
	all := make([]drover.Release, 0, len(f.state.releasesOf[app]))
	for key := range f.state.releasesOf[app] {
		all = append(all, f.state.releases.items[key].value)
	}
	f.state.mu.RUnlock()
	slices.SortFunc(all, func(a, b drover.Release) int { return b.Version - a.Version })
	return all
}

// Releases lists an app's releases, newest first.
func (f *Fleet) Releases(ctx context.Context, app drover.AppName) ([]drover.Release, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	return f.releases(app), nil
}

// Release returns one release.
func (f *Fleet) Release(ctx context.Context, id drover.ReleaseID) (drover.Release, error) {
	if err := f.await(ctx); err != nil {
		return drover.Release{}, err
	}
	for _, i := range f.state.releases.all() {
		if i.value.ID == id {
			return i.value, nil
		}
	}
	// It may have been made on another control host a moment ago.
	all, err := f.state.releases.bucket.All(ctx)
	if err != nil {
		return drover.Release{}, err
	}
	for _, e := range all {
		if e.Value.ID == id {
			return e.Value, nil
		}
	}
	return drover.Release{}, drover.Errorf(drover.NotFound, "release %q does not exist", id)
}

// UpdateRelease notes how a release goes. It may be repeated.
func (f *Fleet) UpdateRelease(ctx context.Context, req UpdateRelease) (drover.Release, error) {
	if !req.Status.Valid() {
		return drover.Release{}, drover.Errorf(drover.Invalid, "status is %q; expected one of %q", req.Status, drover.ReleaseStatuses()).WithField("status")
	}
	if len(req.Metadata) > maxDefinition {
		return drover.Release{}, drover.Errorf(drover.Invalid, "metadata has %d bytes; at most %d are kept", len(req.Metadata), maxDefinition).WithField("metadata")
	}
	found, err := f.Release(ctx, req.ID)
	if err != nil {
		return drover.Release{}, err
	}
	key := releaseKey(found.App, found.Version)
	for range casTries {
		r, rev, err := f.state.releases.get(ctx, key)
		if err != nil {
			return drover.Release{}, err
		}
		r.Status, r.UpdatedAt = req.Status, f.now().UTC()
		if len(req.Metadata) > 0 {
			r.Metadata = req.Metadata
		}
		if _, err = f.state.releases.update(ctx, key, r, rev); err == nil {
			return r, nil
		}
		if !drover.Is(err, drover.Conflict) {
			return drover.Release{}, err
		}
	}
	return drover.Release{}, drover.Errorf(drover.Conflict, "release %q is being changed by others", req.ID).WithHint("ask again in a moment")
}
