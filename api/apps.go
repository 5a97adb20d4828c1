package api

import (
	"cmp"
	"net/http"
	"slices"

	"drover"
	"drover/apiv1"
)

// defaultOrganization owns the apps that an operator creates without naming one.
const defaultOrganization = "personal"

func (h *handler) listApps(c *call) (any, error) {
	org := c.r.URL.Query().Get("org_slug")
	deleted, err := queryBool(c.r.URL.Query(), "deleted")
	if err != nil {
		return nil, err
	}
	list := h.backend.Apps
	if deleted {
		list = h.backend.DestroyedApps
	}
	apps, err := list(c.ctx())
	if err != nil {
		return nil, err
	}
	if !deleted {
		slices.SortFunc(apps, func(a, b drover.App) int { return cmp.Compare(a.Name, b.Name) })
	}
	answer := apiv1.ListAppsResponse{Apps: []apiv1.ListApp{}}
	for _, app := range apps {
		if !mayUse(c, app) || (org != "" && org != app.Organization) {
			continue
		}
		a, err := h.appForm(c, app)
		if err != nil {
			return nil, err
		}
		answer.Apps = append(answer.Apps, apiv1.ListApp{ID: a.ID, Name: a.Name, Organization: a.Organization, InternalNumericID: a.InternalNumericID,
			Status: a.Status, MachineCount: a.MachineCount, VolumeCount: a.VolumeCount, CreatedAt: a.CreatedAt, AppEnd: a.AppEnd})
	}
	answer.TotalApps = len(answer.Apps)
	return answer, nil
}

// appForm counts what the app has.
func (h *handler) appForm(c *call, app drover.App) (apiv1.App, error) {
	machines, err := h.backend.Machines(c.ctx(), app.Name)
	if err != nil {
		return apiv1.App{}, err
	}
	volumes, err := h.backend.Volumes(c.ctx(), app.Name)
	if err != nil {
		return apiv1.App{}, err
	}
	count := 0
	for _, m := range machines {
		if m.Status.State != drover.StateDestroyed {
			count++
		}
	}
	end := appEnd(app)
	if end.Wiping {
		end.WaitsFor = unreachable(machines, volumes)
	}
	status := "pending"
	switch d := app.Destroyed; {
	case d != nil && d.Wiping:
		status = "wiping"
	case d != nil:
		status = "destroyed"
	case count > 0:
		status = "deployed"
	}
	return apiv1.App{ID: app.Name, Name: app.Name, InternalNumericID: numericID(string(app.Name)),
		Organization: apiv1.Organization{Name: app.Organization, Slug: app.Organization, InternalNumericID: numericID(app.Organization)},
		Network:      app.Network, Status: status, MachineCount: count, VolumeCount: len(volumes), CreatedAt: app.CreatedAt, AppEnd: end,
		Metadata: app.Metadata, Recovery: cmp.Or(string(app.Recovery), string(drover.RecoverAsk))}, nil
}

func (h *handler) createApp(c *call) (any, error) {
	var req apiv1.CreateAppRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	field, name := "app_name", req.AppName
	if name == "" && req.Name != "" {
		field, name = "name", req.Name
	}
	if err := needName(field, name, false); err != nil {
		return nil, err
	}
	if err := needName("network", req.Network, true); err != nil {
		return nil, err
	}
	org, err := organizationFor(c, req.OrgSlug)
	if err != nil {
		return nil, err
	}
	app, err := h.backend.CreateApp(c.ctx(), drover.App{Name: drover.AppName(name), Organization: org, Network: req.Network})
	if drover.Is(err, drover.Exists) {
		// 422 with this word is what clients of the Machines API take for a name that is taken.
		e := drover.AsError(err)
		if e.Field == "" {
			e = e.WithField(field)
		}
		return nil, &httpError{cause: e, status: http.StatusUnprocessableEntity, word: apiv1.StatusNameTaken}
	}
	if err != nil {
		return nil, err
	}
	return h.appForm(c, app)
}

// organizationFor says whose the new app will be.
func organizationFor(c *call, asked string) (string, error) {
	if err := needName("org_slug", asked, true); err != nil {
		return "", err
	}
	switch {
	case c.principal.Operator && asked == "":
		return defaultOrganization, nil
	case c.principal.Operator:
		return asked, nil
	case asked != "" && asked != c.principal.Organization:
		return "", drover.Errorf(drover.Denied, "org_slug is %q, and the token is of organization %q", asked, c.principal.Organization).
			WithField("org_slug")
	case c.principal.Organization == "":
		return "", drover.Errorf(drover.Denied, "the token belongs to no organization and cannot create apps")
	}
	return c.principal.Organization, nil
}

func (h *handler) showApp(c *call) (any, error) { return h.appForm(c, c.app) }
