package fleet

import (
	"context"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

func TestARootKeyIsRotated(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	var ahead time.Duration
	w.clock = func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return time.Now().Add(ahead) }
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Stale = 50 * time.Millisecond }
	n = w.control("c1", nil)
	other := w.control("c2", nil)
	if _, err := n.RotateRoot(t.Context(), RotateRoot{Organization: "acme"}); !drover.Is(err, drover.NotFound) {
		t.Errorf("before there is one: %v", err)
	}
	_, first := mint(t, n, NewToken{Organization: "acme"})
	_, others := mint(t, n, NewToken{Organization: "other"})
	w.eventually("c2 knows the token", func() bool { _, err := other.Authenticate(t.Context(), first); return err == nil })
	root, err := n.RotateRoot(t.Context(), RotateRoot{Organization: "acme", Grace: time.Hour})
	if err != nil || len(root.Retired) != 1 || root.Retired[0].Tokens != 1 || root.Retired[0].Key != mustRead(t, first).Key || root.Tokens != 0 {
		t.Fatalf("%+v, %v", root, err)
	}
	second, token := mint(t, other, NewToken{Organization: "acme"})
	if got := mustRead(t, token).Key; got != root.Key {
		t.Errorf("made with %s, the key is %s", got, root.Key)
	}
	for _, node := range []*node{n, other} {
		for _, token := range []string{first, token, others} {
			who(t, node, token)
		}
	}
	list, err := n.Tokens(t.Context(), "acme")
	if err != nil || len(list) != 2 || !list[1].ExpiresAt.Equal(root.Retired[0].Until) || !list[0].ExpiresAt.IsZero() {
		t.Errorf("it is not told when the old one ends: %+v, %v", list, err)
	}
	w.mu.Lock()
	ahead = 90 * time.Minute
	w.mu.Unlock()
	for _, node := range []*node{n, other} {
		if _, err := node.Authenticate(t.Context(), first); !drover.Is(err, drover.Denied) {
			t.Errorf("after the grace: %v", err)
		}
		who(t, node, token)
	}
	// At once, everywhere; what the fleet keeps no use for is destroyed.
	if root, err = other.RotateRoot(t.Context(), RotateRoot{Organization: "acme"}); err != nil || len(root.Retired) != 0 {
		t.Fatalf("%+v, %v", root, err)
	}
	for _, node := range []*node{n, other} {
		w.eventually("it is refused", func() bool { _, err := node.Authenticate(t.Context(), token); return drover.Is(err, drover.Denied) })
		who(t, node, others)
	}
	if got, err := n.Token(t.Context(), second.ID, ""); err != nil || got.ExpiresAt.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	w.eventually("the old keys are gone", func() bool {
		ring, err := n.Keyring(t.Context())
		return err == nil && len(ring.Keys) == 2
	})
	_, third := mint(t, n, NewToken{Organization: "acme"})
	n.kill()
	n = w.control("c1", nil)
	who(t, n, third)
	roots, err := n.TokenRoots(t.Context(), "")
	if err != nil || len(roots) != 2 || roots[0].Organization != "acme" || roots[0].Tokens != 1 || roots[1].Organization != "other" {
		t.Errorf("%+v, %v", roots, err)
	}
}

// Wherever the control host dies, the old key or the new one is the organization's, a token is good or not by that alone, and no key is left over.
func TestARotationIsCutAnywhere(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	_, token := mint(t, n, NewToken{Organization: "acme"})
	n.kill()
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Stale = 50 * time.Millisecond }
	for _, c := range []struct {
		point   string
		rotated bool
	}{{"fleet.token.rotate.key.after", false}, {"fleet.token.rotate.record.after", true}} {
		dying := w.control("c1", func(point string) bool { return point == c.point })
		go func() {
			_, _ = dying.RotateRoot(context.WithoutCancel(t.Context()), RotateRoot{Organization: "acme"}) // dies at the point
		}()
		<-dying.dead
		dying.kill()
		n = w.control("c1", nil)
		_, err := n.Authenticate(t.Context(), token)
		if drover.Is(err, drover.Denied) != c.rotated || (err != nil && !c.rotated) {
			t.Errorf("%s: %v", c.point, err)
		}
		w.eventually("one key is left", func() bool {
			ring, err := n.Keyring(t.Context())
			return err == nil && len(ring.Keys) == 1
		})
		_, fresh := mint(t, n, NewToken{Organization: "acme"})
		who(t, n, fresh)
		n.kill()
	}
}
