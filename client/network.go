package client

import (
	"context"

	"drover"
)

// CheckNetwork compares what every host believes of where machines are with where they are.
func (c *Client) CheckNetwork(ctx context.Context) (drover.NetworkCheck, error) {
	return get[drover.NetworkCheck](ctx, c, nil, "/operator/network")
}

// ReleaseHost lets another host join with the name of one that is gone. Precondition while the host is heard.
func (c *Client) ReleaseHost(ctx context.Context, host drover.HostID) (drover.HostIdentity, error) {
	return remove[drover.HostIdentity](ctx, c, nil, "/operator/hosts/%s/identity", host)
}
