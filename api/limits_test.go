package api_test

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// slow lets a token ask so often at once, and then hardly any more.
func slow(burst int) api.Rate { return api.Rate{PerSecond: 0.001, Burst: burst} }

func TestATokenThatAsksTooOftenIsToldWhenToComeBack(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New(), Limits: api.Limits{All: slow(2)}})
	for range 2 {
		if w := s.ask("GET", "/v1/apps", apitest.AcmeToken, ""); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	w := s.ask("GET", "/v1/apps", apitest.AcmeToken, "")
	if w.Code != 429 || decode[apiv1.ErrorResponse](t, w).Status != "" || w.Header().Get("Retry-After") != "1000" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := s.ask("GET", "/v1/apps", apitest.OtherToken, ""); w.Code != 200 {
		t.Errorf("the limit of one token struck another: %d", w.Code)
	}
	for range 9 {
		s.want(200, "GET", "/v1/apps", "") // an operator's token has no limit
	}
}

func TestEachActionOnEachMachineHasALimitOfItsOwn(t *testing.T) {
	s, _, _, path := aMachine(t, api.Config{Limits: api.Limits{Action: slow(1), Read: slow(2)}})
	other := "/v1/apps/ledger/machines/" + string(decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image)).ID)
	for i, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", path + "/stop", "", 200}, {"POST", path + "/stop", "", 429}, {"POST", path + "/start", "", 200}, {"POST", other + "/stop", "", 200},
		{"GET", path, "", 200}, {"GET", path, "", 200}, {"GET", path, "", 429}, {"GET", other, "", 200}, {"GET", path + "/events", "", 200},
		{"GET", path + "/wait", "", 200}, {"GET", path + "/wait", "", 200}, {"GET", path + "/wait", "", 200},
		{"POST", path + "/lease", "", 200}, {"POST", path + "/lease", "", 409}, {"POST", path + "/lease", "", 409}, {"POST", path + "/lease", "", 409},
		{"GET", "/v1/apps/ledger/machines", "", 200}, {"GET", "/v1/apps/ledger/machines", "", 200}, {"GET", "/v1/apps/ledger/machines", "", 200},
	} {
		if w := s.ask(c.method, c.path, apitest.AcmeToken, c.body); w.Code != c.status {
			t.Errorf("%d: %s %s: %d, want %d", i, c.method, c.path, w.Code, c.status)
		}
	}
}

// TestWhoIsRefusedCostsNothing: once a token has been good, a request with it that is one too many asks nothing of the tokens, and the log has one of many.
func TestWhoIsRefusedCostsNothing(t *testing.T) {
	var log bytes.Buffer
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Limits: api.Limits{All: slow(2)}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	s.want(200, "GET", "/v1/apps", "")
	ask := func() int { return s.ask("GET", "/v1/apps", apitest.AcmeToken, "").Code }
	for range 2 {
		if got := ask(); got != 200 {
			t.Fatal(got)
		}
	}
	backend.Fail = func(method string) error { return drover.Errorf(drover.Internal, "%s was asked", method) }
	for range 3 {
		if got := ask(); got != 429 {
			t.Error(got)
		}
	}
	if n := strings.Count(log.String(), "status=429"); n != 1 {
		t.Errorf("%d of 3 refusals are in the log: %s", n, &log)
	}
}

// TestAnAddressThatShowsBadTokens is kept from showing more of them, and good ones of others go on.
func TestAnAddressThatShowsBadTokens(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New(), Limits: api.Limits{Strangers: slow(2)}})
	ask := func(token string) int { return s.ask("GET", "/v1/apps", token, "").Code }
	for i, c := range []struct {
		token  string
		status int
	}{{apitest.AcmeToken, 200}, {"drv_bad", 401}, {"drv_bad", 401}, {"drv_bad", 429}, {"drv_worse", 429}, {apitest.AcmeToken, 200}} {
		if got := ask(c.token); got != c.status {
			t.Errorf("%d: %d, want %d", i, got, c.status)
		}
	}
}

// TestARequestKeepsTheIDThatItBrought, in the answer and in the log; one that could be something else gets another.
func TestARequestKeepsTheIDThatItBrought(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, api.Config{Backend: apitest.New(), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	ask := func(id string) string {
		r := httptest.NewRequest("GET", "/v1/apps", nil)
		r.Header.Set("Authorization", "Bearer "+apitest.OperatorToken)
		r.Header.Set(apiv1.RequestIDHeader, id)
		return s.send(r).Header().Get(apiv1.RequestIDHeader)
	}
	if got := ask("deploy-42.web_1"); got != "deploy-42.web_1" || !strings.Contains(log.String(), "request=deploy-42.web_1") {
		t.Errorf("answered %q, logged %s", got, &log)
	}
	for _, bad := range []string{"a b", "x\"y", strings.Repeat("x", 129), ""} {
		if got := ask(bad); got == bad || got == "" {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
}
