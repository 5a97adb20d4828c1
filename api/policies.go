package api

import (
	"context"
	"net/http"

	"drover"
	"drover/apiv1"
)

// PolicyBackend is what the API asks about the network policies of apps. An ID may be a name.
type PolicyBackend interface {
	// SetPolicy makes a policy, or replaces the one of its name. Invalid names the field.
	SetPolicy(ctx context.Context, app drover.AppName, p drover.NetworkPolicy) (drover.NetworkPolicy, error)
	Policies(ctx context.Context, app drover.AppName) ([]drover.NetworkPolicy, error)
	Policy(ctx context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error)
	DeletePolicy(ctx context.Context, app drover.AppName, id string) (drover.NetworkPolicy, error)
}

func policyRoutes() []route {
	const all, one = "/apps/{app_name}/network_policies", "/apps/{app_name}/network_policies/{policy_id}"
	return []route{
		{method: "GET", path: all, id: "NetworkPolicies_list", summary: "List what machines of an app may receive and send in their network", access: tenants,
			status: http.StatusOK, response: []drover.NetworkPolicy{}, handle: (*handler).listPolicies},
		{method: "POST", path: all, id: "NetworkPolicies_set", summary: "Make a network policy, or replace the one of its name; it holds at once, while machines run", access: tenants,
			request: apiv1.NetworkPolicyRequest{}, status: http.StatusOK, response: drover.NetworkPolicy{}, handle: (*handler).setPolicy},
		{method: "GET", path: one, id: "NetworkPolicies_show", summary: "Show a network policy", access: tenants,
			status: http.StatusOK, response: drover.NetworkPolicy{}, handle: (*handler).showPolicy},
		{method: "DELETE", path: one, id: "NetworkPolicies_delete", summary: "Take a network policy away", access: tenants,
			status: http.StatusOK, response: drover.NetworkPolicy{}, handle: (*handler).deletePolicy},
	}
}

func (h *handler) listPolicies(c *call) (any, error) {
	return h.backend.Policies(c.ctx(), c.app.Name)
}

func (h *handler) setPolicy(c *call) (any, error) {
	var req apiv1.NetworkPolicyRequest
	if err := readStrict(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	return h.backend.SetPolicy(c.ctx(), c.app.Name, drover.NetworkPolicy{Name: req.Name, Selector: req.Selector, Rules: req.Rules})
}

func (h *handler) showPolicy(c *call) (any, error) {
	return h.backend.Policy(c.ctx(), c.app.Name, c.r.PathValue("policy_id"))
}

func (h *handler) deletePolicy(c *call) (any, error) {
	return h.backend.DeletePolicy(c.ctx(), c.app.Name, c.r.PathValue("policy_id"))
}
