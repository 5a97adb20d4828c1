package client

import (
	"context"

	"drover"
	"drover/apiv1"
)

const (
	policiesPath = "/apps/%s/network_policies"
	policyPath   = policiesPath + "/%s"
)

// Policies lists the network policies of an app.
func (c *Client) Policies(ctx context.Context, app drover.AppName) ([]drover.NetworkPolicy, error) {
	return get[[]drover.NetworkPolicy](ctx, c, nil, policiesPath, app)
}

// SetPolicy makes a network policy, or replaces the one of its name.
func (c *Client) SetPolicy(ctx context.Context, app drover.AppName, req apiv1.NetworkPolicyRequest) (drover.NetworkPolicy, error) {
	return post[drover.NetworkPolicy](ctx, c, req, policiesPath, app)
}

// Policy shows one by its ID or name.
func (c *Client) Policy(ctx context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error) {
	return get[drover.NetworkPolicy](ctx, c, nil, policyPath, app, id)
}

// DeletePolicy takes one away.
func (c *Client) DeletePolicy(ctx context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error) {
	return remove[drover.NetworkPolicy](ctx, c, nil, policyPath, app, id)
}
