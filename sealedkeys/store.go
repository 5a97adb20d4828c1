package sealedkeys

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"drover"
	"drover/internal/fleetca"
)

// casTries bounds how often a change is tried again because another came between.
const casTries = 20

// fleetKeySize is the size of a fleet key: AES-256.
const fleetKeySize = 32

// Config describes a Store.
type Config struct {
	Records Records
	// Host is this control host, TLSDir its directory of certificates (internal/fleetca), with that of a control host.
	Host   drover.HostID
	TLSDir string
	Log    *slog.Logger
	// Now tells the time; nil for the system's.
	Now func() time.Time
}

// Store is the keys as one control host sees them. Safe for concurrent use.
type Store struct {
	cfg Config

	mu sync.Mutex
	// opened has the fleet keys that this host has opened, by generation.
	opened map[int][]byte
}

var _ drover.KeyStore = (*Store)(nil)

// New returns a store, and reads nothing yet.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, opened: map[int][]byte{}}
}

// sealInfo says what a sealed fleet key is.
func sealInfo(generation int, host drover.HostID) string {
	return fmt.Sprintf("drover fleet key %d for control host %s", generation, host)
}

// newGeneration makes a fleet key and seals it for control hosts, whose certificates have been checked.
func (s *Store) newGeneration(number int, hosts map[drover.HostID]control) (Generation, []byte, error) {
	key := make([]byte, fleetKeySize)
	rand.Read(key) // never fails: crypto/rand aborts the process instead
	g := Generation{Number: number, MadeAt: s.cfg.Now().UTC(), Sealed: map[drover.HostID]Sealed{}}
	for host, c := range hosts {
		sealed, err := c.seal(key, number, host)
		if err != nil {
			return g, nil, err
		}
		g.Sealed[host] = sealed
	}
	return g, key, nil
}

// fleet reads the fleet key's record, and makes the first one.
func (s *Store) fleet(ctx context.Context) (*Fleet, uint64, error) {
	r, rev, err := s.cfg.Records.Get(ctx, fleetKey)
	if err == nil && (r.Fleet == nil || len(r.Fleet.Generations) == 0) {
		return nil, 0, drover.Errorf(drover.Internal, "the record of the fleet key is not one")
	}
	if !drover.Is(err, drover.NotFound) {
		return r.Fleet, rev, err
	}
	// A fleet key that is made where there was one would hide that the old one is lost.
	keys, err := s.cfg.Records.Keys(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, key := range keys {
		if drover.KeyID(key).Valid() {
			return nil, 0, drover.Errorf(drover.Precondition, "the fleet key is gone, and key %s was wrapped with it: no key can be read, and none is made", key).
				WithHint("bring the store of the control hosts back from a copy: see docs/ENCRYPTION.md")
		}
	}
	me, err := s.me()
	if err != nil {
		return nil, 0, err
	}
	g, _, err := s.newGeneration(1, map[drover.HostID]control{s.cfg.Host: me})
	if err != nil {
		return nil, 0, err
	}
	f := &Fleet{Generations: []Generation{g}}
	rev, err = s.cfg.Records.Create(ctx, fleetKey, Record{Fleet: f})
	if drover.Is(err, drover.Exists) {
		r, rev, err = s.cfg.Records.Get(ctx, fleetKey) // another was faster
		return r.Fleet, rev, err
	}
	if err == nil {
		s.cfg.Log.Info("fleet key made", "generation", f.last().Number)
	}
	return f, rev, err
}

// open returns the fleet key of a generation.
func (s *Store) open(g Generation) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := s.opened[g.Number]; key != nil {
		return key, nil
	}
	me, err := s.me()
	if err != nil {
		return nil, err
	}
	sealed, ok := g.Sealed[s.cfg.Host]
	if !ok || !bytes.Equal(sealed.Fingerprint, me.fingerprint) {
		return nil, drover.Errorf(drover.Unavailable, "control host %q does not have the fleet key of generation %d yet", s.cfg.Host, g.Number).
			WithHint("another control host that has it hands it over by itself while it runs")
	}
	key, err := fleetca.OpenAsControl(s.cfg.TLSDir, sealInfo(g.Number, s.cfg.Host), sealed.Sealed)
	if err != nil {
		return nil, drover.Errorf(drover.CodeOf(err), "cannot open the fleet key of generation %d: %w", g.Number, err)
	}
	s.opened[g.Number] = key
	return key, nil
}

// wrapper returns the fleet key to wrap with.
func (s *Store) wrapper(ctx context.Context) (cipher.AEAD, int, error) {
	f, _, err := s.fleet(ctx)
	if err != nil {
		return nil, 0, err
	}
	key, err := s.open(f.last())
	if err != nil {
		return nil, 0, err
	}
	aead, err := newAEAD(key)
	return aead, f.last().Number, err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "the fleet key cannot be used: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "the fleet key cannot be used: %w", err)
	}
	return aead, nil
}

// wrapInfo is the additional data of a wrapped key: it opens under its own ID only.
func wrapInfo(id drover.KeyID) []byte { return []byte("drover volume key " + string(id)) }

// unwrap opens the key of a volume.
func (s *Store) unwrap(ctx context.Context, id drover.KeyID, d *Data) ([]byte, error) {
	f, _, err := s.fleet(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range f.Generations {
		if g.Number != d.Generation {
			continue
		}
		key, err := s.open(g)
		if err != nil {
			return nil, err
		}
		aead, err := newAEAD(key)
		if err != nil {
			return nil, err
		}
		secret, err := aead.Open(nil, nil, d.Wrapped, wrapInfo(id))
		if err != nil || len(secret) != drover.CipherKeySize {
			return nil, drover.Errorf(drover.Internal, "key %s cannot be opened with the fleet key of generation %d: its record is damaged", id, d.Generation)
		}
		return secret, nil
	}
	return nil, drover.Errorf(drover.Conflict, "key %s was wrapped anew just now", id).WithHint("ask again")
}

// data reads the record of a volume's key.
func (s *Store) data(ctx context.Context, id drover.KeyID) (*Data, uint64, error) {
	if !id.Valid() {
		return nil, 0, drover.Errorf(drover.Invalid, "%q is no key ID", id)
	}
	r, rev, err := s.cfg.Records.Get(ctx, string(id))
	if drover.Is(err, drover.NotFound) {
		return nil, 0, drover.Errorf(drover.NotFound, "there is no key %s: it was never made, or destroyed with the last volume and snapshot that needed it", id)
	}
	if err == nil && r.Data == nil {
		err = drover.Errorf(drover.Internal, "the record of key %s is not one", id)
	}
	return r.Data, rev, err
}

// CreateKey is drover.KeyStore's.
func (s *Store) CreateKey(ctx context.Context, id drover.KeyID) error {
	if _, _, err := s.data(ctx, id); !drover.Is(err, drover.NotFound) {
		if err == nil {
			_, err = s.Key(ctx, id) // or it is of no use
		}
		return err
	}
	secret := make([]byte, drover.CipherKeySize)
	rand.Read(secret) // never fails: crypto/rand aborts the process instead
	d := Data{CreatedAt: s.cfg.Now().UTC()}
	var rev uint64
	for range casTries {
		aead, generation, err := s.wrapper(ctx)
		if err != nil {
			return err
		}
		// Looked at after the key was written: a rotation that was under way may have missed it, and have removed its generation.
		if rev != 0 && generation == d.Generation {
			return nil
		}
		d.Generation, d.Wrapped = generation, aead.Seal(nil, nil, secret, wrapInfo(id))
		record := d
		if rev == 0 {
			rev, err = s.cfg.Records.Create(ctx, string(id), Record{Data: &record})
		} else {
			rev, err = s.cfg.Records.Update(ctx, string(id), Record{Data: &record}, rev)
		}
		if drover.Is(err, drover.Exists) || drover.Is(err, drover.Conflict) {
			_, err = s.Key(ctx, id) // another made it, or the rotation has seen it
			return err
		}
		if err != nil {
			return err
		}
	}
	return drover.Errorf(drover.Unavailable, "key %s cannot be made: the fleet key kept changing", id)
}

// Key is drover.KeyStore's.
func (s *Store) Key(ctx context.Context, id drover.KeyID) ([]byte, error) {
	for range casTries {
		d, _, err := s.data(ctx, id)
		if err != nil {
			return nil, err
		}
		secret, err := s.unwrap(ctx, id, d)
		if !drover.Is(err, drover.Conflict) {
			return secret, err
		}
	}
	return nil, drover.Errorf(drover.Unavailable, "key %s cannot be read: it kept changing", id)
}

// ClaimKey is drover.KeyStore's.
func (s *Store) ClaimKey(ctx context.Context, id drover.KeyID) error {
	return s.change(ctx, id, func(d *Data) (bool, error) {
		was := d.Doomed
		d.Doomed = false
		return was, nil
	})
}

// DeleteKey is drover.KeyStore's.
func (s *Store) DeleteKey(ctx context.Context, id drover.KeyID, used func(ctx context.Context) (bool, error)) error {
	err := s.change(ctx, id, func(d *Data) (bool, error) {
		was := d.Doomed
		d.Doomed = true
		return !was, nil
	})
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d, rev, err := s.data(ctx, id)
	switch {
	case drover.Is(err, drover.NotFound):
		return nil
	case err != nil:
		return err
	case !d.Doomed:
		return nil // claimed meanwhile
	}
	needed, err := used(ctx)
	if err != nil {
		return err
	}
	if needed {
		return s.ClaimKey(ctx, id)
	}
	err = s.cfg.Records.Delete(ctx, string(id), rev)
	if drover.Is(err, drover.Conflict) {
		return nil // claimed, or wrapped anew; whoever looks for keys without a use finds it again
	}
	if err == nil {
		s.cfg.Log.Info("key destroyed", "key", string(id))
	}
	return err
}

// change changes the record of a key until it worked. do says whether there is anything to be written.
func (s *Store) change(ctx context.Context, id drover.KeyID, do func(*Data) (bool, error)) error {
	for range casTries {
		d, rev, err := s.data(ctx, id)
		if err != nil {
			return err
		}
		now := *d
		if changed, err := do(&now); err != nil || !changed {
			return err
		}
		if _, err = s.cfg.Records.Update(ctx, string(id), Record{Data: &now}, rev); !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return drover.Errorf(drover.Unavailable, "key %s cannot be changed: it kept being changed by others", id)
}
