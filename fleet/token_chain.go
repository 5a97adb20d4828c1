package fleet

import (
	"context"
	"slices"
	"time"

	"drover"
)

// What a token was made from. A token that was made with another hangs on it: it has a caveat that names the other, beside all that limit the other, and
// so the whole line of those before it, which nobody can take away. Its record has the same. Tokens of earlier versions have no such caveat; of those the
// record says which token made them.

// madeFrom is the caveat of a token that is made with another, unless that other's caveats say it already.
func madeFrom(by drover.TokenID, limits drover.Caveats) drover.Caveats {
	if !by.Valid() || slices.Contains(limits.From(), by) {
		return nil
	}
	return drover.Caveats{{Kind: drover.CaveatFrom, Values: []string{string(by)}}}
}

// tokenKey finds the key of a token's record: of an opaque one the hash of the token.
func (s *state) tokenKey(id drover.TokenID) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tokenKeyLocked(id)
}

func (s *state) tokenKeyLocked(id drover.TokenID) string {
	for key := range s.tokensBy[id] {
		return key
	}
	return string(id)
}

// lineage is what is known of those that a token was made from: the first that was revoked with what was made from it, and those whose caveat is there and
// whose record is not.
type lineage struct {
	revoked tokenRecord
	by      drover.TokenID
	missing []drover.TokenID
}

// lineageLocked follows the line of a token. The caveats are those that hold for it, which may be more than those of its record.
func (s *state) lineageLocked(key string, r tokenRecord, caveats drover.Caveats) (l lineage) {
	type ancestor struct {
		id drover.TokenID
		// named: by a caveat, so that it must be there.
		named bool
	}
	parents := func(r tokenRecord, caveats drover.Caveats) (all []ancestor) {
		for _, id := range caveats.From() {
			all = append(all, ancestor{id, true})
		}
		if r.CreatedBy != "" && len(all) == 0 {
			all = append(all, ancestor{r.CreatedBy, false})
		}
		return all
	}
	seen := map[drover.TokenID]bool{r.id(key): true}
	line := parents(r, caveats)
	for len(line) > 0 {
		next := line[0]
		line = line[1:]
		if seen[next.id] {
			continue
		}
		seen[next.id] = true
		key := s.tokenKeyLocked(next.id)
		i, ok := s.tokens.items[key]
		switch {
		case !ok && next.named:
			l.missing = append(l.missing, next.id)
		case ok && i.value.RevokedMade && l.by == "":
			l.revoked, l.by = i.value, next.id
		case ok:
			line = append(line, parents(i.value, i.value.Caveats)...)
		}
	}
	return l
}

// notRevoked returns Denied when a token was revoked, or one that it was made from with what was made from it.
func (f *Fleet) notRevoked(ctx context.Context, key string, r tokenRecord, caveats drover.Caveats) error {
	if !r.RevokedAt.IsZero() {
		return drover.Errorf(drover.Denied, "the token %s was revoked at %s", r.id(key), r.RevokedAt.UTC().Format(time.DateTime))
	}
	if r.CreatedBy == "" && len(caveats.From()) == 0 {
		return nil
	}
	for again := true; ; again = false {
		f.state.mu.RLock()
		l := f.state.lineageLocked(key, r, caveats)
		f.state.mu.RUnlock()
		switch {
		case l.by != "":
			return drover.Errorf(drover.Denied, "the token %s was revoked at %s with the token %s, which it was made from", r.id(key),
				l.revoked.RevokedAt.UTC().Format(time.DateTime), l.by)
		case len(l.missing) == 0:
			return nil
		case !again:
			return drover.Errorf(drover.Denied, "the token %s was made from the token %s, which is not known to this fleet", r.id(key), l.missing[0])
		}
		for _, id := range l.missing { // it may have been made on another control host a moment ago
			if _, _, err := f.state.tokens.get(ctx, string(id)); err != nil && !drover.Is(err, drover.NotFound) {
				return err
			}
		}
	}
}

func (f *Fleet) tokenInfo(key string, r tokenRecord) drover.TokenInfo {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.tokenInfoLocked(key, r)
}

// tokenInfoLocked describes a token, with what has become of it through others and through its root key.
func (f *Fleet) tokenInfoLocked(key string, r tokenRecord) drover.TokenInfo {
	info := drover.TokenInfo{ID: r.id(key), Name: r.Name, Organization: r.Organization, Operator: r.Operator, Attenuable: r.Attenuable, Caveats: r.Caveats,
		CreatedAt: r.CreatedAt, CreatedBy: r.CreatedBy, ExpiresAt: f.tokenEndLocked(r), LastUsedAt: r.LastUsedAt, RevokedAt: r.RevokedAt, RevokedBy: r.RevokedBy,
		RevokedMade: r.RevokedMade}
	if l := f.state.lineageLocked(key, r, r.Caveats); l.by != "" && r.RevokedAt.IsZero() {
		info.RevokedAt, info.RevokedBy, info.RevokedWith = l.revoked.RevokedAt, l.revoked.RevokedBy, l.by
	}
	return info
}

// sweepTokens removes the records of tokens that expired or were revoked long ago. A token without a record is refused. The record of one that others
// hang on stays as long as theirs.
func (f *Fleet) sweepTokens(ctx context.Context) {
	now := f.now()
	long := func(at time.Time) bool { return !at.IsZero() && now.Sub(at) > f.timing.KeepTokens }
	old, needed := map[string]uint64{}, map[drover.TokenID]bool{}
	f.state.mu.RLock()
	for key, i := range f.state.tokens.items {
		if !isToken(key) {
			continue
		}
		info := f.tokenInfoLocked(key, i.value)
		if long(info.ExpiresAt) || (info.Attenuable && long(info.RevokedAt)) {
			old[key] = i.rev
			continue
		}
		needed[info.CreatedBy] = true
		for _, id := range info.Caveats.From() {
			needed[id] = true
		}
	}
	for id := range needed {
		delete(old, f.state.tokenKeyLocked(id))
	}
	f.state.mu.RUnlock()
	for key, rev := range old {
		f.trouble(ctx, "token", key[:min(len(key), 20)], f.state.tokens.remove(ctx, key, rev))
	}
}
