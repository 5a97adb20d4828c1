package api

import (
	"context"
	"net/http"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// RecoveryBackend is what the API asks about dead hosts, recoveries and standbys.
type RecoveryBackend interface {
	// ConfirmOff is refused with Precondition while anybody can tell that the host runs.
	ConfirmOff(ctx context.Context, req fleet.ConfirmOff) (drover.HostFence, error)
	// SwitchOff switches a host off by the power command and fences it. Precondition where there is none, and while anybody can tell that it runs.
	SwitchOff(ctx context.Context, req fleet.ConfirmOff) (drover.HostFence, error)
	// RecoveryPlan changes nothing.
	RecoveryPlan(ctx context.Context, host drover.HostID) (drover.RecoveryPlan, error)
	// StartRecovery is refused with Precondition while it is not certain that the host is off.
	StartRecovery(ctx context.Context, req fleet.StartRecovery) (fleet.RecoveryStarted, error)
	Recoveries(ctx context.Context) ([]drover.Recovery, error)
	Recovery(ctx context.Context, id drover.RecoveryID) (drover.Recovery, error)
	// HostKept lists what a host keeps aside of machines that went on elsewhere without it.
	HostKept(ctx context.Context, host drover.HostID) ([]drover.KeptLayer, error)
	SetRecovery(ctx context.Context, app drover.AppName, policy drover.RecoveryPolicy) (drover.App, error)

	CreateStandby(ctx context.Context, req fleet.CreateStandby) (drover.Standby, error)
	Standbys(ctx context.Context, app drover.AppName, volume drover.VolumeID) ([]drover.Standby, error)
	Standby(ctx context.Context, app drover.AppName, id drover.StandbyID) (drover.Standby, error)
	DeleteStandby(ctx context.Context, app drover.AppName, id drover.StandbyID) (drover.Standby, error)
}

func recoveryRoutes() []route {
	const standbys = volumePath + "/standbys"
	return []route{
		{method: "POST", path: "/operator/hosts/{host_id}/confirm-off", id: "Hosts_confirm_off", summary: "Say that a host is off and stays so, which fences it",
			access: operators, request: apiv1.ConfirmOffRequest{}, status: http.StatusOK, response: drover.HostFence{}, handle: (*handler).confirmOff},
		{method: "POST", path: "/operator/hosts/{host_id}/fence", id: "Hosts_fence", summary: "Switch a host off that nobody reaches, and fence it",
			access: operators, request: apiv1.ConfirmOffRequest{}, status: http.StatusOK, response: drover.HostFence{}, handle: (*handler).fenceHost},
		{method: "GET", path: "/operator/hosts/{host_id}/recovery", id: "Hosts_recovery_plan", summary: "Tell what can be done for the machines of a host",
			access: operators, status: http.StatusOK, response: drover.RecoveryPlan{}, handle: (*handler).recoveryPlan},
		{method: "GET", path: "/operator/hosts/{host_id}/kept", id: "Hosts_kept", summary: "List what a host keeps aside of machines that went on elsewhere",
			access: operators, status: http.StatusOK, response: []drover.KeptLayer{}, handle: (*handler).hostKept},
		{method: "GET", path: "/operator/recoveries", id: "Recoveries_list", summary: "List the recoveries, newest first", access: operators,
			status: http.StatusOK, response: []drover.Recovery{}, handle: (*handler).listRecoveries},
		{method: "POST", path: "/operator/recoveries", id: "Recoveries_create", summary: "Start the machines of a fenced host, or one of them, elsewhere",
			access: operators, request: apiv1.RecoveryRequest{}, status: http.StatusCreated, response: apiv1.RecoveryStarted{}, handle: (*handler).startRecovery},
		{method: "GET", path: "/operator/recoveries/{recovery_id}", id: "Recoveries_show", summary: "Show a recovery", access: operators,
			status: http.StatusOK, response: drover.Recovery{}, handle: (*handler).showRecovery},
		{method: "PUT", path: "/apps/{app_name}/recovery", id: "Apps_set_recovery",
			summary: "Say whether an app's machines are started elsewhere without asking once their host is fenced", access: tenants,
			request: apiv1.RecoveryPolicyRequest{}, status: http.StatusOK, response: apiv1.App{}, handle: (*handler).setRecovery},
		{method: "GET", path: "/apps/{app_name}/standbys", id: "Standbys_list", summary: "List the standbys of all volumes of an app", access: tenants,
			status: http.StatusOK, response: []drover.Standby{}, handle: (*handler).listAppStandbys},
		{method: "GET", path: standbys, id: "Volumes_list_standbys", summary: "List a volume's standbys", access: tenants,
			status: http.StatusOK, response: []drover.Standby{}, handle: (*handler).listStandbys},
		{method: "POST", path: standbys, id: "Volumes_create_standby", summary: "Make a copy of a volume on another host that follows it", access: tenants,
			request: apiv1.CreateStandbyRequest{}, optional: true, status: http.StatusOK, response: drover.Standby{}, handle: (*handler).createStandby},
		{method: "GET", path: standbys + "/{standby_id}", id: "Volumes_show_standby", summary: "Show a standby, with how far it lags", access: tenants,
			status: http.StatusOK, response: drover.Standby{}, handle: (*handler).showStandby},
		{method: "DELETE", path: standbys + "/{standby_id}", id: "Volumes_delete_standby", summary: "Remove a standby", access: tenants,
			status: http.StatusOK, response: drover.Standby{}, handle: (*handler).deleteStandby},
	}
}

func (h *handler) confirmOff(c *call) (any, error) { return fenceBy(c, h.backend.ConfirmOff) }

func (h *handler) fenceHost(c *call) (any, error) { return fenceBy(c, h.backend.SwitchOff) }

func fenceBy(c *call, fence func(context.Context, fleet.ConfirmOff) (drover.HostFence, error)) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.ConfirmOffRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	return fence(c.ctx(), fleet.ConfirmOff{Host: id, Reason: req.Reason, Actor: c.principal.Name})
}

func (h *handler) recoveryPlan(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.RecoveryPlan(c.ctx(), id)
}

func (h *handler) hostKept(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.HostKept(c.ctx(), id)
}

func (h *handler) listRecoveries(c *call) (any, error) { return h.backend.Recoveries(c.ctx()) }

func (h *handler) startRecovery(c *call) (any, error) {
	var req apiv1.RecoveryRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	switch {
	case (req.Machine == "") == (req.Host == ""):
		return nil, badField("machine", "or host is to be given, and not both")
	case req.Machine != "" && !drover.ValidMachineID(req.Machine):
		return nil, badField("machine", "is %q; expected a machine ID, which has 14 digits from 0 to f", req.Machine)
	case req.AcceptAge < 0:
		return nil, badField("accept_age", "is negative")
	}
	if err := needName("host", req.Host, true); err != nil {
		return nil, err
	}
	started, err := h.backend.StartRecovery(c.ctx(), fleet.StartRecovery{Host: drover.HostID(req.Host), Machine: drover.MachineID(req.Machine),
		AcceptAge: time.Duration(req.AcceptAge), Actor: c.principal.Name})
	if err != nil {
		return nil, err
	}
	return apiv1.RecoveryStarted{Recoveries: started.Recoveries, Left: started.Left}, nil
}

func (h *handler) showRecovery(c *call) (any, error) {
	id := c.r.PathValue("recovery_id")
	if !hexDigits(id, "rec_", 16) {
		return nil, drover.Errorf(drover.NotFound, "recovery not found: %q is not a recovery ID, which is \"rec_\" and 16 digits from 0 to f", id)
	}
	return h.backend.Recovery(c.ctx(), drover.RecoveryID(id))
}

func (h *handler) setRecovery(c *call) (any, error) {
	var req apiv1.RecoveryPolicyRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	app, err := h.backend.SetRecovery(c.ctx(), c.app.Name, drover.RecoveryPolicy(req.Recovery))
	if err != nil {
		return nil, err
	}
	return h.appForm(c, app)
}

func (h *handler) listAppStandbys(c *call) (any, error) {
	return h.backend.Standbys(c.ctx(), c.app.Name, "")
}

func (h *handler) listStandbys(c *call) (any, error) {
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.Standbys(c.ctx(), c.app.Name, id)
}

func (h *handler) createStandby(c *call) (any, error) {
	id, err := volumeID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.CreateStandbyRequest
	if err := readStrict(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	if err := needName("host", req.Host, true); err != nil {
		return nil, err
	}
	if err := needName("region", req.Region, true); err != nil {
		return nil, err
	}
	return h.backend.CreateStandby(c.ctx(), fleet.CreateStandby{App: c.app.Name, Volume: id, Host: drover.HostID(req.Host),
		Region: drover.Region(req.Region), Every: req.Every})
}

// standby returns the standby that the path names.
func (h *handler) standby(c *call) (drover.Standby, error) {
	volume, err := volumeID(c)
	if err != nil {
		return drover.Standby{}, err
	}
	id := c.r.PathValue("standby_id")
	if !hexDigits(id, "sby_", 16) {
		return drover.Standby{}, drover.Errorf(drover.NotFound, "standby not found: %q is not a standby ID, which is \"sby_\" and 16 digits from 0 to f", id)
	}
	s, err := h.backend.Standby(c.ctx(), c.app.Name, drover.StandbyID(id))
	if err == nil && s.Volume != volume {
		return s, drover.Errorf(drover.NotFound, "standby not found: %s is one of volume %s, not of %s", id, s.Volume, volume)
	}
	return s, err
}

func (h *handler) showStandby(c *call) (any, error) { return h.standby(c) }

func (h *handler) deleteStandby(c *call) (any, error) {
	s, err := h.standby(c)
	if err != nil {
		return nil, err
	}
	return h.backend.DeleteStandby(c.ctx(), c.app.Name, s.ID)
}
