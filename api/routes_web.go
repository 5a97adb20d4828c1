package api

import (
	"net/http"
	"path"
	"strings"

	"drover/apiv1"
)

// webPrefix is where the routes are that clients of the Machines API look for beside it, under no version of ours. They are not in the document:
// docs/CLIENTS.md has them.
const webPrefix = "/api/v1"

// webRoutes returns their table. Unlike those of routes, its paths are whole.
func webRoutes() []route {
	const app = webPrefix + "/apps/{app_name}"
	return withNeeds([]route{
		{method: "GET", path: webPrefix + "/organizations", id: "Web_organizations", access: tenants, status: http.StatusOK, handle: (*handler).webOrganizations},
		{method: "GET", path: webPrefix + "/organizations/{slug}", id: "Web_organization", access: tenants, status: http.StatusOK, handle: (*handler).webOrganization},
		{method: "POST", path: webPrefix + "/builds", id: "Web_create_build", access: tenants, request: apiv1.BuildRequest{},
			status: http.StatusOK, handle: (*handler).webCreateBuild},
		{method: "POST", path: webPrefix + "/builds/finish", id: "Web_finish_build", access: tenants, request: apiv1.BuildRequest{},
			status: http.StatusOK, handle: (*handler).webFinishBuild},
		{method: "POST", path: webPrefix + "/releases", id: "Web_create_release", access: tenants, request: apiv1.CreateReleaseRequest{},
			status: http.StatusCreated, handle: (*handler).webCreateRelease},
		{method: "GET", path: webPrefix + "/releases/all_current", id: "Web_current_releases", access: tenants, status: http.StatusOK, handle: (*handler).webCurrentReleases},
		{method: "PATCH", path: webPrefix + "/releases/{release_id}", id: "Web_update_release", access: tenants, request: apiv1.UpdateReleaseRequest{},
			status: http.StatusOK, handle: (*handler).webUpdateRelease},
		{method: "GET", path: app + "/releases", id: "Web_releases", access: tenants, status: http.StatusOK, handle: (*handler).webReleases},
		{method: "GET", path: app + "/releases/current", id: "Web_current_release", access: tenants, status: http.StatusOK, handle: (*handler).webCurrentRelease},
		{method: "POST", path: app + "/egress_ips/{ip}/promote", id: "Web_promote_egress_ip", access: tenants, status: http.StatusOK, handle: (*handler).webPromote},
		{method: "GET", path: app + "/logs", id: "Web_logs", access: tenants, status: http.StatusOK, handle: (*handler).webLogs},
		{method: "GET", path: webPrefix + "/incidents", id: "Web_incidents", access: public, status: http.StatusOK, handle: (*handler).webIncidents},
	})
}

// tidied gives a request the path that its client meant: clients put theirs behind whatever their user set as the server's address, which may end in a
// slash. A path for GraphQL or of the web API is brought into its shortest form; any other loses the slashes too many at its front and nothing else,
// since what it names may be quoted.
func tidied(r *http.Request) *http.Request {
	short, raw := path.Clean(r.URL.Path), ""
	if short != graphPath && !strings.HasPrefix(short, webPrefix+"/") {
		short, raw = oneSlash(r.URL.Path), oneSlash(r.URL.RawPath)
	}
	if short == r.URL.Path {
		return r
	}
	tidy := r.Clone(r.Context())
	tidy.URL.Path, tidy.URL.RawPath = short, raw
	return tidy
}

// oneSlash makes one of several slashes at the front.
func oneSlash(p string) string {
	if strings.HasPrefix(p, "//") {
		return "/" + strings.TrimLeft(p, "/")
	}
	return p
}
