package api

import (
	"net/http"

	"drover"
	"drover/apiv1"
)

// aroundRoutes are about what goes on around a machine: leases, metadata, versions, cordon, processes.
func aroundRoutes() []route {
	const machine = "/apps/{app_name}/machines/{machine_id}"
	nonce := []param{{apiv1.LeaseNonceHeader, "string", "the nonce of the lease"}}
	return []route{
		{method: "GET", path: machine + "/lease", id: "Machines_show_lease", summary: "Show a machine's lease, with its nonce", access: tenants,
			status: http.StatusOK, response: apiv1.LeaseResponse{}, handle: (*handler).showLease},
		{method: "POST", path: machine + "/lease", id: "Machines_create_lease", summary: "Lease a machine, or with the nonce prolong the lease", access: tenants,
			headers: nonce, query: []param{{"ttl", "integer", "seconds, 1 to 86400; default 60"}}, request: apiv1.LeaseRequest{}, optional: true,
			status: http.StatusOK, response: apiv1.LeaseResponse{}, handle: (*handler).takeLease},
		{method: "DELETE", path: machine + "/lease", id: "Machines_release_lease", summary: "Release a machine's lease", access: tenants,
			headers: nonce, status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).releaseLease},
		{method: "GET", path: machine + "/metadata", id: "Machines_show_metadata", summary: "Show a machine's metadata", access: tenants,
			status: http.StatusOK, response: map[string]string{}, handle: (*handler).showMetadata},
		{method: "POST", path: machine + "/metadata/{key}", id: "Machines_update_metadata",
			summary: "Set an entry of a machine's metadata, without a restart; an empty value removes it", access: tenants, request: apiv1.LabelRequest{},
			status: http.StatusNoContent, handle: (*handler).setMetadata},
		{method: "DELETE", path: machine + "/metadata/{key}", id: "Machines_delete_metadata", summary: "Remove an entry of a machine's metadata",
			access: tenants, status: http.StatusNoContent, handle: (*handler).deleteMetadata},
		{method: "GET", path: machine + "/versions", id: "Machines_list_versions", summary: "List the configs that a machine has and had, newest first",
			access: tenants, status: http.StatusOK, response: []apiv1.MachineVersion{}, handle: (*handler).listVersions},
		{method: "POST", path: machine + "/cordon", id: "Machines_cordon", summary: "Keep a machine out of what gets traffic; it runs on", access: tenants,
			headers: nonce, status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).cordonMachine},
		{method: "POST", path: machine + "/uncordon", id: "Machines_uncordon", summary: "Let a machine have traffic again", access: tenants,
			headers: nonce, status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).uncordonMachine},
		{method: "GET", path: machine + "/ps", id: "Machines_list_processes", summary: "List the processes of a started machine", access: tenants,
			query:  []param{{"sort_by", "string", "pid, stime, rtime, cpu, rss, command or directory; default pid"}, {"order", "string", "asc or desc; default asc"}},
			status: http.StatusOK, response: []drover.Process{}, handle: (*handler).listProcesses},
	}
}
