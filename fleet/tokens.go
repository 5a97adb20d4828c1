package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"drover"
)

// tokenKey is what a token is stored under; the token itself is stored nowhere.
func tokenKey(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// minToken is the shortest token that PutToken takes, in characters.
const minToken = 16

// Authenticate tells whose token it is; Denied for an unknown one.
func (f *Fleet) Authenticate(ctx context.Context, token string) (Principal, error) {
	if err := f.await(ctx); err != nil {
		return Principal{}, err
	}
	key := tokenKey(token)
	if p, _, ok := f.state.tokens.seen(key); ok {
		return p, nil
	}
	// It may have been made on another control host a moment ago.
	p, _, err := f.state.tokens.get(ctx, key)
	if drover.Is(err, drover.NotFound) {
		return Principal{}, drover.Errorf(drover.Denied, "the token is not known").
			WithHint("set DROVER_TOKEN to a token of this fleet")
	}
	return p, err
}

// CreateToken makes a new token for the principal and returns it; it cannot be read again.
func (f *Fleet) CreateToken(ctx context.Context, p Principal) (string, error) {
	b := make([]byte, 24)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	token := "drv_" + hex.EncodeToString(b)
	return token, f.PutToken(ctx, token, p)
}

// PutToken makes a token of the caller's choice valid for the principal: the one with which a fleet begins. It may be repeated.
func (f *Fleet) PutToken(ctx context.Context, token string, p Principal) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	switch {
	case len(token) < minToken:
		return drover.Errorf(drover.Invalid, "a token has %d characters at least", minToken)
	case p.Name == "":
		return drover.Errorf(drover.Invalid, "a token belongs to somebody: the name is empty").WithField("name")
	case !p.Operator && !drover.ValidName(p.Organization):
		return drover.Errorf(drover.Invalid, "organization %q cannot have a token: names are lower-case letters, digits and hyphens", p.Organization).WithField("organization")
	}
	rev, err := f.state.tokens.bucket.Put(ctx, tokenKey(token), p)
	if err != nil {
		return err
	}
	f.state.tokens.set(tokenKey(token), p, rev, false)
	return nil
}
