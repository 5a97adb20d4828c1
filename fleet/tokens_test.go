package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"drover"
	"drover/macaroons"
	"drover/migrate"
)

func mint(t *testing.T, n *node, req NewToken) (drover.TokenInfo, string) {
	t.Helper()
	if req.Name == "" {
		req.Name = "ann"
	}
	if req.By.Name == "" {
		req.By = Principal{Name: "operator", Operator: true}
	}
	for deadline := time.After(eventuallyBound); ; {
		info, token, err := n.MintToken(t.Context(), req)
		if err == nil {
			return info, token
		}
		if !drover.Is(err, drover.Unavailable) { // a control host that has just come gets the fleet key first
			t.Fatal(err)
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// who is a token's principal on a control host; it is waited for, since news of it may be on their way.
func who(t *testing.T, n *node, token string) Principal {
	t.Helper()
	p, err := n.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestATokenIsNarrowedByWhoeverHasItAndWidenedByNobody(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	other := w.control("c2", nil)
	info, token := mint(t, n, NewToken{Organization: "acme", Caveats: drover.Caveats{{Kind: drover.CaveatApp, Values: []string{"shop", "ledger"}}}})
	narrow, err := macaroons.Attenuate(token, drover.Caveats{{Kind: drover.CaveatAllow, Values: []string{"read"}}})
	if err != nil {
		t.Fatal(err)
	}
	// The second control host can open the root key once the first has handed it the fleet key.
	w.eventually("c2 knows the token", func() bool { _, err := other.Authenticate(t.Context(), token); return err == nil })
	for _, node := range []*node{n, other} {
		wide, thin := who(t, node, token), who(t, node, narrow)
		if wide.Token != info.ID || thin.Token != info.ID || wide.Organization != "acme" || thin.Operator || len(wide.Limits) != 1 || len(thin.Limits) != 2 {
			t.Errorf("%+v\n%+v", wide, thin)
		}
	}
	// Of another fleet's making, and with a caveat cut off, it is nothing.
	forged, err := macaroons.Mint(make([]byte, 32), mustRead(t, token).Key, info.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"forged": forged, "cut": narrow[:len(narrow)-8], "another": narrow[:len(narrow)-2] + "AA"} {
		if _, err := n.Authenticate(t.Context(), token); !drover.Is(err, drover.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An operator's token that is narrowed to an organization is one of the organization.
	_, operators := mint(t, n, NewToken{Operator: true})
	if p := who(t, n, operators); !p.Operator {
		t.Errorf("%+v", p)
	}
	narrow, err = macaroons.Attenuate(operators, drover.Caveats{{Kind: drover.CaveatOrganization, Values: []string{"acme"}}})
	if err != nil {
		t.Fatal(err)
	}
	if p := who(t, n, narrow); p.Operator || p.Organization != "acme" {
		t.Errorf("%+v", p)
	}
	narrow, err = macaroons.Attenuate(token, drover.Caveats{{Kind: drover.CaveatOrganization, Values: []string{"other"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Authenticate(t.Context(), narrow); !drover.Is(err, drover.Denied) {
		t.Errorf("a token of one organization for another: %v", err)
	}
	// What limits who asks limits what he gets; he gets nothing of others.
	by := who(t, n, token)
	child, _ := mint(t, n, NewToken{Organization: "acme", By: by})
	if len(child.Caveats) != 2 || child.Caveats[1].String() != "from = "+string(info.ID) || child.CreatedBy != info.ID {
		t.Errorf("%+v", child)
	}
	for _, req := range []NewToken{{Name: "x", Operator: true, By: by}, {Name: "x", Organization: "other", By: by}} {
		if _, _, err := n.MintToken(t.Context(), req); !drover.Is(err, drover.Denied) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

func mustRead(t *testing.T, token string) *macaroons.Token {
	t.Helper()
	m, err := macaroons.Read(token)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestARevokedTokenIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	other := w.control("c2", nil)
	info, token := mint(t, n, NewToken{Organization: "acme"})
	narrow, err := macaroons.Attenuate(token, drover.Caveats{{Kind: drover.CaveatAllow, Values: []string{"read"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("c2 knows the token", func() bool { _, err := other.Authenticate(t.Context(), narrow); return err == nil })
	if _, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID, Organization: "other", By: Principal{}}); !drover.Is(err, drover.NotFound) {
		t.Errorf("another organization's: %v", err)
	}
	revoked, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID, Organization: "acme", By: Principal{Token: "tok_00000000000000aa"}})
	if err != nil || revoked.RevokedAt.IsZero() || revoked.RevokedBy != "tok_00000000000000aa" {
		t.Fatalf("%+v, %v", revoked, err)
	}
	again, err := n.RevokeToken(t.Context(), RevokeToken{Token: info.ID, Organization: "", By: Principal{}})
	if err != nil || !again.RevokedAt.Equal(revoked.RevokedAt) || again.RevokedBy != revoked.RevokedBy {
		t.Errorf("%+v, %v", again, err)
	}
	for _, token := range []string{token, narrow} {
		if _, err := n.Authenticate(t.Context(), token); !drover.Is(err, drover.Denied) {
			t.Errorf("where it was revoked: %v", err)
		}
	}
	w.eventually("c2 refuses it", func() bool { _, err := other.Authenticate(t.Context(), narrow); return drover.Is(err, drover.Denied) })
	// An opaque one too; it is not brought back by a restart of the control host whose token it is.
	const first = "the-first-token-of-all"
	if err := n.PutToken(t.Context(), first, Principal{Name: "operator", Operator: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RevokeToken(t.Context(), RevokeToken{Token: who(t, n, first).Token}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Authenticate(t.Context(), first); !drover.Is(err, drover.Denied) {
		t.Errorf("revoked: %v", err)
	}
	if err := n.PutToken(t.Context(), first, Principal{Name: "operator", Operator: true}); !drover.Is(err, drover.Denied) {
		t.Errorf("put again: %v", err)
	}
}

// A control host that may have missed a revocation takes no tokens but its own operator's.
func TestAControlHostThatIsCutOffRefusesTokensAfterItsBound(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	w.tune = func(timing *Timing, _ *migrate.Rules) {
		timing.TokenBound, timing.TokenProof = 500*time.Millisecond, 20*time.Millisecond
	}
	n = w.control("c1", nil)
	const first = "the-first-token-of-all"
	if err := n.PutToken(t.Context(), first, Principal{Name: "operator", Operator: true}); err != nil {
		t.Fatal(err)
	}
	_, token := mint(t, n, NewToken{Organization: "acme"})
	who(t, n, token)
	w.server.Shutdown()
	w.eventually("the token is not taken any more", func() bool {
		_, err := n.Authenticate(t.Context(), token)
		return drover.Is(err, drover.Unavailable)
	})
	if p := who(t, n, first); !p.Operator {
		t.Errorf("%+v", p)
	}
	w.startBus()
	w.eventually("the token is taken again", func() bool { _, err := n.Authenticate(t.Context(), token); return err == nil })
}

func TestRecordsOfTheFirstVersionsAreTokens(t *testing.T) {
	t.Parallel()
	_, n := newWorld(t)
	const token = "drv_0123456789abcdef"
	if _, err := n.state.tokens.bucket.Put(t.Context(), tokenKey(token), tokenRecord{Principal: Principal{Name: "bob", Organization: "acme"}}); err != nil {
		t.Fatal(err)
	}
	p := who(t, n, token)
	if p.Organization != "acme" || !p.Token.Valid() {
		t.Errorf("%+v", p)
	}
	mint(t, n, NewToken{Organization: "other"})
	list, err := n.Tokens(t.Context(), "acme")
	if err != nil || len(list) != 1 || list[0].ID != p.Token || list[0].Name != "bob" {
		t.Errorf("%+v, %v", list, err)
	}
	if got, err := n.Token(t.Context(), p.Token, "acme"); err != nil || got.Name != "bob" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := n.Token(t.Context(), p.Token, "other"); !drover.Is(err, drover.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestTokensExpireAndAreSwept(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	var ahead time.Duration
	w.clock = func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return time.Now().Add(ahead) }
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.KeepTokens = time.Hour }
	n = w.control("c1", nil)
	info, token := mint(t, n, NewToken{Organization: "acme", Caveats: drover.Caveats{drover.Moment(drover.CaveatExpires, time.Now().Add(time.Hour))}})
	keep, _ := mint(t, n, NewToken{Organization: "acme"})
	who(t, n, token)
	w.mu.Lock()
	ahead = 90 * time.Minute
	w.mu.Unlock()
	if _, err := n.Authenticate(t.Context(), token); !drover.Is(err, drover.Denied) {
		t.Errorf("expired: %v", err)
	}
	if _, err := n.Token(t.Context(), info.ID, ""); err != nil {
		t.Errorf("just expired: %v", err)
	}
	w.mu.Lock()
	ahead = 3 * time.Hour
	w.mu.Unlock()
	w.eventually("it is swept", func() bool { _, err := n.Token(t.Context(), info.ID, ""); return drover.Is(err, drover.NotFound) })
	if _, err := n.Token(t.Context(), keep.ID, ""); err != nil {
		t.Errorf("swept too: %v", err)
	}
	if _, _, err := n.MintToken(t.Context(), NewToken{Name: "x", Organization: "acme", By: Principal{Operator: true},
		Caveats: drover.Caveats{drover.Moment(drover.CaveatExpires, time.Now())}}); !drover.Is(err, drover.Invalid) {
		t.Errorf("made expired: %v", err)
	}
}

// A root key that was made and not written down is taken away, one that tokens are made with stays, and no host gets it.
func TestRootKeysAreKeptForTokensOnly(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	dying := w.control("c1", func(point string) bool { return point == "fleet.token.root.after" })
	go func() {
		_, _, _ = dying.MintToken(context.WithoutCancel(t.Context()), NewToken{Name: "x", Organization: "acme", By: Principal{Operator: true}}) // dies at the point
	}()
	<-dying.dead
	dying.kill()
	n = w.control("c1", nil)
	_, token := mint(t, n, NewToken{Organization: "acme"})
	root := mustRead(t, token).Key
	w.eventually("the key that nothing needs is gone", func() bool {
		ring, err := n.Keyring(t.Context())
		return err == nil && len(ring.Keys) == 1 && ring.Keys[0].ID == root
	})
	n.kill()
	n = w.control("c1", nil)
	who(t, n, token)
	if _, err := n.handOut(t.Context(), drover.KeyRequest{Key: root, Host: "h1"}); !drover.Is(err, drover.Denied) {
		t.Errorf("a root key for a host: %v", err)
	}
	if _, err := n.RotateKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.control("c1", nil)
	who(t, n, token) // after a rotation of the fleet key
}

func TestLastUseIsWrittenNowAndThen(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.TokenUses = 20 * time.Millisecond }
	n = w.control("c1", nil)
	info, token := mint(t, n, NewToken{Organization: "acme"})
	who(t, n, token)
	w.eventually("the use is known", func() bool {
		got, err := n.Token(t.Context(), info.ID, "")
		return err == nil && !got.LastUsedAt.IsZero()
	})
}

func TestTheTrailKeepsWhatWasAttempted(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	begin := time.Now().Add(-time.Minute)
	attempt := func(i int, org string, app drover.AppName) drover.AuditEntry {
		return drover.AuditEntry{At: begin.Add(time.Duration(i) * time.Second), Request: fmt.Sprintf("R%d", i), Token: "tok_00000000000000aa", Name: "ann",
			Organization: org, App: app, Method: "POST", Route: "Machines_start", Outcome: drover.AuditBegun}
	}
	one, two, three := attempt(1, "acme", "shop"), attempt(2, "other", "web"), attempt(3, "acme", "")
	for _, e := range []drover.AuditEntry{one, two} {
		if err := n.AuditBegin(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	two.Outcome, two.Status = drover.AuditDone, 200
	three.Outcome, three.Status = drover.AuditRefused, 403
	n.AuditNote(two)
	n.AuditNote(three)
	list := func(n *node, filter drover.AuditFilter) string {
		if filter.Limit == 0 {
			filter.Limit = 10
		}
		entries, err := n.AuditEntries(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, e := range entries {
			text += e.Request + " " + e.Outcome + " " + string(e.Host) + ";"
		}
		return text
	}
	w.eventually("all is written", func() bool { return n.trail.health().Written == 4 })
	// A control host that died before the first ended: another tells what is known.
	n.kill()
	n = w.control("c2", nil)
	w.eventually("c2 is ready", func() bool { return n.await(t.Context()) == nil })
	for _, c := range []struct {
		filter drover.AuditFilter
		want   string
	}{
		{drover.AuditFilter{}, "R3 refused c1;R2 done c1;R1 begun c1;"},
		{drover.AuditFilter{Since: begin}, "R3 refused c1;R2 done c1;R1 begun c1;"},
		{drover.AuditFilter{Since: time.Now().Add(time.Minute)}, ""},
		{drover.AuditFilter{Organization: "acme"}, "R3 refused c1;R1 begun c1;"},
		{drover.AuditFilter{App: "shop"}, "R1 begun c1;"},
		{drover.AuditFilter{Limit: 1}, "R3 refused c1;"},
		{drover.AuditFilter{Token: "tok_00000000000000bb"}, ""},
	} {
		if got := list(n, c.filter); got != c.want {
			t.Errorf("%+v: %q, want %q", c.filter, got, c.want)
		}
	}
}

// What is noted never waits: while the bus is away it is kept, up to a bound, and beyond that counted, and a condition.
func TestATrailThatIsNotWrittenIsToldOf(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	w.server.Shutdown()
	stranger := drover.AuditEntry{Request: "S", Outcome: drover.AuditRefused}
	for range strangerBurst + 50 {
		n.AuditNote(stranger)
	}
	if h := n.trail.health(); h.Suppressed == 0 {
		t.Errorf("%+v", h)
	}
	for range 2 * maxAuditPending {
		n.AuditNote(drover.AuditEntry{Request: "R", Token: "tok_00000000000000aa", Outcome: drover.AuditDone})
	}
	h := n.trail.health()
	if h.Dropped < maxAuditPending/2 || h.Pending > maxAuditPending {
		t.Errorf("%+v", h)
	}
	if c := n.trail.condition(time.Now()); c == nil || c.Code != drover.AuditIncomplete {
		t.Errorf("%+v", c)
	}
	if err := n.AuditBegin(t.Context(), drover.AuditEntry{Request: "B", Outcome: drover.AuditBegun}); !drover.Is(err, drover.Unavailable) {
		t.Errorf("%v", err)
	}
}
