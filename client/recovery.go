package client

import (
	"context"

	"drover"
	"drover/apiv1"
)

const standbyPath = volumePath + "/standbys"

// SwitchOff lets the power command switch a host off, and fences it. Precondition where there is no such command, and while anybody can tell that the host runs.
func (c *Client) SwitchOff(ctx context.Context, host drover.HostID, reason string) (drover.HostFence, error) {
	return post[drover.HostFence](ctx, c, apiv1.ConfirmOffRequest{Reason: reason}, "/operator/hosts/%s/fence", host)
}

// ConfirmOff says that a host is off and stays so. Precondition while anybody can tell that it runs.
func (c *Client) ConfirmOff(ctx context.Context, host drover.HostID, reason string) (drover.HostFence, error) {
	return post[drover.HostFence](ctx, c, apiv1.ConfirmOffRequest{Reason: reason}, "/operator/hosts/%s/confirm-off", host)
}

// RecoveryPlan tells what can be done for the machines of a host.
func (c *Client) RecoveryPlan(ctx context.Context, host drover.HostID) (drover.RecoveryPlan, error) {
	return get[drover.RecoveryPlan](ctx, c, nil, "/operator/hosts/%s/recovery", host)
}

// HostKept lists what a host keeps aside of machines that went on elsewhere without it.
func (c *Client) HostKept(ctx context.Context, host drover.HostID) ([]drover.KeptLayer, error) {
	return get[[]drover.KeptLayer](ctx, c, nil, "/operator/hosts/%s/kept", host)
}

// StartRecovery starts the machines of a fenced host, or one of them, elsewhere. Precondition while it is not certain that the host is off.
func (c *Client) StartRecovery(ctx context.Context, req apiv1.RecoveryRequest) (apiv1.RecoveryStarted, error) {
	return post[apiv1.RecoveryStarted](ctx, c, req, "/operator/recoveries")
}

// Recoveries lists the recoveries, newest first.
func (c *Client) Recoveries(ctx context.Context) ([]drover.Recovery, error) {
	return get[[]drover.Recovery](ctx, c, nil, "/operator/recoveries")
}

// Recovery returns one recovery.
func (c *Client) Recovery(ctx context.Context, id drover.RecoveryID) (drover.Recovery, error) {
	return get[drover.Recovery](ctx, c, nil, "/operator/recoveries/%s", id)
}

// FollowRecovery calls fn with each new state of a recovery until it has ended.
func (c *Client) FollowRecovery(ctx context.Context, id drover.RecoveryID, fn func(drover.Recovery) error) (drover.Recovery, error) {
	return follow(ctx, c, func() (drover.Recovery, error) { return c.Recovery(ctx, id) }, fn,
		func(r drover.Recovery) bool { return r.State.Ended() })
}

// SetRecovery says whether an app's machines are started elsewhere without asking once their host is fenced.
func (c *Client) SetRecovery(ctx context.Context, app drover.AppName, policy drover.RecoveryPolicy) (apiv1.App, error) {
	return put[apiv1.App](ctx, c, apiv1.RecoveryPolicyRequest{Recovery: string(policy)}, "/apps/%s/recovery", app)
}

// Standbys lists the standbys of a volume, or of all volumes of the app when it is empty.
func (c *Client) Standbys(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Standby, error) {
	if volume == "" {
		return get[[]drover.Standby](ctx, c, nil, "/apps/%s/standbys", app)
	}
	return get[[]drover.Standby](ctx, c, nil, standbyPath, app, volume)
}

// CreateStandby makes a copy of a volume on another host that follows it.
func (c *Client) CreateStandby(ctx context.Context, app drover.AppName, volume drover.VolumeID, req apiv1.CreateStandbyRequest) (drover.Standby, error) {
	return post[drover.Standby](ctx, c, req, standbyPath, app, volume)
}

// Standby returns one standby.
func (c *Client) Standby(ctx context.Context, app drover.AppName, volume drover.VolumeID, id drover.StandbyID) (drover.Standby, error) {
	return get[drover.Standby](ctx, c, nil, standbyPath+"/%s", app, volume, id)
}

// DeleteStandby removes a standby.
func (c *Client) DeleteStandby(ctx context.Context, app drover.AppName, volume drover.VolumeID, id drover.StandbyID) (drover.Standby, error) {
	return remove[drover.Standby](ctx, c, nil, standbyPath+"/%s", app, volume, id)
}
