package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/macaroons"
	"drover/natsbus"
)

// tokenRecord is a record of the bucket of tokens: a token's, that of a root key (rootPrefix), or a proof (proofPrefix). Records of the first versions
// have a principal and nothing else.
type tokenRecord struct {
	Principal
	ID         drover.TokenID `json:"id,omitempty"`
	Attenuable bool           `json:"attenuable,omitempty"`
	Caveats    drover.Caveats `json:"caveats,omitempty"`
	CreatedAt  time.Time      `json:"created_at,omitzero"`
	CreatedBy  drover.TokenID `json:"created_by,omitempty"`
	LastUsedAt time.Time      `json:"last_used_at,omitzero"`
	RevokedAt  time.Time      `json:"revoked_at,omitzero"`
	RevokedBy  drover.TokenID `json:"revoked_by,omitempty"`
	// RevokedMade: it was revoked with all that was made from it. Records of earlier versions do not have it: there, what was made stayed.
	RevokedMade bool `json:"revoked_made,omitempty"`
	// Key is the root key that an attenuable token was made with; empty in records of earlier versions, which had one for each organization.
	Key drover.KeyID `json:"key,omitempty"`
	// Root is the root key of an organization, First the first one that it had, Retired those that had their time.
	Root      drover.KeyID         `json:"root,omitempty"`
	First     drover.KeyID         `json:"first,omitempty"`
	RotatedAt time.Time            `json:"rotated_at,omitzero"`
	Retired   []drover.RetiredRoot `json:"retired,omitempty"`
	// Proof is when a control host asked for proof that it knows every revocation.
	Proof time.Time `json:"proof,omitzero"`
}

// tokenKey is what an opaque token is stored under; the token itself is stored nowhere. Attenuable ones are stored under their ID.
func tokenKey(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// opaqueID is the ID of an opaque token. It tells nothing of the token.
func opaqueID(key string) drover.TokenID { return drover.TokenID("tok_" + key[:16]) }

// isToken reports whether a key of the bucket is a token's.
func isToken(key string) bool {
	return !strings.HasPrefix(key, rootPrefix) && !strings.HasPrefix(key, proofPrefix) && key != operatorRoot && len(key) >= len("tok_0123456789abcdef")
}

// id returns the token's ID, for a record of any version.
func (r tokenRecord) id(key string) drover.TokenID {
	if r.ID == "" && len(key) == 2*sha256.Size {
		return opaqueID(key)
	}
	return r.ID
}

// minToken is the shortest token that PutToken takes, in characters.
const minToken = 16

// Authenticate tells whose token it is, with the caveats that hold for it; Denied for one that is not known, not genuine, revoked, or not valid now.
// Unavailable when this control host cannot tell whether it was revoked. With Denied the principal says whose token it was, if that is certain.
func (f *Fleet) Authenticate(ctx context.Context, token string) (Principal, error) {
	if err := f.await(ctx); err != nil {
		return Principal{}, err
	}
	key, caveats := tokenKey(token), drover.Caveats(nil)
	if !f.local.has(key) {
		if err := f.proof.await(ctx, f.timing.TokenBound); err != nil {
			return Principal{}, err
		}
	}
	if macaroons.Is(token) {
		t, err := macaroons.Read(token)
		if err != nil {
			return Principal{}, err
		}
		if caveats, err = f.verify(ctx, t); err != nil {
			return Principal{}, err
		}
		key = string(t.ID)
	}
	r, err := f.tokenRecord(ctx, key)
	if err != nil {
		return Principal{}, err
	}
	if !r.Attenuable {
		caveats = r.Caveats
	}
	known := Principal{Name: r.Name, Organization: r.Organization, Token: r.id(key)} // for the trail
	if err := f.notRevoked(ctx, key, r, caveats); err != nil {
		return known, err
	}
	if err := caveats.Current(f.now()); err != nil {
		return known, err
	}
	f.used.note(key, f.now())
	return r.Principal.narrowed(r.id(key), caveats)
}

// tokenRecord returns a token's record.
func (f *Fleet) tokenRecord(ctx context.Context, key string) (tokenRecord, error) {
	if r, _, ok := f.state.tokens.seen(key); ok {
		return r, nil
	}
	// It may have been made on another control host a moment ago.
	r, _, err := f.state.tokens.get(ctx, key)
	if drover.Is(err, drover.NotFound) {
		return r, drover.Errorf(drover.Denied, "the token is not known to this fleet")
	}
	return r, err
}

// narrowed is the principal with what the token's caveats say. An operator who is limited to one organization is one of that organization.
func (p Principal) narrowed(id drover.TokenID, caveats drover.Caveats) (Principal, error) {
	p.Token, p.Limits = id, caveats
	org, err := caveats.Organization()
	switch {
	case err != nil || org == "":
		return p, err
	case p.Operator:
		p.Operator, p.Organization = false, org
	case p.Organization != org:
		return Principal{}, drover.Errorf(drover.Denied, "the token's caveats name another organization than its own: nothing is left that it is good for")
	}
	return p, nil
}

// PutToken makes a token of the caller's choice valid for the principal: the one with which a fleet begins. It may be repeated; one that was
// revoked stays so. From then on this process takes the token also while it does not hear of revocations.
func (f *Fleet) PutToken(ctx context.Context, token string, p Principal) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	switch {
	case len(token) < minToken:
		return drover.Errorf(drover.Invalid, "a token has %d characters at least", minToken)
	case macaroons.Is(token):
		return drover.Errorf(drover.Invalid, "a token that is chosen does not begin with %q", macaroons.Prefix)
	case p.Name == "":
		return drover.Errorf(drover.Invalid, "a token belongs to somebody: the name is empty").WithField("name")
	case !p.Operator && !drover.ValidName(p.Organization):
		return drover.Errorf(drover.Invalid, "organization %q cannot have a token: names are lower-case letters, digits and hyphens", p.Organization).WithField("organization")
	}
	key := tokenKey(token)
	r := tokenRecord{Principal: p, ID: opaqueID(key), CreatedAt: f.now().UTC()}
	old, rev, err := f.state.tokens.get(ctx, key)
	switch {
	case drover.Is(err, drover.NotFound):
		_, err = f.state.tokens.create(ctx, key, r)
	case err != nil:
		return err
	case !old.RevokedAt.IsZero():
		return drover.Errorf(drover.Denied, "the token %s was revoked, and is not made valid again", opaqueID(key))
	case old.Principal.same(p):
	default:
		_, err = f.state.tokens.update(ctx, key, r, rev)
	}
	if err == nil {
		f.local.add(key)
	}
	return err
}

// same reports whether two stored principals are one.
func (p Principal) same(q Principal) bool {
	return p.Name == q.Name && p.Organization == q.Organization && p.Operator == q.Operator
}

// allTokens reads the whole bucket from the store.
func (f *Fleet) allTokens(ctx context.Context) (map[string]natsbus.Record[tokenRecord], error) {
	return f.state.tokens.bucket.All(ctx)
}

// localTokens are the keys of the tokens that were put into the fleet by this process.
type localTokens struct {
	mu   sync.Mutex
	keys map[string]bool
}

func (l *localTokens) add(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[key] = true
}

func (l *localTokens) has(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[key]
}
