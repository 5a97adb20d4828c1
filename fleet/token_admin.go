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
	caveats := slices.Concat(req.By.Limits, req.Caveats)
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
	r := tokenRecord{Principal: p, ID: id, Attenuable: true, Caveats: caveats, CreatedAt: f.now().UTC(), CreatedBy: req.By.Token}
	if _, err := f.state.tokens.create(ctx, string(id), r); err != nil {
		return drover.TokenInfo{}, "", err
	}
	return r.info(string(id)), text, nil
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
			infos = append(infos, i.value.info(key))
		}
	}
	slices.SortFunc(infos, func(a, b drover.TokenInfo) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return infos, nil
}

// keyOf finds the record of a token.
func (f *Fleet) keyOf(id drover.TokenID) string {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	if _, ok := f.state.tokens.items[string(id)]; ok {
		return string(id)
	}
	for key, i := range f.state.tokens.items {
		if isToken(key) && i.value.id(key) == id {
			return key
		}
	}
	return string(id)
}

// Token describes one token. Organization empty looks at all; a token of another organization is as unknown as one that does not exist.
func (f *Fleet) Token(ctx context.Context, id drover.TokenID, organization string) (drover.TokenInfo, error) {
	if err := f.await(ctx); err != nil {
		return drover.TokenInfo{}, err
	}
	r, key, _, err := f.token(ctx, id, organization)
	return r.info(key), err
}

func (f *Fleet) token(ctx context.Context, id drover.TokenID, organization string) (tokenRecord, string, uint64, error) {
	unknown := drover.Errorf(drover.NotFound, "token not found: %q", id).WithHint("'drover token list' shows the tokens that there are")
	if !id.Valid() {
		return tokenRecord{}, string(id), 0, unknown
	}
	key := f.keyOf(id)
	r, rev, err := f.state.tokens.get(ctx, key)
	if drover.Is(err, drover.NotFound) || (err == nil && organization != "" && r.Organization != organization) {
		return tokenRecord{}, key, 0, unknown
	}
	return r, key, rev, err
}

// RevokeToken makes a token, and all that was narrowed from it, invalid for good. When it returns, every control host refuses it within
// Timing.TokenBound. It may be repeated.
func (f *Fleet) RevokeToken(ctx context.Context, id drover.TokenID, organization string, by Principal) (drover.TokenInfo, error) {
	if err := f.await(ctx); err != nil {
		return drover.TokenInfo{}, err
	}
	for range revokeTries {
		r, key, rev, err := f.token(ctx, id, organization)
		if err != nil || !r.RevokedAt.IsZero() {
			return r.info(key), err
		}
		r.ID, r.RevokedAt, r.RevokedBy = r.id(key), f.now().UTC(), by.Token
		_, err = f.state.tokens.update(ctx, key, r, rev)
		if err == nil {
			f.log.Info("token revoked", "token", string(id), "by", string(by.Token))
			return r.info(key), nil
		}
		if !drover.Is(err, drover.Conflict) {
			return drover.TokenInfo{}, err
		}
	}
	return drover.TokenInfo{}, drover.Errorf(drover.Unavailable, "token %s is not revoked: it kept being changed by others", id)
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

// sweepTokens removes the records of tokens that expired or were revoked long ago. A token without a record is refused.
func (f *Fleet) sweepTokens(ctx context.Context) {
	old := map[string]uint64{}
	f.state.mu.RLock()
	for key, i := range f.state.tokens.items {
		ended := i.value.Caveats.ExpiresAt()
		if at := i.value.RevokedAt; !at.IsZero() && i.value.Attenuable && (ended.IsZero() || at.Before(ended)) {
			ended = at
		}
		if isToken(key) && !ended.IsZero() && f.now().Sub(ended) > f.timing.KeepTokens {
			old[key] = i.rev
		}
	}
	f.state.mu.RUnlock()
	for key, rev := range old {
		f.trouble(ctx, "token", key[:min(len(key), 20)], f.state.tokens.remove(ctx, key, rev))
	}
}
