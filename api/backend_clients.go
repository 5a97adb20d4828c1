package api

import (
	"context"

	"drover"
	"drover/fleet"
)

// clientsBackend is the part of Backend that only other clients of the Machines API ask for: releases and images.
type clientsBackend interface {
	// ResolveImage looks an image up, as CreateMachine does; Invalid, NotFound or Denied name the image.
	ResolveImage(ctx context.Context, image string) (drover.ResolvedImage, error)
	// AppOfVolume is NotFound for a volume that is destroyed.
	AppOfVolume(ctx context.Context, id drover.VolumeID) (drover.AppName, error)

	CreateRelease(ctx context.Context, req fleet.CreateRelease) (drover.Release, error)
	UpdateRelease(ctx context.Context, req fleet.UpdateRelease) (drover.Release, error)
	Release(ctx context.Context, id drover.ReleaseID) (drover.Release, error)
	// Releases has the newest first.
	Releases(ctx context.Context, app drover.AppName) ([]drover.Release, error)
}
