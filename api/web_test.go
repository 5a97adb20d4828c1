package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

func TestReleasesOfTheWebAPI(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	ask := func(token, method, path, body string, status int) string {
		t.Helper()
		w := s.ask(method, path, token, body)
		if w.Code != status {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	const shopReleases = "/api/v1/apps/shop/releases"
	ask(apitest.AcmeToken, "GET", shopReleases+"/current", "", 404)
	var first, second apiv1.ReleaseResponse
	for i, made := range []*apiv1.ReleaseResponse{&first, &second} {
		body := ask(apitest.AcmeToken, "POST", "/api/v1/releases", fmt.Sprintf(`{"app_name":"shop","build_id":3,"image":"debian:%d","strategy":"ROLLING","definition":{"app":"shop","x":[1]}}`, i), 201)
		if err := json.Unmarshal([]byte(body), made); err != nil || made.Release.Version != i+1 || !made.Release.InProgress {
			t.Fatalf("%s, %v", body, err)
		}
	}
	patched := ask(apitest.AcmeToken, "PATCH", "/api/v1/releases/"+string(first.Release.ID), `{"status":"complete","metadata":{"post_deployment_info":{"error":""}}}`, 200)
	if !strings.Contains(patched, `"status":"complete"`) || !strings.Contains(patched, `"stable":true`) {
		t.Error(patched)
	}
	if current := ask(apitest.AcmeToken, "GET", shopReleases+"/current", "", 200); !strings.Contains(current, `"version":1,`) {
		t.Errorf("the current release is %s", current)
	}
	var list apiv1.ReleasesResponse
	if err := json.Unmarshal([]byte(ask(apitest.AcmeToken, "GET", shopReleases+"?limit=1", "", 200)), &list); err != nil || len(list.Releases) != 1 || list.Releases[0].Version != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if all := ask(apitest.AcmeToken, "GET", "/api/v1/releases/all_current", "", 200); all != `{"shop":"2026-03-01T12:00:00Z"}`+"\n" {
		t.Error(all)
	}
	// A base address that ends in a slash.
	ask(apitest.AcmeToken, "GET", "/"+shopReleases, "", 200)

	for _, c := range []struct{ token, method, path, body, says string }{
		{apitest.OtherToken, "PATCH", "/api/v1/releases/" + string(first.Release.ID), `{"status":"failed"}`, "release not found"},
		{apitest.OtherToken, "GET", shopReleases, "", "app not found"},
		{apitest.OtherToken, "POST", "/api/v1/releases", `{"app_name":"shop"}`, "app not found"},
		{apitest.AcmeToken, "PATCH", "/api/v1/releases/rel_00000000000000ff", `{"status":"failed"}`, "release not found"},
		{apitest.AcmeToken, "PATCH", "/api/v1/releases/x", `{"status":"failed"}`, "release not found"},
	} {
		if got := ask(c.token, c.method, c.path, c.body, 404); !strings.Contains(got, c.says) {
			t.Errorf("%s %s: %s", c.method, c.path, got)
		}
	}
	for body, field := range map[string]string{`{"status":"perhaps"}`: "status", `{"status":1}`: "status"} {
		if got := ask(apitest.AcmeToken, "PATCH", "/api/v1/releases/"+string(first.Release.ID), body, 400); !strings.Contains(got, `"field":"`+field+`"`) {
			t.Errorf("%s: %s", body, got)
		}
	}
	ask(apitest.AcmeToken, "POST", "/api/v1/releases", `{}`, 400)
	ask(apitest.AcmeToken, "GET", shopReleases+"?limit=x", "", 400)
	ask("", "GET", shopReleases, "", 401)
}

func TestOrganizationsAndBuildsOfTheWebAPI(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	for _, c := range []struct {
		token, method, path, body string
		status                    int
		says                      string
	}{
		{apitest.AcmeToken, "GET", "/api/v1/organizations/acme", "", 200, `"slug":"acme"`},
		{apitest.AcmeToken, "GET", "/api/v1/organizations/other", "", 404, `Could not find Organization \"other\"`},
		{apitest.AcmeToken, "GET", "/api/v1/organizations?admin=false", "", 200, `{"organizations":[{"id":"acme"`},
		{apitest.OperatorToken, "GET", "/api/v1/organizations/other", "", 200, `"slug":"other"`},
		{apitest.AcmeToken, "POST", "/api/v1/builds", `{"app_name":"shop","builder_type":"local","strategies_available":["x"]}`, 200, `"status":"started"`},
		{apitest.AcmeToken, "POST", "/api/v1/builds", `{"app_name":"theirs"}`, 404, `app not found`},
		{apitest.AcmeToken, "POST", "/api/v1/builds/finish", `{"app_name":"shop","build_id":7,"status":"completed"}`, 200, `"id":7`},
		{apitest.AcmeToken, "POST", "/api/v1/apps/shop/egress_ips/1.2.3.4/promote", "", 422, `no egress IP addresses`},
		{apitest.AcmeToken, "GET", "/api/v1/nothing", "", 404, `no such path`},
		{"", "GET", "/api/v1/incidents", "", 200, `{"incidents":[]}`},
	} {
		w := s.ask(c.method, c.path, c.token, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

// logPage asks for a page of the app's logs.
func (s *server) logPage(query url.Values) apiv1.LogPage {
	s.tb.Helper()
	w := s.ask("GET", "/api/v1/apps/shop/logs?"+query.Encode(), apitest.AcmeToken, "")
	if w.Code != 200 {
		s.tb.Fatalf("%d %s", w.Code, w.Body)
	}
	return decode[apiv1.LogPage](s.tb, w)
}

func TestLogsAreReadInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := apitest.New()
		s := newServer(t, api.Config{Backend: backend})
		machine, _ := shop(s)
		backend.Log("one", "two")
		page := s.logPage(nil)
		if len(page.Data) != 2 || page.Data[0].Attributes.Message != "one" || page.Data[0].Attributes.Instance != machine.ID || page.Data[0].Attributes.Region != "north" ||
			page.Data[0].Attributes.Meta.Stream != "stdout" || page.Data[0].ID == page.Data[1].ID {
			t.Errorf("%+v", page)
		}
		// Nothing new: the answer is held back, so that a client does not ask all the time.
		begun := time.Now()
		if next := s.logPage(url.Values{"next_token": {page.Meta.NextToken}}); len(next.Data) != 0 || next.Data == nil || time.Since(begun) < 5*time.Second {
			t.Errorf("after %v: %+v", time.Since(begun), next)
		}
		// A line ends the waiting.
		go func() {
			<-time.After(time.Second)
			backend.Log("three")
		}()
		begun = time.Now()
		next := s.logPage(url.Values{"next_token": {page.Meta.NextToken}})
		if len(next.Data) != 1 || next.Data[0].Attributes.Message != "three" || time.Since(begun) != time.Second {
			t.Errorf("after %v: %+v", time.Since(begun), next)
		}
		// After a move the log is another one, which begins anew.
		backend.ChangeMachine(machine.ID, func(v *fleet.MachineView) { v.Placement.Epoch++ })
		if again := s.logPage(url.Values{"next_token": {next.Meta.NextToken}}); len(again.Data) != 3 {
			t.Errorf("after a move: %+v", again)
		}
		for query, want := range map[string]int{"region=north": 3, "region=south": 0, "instance=" + string(machine.ID): 3, "instance=00000000000000": 0} {
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.logPage(values); len(got.Data) != want {
				t.Errorf("%s: %d lines", query, len(got.Data))
			}
		}
	})
}

func TestLogsOfManyMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := apitest.New()
		s := newServer(t, api.Config{Backend: backend})
		machine, _ := shop(s)
		for range 40 {
			s.want(200, "POST", "/v1/apps/shop/machines", image)
		}
		for i := range 100 {
			backend.Log(fmt.Sprint("line ", i))
		}
		// Each machine has the same log. No line is left out and none comes twice, however long it takes; an unreachable host holds up nobody.
		backend.ChangeMachine(machine.ID, func(v *fleet.MachineView) { v.HostStatus = drover.HostUnreachable })
		var failed atomic.Bool
		backend.Fail = func(method string) error {
			if method == "MachineLogs" && failed.CompareAndSwap(false, true) {
				return drover.Errorf(drover.Unavailable, "the host does not answer")
			}
			return nil
		}
		seen := map[string]int{}
		values := url.Values{"next_token": {"AQA"}} // the beginning, without a place in any log
		for range 10 {
			page := s.logPage(values)
			values = url.Values{"next_token": {page.Meta.NextToken}}
			for _, l := range page.Data {
				seen[string(l.Attributes.Instance)+" "+l.Attributes.Message]++
			}
			if len(page.Data) == 0 {
				break
			}
		}
		for what, n := range seen {
			if n != 1 {
				t.Errorf("%s came %d times", what, n)
			}
		}
		if len(seen) != 40*100 {
			t.Errorf("%d lines came, want %d", len(seen), 40*100)
		}
	})
}

func TestLogTokensThatAreRefused(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	for _, token := range []string{"x", "AA", "AQ", "AQCA", "AQABAg", strings.Repeat("A", 40_000), "AQAAAAAAAAAAgA"} {
		w := s.ask("GET", "/api/v1/apps/shop/logs?next_token="+token, apitest.AcmeToken, "")
		if w.Code != 400 || decode[apiv1.ErrorResponse](t, w).Field != "next_token" {
			t.Errorf("%.20s: %d %s", token, w.Code, w.Body)
		}
	}
	if w := s.ask("GET", "/api/v1/apps/shop/logs", apitest.OtherToken, ""); w.Code != 404 {
		t.Errorf("another organization's logs: %d", w.Code)
	}
}
