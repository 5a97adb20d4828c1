package client

import (
	"context"

	"drover"
	"drover/apiv1"
)

const deployPath = "/apps/%s/deploys/%s"

// Deploys lists the last deploys of an app, newest first.
func (c *Client) Deploys(ctx context.Context, app drover.AppName) ([]apiv1.Deploy, error) {
	return get[[]apiv1.Deploy](ctx, c, nil, "/apps/%s/deploys", app)
}

// Deploy returns one deploy.
func (c *Client) Deploy(ctx context.Context, app drover.AppName, id drover.DeployID) (apiv1.Deploy, error) {
	return get[apiv1.Deploy](ctx, c, nil, deployPath, app, id)
}

// CreateDeploy begins a deploy, which goes on by itself. Conflict while another one of the app has not ended.
func (c *Client) CreateDeploy(ctx context.Context, app drover.AppName, req apiv1.DeployRequest) (apiv1.Deploy, error) {
	return post[apiv1.Deploy](ctx, c, req, "/apps/%s/deploys", app)
}

// AbortDeploy ends a deploy; what was changed stays so.
func (c *Client) AbortDeploy(ctx context.Context, app drover.AppName, id drover.DeployID) (apiv1.Deploy, error) {
	return post[apiv1.Deploy](ctx, c, nil, deployPath+"/abort", app, id)
}

// FollowDeploy is FollowMigration for a deploy.
func (c *Client) FollowDeploy(ctx context.Context, app drover.AppName, id drover.DeployID, fn func(apiv1.Deploy) error) (apiv1.Deploy, error) {
	return follow(ctx, c, func() (apiv1.Deploy, error) { return c.Deploy(ctx, app, id) }, fn, func(d apiv1.Deploy) bool { return d.Ended() })
}
