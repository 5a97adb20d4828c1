package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"drover"
	"drover/macaroons"
)

const (
	// maxTokenName bounds the name of a token, in characters.
	maxTokenName = 63
	// tokenUseEvery is how exactly it is known when a token was used last.
	tokenUseEvery = 10 * time.Minute
	// maxTokensUsed bounds how many uses are remembered between two writes; more are not noted.
	maxTokensUsed = 10_000
)

// NewToken asks for a token.
type NewToken struct {
	Name         string
	Organization string
	Operator     bool
	Caveats      drover.Caveats
	// By is who asks. What limits him limits the token.
	By Principal
}

// MintToken makes an attenuable token and returns it; it cannot be read again.
func (f *Fleet) MintToken(ctx context.Context, req NewToken) (drover.TokenInfo, string, error) {
	if err := f.await(ctx); err != nil {
		return drover.TokenInfo{}, "", err
	}
	if req.Name == "" || utf8.RuneCountInString(req.Name) > maxTokenName {
		return drover.TokenInfo{}, "", drover.Errorf(drover.Invalid, "name has %d characters; a token's has 1 to %d", utf8.RuneCountInString(req.Name), maxTokenName).WithField("name")
	}
	if req.Operator == (req.Organization != "") || (req.Organization != "" && !drover.ValidName(req.Organization)) {
		return drover.TokenInfo{}, "", drover.Errorf(drover.Invalid, "org_slug is %q; a token is of one organization, or an operator's", req.Organization).WithField("org_slug")
	}
	if !req.By.Operator && (req.Operator || req.Organization != req.By.Organization) {
		return drover.TokenInfo{}, "", drover.Errorf(drover.Denied, "the token that asks cannot make one that may do more").WithField("org_slug")
	}
	for _, c := range req.Caveats {
		if err := c.Valid(); err != nil {
			return drover.TokenInfo{}, "", err
		}
	}
	caveats := slices.Concat(req.By.Limits, req.Caveats, madeFrom(req.By.Token, req.By.Limits))
	if at := caveats.ExpiresAt(); !at.IsZero() && !f.now().Before(at) {
		return drover.TokenInfo{}, "", drover.Errorf(drover.Invalid, "the token would have expired at %s", at.UTC().Format(time.RFC3339)).WithField("expires_at")
	}
	p := Principal{Name: req.Name, Organization: req.Organization, Operator: req.Operator}
	root, secret, err := f.rootFor(ctx, p)
	if err != nil {
		return drover.TokenInfo{}, "", err
	}
	id := drover.NewTokenID()
	text, err := macaroons.Mint(secret, root, id, caveats)
	if err != nil {
		return drover.TokenInfo{}, "", err
	}
	r := tokenRecord{Principal: p, ID: id, Attenuable: true, Caveats: caveats, CreatedAt: f.now().UTC(), CreatedBy: req.By.Token, Key: root}
	if _, err := f.state.tokens.create(ctx, string(id), r); err != nil {
		return drover.TokenInfo{}, "", err
	}
	return f.tokenInfo(string(id), r), text, nil
}

// Tokens lists tokens, newest first: those of one organization, of operators too when it is empty.
func (f *Fleet) Tokens(ctx context.Context, organization string) ([]drover.TokenInfo, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	infos := []drover.TokenInfo{}
	for key, i := range f.state.tokens.items {
		if isToken(key) && (organization == "" || i.value.Organization == organization) {
			infos = append(infos, f.tokenInfoLocked(key, i.value))
		}
	}
	slices.SortFunc(infos, func(a, b drover.TokenInfo) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return infos, nil
}

// Token describes one token. Organization empty looks at all; a token of another organization is as unknown as one that does not exist.
func (f *Fleet) Token(ctx context.Context, id drover.TokenID, organization string) (drover.TokenInfo, error) {
	if err := f.await(ctx); err != nil {
		return drover.TokenInfo{}, err
	}
	r, key, _, err := f.token(ctx, id, organization)
	if err != nil {
		return drover.TokenInfo{}, err
	}
	return f.tokenInfo(key, r), nil
}

func (f *Fleet) token(ctx context.Context, id drover.TokenID, organization string) (tokenRecord, string, uint64, error) {
	unknown := drover.Errorf(drover.NotFound, "token not found: %q", id).WithHint("'drover token list' shows the tokens that there are")
	if !id.Valid() {
		return tokenRecord{}, string(id), 0, unknown
	}
	key := f.state.tokenKey(id)
	r, rev, err := f.state.tokens.get(ctx, key)
	if drover.Is(err, drover.NotFound) || (err == nil && organization != "" && r.Organization != organization) {
		return tokenRecord{}, key, 0, unknown
	}
	return r, key, rev, err
}

// RevokeToken asks for the end of a token.
type RevokeToken struct {
	Token drover.TokenID
	// Organization empty looks at all; a token of another organization is as unknown as one that does not exist.
	Organization string
	// KeepMade leaves the tokens valid that were made from it, and those made from them.
	KeepMade bool
	By       Principal
}

// RevokeToken makes a token invalid for good, with all that was narrowed from it and, unless they are to be kept, all that were made from it. When it
// returns, every control host refuses them within Timing.TokenBound. It may be repeated, also to revoke what was kept at first.
func (f *Fleet) RevokeToken(ctx context.Context, req RevokeToken) (drover.TokenInfo, error) {
	if err := f.await(ctx); err != nil {
		return drover.TokenInfo{}, err
	}
	for range revokeTries {
		r, key, rev, err := f.token(ctx, req.Token, req.Organization)
		if err != nil {
			return drover.TokenInfo{}, err
		}
		if !r.RevokedAt.IsZero() && (r.RevokedMade || req.KeepMade) {
			return f.tokenInfo(key, r), nil
		}
		if r.RevokedAt.IsZero() {
			r.RevokedAt, r.RevokedBy = f.now().UTC(), req.By.Token
		}
		r.ID, r.RevokedMade = r.id(key), !req.KeepMade
		_, err = f.state.tokens.update(ctx, key, r, rev)
		if err == nil {
			f.log.Info("token revoked", "token", string(req.Token), "by", string(req.By.Token), "with what was made from it", r.RevokedMade)
			return f.tokenInfo(key, r), nil
		}
		if !drover.Is(err, drover.Conflict) {
			return drover.TokenInfo{}, err
		}
	}
	return drover.TokenInfo{}, drover.Errorf(drover.Unavailable, "token %s is not revoked: it kept being changed by others", req.Token)
}

// revokeTries bounds how often a revocation is tried again because the token's record was changed meanwhile.
const revokeTries = 20

// used remembers when tokens were used, until it is written.
type used struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (u *used) note(key string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.at[key]; ok || len(u.at) < maxTokensUsed {
		u.at[key] = at
	}
}

func (u *used) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.at
	u.at = map[string]time.Time{}
	return at
}

// keepUses writes, until ctx ends, when tokens were used last. A use that is not written because somebody else changed the record is no loss.
func (f *Fleet) keepUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.timing.TokenUses):
		}
		for key, at := range f.used.take() {
			r, rev, ok := f.state.tokens.seen(key)
			if !ok || !r.RevokedAt.IsZero() || at.Sub(r.LastUsedAt) < tokenUseEvery {
				continue
			}
			r.LastUsedAt = at.UTC().Truncate(time.Minute)
			_, err := f.state.tokens.update(ctx, key, r, rev)
			f.trouble(ctx, "last use of token", string(r.id(key)), err)
		}
	}
}
