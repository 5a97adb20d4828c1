package api

import (
	"net/http"

	"drover"
	"drover/apiv1"
)

// access says who may use a route.
type access int

const (
	// public needs no token.
	public access = iota
	// tenants needs any token; on a path with {app_name} the app must be the token's organisation's.
	tenants
	// operators needs an operator's token.
	operators
)

// param is a query parameter.
type param struct {
	name, kind, summary string
}

// route is one line of the API: what the handlers and the document are both made of.
type route struct {
	method, path string
	// id is the document's operationId.
	id, summary string
	access      access
	// destroyed routes are also for apps that were destroyed and are not gone.
	destroyed bool
	// need is what a token must allow; without it that of the table in permissions.go.
	need  need
	query []param
	// headers are those of a request that the route reads.
	headers []param
	// request is a zero value of what the body is read into; nil for no body. optional says that the body may be left out.
	request  any
	optional bool
	// status and response are what a success answers; with http.StatusNoContent there is no response.
	status   int
	response any
	// errors are the statuses that this route may answer beside those that every route may (see refusals).
	errors []int
	handle func(*handler, *call) (any, error)
}

// routes returns the table. Paths are below /v1, and are those of the published Machines API where it has them.
func routes() []route {
	var all []route
	all = append(all, appRoutes()...)
	all = append(all, appEndRoutes()...)
	all = append(all, machineRoutes()...)
	all = append(all, actionRoutes()...)
	all = append(all, aroundRoutes()...)
	all = append(all, suspendRoutes()...)
	all = append(all, volumeRoutes()...)
	all = append(all, snapshotRoutes()...)
	all = append(all, operatorRoutes()...)
	all = append(all, waterfallRoutes()...)
	all = append(all, drainRoutes()...)
	all = append(all, recoveryRoutes()...)
	all = append(all, tokenRoutes()...)
	all = append(all, secretRoutes()...)
	all = append(all, edgeRoutes()...)
	all = append(all, placeRoutes()...)
	all = append(all, streamRoutes()...)
	all = append(all, deployRoutes()...)
	all = append(all, networkRoutes()...)
	all = append(all, wireguardRoutes()...)
	all = append(all, policyRoutes()...)
	return append(withNeeds(all),
		route{method: "GET", path: "/healthz", id: "Health", summary: "Tell that the API answers", access: public,
			status: http.StatusOK, response: apiv1.Health{}, handle: (*handler).health},
		route{method: "GET", path: "/openapi.json", id: "Document", summary: "Describe the API (this document)", access: public,
			status: http.StatusOK, response: map[string]any{}, handle: (*handler).serveDocument},
	)
}

func appRoutes() []route {
	return []route{
		{method: "GET", path: "/apps", id: "Apps_list", summary: "List the apps that the token may see", access: tenants,
			query: []param{{"org_slug", "string", "only those of the organisation"},
				{"deleted", "boolean", "those that were destroyed and are not gone, instead"}},
			status: http.StatusOK, response: apiv1.ListAppsResponse{}, handle: (*handler).listApps},
		{method: "POST", path: "/apps", id: "Apps_create", summary: "Create an app", access: tenants,
			request: apiv1.CreateAppRequest{}, status: http.StatusCreated, response: apiv1.App{}, handle: (*handler).createApp},
		{method: "GET", path: "/apps/{app_name}", id: "Apps_show", summary: "Show an app", access: tenants,
			status: http.StatusOK, response: apiv1.App{}, handle: (*handler).showApp},
	}
}

func machineRoutes() []route {
	const machine = "/apps/{app_name}/machines/{machine_id}"
	return []route{
		{method: "GET", path: "/apps/{app_name}/machines", id: "Machines_list", summary: "List an app's machines", access: tenants,
			query: []param{{"include_deleted", "boolean", "also those that were destroyed lately"}, {"region", "string", "only those of the region"},
				{"state", "string", "only those in the state; repeated or with commas: in any of them"}, {"summary", "boolean", "without config, events and checks"},
				{"order", "string", "asc or desc, by the time of creation; default asc"}, {"limit", "integer", "how many on a page; default all"},
				{"cursor", "string", "where the page begins: the header " + apiv1.NextCursorHeader + " of the page before"}},
			// metadata.KEY=VALUE selects too; OpenAPI cannot describe a parameter with an open name.
			status: http.StatusOK, response: []apiv1.Machine{}, handle: (*handler).listMachines},
		{method: "POST", path: "/apps/{app_name}/machines", id: "Machines_create", summary: "Create a machine, and start it unless skip_launch is set",
			access: tenants, headers: []param{{apiv1.IdempotencyHeader, "string", "the request is carried out once under the key, for a day"}},
			request: apiv1.CreateMachineRequest{}, status: http.StatusOK, response: apiv1.Machine{}, handle: (*handler).createMachine},
		{method: "GET", path: machine, id: "Machines_show", summary: "Show a machine", access: tenants,
			status: http.StatusOK, response: apiv1.Machine{}, handle: (*handler).showMachine},
		{method: "POST", path: machine, id: "Machines_update", summary: "Replace a machine's config, which restarts it unless skip_launch is set",
			access: tenants, request: apiv1.UpdateMachineRequest{}, status: http.StatusOK, response: apiv1.Machine{}, handle: (*handler).updateMachine},
		{method: "DELETE", path: machine, id: "Machines_delete", summary: "Destroy a machine, a running one only by force; its volumes stay",
			access: tenants, query: []param{{"force", "boolean", "kill it if it runs"}, {"kill", "boolean", "the same as force"}},
			status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).destroyMachine},
	}
}

func actionRoutes() []route {
	const machine = "/apps/{app_name}/machines/{machine_id}"
	return []route{
		{method: "POST", path: machine + "/start", id: "Machines_start", summary: "Start a machine", access: tenants,
			status: http.StatusOK, response: apiv1.StartResult{}, handle: (*handler).startMachine},
		{method: "POST", path: machine + "/stop", id: "Machines_stop", summary: "Stop a machine by its stop signal", access: tenants,
			request: apiv1.StopRequest{}, optional: true, status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).stopMachine},
		{method: "POST", path: machine + "/restart", id: "Machines_restart", summary: "Stop a machine and start it again", access: tenants,
			query: []param{{"force_stop", "boolean", "kill it, without a stop signal"}, {"timeout", "string", "time before it is killed, in place of the config's"},
				{"signal", "string", "signal in place of the config's"}},
			status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).restartMachine},
		{method: "GET", path: machine + "/wait", id: "Machines_wait", summary: "Wait until a machine is in a state", access: tenants,
			query: []param{{"state", "string", "the state, or settled; repeated: any of them; default started"},
				{"instance_id", "string", "only with this version of its config"}, {"version", "string", "the same as instance_id"},
				{"from_event_id", "string", "only what happens after the event"}, {"timeout", "integer", "seconds, 1 to 60; default 60"}},
			status: http.StatusOK, response: apiv1.OK{}, errors: []int{http.StatusRequestTimeout}, handle: (*handler).waitMachine},
		{method: "POST", path: machine + "/exec", id: "Machines_exec", summary: "Run a command in a started machine", access: tenants,
			request: apiv1.ExecRequest{}, status: http.StatusOK, response: apiv1.ExecResult{}, errors: []int{http.StatusRequestTimeout}, handle: (*handler).execMachine},
		{method: "POST", path: machine + "/signal", id: "Machines_signal", summary: "Send a machine's main process a signal", access: tenants,
			request: apiv1.SignalRequest{}, status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).signalMachine},
		{method: "GET", path: machine + "/events", id: "Machines_list_events", summary: "List what happened to a machine, newest first",
			access: tenants, status: http.StatusOK, response: []apiv1.Event{}, handle: (*handler).listEvents},
		{method: "GET", path: machine + "/logs", id: "Machines_logs", summary: "Read what a machine's main process wrote", access: tenants,
			query: []param{{"offset", "integer", "where to start, from an earlier answer's next; default 0, with tail the end"},
				{"tail", "integer", "start so many lines before the end, 1000 at most"}, {"wait", "string", "hold the answer back so long while there is nothing, 30s at most"},
				{"host", "string", "where the machine was before its last move: what it wrote there, while that is kept"}},
			status: http.StatusOK, response: apiv1.Logs{}, handle: (*handler).machineLogs},
	}
}

func operatorRoutes() []route {
	return []route{
		{method: "GET", path: "/operator/hosts", id: "Hosts_list", summary: "List the hosts", access: operators,
			status: http.StatusOK, response: []drover.HostInfo{}, handle: (*handler).listHosts},
		{method: "GET", path: "/operator/hosts/{host_id}", id: "Hosts_show", summary: "Show a host", access: operators,
			status: http.StatusOK, response: drover.HostInfo{}, handle: (*handler).showHost},
		{method: "GET", path: "/operator/hosts/{host_id}/layers", id: "Hosts_layers", summary: "List the layers in a host's pool", access: operators,
			status: http.StatusOK, response: []drover.LayerStatus{}, handle: (*handler).hostLayers},
		{method: "GET", path: "/operator/hosts/{host_id}/machines", id: "Hosts_machines", summary: "List the machines on a host, of every app",
			access: operators, status: http.StatusOK, response: []apiv1.Machine{}, handle: (*handler).hostMachines},
		{method: "GET", path: "/operator/keys", id: "Keys_list", summary: "Describe the keys of volumes, and the fleet key that they are wrapped with",
			access: operators, status: http.StatusOK, response: drover.Keyring{}, handle: (*handler).listKeys},
		{method: "POST", path: "/operator/keys/rotate", id: "Keys_rotate", summary: "Wrap all keys of volumes with a new fleet key", access: operators,
			status: http.StatusOK, response: drover.Keyring{}, handle: (*handler).rotateKeys},
		{method: "PUT", path: "/operator/hosts/{host_id}/storage", id: "Hosts_set_storage", summary: "Set what holds for a host's storage as a whole",
			access: operators, request: apiv1.StorageRequest{}, status: http.StatusOK, response: drover.StorageSettings{}, handle: (*handler).setStorage},
		{method: "GET", path: "/operator/migrations", id: "Migrations_list", summary: "List the migrations, newest first", access: operators,
			query:  []param{{"machine", "string", "only those of the machine"}},
			status: http.StatusOK, response: []apiv1.Migration{}, handle: (*handler).listMigrations},
		{method: "POST", path: "/operator/migrations", id: "Migrations_create", summary: "Move a machine to another host", access: operators,
			request: apiv1.MoveRequest{}, status: http.StatusCreated, response: apiv1.Migration{}, handle: (*handler).createMigration},
		{method: "POST", path: "/operator/migrations/check", id: "Migrations_check", summary: "Tell everything that is for and against a move", access: operators,
			request: apiv1.MoveRequest{}, status: http.StatusOK, response: drover.MoveCheck{}, handle: (*handler).checkMigration},
		{method: "POST", path: "/operator/migrations/{migration_id}/undo", id: "Migrations_undo",
			summary: "Take a migration back to the copy that its source kept; without confirm, tell what would be given up", access: operators,
			request: apiv1.UndoRequest{}, optional: true, status: http.StatusOK, response: apiv1.Undo{}, handle: (*handler).undoMigration},
		{method: "POST", path: "/operator/migrations/{migration_id}/write-off", id: "Migrations_write_off",
			summary: "Give up what never came from a source that is lost; without confirm, tell what that would be", access: operators,
			request: apiv1.WriteOffRequest{}, optional: true, status: http.StatusOK, response: drover.LostSource{}, handle: (*handler).writeOffSource},
		{method: "GET", path: "/operator/migrations/{migration_id}", id: "Migrations_show", summary: "Show a migration", access: operators,
			status: http.StatusOK, response: apiv1.Migration{}, handle: (*handler).showMigration},
		{method: "POST", path: "/operator/migrations/{migration_id}/abort", id: "Migrations_abort",
			summary: "Abort a migration that has not reached its switch", access: operators, status: http.StatusOK, response: apiv1.Migration{}, handle: (*handler).abortMigration},
	}
}

func (h *handler) health(*call) (any, error) {
	return apiv1.Health{Status: "ok", Version: h.version}, nil
}
