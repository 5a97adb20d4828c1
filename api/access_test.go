package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

func TestTokens(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	for header, status := range map[string]int{
		"": 401, "Bearer": 401, "Bearer ": 401, "Basic eDp5": 401, "Bearer wrong": 401, "FlyV1 wrong": 401, apitest.OperatorToken: 401,
		"Bearer " + apitest.OperatorToken: 200, "bearer " + apitest.OperatorToken: 200, "FlyV1 " + apitest.OperatorToken: 200,
	} {
		r := httptest.NewRequest("GET", "/v1/apps", nil)
		r.Header.Set("Authorization", header)
		w := s.send(r)
		if w.Code != status {
			t.Errorf("%q: %d", header, w.Code)
		}
		if status == 401 && (decode[apiv1.ErrorResponse](t, w).Code != drover.Denied || w.Header().Get("WWW-Authenticate") == "") {
			t.Errorf("%q: %s", header, w.Body)
		}
	}
	for _, path := range []string{"/v1/healthz", "/v1/openapi.json"} {
		if w := s.ask("GET", path, "", ""); w.Code != 200 {
			t.Errorf("%s needs a token: %d", path, w.Code)
		}
	}
}

func TestOrganizationsSeeTheirOwnOnly(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"app_name":"theirs","org_slug":"other"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/theirs/machines", image))
	if w := s.ask("POST", "/v1/apps", apitest.AcmeToken, `{"app_name":"ours"}`); w.Code != 201 || decode[apiv1.App](t, w).Organization.Slug != "acme" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := s.ask("POST", "/v1/apps", apitest.AcmeToken, `{"app_name":"x","org_slug":"other"}`); w.Code != 403 {
		t.Errorf("an app for another organization: %d", w.Code)
	}
	list := decode[apiv1.ListAppsResponse](t, s.ask("GET", "/v1/apps", apitest.AcmeToken, ""))
	if len(list.Apps) != 1 || list.Apps[0].Name != "ours" {
		t.Errorf("the list has %+v", list.Apps)
	}
	ask := func(method, path, body string) string {
		w := s.ask(method, path, apitest.AcmeToken, body)
		got := decode[apiv1.ErrorResponse](t, w)
		got.RequestID = ""
		return fmt.Sprintf("%d %+v", w.Code, got)
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "", ""}, {"DELETE", "", ""}, {"GET", "/machines", ""}, {"POST", "/machines", image}, {"GET", "/machines/" + string(m.ID), ""},
		{"DELETE", "/machines/" + string(m.ID) + "?force=true", ""}, {"POST", "/machines/" + string(m.ID) + "/exec", `{"cmd":"id"}`}, {"GET", "/volumes", ""},
	} {
		hidden, missing := ask(c.method, "/v1/apps/theirs"+c.path, c.body), ask(c.method, "/v1/apps/nowhere"+c.path, c.body)
		if !strings.HasPrefix(hidden, "404 ") || strings.ReplaceAll(hidden, "theirs", "nowhere") != missing {
			t.Errorf("%s %s tells that the app exists:\n%s\n%s", c.method, c.path, hidden, missing)
		}
	}
	for _, path := range []string{"/hosts", "/hosts/h1", "/migrations"} {
		if w := s.ask("GET", "/v1/operator"+path, apitest.AcmeToken, ""); w.Code != 403 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestInternalErrorsAreLoggedNotSent(t *testing.T) {
	backend := apitest.New()
	backend.Fail = func(method string) error {
		if method == "Apps" {
			return errors.New("password is hunter2")
		}
		return nil
	}
	var log bytes.Buffer
	s := newServer(t, api.Config{Backend: backend, Log: slog.New(slog.NewTextHandler(&log, nil))})
	w := s.want(500, "GET", "/v1/apps", "")
	id := w.Header().Get(apiv1.RequestIDHeader)
	if strings.Contains(w.Body.String(), "hunter2") || !strings.Contains(w.Body.String(), id) {
		t.Errorf("answered %s", w.Body)
	}
	if !strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("logged %s", &log)
	}
}

// TestEveryCodeFromEveryMethod: whatever the backend answers, the status is described in the document and is neither 502 nor 503.
func TestEveryCodeFromEveryMethod(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	machine := "/v1/apps/ledger/machines/" + string(m.ID)
	for _, code := range drover.Codes {
		for fail, request := range map[string][3]string{
			"CreateApp": {"POST", "/v1/apps", `{"app_name":"x"}`}, "CreateMachine": {"POST", "/v1/apps/ledger/machines", image},
			"UpdateMachine": {"POST", machine, image}, "StartMachine": {"POST", machine + "/start", ""}, "StopMachine": {"POST", machine + "/stop", ""},
			"SuspendMachine": {"POST", machine + "/suspend", ""},
			"ExecMachine":    {"POST", machine + "/exec", `{"cmd":"x"}`}, "CreateVolume": {"POST", "/v1/apps/ledger/volumes", `{"name":"a","size_gb":1}`},
			"MoveMachine": {"POST", "/v1/operator/migrations", `{"machine":"` + string(m.ID) + `"}`},
		} {
			backend.Fail = func(method string) error {
				if method == fail {
					return drover.Errorf(code, "failed on purpose")
				}
				return nil
			}
			if w := s.ask(request[0], request[1], apitest.OperatorToken, request[2]); w.Code < 400 || decode[apiv1.ErrorResponse](t, w).Code != code {
				t.Errorf("%s failed with %s: %d %s", fail, code, w.Code, w.Body)
			}
		}
	}
}

func TestWait(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	wait := "/v1/apps/ledger/machines/" + string(m.ID) + "/wait"

	for _, query := range []string{"", "?state=", "?state=started&timeout=1", "?state=stopped&state=started", "?state=settled",
		"?instance_id=" + string(m.InstanceID), "?version=" + string(m.InstanceID)} {
		s.want(200, "GET", wait+query, "")
	}
	for _, query := range []string{"?state=stopped&timeout=1", "?timeout=1&instance_id=other", "?timeout=1&state=suspended&state=failed"} {
		got := s.refused(408, "GET", wait+query, "")
		if got.Code != drover.Unavailable || !strings.Contains(got.Error, "timeout") || !strings.Contains(got.Error, `"started"`) {
			t.Errorf("%s: %+v", query, got)
		}
	}
	// A wait for another version says why a machine that is in the state is not what was waited for.
	if got := s.refused(408, "GET", wait+"?timeout=1&instance_id=other", ""); !strings.Contains(got.Error, `not ["started"] with version "other": it has version "`+string(m.InstanceID)) {
		t.Errorf("another version: %+v", got)
	}
	s.refused(408, "GET", wait+"?timeout=1&state=replaced", "")
	s.want(404, "GET", "/v1/apps/ledger/machines/00000000000000/wait?state=settled", "")

	answered := make(chan int, 1)
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		r := httptest.NewRequest("GET", wait+"?state=stopped&state=failed", nil)
		r.Header.Set("Authorization", "Bearer "+apitest.OperatorToken)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		answered <- w.Code
	})
	backend.ChangeMachine(m.ID, func(v *fleet.MachineView) { v.Status.State = drover.StateStopped })
	if code := <-answered; code != 200 {
		t.Errorf("answered %d", code)
	}
}

func TestWaitEndsWithTheRequest(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	waiting := make(chan struct{}, 10)
	backend.Fail = func(method string) error {
		if method == "WaitMachine" || method == "MachineLogs" {
			waiting <- struct{}{}
		}
		return nil
	}
	for _, path := range []string{"/wait?state=stopped&timeout=60", "/logs?wait=30s"} {
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequest("GET", "/v1/apps/ledger/machines/"+string(m.ID)+path, nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+apitest.OperatorToken)
		done := make(chan int, 1)
		go func() {
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			done <- w.Code
		}()
		<-waiting
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s goes on after its request ended", path)
		}
	}
}
