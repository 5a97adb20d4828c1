package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"drover"
	"drover/internal/durable"
)

// keys are the keys that the daemon knows. Each is kept in a file of its ID in the run directory, so that it outlives the daemon, and
// is gone when the host has no power. No key is ever logged, nor part of a message.
type keys struct {
	dir string
	mu  sync.Mutex
	// known is guarded by mu, and so are the files.
	known map[drover.KeyID]*diskKey
}

// openKeys reads what the daemon before this one left. What is not a key any more is removed: it can be asked for again.
func openKeys(run string) (*keys, error) {
	k := &keys{dir: filepath.Join(run, "keys"), known: map[drover.KeyID]*diskKey{}}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the directory of keys: %w", err)
	}
	if err := durable.RemoveTemp(k.dir); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot clean up the directory of keys: %w", err)
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot list the keys: %w", err)
	}
	for _, e := range entries {
		id, path := drover.KeyID(e.Name()), filepath.Join(k.dir, e.Name())
		secret, err := os.ReadFile(path)
		if err != nil {
			return nil, drover.Errorf(drover.Internal, "cannot read key %s: %w", id, err)
		}
		key, err := newDiskKey(id, secret)
		if !id.Valid() || err != nil {
			if err := os.Remove(path); err != nil {
				return nil, drover.Errorf(drover.Internal, "cannot remove %s, which is no key: %w", path, err)
			}
			continue
		}
		k.known[id] = key
	}
	return k, nil
}

// set takes a key in. It is kept before set returns. Conflict for another key of the same ID.
func (k *keys) set(id drover.KeyID, secret []byte) error {
	if !id.Valid() {
		return drover.Errorf(drover.Invalid, "%q is no key ID", id).WithField("key")
	}
	key, err := newDiskKey(id, secret)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.known[id]; old != nil {
		if old.check != key.check {
			return drover.Errorf(drover.Conflict, "another key %s is in use on this host: a key never changes under its ID", id)
		}
		return nil
	}
	if err := durable.WriteFile(filepath.Join(k.dir, string(id)), secret, 0o600); err != nil {
		return drover.Errorf(drover.Internal, "cannot keep key %s: %w", id, err)
	}
	k.known[id] = key
	return nil
}

func (k *keys) get(id drover.KeyID) *diskKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known[id]
}

// retain forgets every key for which there is no use. No key is taken in while it looks.
func (k *keys) retain(use func(drover.KeyID) bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for id := range k.known {
		if use(id) {
			continue
		}
		if err := os.Remove(filepath.Join(k.dir, string(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, drover.Errorf(drover.Internal, "cannot forget key %s: %w", id, err))
			continue
		}
		delete(k.known, id)
	}
	return errors.Join(errs...)
}

// keyFor returns the key that a local connection to the layer needs; nil for a layer that is not encrypted. Precondition when it is not here.
func (p *pool) keyFor(l *layer) (*diskKey, error) {
	c := l.meta().Spec.Cipher
	if c == nil {
		return nil, nil
	}
	key := p.keys.get(c.Key)
	if key == nil {
		return nil, drover.Errorf(drover.Precondition, "cannot open layer %s: it is encrypted, and its key %s is not on host %s", l.id, c.Key, p.cfg.Host).
			WithHint("the host's agent gets it from a control host when a machine here needs it: see whether one of them answers")
	}
	if check := l.meta().KeyCheck; check != "" && check != key.check {
		return nil, drover.Errorf(drover.Precondition, "cannot open layer %s: key %s on host %s is not the one that the layer was written with", l.id, c.Key, p.cfg.Host)
	}
	return key, nil
}

// setKey takes a key in.
func (p *pool) setKey(_ context.Context, r keyRequest) error {
	if err := p.keys.set(r.Key, r.Secret); err != nil {
		return err
	}
	p.cfg.Log.Info("key taken in", "key", string(r.Key))
	return nil
}

// forgetKeys forgets the keys that no layer needs which may be opened here. A layer that is closed keeps its key, so that its machine can start
// again while no control host answers, and so does one that is frozen and may be thawed. One that was frozen before its disk was fenced, or that is
// deleted, does not: its disk lives on elsewhere, or nowhere.
func (p *pool) forgetKeys() {
	err := p.keys.retain(func(id drover.KeyID) bool {
		return slices.ContainsFunc(p.all(), func(l *layer) bool {
			c := l.meta().Spec.Cipher
			return c != nil && c.Key == id && p.mayReopen(l.meta())
		})
	})
	if err != nil {
		p.cfg.Log.Warn("cannot forget keys", "err", err)
	}
}

// mayReopen reports whether a layer is open, or may be opened again.
func (p *pool) mayReopen(m *meta) bool {
	if m.State != drover.LayerFrozen {
		return m.State == drover.LayerReady
	}
	fence, err := p.fences.epoch(m.Spec.Disk)
	return err != nil || fence <= m.FrozenAt
}
