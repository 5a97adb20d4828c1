package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

// everyOperationOfSecrets asks what there is to ask of secrets.
func everyOperationOfSecrets(s *server) {
	s.tb.Helper()
	const path = "/v1/apps/ledger/secrets"
	s.want(200, "GET", path, "")
	s.want(200, "POST", path, `{"values":{"A":"one","B":null}}`)
	s.want(200, "GET", path+"?show_secrets=true", "")
	s.want(201, "POST", path+"/B", `{"value":"two"}`)
	s.want(200, "GET", path+"/B", "")
	s.want(200, "DELETE", path+"/B", "")
	const keys = "/v1/apps/ledger/secretkeys"
	for _, call := range [][2]string{{"GET", keys}, {"GET", keys + "/k"}, {"POST", keys + "/k"}, {"DELETE", keys + "/k"}, {"POST", keys + "/k/sign"},
		{"POST", path + "/k/type/hs256"}, {"POST", path + "/k/type/hs256/generate"}} {
		if r := s.refused(422, call[0], call[1], ""); r.Status != "unsupported" || r.Hint == "" {
			s.tb.Errorf("%v: %+v", call, r)
		}
	}
}

func TestSecrets(t *testing.T) {
	var log bytes.Buffer
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s.want(201, "POST", "/v1/apps", `{"name":"ledger","org_slug":"acme"}`)
	const path = "/v1/apps/ledger/secrets"
	list := func(query string) apiv1.SecretsResponse {
		t.Helper()
		return decode[apiv1.SecretsResponse](t, s.want(200, "GET", path+query, ""))
	}
	if got := list(""); got.Version != 0 || got.Secrets == nil || len(got.Secrets) != 0 {
		t.Errorf("before: %+v", got)
	}
	set := decode[apiv1.SecretsResponse](t, s.want(200, "POST", path, `{"values":{"A":"hunter2","B":"hunter2","GONE":null}}`))
	if set.Version == 0 || len(set.Secrets) != 2 || set.Secrets[0].Value != nil {
		t.Errorf("%+v", set)
	}
	if got := list("?version=1"); len(got.Secrets) != 2 || got.Secrets[0].Name != "A" || got.Secrets[0].Digest == "" || got.Secrets[0].Value != nil {
		t.Errorf("%+v", got)
	}
	if got := list("?show_secrets=true"); *got.Secrets[1].Value != "hunter2" {
		t.Errorf("%+v", got)
	}
	if r := s.refused(412, "GET", path+"?version=9", ""); r.Field != "version" {
		t.Errorf("%+v", r)
	}
	one := decode[apiv1.SecretResponse](t, s.want(201, "POST", path+"/C", `{"value":"hunter2"}`))
	if one.Name != "C" || one.Version <= set.Version || one.Value != nil {
		t.Errorf("%+v", one)
	}
	s.refused(404, "GET", path+"/NONE", "")
	if got := decode[apiv1.UnsetSecretResponse](t, s.want(200, "DELETE", path+"/NONE", "")); got.Version < one.Version {
		t.Errorf("%+v", got)
	}
	if w := s.ask("GET", path, apitest.OtherToken, ""); w.Code != 404 {
		t.Errorf("another organization: %d", w.Code)
	}
	// Nothing of a body that is not as it should be is repeated.
	for _, body := range []string{`"A=hunter2"`, `{"values":"A=hunter2"}`, `{"values":{"A":["hunter2"]}}`, `{"values":{"A":12345678}}`, `{"values":{}}`, `hunter2`, `{"values":{"A":"hunter2"`} {
		if r := s.refused(400, "POST", path, body); strings.Contains(r.Error+r.Hint, "hunter") || strings.Contains(r.Error, "1234") || r.Error == "" {
			t.Errorf("%s: %+v", body, r)
		}
	}
	for _, body := range []string{`{"value":["hunter2"]}`, `{}`, `"hunter2"`} {
		if r := s.refused(400, "POST", path+"/A", body); strings.Contains(r.Error+r.Hint, "hunter") {
			t.Errorf("%s: %+v", body, r)
		}
	}
	s.refused(400, "POST", path+"/1A", `{"value":"x"}`)
	if got := log.String(); strings.Contains(got, "hunter") || !strings.Contains(got, "secrets shown") {
		t.Errorf("the log: %s", got)
	}
}

// What a client says of secrets reaches the fleet, and what the fleet says of them the client.
func TestMachinesAndSecrets(t *testing.T) {
	backend := &wishes{Backend: apitest.New()}
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", `{"min_secrets_version":7,"skip_secrets":false,"config":{"image":"debian"}}`))
	if backend.last != (fleet.SecretsWish{MinSecretsVersion: 7}) {
		t.Errorf("create: %+v", backend.last)
	}
	s.want(200, "POST", "/v1/apps/ledger/machines/"+string(m.ID), `{"skip_secrets":true,"config":{"image":"debian"}}`)
	if backend.last != (fleet.SecretsWish{SkipSecrets: true}) {
		t.Errorf("update: %+v", backend.last)
	}
	backend.ChangeMachine(m.ID, func(v *fleet.MachineView) { v.Status.SecretsVersion = 7 })
	if got := decode[apiv1.Machine](t, s.want(200, "GET", "/v1/apps/ledger/machines/"+string(m.ID), "")); got.SecretsVersion != 7 {
		t.Errorf("%+v", got)
	}
	if r := s.refused(400, "POST", "/v1/apps/ledger/machines", `{"min_secrets_version":"7","config":{"image":"debian"}}`); !strings.Contains(r.Error, "min_secrets_version") {
		t.Errorf("%+v", r)
	}
}

// wishes remembers what was asked.
type wishes struct {
	*apitest.Backend
	last fleet.SecretsWish
}

func (w *wishes) CreateMachine(ctx context.Context, req fleet.CreateMachine) (fleet.MachineView, error) {
	w.last = req.SecretsWish
	return w.Backend.CreateMachine(ctx, req)
}

func (w *wishes) UpdateMachine(ctx context.Context, req fleet.UpdateMachine) (fleet.MachineView, error) {
	w.last = req.SecretsWish
	return w.Backend.UpdateMachine(ctx, req)
}
