package api

import (
	"net/http"

	"drover"
	"drover/apiv1"
)

const (
	drainsPath = "/operator/drains"
	drainPath  = drainsPath + "/{drain_id}"
)

func drainRoutes() []route {
	one := func(method, path, id, summary string, request any, optional bool, handle func(*handler, *call) (any, error)) route {
		return route{method: method, path: path, id: id, summary: summary, access: operators, request: request, optional: optional,
			status: http.StatusOK, response: apiv1.Drain{}, handle: handle}
	}
	return []route{
		{method: "GET", path: drainsPath, id: "Drains_list", summary: "List the drains, newest first", access: operators,
			query:  []param{{"host", "string", "only those of the host"}},
			status: http.StatusOK, response: []apiv1.Drain{}, handle: (*handler).listDrains},
		{method: "POST", path: drainsPath, id: "Drains_create", summary: "Migrate everything off a host", access: operators,
			request: apiv1.DrainRequest{}, status: http.StatusCreated, response: apiv1.Drain{}, handle: (*handler).createDrain},
		one("POST", drainsPath+"/plan", "Drains_plan", "Tell what a drain would do; changes nothing", apiv1.DrainRequest{}, false, (*handler).planDrain),
		one("GET", drainPath, "Drains_show", "Show a drain", nil, false, (*handler).showDrain),
		one("POST", drainPath+"/pause", "Drains_pause", "Begin nothing new in a drain", nil, false, (*handler).pauseDrain),
		one("POST", drainPath+"/resume", "Drains_resume", "Let a drain go on, or lift the halt of a class", apiv1.ResumeDrainRequest{}, true, (*handler).resumeDrain),
		one("POST", drainPath+"/abort", "Drains_abort", "End a drain; what was moved stays where it is", apiv1.AbortDrainRequest{}, true, (*handler).abortDrain),
		one("POST", drainPath+"/approve", "Drains_approve", "Let a drain move a machine whose label asks for it", apiv1.ApproveRequest{}, false, (*handler).approveMove),
		one("POST", drainPath+"/return", "Drains_return", "Bring back what a drain moved", apiv1.ReturnRequest{}, false, (*handler).returnDrain),
		{method: "POST", path: "/operator/hosts/{host_id}/cordon", id: "Hosts_cordon", summary: "Close a host for new machines, volumes and moves", access: operators,
			request: apiv1.CordonRequest{}, status: http.StatusOK, response: drover.HostInfo{}, handle: (*handler).cordonHost},
		{method: "POST", path: "/operator/hosts/{host_id}/uncordon", id: "Hosts_uncordon", summary: "Open a host again", access: operators,
			status: http.StatusOK, response: drover.HostInfo{}, handle: (*handler).uncordonHost},
		{method: "GET", path: "/operator/regions/{region}/check", id: "Regions_check", summary: "Tell whether every single host of a region could be drained now",
			access: operators, status: http.StatusOK, response: drover.RegionCheck{}, handle: (*handler).checkRegion},
		{method: "POST", path: "/apps/{app_name}/metadata/{key}", id: "Apps_set_metadata", summary: "Set a label of an app; an empty value removes it",
			access: tenants, request: apiv1.LabelRequest{}, status: http.StatusOK, response: apiv1.App{}, handle: (*handler).setAppLabel},
	}
}
