package api

import (
	"hash/fnv"
	"net/http"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// numericID makes a number of a name for clients that want one beside it. Nothing is ever found by it.
func numericID(name string) uint64 {
	h := fnv.New32a()
	h.Write([]byte(name)) // never fails
	return uint64(h.Sum32()>>1) + 1
}

// organizations lists those that the client may see: its own, or, for an operator, all that have apps, and the default.
func (h *handler) organizations(c *call) ([]string, error) {
	if !c.principal.Operator {
		if c.principal.Organization == "" {
			return nil, nil
		}
		return []string{c.principal.Organization}, nil
	}
	apps, err := h.backend.Apps(c.ctx())
	if err != nil {
		return nil, err
	}
	list := []string{defaultOrganization}
	for _, app := range apps {
		list = append(list, app.Organization)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// findOrganization is NotFound for one that the client may not see, as for one that does not exist.
func (h *handler) findOrganization(c *call, slug string) error {
	list, err := h.organizations(c)
	if err != nil {
		return err
	}
	if !slices.Contains(list, slug) {
		return drover.Errorf(drover.NotFound, "Could not find Organization %q", slug)
	}
	return nil
}

func webOrganizationForm(slug string) apiv1.WebOrganization {
	return apiv1.WebOrganization{ID: slug, InternalNumericID: numericID(slug), Slug: slug, RawSlug: slug, Name: slug, PaidPlan: true,
		Personal: slug == defaultOrganization, BillingStatus: "CURRENT", Billable: true}
}

func (h *handler) webOrganizations(c *call) (any, error) {
	list, err := h.organizations(c)
	if err != nil {
		return nil, err
	}
	forms := []apiv1.WebOrganization{}
	for _, slug := range list {
		forms = append(forms, webOrganizationForm(slug))
	}
	return map[string]any{"organizations": forms}, nil
}

func (h *handler) webOrganization(c *call) (any, error) {
	slug := c.r.PathValue("slug")
	if err := h.findOrganization(c, slug); err != nil {
		return nil, err
	}
	return map[string]any{"organization": webOrganizationForm(slug)}, nil
}

// bodyApp finds the app that a body names.
func (h *handler) bodyApp(c *call, name string) (drover.App, error) {
	if name == "" {
		return drover.App{}, drover.Errorf(drover.Invalid, "app_name is missing").WithField("app_name")
	}
	app, err := h.findApp(c, name)
	if drover.Is(err, drover.NotFound) {
		err = drover.AsError(err).WithField("app_name")
	}
	return app, err
}

func (h *handler) webCreateBuild(c *call) (any, error) {
	var req apiv1.BuildRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if _, err := h.bodyApp(c, req.AppName); err != nil {
		return nil, err
	}
	return apiv1.Build{ID: h.now().UnixMilli(), Status: "started"}, nil
}

func (h *handler) webFinishBuild(c *call) (any, error) {
	var req apiv1.BuildRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	if _, err := h.bodyApp(c, req.AppName); err != nil {
		return nil, err
	}
	return apiv1.Build{ID: req.BuildID, Status: req.Status}, nil
}

func (h *handler) webPromote(c *call) (any, error) {
	return nil, noEgress()
}

// noEgress refuses what concerns egress addresses.
func noEgress() error {
	return withStatus(http.StatusUnprocessableEntity, drover.Errorf(drover.Precondition, "this fleet has no egress IP addresses: machines leave it under the addresses of their hosts"))
}

// webIncidents answers the list that clients read from a public status page.
func (h *handler) webIncidents(*call) (any, error) { return map[string]any{"incidents": []any{}}, nil }

func releaseForm(r drover.Release) apiv1.Release {
	return apiv1.Release{ID: r.ID, Version: r.Version, Stable: r.Status == drover.ReleaseComplete,
		InProgress: r.Status == drover.ReleasePending || r.Status == drover.ReleaseRunning, Status: r.Status, Strategy: r.Strategy, Description: r.Description,
		User: r.Actor, ImageRef: r.Image, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt}
}

func (h *handler) webCreateRelease(c *call) (any, error) {
	var req apiv1.CreateReleaseRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	app, err := h.bodyApp(c, req.AppName)
	if err != nil {
		return nil, err
	}
	r, err := h.backend.CreateRelease(c.ctx(), fleet.CreateRelease{App: app.Name, Strategy: req.Strategy, Image: req.Image, Description: req.Description,
		Definition: req.Definition, Actor: c.principal.Name})
	if err != nil {
		return nil, err
	}
	return apiv1.ReleaseResponse{Release: releaseForm(r)}, nil
}

func (h *handler) webUpdateRelease(c *call) (any, error) {
	var req apiv1.UpdateReleaseRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	id := c.r.PathValue("release_id")
	notFound := drover.Errorf(drover.NotFound, "release not found: %q", id)
	if !hexDigits(id, "rel_", 16) {
		return nil, notFound
	}
	r, err := h.backend.Release(c.ctx(), drover.ReleaseID(id))
	if err == nil {
		_, err = h.findApp(c, string(r.App))
	}
	if drover.Is(err, drover.NotFound) {
		return nil, notFound
	}
	if err != nil {
		return nil, err
	}
	if r, err = h.backend.UpdateRelease(c.ctx(), fleet.UpdateRelease{ID: r.ID, Status: drover.ReleaseStatus(req.Status), Metadata: req.Metadata}); err != nil {
		return nil, err
	}
	return releaseForm(r), nil
}

func (h *handler) webReleases(c *call) (any, error) {
	limit, err := queryInt(c.r.URL.Query(), "limit", 25, 1, 1000)
	if err != nil {
		return nil, err
	}
	all, err := h.backend.Releases(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	answer := apiv1.ReleasesResponse{Releases: []apiv1.Release{}}
	for _, r := range all[:min(int(limit), len(all))] {
		answer.Releases = append(answer.Releases, releaseForm(r))
	}
	return answer, nil
}

// currentRelease is the newest one that is complete; nil for none.
func (h *handler) currentRelease(c *call, app drover.AppName) (*drover.Release, error) {
	all, err := h.backend.Releases(c.ctx(), app)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Status == drover.ReleaseComplete {
			return &r, nil
		}
	}
	return nil, nil
}

func (h *handler) webCurrentRelease(c *call) (any, error) {
	r, err := h.currentRelease(c, c.app.Name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, drover.Errorf(drover.NotFound, "app %q has no release that is complete", c.app.Name)
	}
	return releaseForm(*r), nil
}

func (h *handler) webCurrentReleases(c *call) (any, error) {
	var list apiv1.ListAppsResponse
	if err := h.inside(c, http.MethodGet, prefix+"/apps", nil, &list); err != nil {
		return nil, err
	}
	times := map[string]any{}
	for _, app := range list.Apps {
		r, err := h.currentRelease(c, app.Name)
		if err != nil {
			return nil, err
		}
		if r != nil {
			times[string(app.Name)] = r.CreatedAt
		}
	}
	return times, nil
}
