package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"drover"
	"drover/fleet"
)

// ResolveImage finds every image whose name has no "missing" in it.
func (b *Backend) ResolveImage(_ context.Context, image string) (drover.ResolvedImage, error) {
	if err := b.begin("ResolveImage"); err != nil {
		return drover.ResolvedImage{}, err
	}
	defer b.mu.Unlock()
	if image == "" || strings.Contains(image, "missing") {
		return drover.ResolvedImage{}, drover.Errorf(drover.NotFound, "image %q does not exist", image).WithField("config.image")
	}
	return drover.ResolvedImage{ImageRef: drover.ImageRef{Registry: "docker.io", Repository: "library/" + image, Tag: "latest", Digest: "sha256:" + strings.Repeat("ab", 32)},
		CompressedSize: 3 * drover.MiB}, nil
}

// AppOfVolume finds a volume of any app.
func (b *Backend) AppOfVolume(_ context.Context, id drover.VolumeID) (drover.AppName, error) {
	if err := b.begin("AppOfVolume"); err != nil {
		return "", err
	}
	defer b.mu.Unlock()
	v, ok := b.volumes[id]
	if !ok {
		return "", drover.Errorf(drover.NotFound, "no volume %q", id)
	}
	return v.Volume.App, nil
}

// CreateRelease makes an app's next release.
func (b *Backend) CreateRelease(_ context.Context, req fleet.CreateRelease) (drover.Release, error) {
	if err := b.begin("CreateRelease"); err != nil {
		return drover.Release{}, err
	}
	defer b.mu.Unlock()
	version := 1
	for _, r := range b.releases {
		if r.App == req.App {
			version = r.Version + 1
		}
	}
	r := drover.Release{ID: drover.ReleaseID(fmt.Sprintf("rel_%016x", b.nextLocked())), App: req.App, Version: version, Status: drover.ReleasePending,
		Strategy: req.Strategy, Image: req.Image, Definition: req.Definition, Description: req.Description, Actor: req.Actor, CreatedAt: b.Now(), UpdatedAt: b.Now()}
	b.releases = append(b.releases, r)
	return r, nil
}

// UpdateRelease sets what is given.
func (b *Backend) UpdateRelease(_ context.Context, req fleet.UpdateRelease) (drover.Release, error) {
	if err := b.begin("UpdateRelease"); err != nil {
		return drover.Release{}, err
	}
	defer b.mu.Unlock()
	if !req.Status.Valid() {
		return drover.Release{}, drover.Errorf(drover.Invalid, "status is %q; expected one of %q", req.Status, drover.ReleaseStatuses()).WithField("status")
	}
	i := slices.IndexFunc(b.releases, func(r drover.Release) bool { return r.ID == req.ID })
	if i < 0 {
		return drover.Release{}, drover.Errorf(drover.NotFound, "no release %q", req.ID)
	}
	b.releases[i].Status, b.releases[i].Metadata = req.Status, req.Metadata
	return b.releases[i], nil
}

// Release returns a release.
func (b *Backend) Release(_ context.Context, id drover.ReleaseID) (drover.Release, error) {
	if err := b.begin("Release"); err != nil {
		return drover.Release{}, err
	}
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.releases, func(r drover.Release) bool { return r.ID == id })
	if i < 0 {
		return drover.Release{}, drover.Errorf(drover.NotFound, "no release %q", id)
	}
	return b.releases[i], nil
}

// Releases lists an app's, newest first.
func (b *Backend) Releases(_ context.Context, app drover.AppName) ([]drover.Release, error) {
	if err := b.begin("Releases"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var all []drover.Release
	for _, r := range slices.Backward(b.releases) {
		if r.App == app {
			all = append(all, r)
		}
	}
	return all, nil
}
