package fleet

import (
	"testing"
	"time"

	"drover"
	"drover/macaroons"
	"drover/migrate"
)

// What a thief made with a token that he found goes with it, however far down the line, and on every control host.
func TestATokenIsRevokedWithWhatWasMadeFromIt(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	other := w.control("c2", nil)
	info, token := mint(t, n, NewToken{Organization: "acme"})
	narrow, err := macaroons.Attenuate(token, drover.Caveats{{Kind: drover.CaveatApp, Values: []string{"shop"}}})
	if err != nil {
		t.Fatal(err)
	}
	child, childToken := mint(t, n, NewToken{Organization: "acme", By: who(t, n, narrow)})
	grandchild, grandchildToken := mint(t, n, NewToken{Organization: "acme", By: who(t, n, childToken)})
	sibling, siblingToken := mint(t, n, NewToken{Organization: "acme"})
	w.eventually("c2 knows the tokens", func() bool { _, err := other.Authenticate(t.Context(), grandchildToken); return err == nil })
	// The middle is given up in good order: what was made from it stays, and is still the first's.
	if got, err := n.RevokeToken(t.Context(), RevokeToken{Token: child.ID, KeepMade: true}); err != nil || got.RevokedMade {
		t.Fatalf("%+v, %v", got, err)
	}
	who(t, n, grandchildToken)
	if got, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID, By: Principal{Token: "tok_00000000000000aa"}}); err != nil || !got.RevokedMade {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, node := range []*node{n, other} {
		for name, token := range map[string]string{"the token": token, "narrowed": narrow, "made from it": childToken, "made from that": grandchildToken} {
			w.eventually(name+" is refused", func() bool { _, err := node.Authenticate(t.Context(), token); return drover.Is(err, drover.Denied) })
		}
		who(t, node, siblingToken)
	}
	got, err := n.Token(t.Context(), grandchild.ID, "acme")
	if err != nil || got.RevokedAt.IsZero() || got.RevokedWith != info.ID || got.RevokedBy != "tok_00000000000000aa" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := n.Token(t.Context(), sibling.ID, "acme"); err != nil || !got.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	// A token can be hung on another by whoever has it.
	hung, err := macaroons.Attenuate(siblingToken, drover.Caveats{{Kind: drover.CaveatFrom, Values: []string{string(info.ID)}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Authenticate(t.Context(), hung); !drover.Is(err, drover.Denied) {
		t.Errorf("hung on a revoked token: %v", err)
	}
}

func TestWhatWasKeptIsRevokedByASecondRevocation(t *testing.T) {
	t.Parallel()
	_, n := newWorld(t)
	info, token := mint(t, n, NewToken{Organization: "acme"})
	_, child := mint(t, n, NewToken{Organization: "acme", By: who(t, n, token)})
	for _, keep := range []bool{true, true, false, true} {
		got, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID, KeepMade: keep})
		if err != nil || got.RevokedAt.IsZero() {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if _, err := n.Authenticate(t.Context(), child); !drover.Is(err, drover.Denied) {
		t.Errorf("%v", err)
	}
}

// Before tokens had the line that they are from, revoking one left what it had made; those revocations mean that still. New ones do not.
func TestTokensOfEarlierVersionsKnowWhoMadeThem(t *testing.T) {
	t.Parallel()
	_, n := newWorld(t)
	put := func(text string, r tokenRecord) drover.TokenID {
		t.Helper()
		r.Principal, r.ID = Principal{Name: "old", Organization: "acme"}, opaqueID(tokenKey(text))
		if _, err := n.state.tokens.bucket.Put(t.Context(), tokenKey(text), r); err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	const parent, spared, child, orphan = "the-parent-of-the-old", "the-parent-that-was-revoked", "the-child-of-the-old", "the-child-of-nobody"
	old := put(parent, tokenRecord{})
	gone := put(spared, tokenRecord{RevokedAt: time.Now()})
	put(child, tokenRecord{CreatedBy: old})
	put(orphan, tokenRecord{CreatedBy: gone})
	who(t, n, child)
	who(t, n, orphan)
	if _, err := n.RevokeToken(t.Context(), RevokeToken{Token: old}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Authenticate(t.Context(), child); !drover.Is(err, drover.Denied) {
		t.Errorf("%v", err)
	}
	who(t, n, orphan)
}

// The record of a revoked token is needed as long as there are tokens that hang on it.
func TestARevokedTokenIsSweptAfterThoseThatHangOnIt(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	var ahead time.Duration
	w.clock = func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return time.Now().Add(ahead) }
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.KeepTokens = time.Hour }
	n = w.control("c1", nil)
	info, token := mint(t, n, NewToken{Organization: "acme"})
	_, child := mint(t, n, NewToken{Organization: "acme", By: who(t, n, token)})
	marker, markerToken := mint(t, n, NewToken{Organization: "acme"})
	if _, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID, KeepMade: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RevokeToken(t.Context(), RevokeToken{Token: marker.ID}); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	ahead = 3 * time.Hour
	w.mu.Unlock()
	w.eventually("the other one is swept", func() bool { _, err := n.Token(t.Context(), marker.ID, ""); return drover.Is(err, drover.NotFound) })
	who(t, n, child)
	if _, err := n.Authenticate(t.Context(), markerToken); !drover.Is(err, drover.Denied) {
		t.Errorf("a token without a record: %v", err)
	}
	if _, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Authenticate(t.Context(), child); !drover.Is(err, drover.Denied) {
		t.Errorf("%v", err)
	}
}
