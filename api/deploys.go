package api

import (
	"context"
	"fmt"
	"net/http"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// DeployBackend changes the machines of an app one after another.
type DeployBackend interface {
	// CreateDeploy is refused with Conflict while another deploy of the app has not ended. It goes on by itself once it is answered.
	CreateDeploy(ctx context.Context, req fleet.StartDeploy) (drover.Deploy, error)
	Deploys(ctx context.Context, app drover.AppName) ([]drover.Deploy, error)
	Deploy(ctx context.Context, app drover.AppName, id drover.DeployID) (drover.Deploy, error)
	// AbortDeploy is refused with Precondition when the deploy has ended otherwise.
	AbortDeploy(ctx context.Context, app drover.AppName, id drover.DeployID) (drover.Deploy, error)
}

func deployRoutes() []route {
	const deploys = "/apps/{app_name}/deploys"
	const deploy = deploys + "/{deploy_id}"
	return []route{
		{method: "GET", path: deploys, id: "Deploys_list", summary: "List the last deploys of an app, newest first", access: tenants,
			status: http.StatusOK, response: []apiv1.Deploy{}, handle: (*handler).listDeploys},
		{method: "POST", path: deploys, id: "Deploys_create", summary: "Change machines of an app one after another, each when those before are well", access: tenants,
			request: apiv1.DeployRequest{}, status: http.StatusCreated, response: apiv1.Deploy{}, handle: (*handler).createDeploy},
		{method: "GET", path: deploy, id: "Deploys_show", summary: "Show a deploy", access: tenants,
			status: http.StatusOK, response: apiv1.Deploy{}, handle: (*handler).showDeploy},
		{method: "POST", path: deploy + "/abort", id: "Deploys_abort", summary: "End a deploy; what was changed stays so", access: tenants,
			status: http.StatusOK, response: apiv1.Deploy{}, handle: (*handler).abortDeploy},
	}
}

func deployForm(d drover.Deploy) apiv1.Deploy {
	if d.Items == nil {
		d.Items = []drover.DeployItem{}
	}
	return apiv1.Deploy{Deploy: d}
}

func answerDeploy(d drover.Deploy, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return deployForm(d), nil
}

func deployID(c *call) (drover.DeployID, error) {
	id := c.r.PathValue("deploy_id")
	if !hexDigits(id, "dpl_", 16) {
		return "", drover.Errorf(drover.NotFound, "deploy not found: %q is not a deploy ID, which is \"dpl_\" and 16 digits from 0 to f", id)
	}
	return drover.DeployID(id), nil
}

func (h *handler) listDeploys(c *call) (any, error) {
	deploys, err := h.backend.Deploys(c.ctx(), c.app.Name)
	forms := []apiv1.Deploy{}
	for _, d := range deploys {
		forms = append(forms, deployForm(d))
	}
	return forms, err
}

func (h *handler) createDeploy(c *call) (any, error) {
	var req apiv1.DeployRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	order := fleet.StartDeploy{App: c.app.Name, Actor: c.principal.Name, Text: req.Text,
		Options: drover.DeployOptions{Strategy: req.Strategy, MaxUnavailable: req.MaxUnavailable, WaitTimeout: req.WaitTimeout}}
	for n, i := range req.Items {
		if i.Config != nil {
			if err := h.mayNameImage(c, c.app.Name, fmt.Sprintf("items[%d].config.image", n), i.Config.Image); err != nil {
				return nil, err
			}
		}
		order.Items = append(order.Items, drover.DeployItem{Action: i.Action, Machine: i.Machine, Name: i.Name, Region: i.Region, Group: i.Group, Config: i.Config,
			Timeout: i.Timeout})
	}
	return answerDeploy(h.backend.CreateDeploy(c.ctx(), order))
}

func (h *handler) showDeploy(c *call) (any, error) {
	id, err := deployID(c)
	if err != nil {
		return nil, err
	}
	return answerDeploy(h.backend.Deploy(c.ctx(), c.app.Name, id))
}

func (h *handler) abortDeploy(c *call) (any, error) {
	id, err := deployID(c)
	if err != nil {
		return nil, err
	}
	return answerDeploy(h.backend.AbortDeploy(c.ctx(), c.app.Name, id))
}
