package host

import (
	"context"

	"drover"
)

// Keys gets the keys of encrypted volumes from the control side (natsbus.HostKeys).
type Keys interface {
	// Key returns a key. Unavailable when no control host answers; Conflict when the fleet does not have this host run a volume of that key. The caller
	// clears what it got.
	Key(ctx context.Context, id drover.KeyID) ([]byte, error)
}

// bringKey gets a key from the control side and hands it to the storage daemon.
func (a *Agent) bringKey(ctx context.Context, id drover.KeyID) error {
	if a.cfg.Keys == nil {
		return drover.Errorf(drover.Precondition, "host %q has no way to get key %s", a.cfg.ID, id)
	}
	a.hit("host.key.before")
	secret, err := call(ctx, func(ctx context.Context) ([]byte, error) { return a.cfg.Keys.Key(ctx, id) })
	a.noteKey(id, err)
	if err != nil {
		return err
	}
	defer clear(secret)
	_, err = call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.cfg.Storage.SetKey(ctx, id, secret) })
	a.hit("host.key.after")
	return err
}

// open opens a disk's layer. The storage daemon keeps the key of an encrypted one until the host loses its power, so that the control side is asked only when
// it has none: a machine starts without any control host as long as the key is there, and waits for one otherwise.
func (m *machine) open(ctx context.Context, disk diskRecord, epoch drover.Epoch) (Attachment, error) {
	try := func(ctx context.Context) (Attachment, error) { return m.agent.cfg.Storage.Open(ctx, disk.Layer, epoch) }
	at, err := call(ctx, try)
	if disk.Cipher == nil || !drover.Is(err, drover.Precondition) {
		return at, err
	}
	if err := m.agent.bringKey(ctx, disk.Cipher.Key); err != nil {
		code := drover.CodeOf(err)
		if code != drover.Canceled {
			code = drover.Unavailable // whatever it is, it may pass: the machine waits and does not fail
		}
		return at, drover.Errorf(code, "disk %q is encrypted, and the host waits for its key: %w", disk.Disk, err)
	}
	return call(ctx, try)
}

// checkCiphers returns Precondition unless each volume is exported as its record describes it: a guest that got ciphertext for its data, or the other way round,
// would destroy it.
func checkCiphers(volumes []drover.Volume, exports []drover.Export) error {
	for _, v := range volumes {
		for _, e := range exports {
			if e.Volume == v.ID && !e.Cipher.Equal(v.Cipher) {
				return drover.Errorf(drover.Precondition, "volume %q is %s, and host %q exports it as %s", v.ID, v.Cipher, e.Host, e.Cipher).
					WithHint("bring that host to this version of Drover")
			}
		}
	}
	return nil
}
