package api

import (
	"context"
	"net/http"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// AppEndBackend is what the API asks about apps that end.
type AppEndBackend interface {
	// AnyApp returns an app, also one that was destroyed and is not gone. So do Machines and Volumes.
	AnyApp(ctx context.Context, name drover.AppName) (drover.App, error)
	DestroyedApps(ctx context.Context) ([]drover.App, error)
	// DestroyApp takes the app's machines and volumes along; gone tells that nothing is left of it.
	DestroyApp(ctx context.Context, req fleet.DestroyApp) (app drover.App, gone bool, err error)
	UndeleteApp(ctx context.Context, name drover.AppName) (drover.App, error)
}

func appEndRoutes() []route {
	return []route{
		{method: "DELETE", path: "/apps/{app_name}", id: "Apps_delete", summary: "Destroy an app with its machines and volumes; one with volumes can be brought back for a time",
			access: tenants, destroyed: true, query: []param{{"now", "boolean", "give up the time in which it could be brought back"}},
			status: http.StatusAccepted, response: apiv1.DestroyedApp{}, handle: (*handler).destroyApp},
		{method: "POST", path: "/apps/{app_name}/undelete", id: "Apps_undelete", summary: "Bring a destroyed app back, with its machines and volumes",
			access: tenants, destroyed: true, status: http.StatusOK, response: apiv1.App{}, handle: (*handler).undeleteApp},
	}
}

func (h *handler) destroyApp(c *call) (any, error) {
	now, err := queryBool(c.r.URL.Query(), "now")
	if err != nil {
		return nil, err
	}
	app, gone, err := h.backend.DestroyApp(c.ctx(), fleet.DestroyApp{App: c.app.Name, Now: now, Actor: c.principal.Name})
	if err != nil {
		return nil, err
	}
	return apiv1.DestroyedApp{OK: true, Name: app.Name, Gone: gone, AppEnd: appEnd(app)}, nil
}

func (h *handler) undeleteApp(c *call) (any, error) {
	app, err := h.backend.UndeleteApp(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	return h.appForm(c, app)
}

// unreachable returns the hosts that have something of an app and do not answer.
func unreachable(machines []fleet.MachineView, volumes []fleet.VolumeView) (hosts []drover.HostID) {
	for _, m := range machines {
		if m.HostStatus == drover.HostUnreachable {
			hosts = append(hosts, m.Placement.Host)
		}
	}
	for _, v := range volumes {
		if v.HostStatus == drover.HostUnreachable {
			hosts = append(hosts, v.Volume.Host)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// appEnd is nothing for an app that lives.
func appEnd(app drover.App) apiv1.AppEnd {
	d := app.Destroyed
	if d == nil {
		return apiv1.AppEnd{}
	}
	return apiv1.AppEnd{DestroyedAt: d.At, DestroyedBy: d.By, WipeAt: d.WipeAt, Wiping: d.Wiping}
}
