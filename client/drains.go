package client

import (
	"context"
	"net/url"

	"drover"
	"drover/apiv1"
)

const drainPath = "/operator/drains/%s"

// Drains lists the drains, newest first; those of one host when it is not empty.
func (c *Client) Drains(ctx context.Context, host drover.HostID) ([]apiv1.Drain, error) {
	query := url.Values{}
	if host != "" {
		query.Set("host", string(host))
	}
	return get[[]apiv1.Drain](ctx, c, query, "/operator/drains")
}

// Drain returns one drain.
func (c *Client) Drain(ctx context.Context, id drover.DrainID) (apiv1.Drain, error) {
	return get[apiv1.Drain](ctx, c, nil, drainPath, id)
}

// PlanDrain tells what a drain would do. Nothing is changed.
func (c *Client) PlanDrain(ctx context.Context, req apiv1.DrainRequest) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, req, "/operator/drains/plan")
}

// CreateDrain begins a drain. Exhausted or Precondition, with nothing begun, when something cannot be moved and a part is not allowed.
func (c *Client) CreateDrain(ctx context.Context, req apiv1.DrainRequest) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, req, "/operator/drains")
}

// PauseDrain keeps a drain from beginning anything new.
func (c *Client) PauseDrain(ctx context.Context, id drover.DrainID) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, nil, drainPath+"/pause", id)
}

// ResumeDrain lets a drain go on; with a class it lifts the halt of that class.
func (c *Client) ResumeDrain(ctx context.Context, id drover.DrainID, class string) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, apiv1.ResumeDrainRequest{Class: class}, drainPath+"/resume", id)
}

// AbortDrain ends a drain; with running it takes those along that have not reached their switch.
func (c *Client) AbortDrain(ctx context.Context, id drover.DrainID, running bool) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, apiv1.AbortDrainRequest{Running: running}, drainPath+"/abort", id)
}

// ApproveMove lets a drain move a machine whose label asks for it.
func (c *Client) ApproveMove(ctx context.Context, id drover.DrainID, machine drover.MachineID) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, apiv1.ApproveRequest{Machine: string(machine)}, drainPath+"/approve", id)
}

// ReturnDrain brings back what a drain moved, or plans to.
func (c *Client) ReturnDrain(ctx context.Context, id drover.DrainID, req apiv1.ReturnRequest) (apiv1.Drain, error) {
	return post[apiv1.Drain](ctx, c, req, drainPath+"/return", id)
}

// FollowDrain is FollowMigration for a drain.
func (c *Client) FollowDrain(ctx context.Context, id drover.DrainID, fn func(apiv1.Drain) error) (apiv1.Drain, error) {
	return follow(ctx, c, func() (apiv1.Drain, error) { return c.Drain(ctx, id) }, fn, func(d apiv1.Drain) bool { return d.Ended() })
}

// CordonHost closes a host for everything new.
func (c *Client) CordonHost(ctx context.Context, id drover.HostID, req apiv1.CordonRequest) (drover.HostInfo, error) {
	return post[drover.HostInfo](ctx, c, req, "/operator/hosts/%s/cordon", id)
}

// UncordonHost opens it again. Precondition while it is being drained.
func (c *Client) UncordonHost(ctx context.Context, id drover.HostID) (drover.HostInfo, error) {
	return post[drover.HostInfo](ctx, c, nil, "/operator/hosts/%s/uncordon", id)
}

// CheckRegion tells whether every single host of a region could be drained now.
func (c *Client) CheckRegion(ctx context.Context, region drover.Region) (drover.RegionCheck, error) {
	return get[drover.RegionCheck](ctx, c, nil, "/operator/regions/%s/check", region)
}

// SetAppLabel sets a label of an app; an empty value removes it.
func (c *Client) SetAppLabel(ctx context.Context, app drover.AppName, key, value string) (apiv1.App, error) {
	return post[apiv1.App](ctx, c, apiv1.LabelRequest{Value: value}, "/apps/%s/metadata/%s", app, key)
}

// SetMachineLabel sets a label of a machine, without a restart; an empty value removes it. It returns the machine as it is then.
func (c *Client) SetMachineLabel(ctx context.Context, app drover.AppName, id drover.MachineID, key, value string) (apiv1.Machine, error) {
	if err := c.SetMetadata(ctx, app, id, key, value); err != nil {
		return apiv1.Machine{}, err
	}
	return c.Machine(ctx, app, id)
}
