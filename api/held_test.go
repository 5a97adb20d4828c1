package api_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// Whoever follows a log, or waits, when his token is revoked, hears no more of it: also when the token was only made from the one that is revoked.
func TestWhatIsHeldOpenEndsWithItsToken(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Now: backend.Now})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	parent := decode[apiv1.CreatedToken](t, s.want(201, "POST", "/v1/tokens", `{"name":"ci","org_slug":"acme"}`))
	made := decode[apiv1.CreatedToken](t, s.ask("POST", "/v1/tokens", parent.Token, `{"name":"logs","org_slug":"acme","caveats":["allow = logs"]}`))
	if made.Token == "" {
		t.Fatal("no token was made")
	}
	one := "/v1/apps/ledger/machines/" + string(m.ID)
	paths := map[string]string{one + "/logs?offset=0&wait=30s": "", one + "/wait?state=destroyed&timeout=60": "", "/api/v1/apps/ledger/logs": "?next_token="}
	// A page of the web's logs is held back from the second on.
	first := s.ask("GET", "/api/v1/apps/ledger/logs", made.Token, "")
	if first.Code != 200 {
		t.Fatal(first.Body)
	}
	paths["/api/v1/apps/ledger/logs"] += decode[apiv1.LogPage](t, first).Meta.NextToken
	answers := make(chan *httptest.ResponseRecorder, len(paths))
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // a held request that is let go on fails the test then
	defer cancel()
	begun := make(chan struct{}, 100)
	backend.Fail = func(method string) error {
		if method == "MachineLogs" || method == "WaitMachine" {
			begun <- struct{}{}
		}
		return nil
	}
	for path, query := range paths {
		r := httptest.NewRequest("GET", path+query, nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+made.Token)
		go func() {
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			answers <- w
		}()
	}
	for range 4 { // the web asks the host twice: for what there is, and for what comes
		<-begun
	}
	s.want(200, "DELETE", "/v1/tokens/"+string(parent.ID), "")
	for range paths {
		if w := <-answers; w.Code != 401 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}
