package api

import (
	"context"
	"net/http"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// suspendBackend suspends machines.
type suspendBackend interface {
	// SuspendMachine is refused with Precondition for a machine that does not run.
	SuspendMachine(ctx context.Context, app drover.AppName, id drover.MachineID) (fleet.MachineView, error)
}

func suspendRoutes() []route {
	return []route{
		{method: "POST", path: "/apps/{app_name}/machines/{machine_id}/suspend", id: "Machines_suspend",
			summary: "Suspend a machine: it stands still, and its memory is kept on a disk until it is started", access: tenants,
			status: http.StatusOK, response: apiv1.OK{}, handle: (*handler).suspendMachine},
	}
}

func (h *handler) suspendMachine(c *call) (any, error) {
	id, err := machineID(c)
	if err != nil {
		return nil, err
	}
	_, err = h.backend.SuspendMachine(c.ctx(), c.app.Name, id)
	return apiv1.OK{OK: true}, machineGone(c, err)
}
