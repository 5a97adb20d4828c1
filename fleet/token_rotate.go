package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"drover"
)

// maxRootGrace bounds how long tokens of a root key may be taken after its rotation, maxRetiredRoots how many such keys there may be at once.
const (
	maxRootGrace    = 90 * 24 * time.Hour
	maxRetiredRoots = 16
)

// RotateRoot asks for a new root key of an organization, or of operators.
type RotateRoot struct {
	Organization string
	Operator     bool
	// Grace is how long tokens of the old key are still taken; 0 refuses them at once.
	Grace time.Duration
	By    Principal
}

// RotateRoot gives an organization, or operators, a new root key: tokens are made with it from now on, and those of the one before are refused when the
// grace is over. One write does it, so that there is nothing to finish whoever dies; a key that was made for a rotation that did not come about is swept.
// When it returns, every control host goes by it within Timing.TokenBound. Opaque tokens have no root key and stay.
func (f *Fleet) RotateRoot(ctx context.Context, req RotateRoot) (drover.TokenRoot, error) {
	if err := f.await(ctx); err != nil {
		return drover.TokenRoot{}, err
	}
	if req.Grace < 0 || req.Grace > maxRootGrace {
		return drover.TokenRoot{}, drover.Errorf(drover.Invalid, "grace is %v; expected 0s to %v", req.Grace, maxRootGrace).WithField("grace")
	}
	if f.keys == nil {
		return drover.TokenRoot{}, drover.Errorf(drover.Precondition, "this fleet keeps no keys, and has no root keys therefore")
	}
	name := rootKey(Principal{Organization: req.Organization, Operator: req.Operator})
	var made drover.KeyID
	for range revokeTries {
		r, rev, err := f.state.tokens.get(ctx, name)
		if drover.Is(err, drover.NotFound) {
			return drover.TokenRoot{}, drover.Errorf(drover.NotFound, "%s no root key: no token was made there yet", holderText(req)).
				WithHint("'drover token roots' lists those that there are; opaque tokens are revoked one by one")
		}
		if err != nil {
			return drover.TokenRoot{}, err
		}
		if made == "" {
			id := drover.NewKeyID()
			if err := f.keys.CreateKey(ctx, id); err != nil {
				return drover.TokenRoot{}, err
			}
			made = id
			f.hit("fleet.token.rotate.key.after")
		}
		now := f.now().UTC()
		old := drover.RetiredRoot{Key: r.Root, Until: now.Add(req.Grace)}
		r.Retired = slices.DeleteFunc(slices.Clone(r.Retired), func(o drover.RetiredRoot) bool { return now.Sub(o.Until) > f.timing.KeepTokens })
		if len(r.Retired) >= maxRetiredRoots {
			return drover.TokenRoot{}, drover.Errorf(drover.Exhausted, "%s %d retired root keys already, which is the most", holderText(req), len(r.Retired)).
				WithHint("their records go %v after the end of each", f.timing.KeepTokens)
		}
		for i := range r.Retired { // what is refused now is not taken longer by an earlier rotation's grace
			if req.Grace == 0 && r.Retired[i].Until.After(now) {
				r.Retired[i].Until = now
			}
		}
		r.First, r.Root, r.RotatedAt, r.Retired = cmp.Or(r.First, r.Root), made, now, append(r.Retired, old)
		_, err = f.state.tokens.update(ctx, name, r, rev)
		if drover.Is(err, drover.Conflict) {
			continue
		}
		if err != nil {
			return drover.TokenRoot{}, err
		}
		f.hit("fleet.token.rotate.record.after")
		f.log.Info("root key of tokens rotated", "of", name, "key", made, "before", old.Key, "until", old.Until, "by", string(req.By.Token))
		if err := f.keys.ClaimKey(ctx, made); err != nil {
			return drover.TokenRoot{}, err
		}
		for _, o := range r.Retired {
			if !now.Before(o.Until) {
				f.dropKey(ctx, &drover.Cipher{Key: o.Key})
			}
		}
		return f.tokenRoot(name), nil
	}
	return drover.TokenRoot{}, drover.Errorf(drover.Unavailable, "the root key is not rotated: it kept being changed by others")
}

func holderText(req RotateRoot) string {
	if req.Operator {
		return "operators have"
	}
	return "organization " + req.Organization + " has"
}

// TokenRoots lists the root keys: of one organization, of all and of operators when it is empty.
func (f *Fleet) TokenRoots(ctx context.Context, organization string) ([]drover.TokenRoot, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	roots := []drover.TokenRoot{}
	for _, name := range f.rootRecords() {
		if organization == "" || name == rootPrefix+organization {
			roots = append(roots, f.tokenRoot(name))
		}
	}
	return roots, nil
}

func (f *Fleet) rootRecords() (names []string) {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for key, i := range f.state.tokens.items {
		if isRootRecord(key) && i.value.Root != "" {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	return names
}

// tokenRoot describes a root key.
func (f *Fleet) tokenRoot(name string) drover.TokenRoot {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	r, now := f.state.tokens.items[name].value, f.now()
	valid := map[drover.KeyID]int{}
	for key, i := range f.state.tokens.items {
		if !isToken(key) || !i.value.Attenuable || rootKey(i.value.Principal) != name {
			continue
		}
		info := f.tokenInfoLocked(key, i.value)
		if info.RevokedAt.IsZero() && (info.ExpiresAt.IsZero() || now.Before(info.ExpiresAt)) {
			valid[cmp.Or(i.value.Key, r.First, r.Root)]++
		}
	}
	root := drover.TokenRoot{Organization: name[len(rootPrefix):], Key: r.Root, RotatedAt: r.RotatedAt, Tokens: valid[r.Root], Retired: []drover.RetiredRoot{}}
	if name == operatorRoot {
		root.Organization, root.Operator = "", true
	}
	for _, old := range r.Retired {
		if now.Before(old.Until) {
			old.Tokens = valid[old.Key]
			root.Retired = append(root.Retired, old)
		}
	}
	return root
}

// tokenEndLocked is when a token ends by itself: by its caveats, or with its root key. Zero for never.
func (f *Fleet) tokenEndLocked(r tokenRecord) time.Time {
	end := r.Caveats.ExpiresAt()
	if !r.Attenuable {
		return end
	}
	root, ok := f.state.tokens.items[rootKey(r.Principal)]
	if !ok || root.value.RotatedAt.IsZero() {
		return end
	}
	key := cmp.Or(r.Key, root.value.First)
	if key == root.value.Root {
		return end
	}
	// A key that is not even known as retired had its time before the last rotation.
	until := root.value.RotatedAt
	for _, old := range root.value.Retired {
		if old.Key == key {
			until = old.Until
		}
	}
	if end.IsZero() || until.Before(end) {
		return until
	}
	return end
}
