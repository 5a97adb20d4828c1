package client

import (
	"context"

	"drover"
	"drover/apiv1"
)

// CheckNetwork compares what every host believes of where machines are with where they are.
func (c *Client) CheckNetwork(ctx context.Context) (drover.NetworkCheck, error) {
	return get[drover.NetworkCheck](ctx, c, nil, "/operator/network")
}

// ReleaseHost lets another host join with the name of one that is gone. Precondition while the host is heard.
func (c *Client) ReleaseHost(ctx context.Context, host drover.HostID) (drover.HostIdentity, error) {
	return remove[drover.HostIdentity](ctx, c, nil, "/operator/hosts/%s/identity", host)
}

// RotateKey lets a host get another key. While it is getting one, that is what is told of.
func (c *Client) RotateKey(ctx context.Context, host drover.HostID, people bool) (drover.MeshKey, error) {
	return post[drover.MeshKey](ctx, c, apiv1.RotateKeyRequest{People: people}, "/operator/hosts/%s/key/rotate", host)
}

// CancelKey lets a host keep the key that it has. Precondition when it is about to have no other.
func (c *Client) CancelKey(ctx context.Context, host drover.HostID) (drover.MeshKey, error) {
	return post[drover.MeshKey](ctx, c, nil, "/operator/hosts/%s/key/cancel", host)
}

// HostKey tells by which key other hosts know a host, and what becomes of it.
func (c *Client) HostKey(ctx context.Context, host drover.HostID) (drover.MeshKey, error) {
	return get[drover.MeshKey](ctx, c, nil, "/operator/hosts/%s/key", host)
}

// FollowKey tells of the rotation of a host's key that was begun until it has ended.
func (c *Client) FollowKey(ctx context.Context, host drover.HostID, begun drover.MeshKey, fn func(drover.MeshKey) error) (drover.MeshKey, error) {
	look := func() (drover.MeshKey, error) {
		key, err := c.HostKey(ctx, host)
		if drover.Is(err, drover.Unavailable) {
			return begun, nil // it may be on its way back: the rotation goes on then
		}
		return key, err
	}
	return follow(ctx, c, look, fn, func(k drover.MeshKey) bool { return !k.Rotation.Running() })
}
