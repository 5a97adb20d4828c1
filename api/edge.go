package api

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// What belongs to edge hosts, addresses that the world reaches and certificates, has its resources here. A fleet without edge hosts lists what it has
// and refuses the rest.

const (
	ipsPath   = "/apps/{app_name}/ip_assignments"
	certsPath = "/apps/{app_name}/certificates"
	certPath  = certsPath + "/{hostname}"
)

func edgeRoutes() []route {
	gone := func(method, path, id, summary string) route {
		return route{method: method, path: path, id: id, summary: summary + ": there are none in a fleet without edge hosts", access: tenants,
			status: http.StatusNotFound, response: apiv1.ErrorResponse{}, handle: (*handler).noCertificate}
	}
	return []route{
		{method: "GET", path: ipsPath, id: "IPs_list", summary: "List an app's addresses: those of its machines, on its private network", access: tenants,
			status: http.StatusOK, response: apiv1.IPAssignmentsResponse{}, handle: (*handler).listIPs},
		{method: "POST", path: ipsPath, id: "IPs_assign", summary: "Ask for an address: a fleet without edge hosts refuses", access: tenants,
			request: apiv1.AssignIPRequest{}, status: http.StatusUnprocessableEntity, response: apiv1.ErrorResponse{}, handle: (*handler).assignIP},
		{method: "DELETE", path: ipsPath + "/{ip}", id: "IPs_release", summary: "Give an address back: that of a machine stays as long as the machine", access: tenants,
			status: http.StatusUnprocessableEntity, response: apiv1.ErrorResponse{}, handle: (*handler).releaseIP},
		{method: "GET", path: certsPath, id: "Certificates_list", summary: "List an app's certificates", access: tenants,
			query:  []param{{"limit", "integer", "how many at most, 1 to 500; default 50"}, {"cursor", "string", "where to go on, from next_cursor"}, {"filter", "string", "only hostnames that contain it"}},
			status: http.StatusOK, response: apiv1.CertificatesResponse{}, handle: (*handler).listCertificates},
		{method: "POST", path: certsPath + "/acme", id: "Certificates_acme", summary: "Ask for a certificate: a fleet without edge hosts refuses", access: tenants,
			request: apiv1.ACMECertificateRequest{}, status: http.StatusUnprocessableEntity, response: apiv1.ErrorResponse{}, handle: (*handler).acmeCertificate},
		{method: "POST", path: certsPath + "/custom", id: "Certificates_custom", summary: "Bring a certificate: a fleet without edge hosts refuses", access: tenants,
			request: apiv1.CustomCertificateRequest{}, status: http.StatusUnprocessableEntity, response: apiv1.ErrorResponse{}, handle: (*handler).customCertificate},
		gone("GET", certPath, "Certificates_show", "Show a certificate"),
		gone("POST", certPath+"/check", "Certificates_check", "Check a certificate"),
		gone("DELETE", certPath, "Certificates_delete", "Remove a host name's certificates"),
		gone("DELETE", certPath+"/acme", "Certificates_delete_acme", "Remove a certificate that was issued"),
		gone("DELETE", certPath+"/custom", "Certificates_delete_custom", "Remove a certificate that was brought"),
	}
}

func (h *handler) listIPs(c *call) (any, error) {
	views, err := h.backend.Machines(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(views, func(a, b fleet.MachineView) int {
		return cmp.Or(a.Machine.CreatedAt.Compare(b.Machine.CreatedAt), cmp.Compare(a.Machine.ID, b.Machine.ID))
	})
	answer := apiv1.IPAssignmentsResponse{IPs: []apiv1.IPAssignment{}}
	for _, v := range views {
		if m := v.Machine; m.Goal != drover.GoalDestroyed {
			answer.IPs = append(answer.IPs, apiv1.IPAssignment{IP: m.Address, Region: string(m.Region), CreatedAt: m.CreatedAt, MachineID: string(m.ID)})
		}
	}
	return answer, nil
}

func (h *handler) assignIP(c *call) (any, error) {
	var req apiv1.AssignIPRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	switch req.Type {
	case "v4", "v6", "shared_v4":
		return nil, unsupported(drover.Errorf(drover.Precondition, "this fleet has no edge hosts and no pool of addresses: app %q cannot have a public address", c.app.Name).
			WithHint("its machines have private addresses (GET ip_assignments lists them); put a proxy of your own before them"))
	case "private_v6":
		return nil, unsupported(drover.Errorf(drover.Precondition, "this fleet has no edge hosts, which would serve a private address of the whole app").
			WithHint("each machine has a private address of its own, which it keeps wherever it runs"))
	}
	return nil, badField("type", "is %q; expected v4, v6, shared_v4 or private_v6", req.Type)
}

func (h *handler) releaseIP(c *call) (any, error) {
	ip, err := netip.ParseAddr(c.r.PathValue("ip"))
	if err != nil {
		return nil, drover.Errorf(drover.NotFound, "address not found: %q is not an IP address", c.r.PathValue("ip"))
	}
	views, err := h.backend.Machines(c.ctx(), c.app.Name)
	if err != nil {
		return nil, err
	}
	for _, v := range views {
		if a, err := netip.ParseAddr(v.Machine.Address); err == nil && a == ip && v.Machine.Goal != drover.GoalDestroyed {
			return nil, unsupported(drover.Errorf(drover.Precondition, "address %s is that of machine %q, and stays as long as the machine", ip, v.Machine.ID))
		}
	}
	return nil, drover.Errorf(drover.NotFound, "address not found: app %q has no address %s", c.app.Name, ip)
}

func (h *handler) listCertificates(c *call) (any, error) {
	q := c.r.URL.Query()
	if _, err := queryInt(q, "limit", 50, 1, 500); err != nil {
		return nil, err
	}
	if cursor := q.Get("cursor"); cursor != "" {
		return nil, badField("cursor", "is not one that this list has answered")
	}
	return apiv1.CertificatesResponse{Certificates: []apiv1.Certificate{}}, nil
}

// validHostname reports whether a certificate could be for the name: a DNS name of two labels at least, perhaps with a wildcard first.
func validHostname(name string) bool {
	const most = 253
	labels := strings.Split(strings.TrimPrefix(name, "*."), ".")
	if len(name) > most || len(labels) < 2 {
		return false
	}
	return !slices.ContainsFunc(labels, func(l string) bool { return !drover.ValidName(strings.ToLower(l)) })
}

func refuseCertificate(hostname string) error {
	if !validHostname(hostname) {
		return badField("hostname", "is %q; expected a DNS name such as www.example.com", hostname)
	}
	return unsupported(drover.Errorf(drover.Precondition, "this fleet has no edge hosts, which would serve %s with a certificate", hostname).
		WithHint("end TLS in the machine, or in a proxy of your own before it"))
}

func (h *handler) acmeCertificate(c *call) (any, error) {
	var req apiv1.ACMECertificateRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	return nil, refuseCertificate(req.Hostname)
}

func (h *handler) customCertificate(c *call) (any, error) {
	var req apiv1.CustomCertificateRequest
	if err := readQuiet(c, &req, `{"hostname": "www.example.com", "fullchain": "PEM", "private_key": "PEM"}`); err != nil {
		return nil, err
	}
	return nil, refuseCertificate(req.Hostname)
}

func (h *handler) noCertificate(c *call) (any, error) {
	return nil, drover.Errorf(drover.NotFound, "certificate not found: app %q has none for %q", c.app.Name, c.r.PathValue("hostname"))
}
