package host

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"drover"
)

// fakeMesh is the host's network process.
type fakeMesh struct {
	routes []drover.MeshRoute
	status drover.MeshStatus
}

func (f *fakeMesh) Status(context.Context) (drover.MeshStatus, error) { return f.status, nil }

func (f *fakeMesh) Peers(context.Context) (drover.MeshPeersAnswer, error) {
	return drover.MeshPeersAnswer{}, nil
}

func (f *fakeMesh) Rotate(_ context.Context, req drover.MeshRotateRequest) (drover.MeshKey, error) {
	f.status.Key = &drover.MeshKey{Rotation: &drover.KeyRotation{By: req.By}, WaitsFor: []drover.HostID{"h4"}}
	return *f.status.Key, nil
}

func (f *fakeMesh) Cancel(_ context.Context, req drover.MeshCancelRequest) (drover.MeshKey, error) {
	r := *f.status.Key.Rotation
	r.CanceledAt, r.CanceledBy = r.StartedAt.Add(1), req.By
	f.status.Key.Rotation = &r
	return *f.status.Key, nil
}

// Routes answers in pages of two.
func (f *fakeMesh) Routes(_ context.Context, after string) (drover.MeshRoutesAnswer, error) {
	var left []drover.MeshRoute
	for _, r := range f.routes {
		if after == "" || addressOrNone(after).Less(addressOrNone(r.Machine)) {
			left = append(left, r)
		}
	}
	return drover.MeshRoutesAnswer{Routes: left[:min(len(left), 2)], More: len(left) > 2}, nil
}

func TestAMeshThatIsNotWellIsACondition(t *testing.T) {
	a := &Agent{}
	status := drover.MeshStatus{Problem: "this host has not joined", Links: []drover.MeshLink{{Host: "h2", Bad: true, Text: "no packets arrive from h2 at h1"}, {Host: "h3"}}}
	raised := a.reportMesh(status, nil)
	told := func() string {
		var words []string
		for key, f := range a.watched.reported {
			words = append(words, string(key.Code)+" "+key.Subject+" "+f.text)
		}
		return strings.Join(words, "; ")
	}
	for _, want := range []string{"mesh-link-bad h2 no packets arrive from h2 at h1", "mesh-down", "has not joined"} {
		if !strings.Contains(told(), want) {
			t.Errorf("%q is not in %q", want, told())
		}
	}
	rotates := drover.MeshStatus{Key: &drover.MeshKey{Rotation: &drover.KeyRotation{By: "ann"}, WaitsFor: []drover.HostID{"h5"}}}
	if got := meshFindings(rotates); len(got) != 1 || got[0].Code != drover.MeshKeyWaits || got[0].Subject != "h5" || !strings.Contains(got[0].detail, "ann") {
		t.Errorf("a rotation that waits: %+v", got)
	}
	rotates.Key.Rotation.CanceledAt = time.Now()
	if got := meshFindings(rotates); len(got) != 0 {
		t.Errorf("a rotation that is canceled waits: %+v", got)
	}
	status.Problem = ""
	raised = a.reportMesh(status, raised)
	if got := told(); strings.Contains(got, "mesh-down") || !strings.Contains(got, "h2") {
		t.Errorf("the host has joined, and the link is still bad: %q", got)
	}
	if a.reportMesh(drover.MeshStatus{}, raised); told() != "" {
		t.Errorf("all is well: %q", told())
	}
}

// The kernel's routes and the mesh's table must agree: what only one of them has is told.
func TestWhatAHostBelievesIsBothOfItsTables(t *testing.T) {
	mesh := &fakeMesh{}
	for i := range 5 {
		mesh.routes = append(mesh.routes, drover.MeshRoute{Machine: fmt.Sprintf("fdaa:0:1:0:%d::2", i+1), Host: "fdaa::2:0:0:1"})
	}
	kernel := &fakeRoutes{table: map[netip.Addr]netip.Addr{
		netip.MustParseAddr("fdaa:0:1:0:2::2"): netip.IPv6Unspecified(), netip.MustParseAddr("fdaa:0:1:0:77::2"): netip.IPv6Unspecified()}}
	a := &Agent{cfg: Config{ID: "h1", Mesh: mesh, Routes: kernel}}
	answer, err := a.meshRoutes(t.Context(), drover.MeshRoutesRequest{})
	if err != nil || len(answer.Routes) != 6 || answer.More {
		t.Fatalf("%+v, %v", answer, err)
	}
	if last := answer.Routes[5]; last.Machine != "fdaa:0:1:0:77::2" || last.Host != "" {
		t.Errorf("what only the kernel has is %+v", last)
	}
	if rest, err := a.meshRoutes(t.Context(), drover.MeshRoutesRequest{After: "fdaa:0:1:0:4::2"}); err != nil || len(rest.Routes) != 2 {
		t.Errorf("the rest is %+v, %v", rest, err)
	}
	if _, err := (&Agent{cfg: Config{ID: "h1"}}).meshRoutes(t.Context(), drover.MeshRoutesRequest{}); !drover.Is(err, drover.Precondition) {
		t.Errorf("a host without a mesh: %v", err)
	}
}

// A second host of a name does nothing in it.
func TestAnAgentWhoseNameIsAnothersStops(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	mesh := &fakeMesh{status: drover.MeshStatus{NameTaken: true, Problem: `this host cannot join as "h1"`}}
	a := &Agent{cfg: Config{ID: "h1", Mesh: mesh, Log: slog.New(slog.DiscardHandler)}, ctx: ctx, stop: stop}
	a.meshLoop(ctx)
	if err := context.Cause(ctx); !drover.Is(err, drover.Conflict) || !strings.Contains(err.Error(), `"h1"`) {
		t.Errorf("the agent goes on: %v", err)
	}
}
