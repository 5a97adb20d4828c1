package apitest

import (
	"context"

	"drover"
)

// Keyring has the key of each encrypted volume. The fleet key's generation counts rotations.
func (b *Backend) Keyring(context.Context) (drover.Keyring, error) {
	if err := b.begin("Keyring"); err != nil {
		return drover.Keyring{}, err
	}
	defer b.mu.Unlock()
	return b.keyringLocked(), nil
}

// RotateKeys counts.
func (b *Backend) RotateKeys(context.Context) (drover.Keyring, error) {
	if err := b.begin("RotateKeys"); err != nil {
		return drover.Keyring{}, err
	}
	defer b.mu.Unlock()
	b.rotations++
	return b.keyringLocked(), nil
}

func (b *Backend) keyringLocked() drover.Keyring {
	ring := drover.Keyring{Generation: 1 + b.rotations, MadeAt: b.Now(), Hosts: []drover.HostID{"c1"}, Keys: []drover.KeyInfo{}}
	for _, v := range b.volumes {
		if c := v.Volume.Cipher; c != nil {
			ring.Keys = append(ring.Keys, drover.KeyInfo{ID: c.Key, Generation: ring.Generation, CreatedAt: v.Volume.CreatedAt})
		}
	}
	return ring
}
