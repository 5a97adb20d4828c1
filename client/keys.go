package client

import (
	"context"

	"drover"
)

// Keyring describes the keys of volumes.
func (c *Client) Keyring(ctx context.Context) (drover.Keyring, error) {
	return get[drover.Keyring](ctx, c, nil, "/operator/keys")
}

// RotateKeys makes a new fleet key and wraps all keys of volumes with it.
func (c *Client) RotateKeys(ctx context.Context) (drover.Keyring, error) {
	return post[drover.Keyring](ctx, c, nil, "/operator/keys/rotate")
}
