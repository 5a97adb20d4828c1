package apitest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/fleet"
	"drover/macaroons"
)

// testRoot is the root key of every token that a Backend makes.
var testRoot = bytes.Repeat([]byte{7}, 32)

const testRootID = drover.KeyID("key_0000000000000007")

// madeToken is a token that was made.
type madeToken struct {
	info      drover.TokenInfo
	principal fleet.Principal
}

// Authenticate knows three tokens, and those that were made.
func (b *Backend) Authenticate(_ context.Context, token string) (fleet.Principal, error) {
	if b.Fail != nil {
		if err := b.Fail("Authenticate"); err != nil {
			return fleet.Principal{}, err
		}
	}
	switch token {
	case OperatorToken:
		return fleet.Principal{Name: "operator", Operator: true, Token: "tok_0000000000000001"}, nil
	case AcmeToken:
		return fleet.Principal{Name: "alice", Organization: "acme", Token: "tok_0000000000000002"}, nil
	case OtherToken:
		return fleet.Principal{Name: "bob", Organization: "other", Token: "tok_0000000000000003"}, nil
	}
	if !macaroons.Is(token) {
		return fleet.Principal{}, drover.Errorf(drover.Denied, "the token is not known to this fleet")
	}
	t, err := macaroons.Read(token)
	if err != nil {
		return fleet.Principal{}, err
	}
	caveats, err := t.Verify(testRoot)
	if err != nil {
		return fleet.Principal{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	made, ok := b.tokens[t.ID]
	if !ok || !b.tokenInfoLocked(made).RevokedAt.IsZero() {
		return fleet.Principal{Name: made.info.Name, Organization: made.info.Organization, Token: made.info.ID}, drover.Errorf(drover.Denied, "the token %s was revoked, or never made", t.ID)
	}
	if err := caveats.Current(b.Now()); err != nil {
		return fleet.Principal{}, err
	}
	p := made.principal
	p.Token, p.Limits = t.ID, caveats
	return p, nil
}

// MintToken makes a token.
func (b *Backend) MintToken(_ context.Context, req fleet.NewToken) (drover.TokenInfo, string, error) {
	if err := b.begin("MintToken"); err != nil {
		return drover.TokenInfo{}, "", err
	}
	defer b.mu.Unlock()
	if req.Name == "" {
		return drover.TokenInfo{}, "", drover.Errorf(drover.Invalid, "name is missing").WithField("name")
	}
	id := drover.TokenID(fmt.Sprintf("tok_%016x", 16+b.nextLocked()))
	caveats := slices.Concat(req.By.Limits, req.Caveats)
	if _, made := b.tokens[req.By.Token]; made {
		caveats = append(caveats, drover.Caveat{Kind: drover.CaveatFrom, Values: []string{string(req.By.Token)}})
	}
	text, err := macaroons.Mint(testRoot, testRootID, id, caveats)
	info := drover.TokenInfo{ID: id, Name: req.Name, Organization: req.Organization, Operator: req.Operator, Attenuable: true, Caveats: caveats,
		CreatedAt: b.Now(), CreatedBy: req.By.Token, ExpiresAt: caveats.ExpiresAt()}
	b.tokens[id] = madeToken{info, fleet.Principal{Name: req.Name, Organization: req.Organization, Operator: req.Operator}}
	return info, text, err
}

// Tokens lists those that were made.
func (b *Backend) Tokens(_ context.Context, organization string) ([]drover.TokenInfo, error) {
	if err := b.begin("Tokens"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	infos := []drover.TokenInfo{}
	for _, t := range b.tokens {
		if organization == "" || t.info.Organization == organization {
			infos = append(infos, b.tokenInfoLocked(t))
		}
	}
	slices.SortFunc(infos, func(a, b drover.TokenInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos, nil
}

// Token describes one that was made.
func (b *Backend) Token(_ context.Context, id drover.TokenID, organization string) (drover.TokenInfo, error) {
	if err := b.begin("Token"); err != nil {
		return drover.TokenInfo{}, err
	}
	defer b.mu.Unlock()
	return b.tokenLocked(id, organization)
}

func (b *Backend) tokenLocked(id drover.TokenID, organization string) (drover.TokenInfo, error) {
	t, ok := b.tokens[id]
	if !ok || (organization != "" && t.info.Organization != organization) {
		return drover.TokenInfo{}, drover.Errorf(drover.NotFound, "token not found: %q", id).WithHint("'drover token list' shows the tokens that there are")
	}
	return b.tokenInfoLocked(t), nil
}

// tokenInfoLocked describes a token, with what has become of it through those that it was made from.
func (b *Backend) tokenInfoLocked(t madeToken) drover.TokenInfo {
	for _, id := range t.info.Caveats.From() {
		if from := b.tokens[id].info; from.RevokedMade && t.info.RevokedAt.IsZero() {
			t.info.RevokedAt, t.info.RevokedBy, t.info.RevokedWith = from.RevokedAt, from.RevokedBy, id
		}
	}
	return t.info
}

// RevokeToken makes one invalid.
func (b *Backend) RevokeToken(_ context.Context, req fleet.RevokeToken) (drover.TokenInfo, error) {
	if err := b.begin("RevokeToken"); err != nil {
		return drover.TokenInfo{}, err
	}
	defer b.mu.Unlock()
	info, err := b.tokenLocked(req.Token, req.Organization)
	if err != nil {
		return info, err
	}
	t := b.tokens[req.Token]
	t.info.RevokedAt, t.info.RevokedBy, t.info.RevokedMade = b.Now(), req.By.Token, !req.KeepMade
	b.tokens[req.Token] = t
	return t.info, nil
}

// TokenRoots lists that of "acme", and that of operators.
func (b *Backend) TokenRoots(_ context.Context, organization string) ([]drover.TokenRoot, error) {
	if err := b.begin("TokenRoots"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	roots := []drover.TokenRoot{}
	for _, r := range []drover.TokenRoot{{Operator: true}, {Organization: "acme"}} {
		if organization == "" || organization == r.Organization {
			r.Key, r.Retired = testRootID, []drover.RetiredRoot{}
			roots = append(roots, r)
		}
	}
	return roots, nil
}

// RotateRoot tells what it would be.
func (b *Backend) RotateRoot(_ context.Context, req fleet.RotateRoot) (drover.TokenRoot, error) {
	if err := b.begin("RotateRoot"); err != nil {
		return drover.TokenRoot{}, err
	}
	defer b.mu.Unlock()
	if !req.Operator && req.Organization != "acme" {
		return drover.TokenRoot{}, drover.Errorf(drover.NotFound, "organization %s has no root key", req.Organization)
	}
	r := drover.TokenRoot{Organization: req.Organization, Operator: req.Operator, Key: "key_0000000000000008", RotatedAt: b.Now(), Retired: []drover.RetiredRoot{}}
	if req.Grace > 0 {
		r.Retired = append(r.Retired, drover.RetiredRoot{Key: testRootID, Until: b.Now().Add(req.Grace), Tokens: len(b.tokens)})
	}
	return r, nil
}

// AuditBegin keeps an entry.
func (b *Backend) AuditBegin(_ context.Context, e drover.AuditEntry) error {
	if err := b.begin("AuditBegin"); err != nil {
		return err
	}
	defer b.mu.Unlock()
	b.trail = append(b.trail, e)
	return nil
}

// AuditNote keeps an entry in place of the request's first.
func (b *Backend) AuditNote(e drover.AuditEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, known := range b.trail {
		if known.Request == e.Request {
			b.trail[i] = e
			return
		}
	}
	b.trail = append(b.trail, e)
}

// AuditEntries lists what was kept, newest first.
func (b *Backend) AuditEntries(_ context.Context, filter drover.AuditFilter) ([]drover.AuditEntry, error) {
	if err := b.begin("AuditEntries"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	found := []drover.AuditEntry{}
	for _, e := range slices.Backward(b.trail) {
		if (filter.Organization == "" || e.Organization == filter.Organization) && (filter.App == "" || e.App == filter.App) &&
			(filter.Token == "" || e.Token == filter.Token) && len(found) < filter.Limit {
			found = append(found, e)
		}
	}
	return found, nil
}
