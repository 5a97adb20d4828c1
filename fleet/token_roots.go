package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/macaroons"
)

// The records of root keys: one for each organization that has tokens, and one for operators.
const (
	rootPrefix   = "root."
	operatorRoot = "operators"
)

// rootKey is the key of the record of a principal's root key.
func rootKey(p Principal) string {
	if p.Operator {
		return operatorRoot
	}
	return rootPrefix + p.Organization
}

// roots has the root keys that this control host has opened, so that it can verify tokens while nothing else answers.
type roots struct {
	mu   sync.Mutex
	keys map[drover.KeyID][]byte
}

func (r *roots) get(id drover.KeyID) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[id]
}

func (r *roots) set(id drover.KeyID, secret []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys[id] = secret
}

// keep forgets all others.
func (r *roots) keep(names map[drover.KeyID]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.keys {
		if _, ok := names[id]; !ok {
			delete(r.keys, id) // not cleared: a token may be being checked with it
		}
	}
}

func isRootRecord(key string) bool { return key == operatorRoot || strings.HasPrefix(key, rootPrefix) }

// rootKeys lists the root keys of a record of which tokens are taken at a moment.
func (r tokenRecord) rootKeys(at time.Time) []drover.KeyID {
	if r.Root == "" {
		return nil
	}
	ids := []drover.KeyID{r.Root}
	for _, old := range r.Retired {
		if at.Before(old.Until) {
			ids = append(ids, old.Key)
		}
	}
	return ids
}

// rootNames returns what root keys there are, by the key of their record.
func (f *Fleet) rootNames() map[drover.KeyID]string {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	names := map[drover.KeyID]string{}
	for key, i := range f.state.tokens.items {
		if !isRootRecord(key) {
			continue
		}
		for _, id := range i.value.rootKeys(f.now()) {
			names[id] = key
		}
	}
	return names
}

// isRoot reports whether a key is one that tokens are made with.
func (f *Fleet) isRoot(id drover.KeyID) bool {
	_, ok := f.rootNames()[id]
	return ok
}

// openRoots opens the root keys that were not yet, so that none has to be asked for when a token comes.
func (f *Fleet) openRoots(ctx context.Context) {
	if f.keys == nil {
		return
	}
	names := f.rootNames()
	f.roots.keep(names)
	for id := range names {
		if _, err := f.root(ctx, id); err != nil {
			f.trouble(ctx, "root key of tokens", string(id), err)
		}
	}
}

// root returns a root key.
func (f *Fleet) root(ctx context.Context, id drover.KeyID) ([]byte, error) {
	if secret := f.roots.get(id); secret != nil {
		return secret, nil
	}
	secret, err := f.keys.Key(ctx, id)
	if err != nil {
		return nil, drover.Errorf(drover.CodeOf(err), "the root key of the token cannot be had: %w", err)
	}
	f.roots.set(id, secret)
	return secret, nil
}

// verify returns the caveats of a token that is genuine: made with a root key of this fleet, by the principal of its record.
func (f *Fleet) verify(ctx context.Context, t *macaroons.Token) (drover.Caveats, error) {
	r, err := f.tokenRecord(ctx, string(t.ID))
	if err != nil {
		return nil, err
	}
	name := rootKey(r.Principal)
	known, _, ok := f.state.tokens.seen(name)
	taken := func() bool { return slices.Contains(known.rootKeys(f.now()), t.Key) }
	if !ok || !taken() { // made, or rotated, on another control host a moment ago
		if known, _, err = f.state.tokens.get(ctx, name); err != nil && !drover.Is(err, drover.NotFound) {
			return nil, err
		}
	}
	if !r.Attenuable || !taken() || f.keys == nil {
		return nil, drover.Errorf(drover.Denied, "the token is not genuine, or too old: its root key is not one of this fleet, or not any more")
	}
	secret, err := f.root(ctx, t.Key)
	if err != nil {
		return nil, err
	}
	return t.Verify(secret)
}

// rootFor returns the root key of a principal, and makes it when there is none.
func (f *Fleet) rootFor(ctx context.Context, p Principal) (drover.KeyID, []byte, error) {
	if f.keys == nil {
		return "", nil, drover.Errorf(drover.Precondition, "tokens cannot be made: this fleet keeps no keys").
			WithHint("give the control hosts their certificates: see docs/ENCRYPTION.md")
	}
	name := rootKey(p)
	r, _, err := f.state.tokens.get(ctx, name)
	if drover.Is(err, drover.NotFound) {
		r.Root = drover.NewKeyID()
		if err := f.keys.CreateKey(ctx, r.Root); err != nil {
			return "", nil, err
		}
		f.hit("fleet.token.root.after")
		_, err = f.state.tokens.create(ctx, name, r)
		if drover.Is(err, drover.Exists) { // another was faster; the sweep of keys takes ours away
			r, _, err = f.state.tokens.get(ctx, name)
		}
		if err == nil {
			err = f.keys.ClaimKey(ctx, r.Root)
		}
	}
	if err != nil {
		return "", nil, err
	}
	secret, err := f.root(ctx, r.Root)
	return r.Root, secret, err
}
