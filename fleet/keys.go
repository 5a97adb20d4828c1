package fleet

import (
	"context"
	"time"

	"drover"
	"drover/natsbus"
	"drover/sealedkeys"
)

// keyRecords is the bucket that the fleet's own key store is in.
type keyRecords struct {
	*natsbus.Bucket[sealedkeys.Record]
}

var _ sealedkeys.Records = keyRecords{}

func (r keyRecords) Get(ctx context.Context, key string) (sealedkeys.Record, uint64, error) {
	return r.GetConfirmed(ctx, key)
}

func (r keyRecords) Delete(ctx context.Context, key string, rev uint64) error {
	_, err := r.Bucket.Delete(ctx, key, rev)
	return err
}

func (r keyRecords) Keys(ctx context.Context) ([]string, error) { return r.Bucket.Keys(ctx, "") }

// openKeys opens what keys are kept in. Without another store, the fleet's own is used: this
// host must have the certificate of a control host then.
func (f *Fleet) openKeys(ctx context.Context) (err error) {
	if f.keys != nil || f.cfg.TLSDir == "" {
		return nil
	}
	bucket, err := natsbus.OpenBucket[sealedkeys.Record](ctx, f.conn, natsbus.BucketKeys, natsbus.BucketOptions{Replicas: f.cfg.Replicas})
	if err != nil {
		return err
	}
	f.sealed = sealedkeys.New(sealedkeys.Config{Records: keyRecords{bucket}, Host: f.cfg.Host, TLSDir: f.cfg.TLSDir, Log: f.log, Now: f.now})
	f.keys = f.sealed
	return nil
}

// tendEvery is how often the store of keys is tended, counted in Timing.Repair. It reads all of it.
const tendEvery = 6

// tendKeys looks after the fleet's own store of keys until ctx ends.
func (f *Fleet) tendKeys(ctx context.Context) {
	for ctx.Err() == nil && f.sealed != nil {
		wait := tendEvery * f.timing.Repair
		if err := f.sealed.Tend(ctx); err != nil {
			wait = f.timing.Repair
			f.trouble(ctx, "keys of control host", string(f.cfg.Host), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// serveKeys hands keys out to hosts until ctx ends.
func (f *Fleet) serveKeys(ctx context.Context) {
	for ctx.Err() == nil && f.sealed != nil {
		err := natsbus.ServeKeys(ctx, f.conn, f.handOut)
		if ctx.Err() == nil {
			f.log.Warn("no keys are handed out for a moment", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.timing.Repair):
		}
	}
}

// handOut answers a host's request for a key. A host that asks in another's name gets what only that one can read.
func (f *Fleet) handOut(ctx context.Context, req drover.KeyRequest) (drover.SealedKey, error) {
	if f.isRoot(req.Key) {
		return drover.SealedKey{}, drover.Errorf(drover.Denied, "key %s is no key of a volume", req.Key)
	}
	if err := f.entitled(ctx, req.Host, req.Key); err != nil {
		return drover.SealedKey{}, err
	}
	secret, err := f.keys.Key(ctx, req.Key)
	if err != nil {
		return drover.SealedKey{}, err
	}
	defer clear(secret)
	sealed, err := natsbus.SealKey(f.cfg.TLSDir, req, secret)
	if err == nil {
		f.log.Info("key handed out", "key", string(req.Key), "to", string(req.Host))
	}
	return sealed, err
}

// entitled returns Conflict unless the host has a volume of the key, or is to get one by a migration that is under way.
func (f *Fleet) entitled(ctx context.Context, host drover.HostID, key drover.KeyID) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	why := "no volume of it is known"
	for _, i := range f.state.volumes.all() {
		v := i.value
		if v.Cipher == nil || v.Cipher.Key != key {
			continue
		}
		at := v.Host
		if v.Machine != "" {
			p, err := f.state.placementOf(ctx, v.Machine)
			if err != nil && !drover.Is(err, drover.NotFound) {
				return err
			}
			if err == nil {
				at = p.Host
			}
			f.state.mu.RLock()
			m := f.state.moveLocked(v.Machine)
			f.state.mu.RUnlock()
			if m != nil && m.Target == host {
				return nil
			}
		}
		if at == host {
			return nil
		}
		why = "volume " + string(v.ID) + " is on host " + string(at)
	}
	return drover.Errorf(drover.Conflict, "host %q does not get key %s: %s", host, key, why)
}

// newCipher says how a new blank volume is encrypted: with a new key, which is made here. One that is made of a snapshot or of another volume is
// encrypted as that, with the same key.
func (f *Fleet) newCipher(ctx context.Context, req CreateVolume) (*drover.Cipher, error) {
	if req.Unencrypted {
		return nil, nil
	}
	if f.keys == nil {
		return nil, drover.Errorf(drover.Precondition, "volume %q cannot be encrypted: this fleet keeps no keys", req.Name).
			WithHint("ask for an unencrypted one, or give the control hosts their certificates: see docs/ENCRYPTION.md")
	}
	c := drover.NewCipher()
	return c, f.keys.CreateKey(ctx, c.Key)
}

// claimKey is called when a record that names a cipher was written: from then on its key stays.
func (f *Fleet) claimKey(ctx context.Context, c *drover.Cipher) error {
	if c == nil || f.keys == nil {
		return nil
	}
	return f.keys.ClaimKey(ctx, c.Key)
}

// dropKey destroys the key of a volume or snapshot whose record is gone, unless another needs it. What cannot be done now is done by the sweep.
func (f *Fleet) dropKey(ctx context.Context, c *drover.Cipher) {
	if c == nil || f.keys == nil {
		return
	}
	f.hit("fleet.key.drop.before")
	f.trouble(ctx, "key", string(c.Key), f.keys.DeleteKey(ctx, c.Key, func(ctx context.Context) (bool, error) {
		used, err := f.usedKeys(ctx)
		return used[c.Key], err
	}))
	f.hit("fleet.key.drop.after")
}

// usedKeys returns the keys that records name. It reads the store itself: another control host may have written a moment ago.
func (f *Fleet) usedKeys(ctx context.Context) (map[drover.KeyID]bool, error) {
	used := map[drover.KeyID]bool{}
	volumes, err := f.state.volumes.bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range volumes {
		if c := r.Value.Cipher; c != nil {
			used[c.Key] = true
		}
	}
	snapshots, err := f.state.snapshots.bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range snapshots {
		if c := r.Value.Cipher; c != nil {
			used[c.Key] = true
		}
	}
	tokens, err := f.allTokens(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range tokens {
		for _, id := range r.Value.rootKeys(f.now()) {
			used[id] = true
		}
	}
	return used, f.usedBySecrets(ctx, used)
}

// sweepKeys destroys keys that nothing needs: of volumes that were never made, or whose key could not be destroyed with them.
func (r *repairer) sweepKeys(ctx context.Context) {
	if r.sealed == nil || r.now().Sub(r.keysAt) < r.timing.Stale {
		return
	}
	r.keysAt = r.now()
	ring, err := r.sealed.Keyring(ctx)
	var used map[drover.KeyID]bool
	if err == nil {
		used, err = r.usedKeys(ctx)
	}
	if err == nil {
		err = r.sweepSecrets(ctx)
	}
	if err != nil {
		r.trouble(ctx, "keys of control host", string(r.cfg.Host), err)
		return
	}
	for _, k := range ring.Keys {
		if !used[k.ID] && r.now().Sub(k.CreatedAt) > r.timing.Stale {
			r.dropKey(ctx, &drover.Cipher{Key: k.ID})
		}
	}
}

// Keyring describes the keys of the fleet.
func (f *Fleet) Keyring(ctx context.Context) (drover.Keyring, error) {
	if err := f.ownKeys(ctx); err != nil {
		return drover.Keyring{}, err
	}
	return f.sealed.Keyring(ctx)
}

// RotateKeys makes a new fleet key, wraps all keys with it, and forgets the old one. Where it is cut, the control hosts finish it.
func (f *Fleet) RotateKeys(ctx context.Context) (drover.Keyring, error) {
	if err := f.ownKeys(ctx); err != nil {
		return drover.Keyring{}, err
	}
	if err := f.sealed.Rotate(ctx); err != nil {
		return drover.Keyring{}, err
	}
	return f.sealed.Keyring(ctx)
}

func (f *Fleet) ownKeys(ctx context.Context) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	if f.sealed == nil {
		return drover.Errorf(drover.Precondition, "the keys of this fleet are not kept by the fleet itself")
	}
	return nil
}
