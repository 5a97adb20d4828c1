package fleet

import (
	"encoding/json"
	"sync"
	"testing"

	"drover"
)

func (n *node) release(t *testing.T, image string) drover.Release {
	t.Helper()
	r, err := n.CreateRelease(t.Context(), CreateRelease{App: "shop", Image: image, Strategy: "ROLLING", Definition: json.RawMessage(`{"app":"shop"}`), Actor: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReleasesAreNumberedAndKept: numbers count up per app, whoever gives them and whatever is killed in between.
func TestReleasesAreNumberedAndKept(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	first := n.release(t, "one")
	if first.Version != 1 || first.Status != drover.ReleasePending {
		t.Fatalf("the first release is %+v", first)
	}
	n.kill()
	n = w.control("c1", killOnce("fleet.release.create.after"))
	killed := make(chan struct{})
	go func() { // ends where the fault strikes
		defer close(killed)
		n.CreateRelease(t.Context(), CreateRelease{App: "shop", Image: "two", Actor: "alice"})
		t.Error("the control host was not killed")
	}()
	<-killed
	n.kill()
	n = w.control("c1", nil)
	// The record of the second was written before the control host died; nobody was told, so the client asks again.
	if third := n.release(t, "three"); third.Version != 3 {
		t.Errorf("the release after the kill has the version %d", third.Version)
	}
	other := w.control("c2", nil)
	var group sync.WaitGroup
	for _, node := range []*node{n, other, n, other} {
		group.Go(func() {
			if _, err := node.CreateRelease(t.Context(), CreateRelease{App: "shop", Image: "many"}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	w.eventually("all releases are seen", func() bool { return len(other.releases("shop")) == 7 })
	seen := map[int]bool{}
	for _, r := range other.releases("shop") {
		seen[r.Version] = true
	}
	if len(seen) != 7 || !seen[7] {
		t.Errorf("the versions are %v", seen)
	}
	done, err := other.UpdateRelease(t.Context(), UpdateRelease{ID: first.ID, Status: drover.ReleaseComplete, Metadata: json.RawMessage(`{"a":1}`)})
	if err != nil || done.Status != drover.ReleaseComplete || done.Image != "one" {
		t.Errorf("%+v, %v", done, err)
	}
	if got, err := n.Release(t.Context(), first.ID); err != nil || got.App != "shop" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestOldReleasesGoAndAllGoWithTheirApp: what is kept is bounded, and nothing is left for who gets an app's name next.
func TestOldReleasesGoAndAllGoWithTheirApp(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	for range keepReleases + 3 {
		n.release(t, "x")
	}
	all, err := n.Releases(t.Context(), "shop")
	if err != nil || len(all) != keepReleases || all[0].Version != keepReleases+3 {
		t.Fatalf("%d releases are kept, the newest is %d, %v", len(all), all[0].Version, err)
	}
	w.destroyApp(n, "shop")
	if _, err := n.CreateRelease(t.Context(), CreateRelease{App: "shop"}); !drover.Is(err, drover.NotFound) {
		t.Errorf("a release of an app that is gone: %v", err)
	}
	if _, err := n.CreateApp(t.Context(), drover.App{Name: "shop", Organization: "other"}); err != nil {
		t.Fatal(err)
	}
	if all, err := n.Releases(t.Context(), "shop"); err != nil || len(all) != 0 {
		t.Errorf("the next app of the name has %d releases, %v", len(all), err)
	}
}

func TestReleasesThatAreRefused(t *testing.T) {
	t.Parallel()
	_, n := newWorld(t)
	r := n.release(t, "x")
	for name, c := range map[string]struct {
		code  drover.Code
		field string
		ask   func() error
	}{
		"definition is a list": {drover.Invalid, "definition", func() error {
			_, err := n.CreateRelease(t.Context(), CreateRelease{App: "shop", Definition: json.RawMessage(`[1]`)})
			return err
		}},
		"definition is huge": {drover.Invalid, "definition", func() error {
			_, err := n.CreateRelease(t.Context(), CreateRelease{App: "shop", Definition: make([]byte, maxDefinition+1)})
			return err
		}},
		"unknown status": {drover.Invalid, "status", func() error {
			_, err := n.UpdateRelease(t.Context(), UpdateRelease{ID: r.ID, Status: "perhaps"})
			return err
		}},
		"unknown release": {drover.NotFound, "", func() error {
			_, err := n.UpdateRelease(t.Context(), UpdateRelease{ID: "rel_0000000000000000", Status: drover.ReleaseRunning})
			return err
		}},
	} {
		if err := c.ask(); !drover.Is(err, c.code) || drover.AsError(err).Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnImageIsLookedUpByAHostThatAnswers(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.hosts["h1"].failing(drover.Unavailable, true, drover.OrderResolve)
	got, err := n.ResolveImage(t.Context(), "busybox")
	if err != nil || got.Digest != "sha256:00" || got.CompressedSize != 12345 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := n.ResolveImage(t.Context(), "missing"); !drover.Is(err, drover.NotFound) {
		t.Errorf("an image that does not exist: %v", err)
	}
}
