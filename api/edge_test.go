package api_test

import (
	"strings"
	"testing"

	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// everyOperationOfEdges asks for what a fleet without edge hosts refuses.
func everyOperationOfEdges(s *server) {
	s.tb.Helper()
	const app = "/v1/apps/ledger"
	s.want(200, "GET", app+"/ip_assignments", "")
	s.want(422, "POST", app+"/ip_assignments", `{"type":"v6","org_slug":"acme"}`)
	ips := decode[apiv1.IPAssignmentsResponse](s.tb, s.want(200, "GET", app+"/ip_assignments", "")).IPs
	s.want(422, "DELETE", app+"/ip_assignments/"+ips[0].IP, "")
	s.want(200, "GET", app+"/certificates?limit=50", "")
	s.want(422, "POST", app+"/certificates/acme", `{"hostname":"www.example.com"}`)
	s.want(422, "POST", app+"/certificates/custom", `{"hostname":"*.example.com","fullchain":"x","private_key":"y"}`)
	for _, call := range [][2]string{{"GET", ""}, {"POST", "/check"}, {"DELETE", ""}, {"DELETE", "/acme"}, {"DELETE", "/custom"}} {
		s.want(404, call[0], app+"/certificates/www.example.com"+call[1], "")
	}
}

func TestAddressesAndCertificates(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"name":"ledger"}`)
	const app = "/v1/apps/ledger"
	list := func() []apiv1.IPAssignment {
		return decode[apiv1.IPAssignmentsResponse](t, s.want(200, "GET", app+"/ip_assignments", "")).IPs
	}
	if ips := list(); ips == nil || len(ips) != 0 {
		t.Errorf("an app without machines has %v", ips)
	}
	m := decode[apiv1.Machine](t, s.want(200, "POST", app+"/machines", image))
	ips := list()
	if len(ips) != 1 || ips[0].IP != m.PrivateIP || ips[0].MachineID != string(m.ID) || ips[0].Shared {
		t.Errorf("%+v", ips)
	}
	for _, kind := range []string{"v4", "v6", "shared_v4", "private_v6"} {
		if r := s.refused(422, "POST", app+"/ip_assignments", `{"type":"`+kind+`"}`); r.Status != "unsupported" || !strings.Contains(r.Error, "edge hosts") || r.Hint == "" {
			t.Errorf("%s: %+v", kind, r)
		}
	}
	if r := s.refused(400, "POST", app+"/ip_assignments", `{"type":"v5"}`); r.Field != "type" {
		t.Errorf("%+v", r)
	}
	if r := s.refused(422, "DELETE", app+"/ip_assignments/"+m.PrivateIP, ""); !strings.Contains(r.Error, string(m.ID)) {
		t.Errorf("%+v", r)
	}
	s.refused(404, "DELETE", app+"/ip_assignments/10.0.0.1", "")
	s.refused(404, "DELETE", app+"/ip_assignments/here", "")
	if got := decode[apiv1.CertificatesResponse](t, s.want(200, "GET", app+"/certificates", "")); got.Certificates == nil || got.TotalCount != 0 {
		t.Errorf("%+v", got)
	}
	s.refused(400, "GET", app+"/certificates?limit=0", "")
	for _, body := range []string{`{}`, `{"hostname":"localhost"}`, `{"hostname":"a..b"}`, `{"hostname":"http://x.y"}`} {
		if r := s.refused(400, "POST", app+"/certificates/acme", body); r.Field != "hostname" {
			t.Errorf("%s: %+v", body, r)
		}
	}
	if r := s.refused(400, "POST", app+"/certificates/custom", `{"hostname":"x.example","private_key":["hunter2"]}`); strings.Contains(r.Error, "hunter") {
		t.Errorf("%+v", r)
	}
	if r := s.refused(422, "POST", app+"/certificates/acme", `{"hostname":"www.example.com"}`); r.Status != "unsupported" {
		t.Errorf("%+v", r)
	}
}
