package sealedsecrets

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"maps"
	"strings"
	"time"

	"drover"
)

// casTries bounds how often a change is tried again because another came between.
const casTries = 20

// digestSize is how much of a digest is shown, in bytes.
const digestSize = 8

// Config describes a Store.
type Config struct {
	Records Records
	Keys    drover.KeyStore
	// Used tells whether a record needs a key, by what the store of records holds when it is called.
	Used func(ctx context.Context, id drover.KeyID) (bool, error)
	Log  *slog.Logger
	// Now tells the time; nil for the system's.
	Now func() time.Time
	// Hit is where faults strike; nil for nowhere.
	Hit func(point string)
}

// Store is the secrets of apps. Safe for concurrent use.
type Store struct{ cfg Config }

var _ drover.SecretStore = (*Store)(nil)

// New returns a store, and reads nothing yet.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Hit == nil {
		cfg.Hit = func(string) {}
	}
	return &Store{cfg}
}

// Secrets is drover.SecretStore's.
func (s *Store) Secrets(ctx context.Context, app drover.AppName) (drover.SecretSet, error) {
	r, rev, err := s.cfg.Records.Get(ctx, string(app))
	if drover.Is(err, drover.NotFound) {
		return Record{}.describe(0), nil
	}
	return r.describe(rev), err
}

// Apps is drover.SecretStore's.
func (s *Store) Apps(ctx context.Context) ([]drover.AppName, error) {
	keys, err := s.cfg.Records.Keys(ctx)
	apps := make([]drover.AppName, len(keys))
	for i, key := range keys {
		apps[i] = drover.AppName(key)
	}
	return apps, err
}

// Values is drover.SecretStore's.
func (s *Store) Values(ctx context.Context, app drover.AppName) (drover.SecretValues, error) {
	r, rev, err := s.cfg.Records.Get(ctx, string(app))
	if drover.Is(err, drover.NotFound) {
		return drover.SecretValues{}, nil
	}
	if err != nil {
		return drover.SecretValues{}, err
	}
	out := drover.SecretValues{Version: rev, Values: map[string]drover.SecretValue{}}
	if len(r.Secrets) == 0 {
		return out, nil
	}
	box, err := s.open(ctx, r.Key)
	if err != nil {
		return drover.SecretValues{}, err
	}
	for name, e := range r.Secrets {
		value, err := box.aead.Open(nil, nil, e.Sealed, sealInfo(app, name))
		if err != nil {
			return drover.SecretValues{}, drover.Errorf(drover.Internal, "secret %q of app %q cannot be opened with key %s: its record is damaged", name, app, r.Key)
		}
		out.Values[name] = drover.NewSecretValue(string(value))
	}
	return out, nil
}

// box is a key of an app, ready for use.
type box struct {
	aead   cipher.AEAD
	digest []byte
}

// open fetches the key of an app and makes two of it: one for the values, one for the digests.
func (s *Store) open(ctx context.Context, id drover.KeyID) (*box, error) {
	secret, err := s.cfg.Keys.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	sealing, err := hkdf.Key(sha256.New, secret, nil, "drover secret values", 32)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "key %s cannot be used: %w", id, err)
	}
	digest, err := hkdf.Key(sha256.New, secret, nil, "drover secret digests", 32)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "key %s cannot be used: %w", id, err)
	}
	block, err := aes.NewCipher(sealing)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "key %s cannot be used: %w", id, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "key %s cannot be used: %w", id, err)
	}
	return &box{aead: aead, digest: digest}, nil
}

// sealInfo is the additional data of a value: it opens under its own name only.
func sealInfo(app drover.AppName, name string) []byte {
	return []byte("drover secret " + name + " of app " + string(app))
}

func (b *box) digestOf(name, value string) string {
	mac := hmac.New(sha256.New, b.digest)
	mac.Write([]byte(name + "\x00" + value))
	return hex.EncodeToString(mac.Sum(nil)[:digestSize])
}

// check refuses what can never be.
func check(changes map[string]*drover.SecretValue) error {
	for name, value := range changes {
		if value == nil {
			continue // whatever it is, it is not there afterwards
		}
		if err := drover.CheckSecretName(name); err != nil {
			return err
		}
		switch v := value.Reveal(); {
		case len(v) > drover.MaxSecretBytes:
			return drover.Errorf(drover.Invalid, "the value of secret %q has %d bytes; at most %d are possible", name, len(v), drover.MaxSecretBytes).WithField("values." + name)
		case strings.ContainsRune(v, 0):
			return drover.Errorf(drover.Invalid, "the value of secret %q contains a NUL character, which no variable of the environment can", name).
				WithField("values." + name).WithHint("encode it, for example as base64")
		}
	}
	return nil
}

// Change is drover.SecretStore's.
func (s *Store) Change(ctx context.Context, app drover.AppName, changes map[string]*drover.SecretValue, still func(ctx context.Context) error) (drover.SecretSet, error) {
	if err := check(changes); err != nil {
		return drover.SecretSet{}, err
	}
	for range casTries {
		old, rev, err := s.cfg.Records.Get(ctx, string(app))
		if err != nil && !drover.Is(err, drover.NotFound) {
			return drover.SecretSet{}, err
		}
		next, changed, err := s.apply(ctx, app, old, changes)
		if err != nil {
			return drover.SecretSet{}, err
		}
		if !changed {
			if old.Key != "" { // an earlier try may have been cut before it did
				err = s.cfg.Keys.ClaimKey(ctx, old.Key)
			}
			if err == nil {
				err = still(ctx)
			}
			return old.describe(rev), err
		}
		s.cfg.Hit("secrets.change.before")
		now, err := s.write(ctx, app, next, rev)
		if drover.Is(err, drover.Conflict) || drover.Is(err, drover.Exists) {
			continue
		}
		if err != nil {
			return drover.SecretSet{}, err
		}
		s.cfg.Hit("secrets.change.after")
		if next.Key != "" {
			if err := s.cfg.Keys.ClaimKey(ctx, next.Key); err != nil {
				return drover.SecretSet{}, err
			}
		}
		if err := still(ctx); err != nil {
			s.takeBack(ctx, app, old, rev, now)
			return drover.SecretSet{}, err
		}
		s.cfg.Log.Info("secrets changed", "app", string(app), "count", len(changes), "version", now)
		return next.describe(now), nil
	}
	return drover.SecretSet{}, drover.Errorf(drover.Conflict, "the secrets of app %q were changed by others %d times in a row", app, casTries).WithHint("ask again")
}

func (s *Store) write(ctx context.Context, app drover.AppName, r Record, rev uint64) (uint64, error) {
	if rev == 0 {
		return s.cfg.Records.Create(ctx, string(app), r)
	}
	return s.cfg.Records.Update(ctx, string(app), r, rev)
}

// takeBack undoes a write, as far as nobody has changed the record since.
func (s *Store) takeBack(ctx context.Context, app drover.AppName, old Record, rev, now uint64) {
	var err error
	if rev == 0 {
		err = s.cfg.Records.Delete(ctx, string(app), now)
	} else {
		_, err = s.cfg.Records.Update(ctx, string(app), old, now)
	}
	if err != nil && !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.NotFound) {
		s.cfg.Log.Warn("a change of secrets that was refused could not be taken back", "app", string(app), "err", err)
	}
}

// apply makes the next record. It makes a key if there is none.
func (s *Store) apply(ctx context.Context, app drover.AppName, old Record, changes map[string]*drover.SecretValue) (next Record, changed bool, err error) {
	next = Record{Key: old.Key, Secrets: maps.Clone(old.Secrets)}
	if next.Secrets == nil {
		next.Secrets = map[string]entry{}
	}
	now := s.cfg.Now().UTC()
	var b *box
	for name, value := range changes {
		was, had := next.Secrets[name]
		if value == nil {
			delete(next.Secrets, name)
			changed = changed || had
			continue
		}
		if b == nil {
			if len(old.Secrets) == 0 { // a key that was lost, or that nothing needs, is not used again
				next.Key = drover.NewKeyID()
				if err := s.cfg.Keys.CreateKey(ctx, next.Key); err != nil {
					return next, false, err
				}
				s.cfg.Hit("secrets.key.after")
			}
			if b, err = s.open(ctx, next.Key); err != nil {
				return next, false, err
			}
		}
		e := entry{Digest: b.digestOf(name, value.Reveal()), CreatedAt: now, UpdatedAt: now}
		if had {
			e.CreatedAt = was.CreatedAt
		}
		if had && was.Digest == e.Digest {
			continue // nothing new: whoever runs with it need not be restarted
		}
		e.Sealed = b.aead.Seal(nil, nil, []byte(value.Reveal()), sealInfo(app, name))
		next.Secrets[name], changed = e, true
	}
	return next, changed, next.fits(app)
}

// fits refuses more than a machine can be given.
func (r Record) fits(app drover.AppName) error {
	if len(r.Secrets) > drover.MaxSecrets {
		return drover.Errorf(drover.Invalid, "app %q would have %d secrets; at most %d are possible", app, len(r.Secrets), drover.MaxSecrets).WithField("values")
	}
	sum := 0
	for name, e := range r.Secrets {
		sum += len(name) + len(e.Sealed)
	}
	if sum > drover.MaxSecretsBytes {
		return drover.Errorf(drover.Invalid, "the secrets of app %q would have %d bytes together; at most %d are possible", app, sum, drover.MaxSecretsBytes).WithField("values")
	}
	return nil
}

// Drop is drover.SecretStore's.
func (s *Store) Drop(ctx context.Context, app drover.AppName) error {
	for range casTries {
		r, rev, err := s.cfg.Records.Get(ctx, string(app))
		if drover.Is(err, drover.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.cfg.Records.Delete(ctx, string(app), rev)
		if drover.Is(err, drover.Conflict) {
			continue
		}
		if err != nil {
			return err
		}
		s.cfg.Hit("secrets.drop.after")
		if r.Key == "" {
			return nil
		}
		return s.cfg.Keys.DeleteKey(ctx, r.Key, func(ctx context.Context) (bool, error) { return s.cfg.Used(ctx, r.Key) })
	}
	return drover.Errorf(drover.Conflict, "the secrets of app %q were changed by others %d times in a row", app, casTries).WithHint("ask again")
}
