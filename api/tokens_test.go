package api_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/macaroons"
)

// made makes a token as the operator.
func made(s *server, body string) string {
	s.tb.Helper()
	return decode[apiv1.CreatedToken](s.tb, s.want(201, "POST", "/v1/tokens", body)).Token
}

func narrow(tb testing.TB, token string, caveats ...string) string {
	tb.Helper()
	var cs drover.Caveats
	for _, text := range caveats {
		cs = append(cs, drover.ReadCaveat(text))
	}
	token, err := macaroons.Attenuate(token, cs)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// everyOperationOfTokens asks what there is to ask of tokens and of the trail.
func everyOperationOfTokens(s *server) {
	s.tb.Helper()
	s.want(200, "GET", "/v1/whoami", "")
	for _, path := range []string{"/v1/tokens/oidc", "/v1/tokens/kms"} {
		if r := s.refused(422, "POST", path, `{"aud":"https://example.com"}`); r.Status != "unsupported" || r.Hint == "" {
			s.tb.Errorf("%s: %+v", path, r)
		}
	}
	t := decode[apiv1.CreatedToken](s.tb, s.want(201, "POST", "/v1/tokens", `{"name":"ci","org_slug":"acme","caveats":["allow = deploy"]}`))
	s.want(200, "GET", "/v1/tokens?org_slug=acme", "")
	s.want(200, "GET", "/v1/tokens/"+string(t.ID), "")
	s.want(200, "DELETE", "/v1/tokens/"+string(t.ID), "")
	s.refused(404, "GET", "/v1/tokens/tok_ffffffffffffffff", "")
	s.want(200, "GET", "/v1/token-roots?org_slug=acme", "")
	s.want(200, "POST", "/v1/token-roots/rotate", `{"org_slug":"acme","grace":"24h"}`)
	s.want(200, "GET", "/v1/audit?app=ledger&token=tok_0000000000000001&org_slug=acme&since=2026-01-01T00:00:00Z&limit=5", "")
}

// TestWhatEachTokenMayDo is the table of docs/TOKENS.md, asked.
func TestWhatEachTokenMayDo(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Now: backend.Now})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	s.want(201, "POST", "/v1/apps", `{"app_name":"shop","org_slug":"acme"}`)
	s.want(201, "POST", "/v1/apps", `{"app_name":"theirs","org_slug":"other"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	m2 := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	one, two := "/v1/apps/ledger/machines/"+string(m.ID), "/v1/apps/ledger/machines/"+string(m2.ID)
	org := made(s, `{"name":"org","org_slug":"acme"}`)
	tokens := map[string]string{
		"org": org, "operator": made(s, `{"name":"op","operator":true}`), "app": made(s, `{"name":"app","caveats":["app = ledger"]}`),
		"machine": narrow(t, org, "app = ledger", "machine = "+string(m.ID)), "read": narrow(t, org, "allow = read"), "deploy": narrow(t, org, "allow = deploy"),
		"exec": narrow(t, org, "allow = exec"), "logs": narrow(t, org, "allow = logs"), "none": narrow(t, org, "allow = exec", "allow = logs"),
		"source": narrow(t, org, "source = 10.0.0.0/8"), "here": narrow(t, org, "source = 192.0.2.0/24"),
	}
	tokens["op-read"] = narrow(t, tokens["operator"], "allow = read")
	for _, c := range []struct{ method, path, body, may string }{
		{"GET", "/v1/whoami", "", "org operator app machine read deploy exec logs none op-read here"},
		{"GET", "/v1/apps", "", "org operator app machine read deploy exec logs none op-read here"},
		{"GET", "/v1/apps/ledger/machines", "", "org operator app machine read deploy exec logs none op-read here"},
		{"GET", "/v1/apps/shop", "", "org operator read deploy exec logs none op-read here"},
		{"GET", one, "", "org operator app machine read deploy exec logs none op-read here"},
		{"GET", two, "", "org operator app read deploy exec logs none op-read here"},
		{"GET", one + "/logs", "", "org operator app machine read deploy logs op-read here"},
		{"POST", one + "/exec", `{"cmd":"id"}`, "org operator app machine exec here"},
		{"POST", two + "/exec", `{"cmd":"id"}`, "org operator app exec here"},
		{"POST", one + "/stop", `{}`, "org operator app machine deploy here"},
		{"GET", "/v1/apps/ledger/volumes", "", "org operator app read deploy op-read here"},
		{"POST", "/v1/apps/shop/volumes", `{"name":"data","size_gb":1}`, "org operator deploy here"},
		{"POST", "/v1/apps", `{"app_name":"new","org_slug":"acme"}`, "org operator here"},
		{"GET", "/v1/tokens", "", "org operator here"},
		{"POST", "/v1/tokens", `{"name":"x","org_slug":"acme"}`, "org operator app machine here"}, // what limits the one limits the other
		{"GET", "/v1/audit", "", "org operator app machine read op-read here"},
		{"GET", "/v1/operator/hosts", "", "operator op-read"},
		{"POST", "/v1/operator/hosts/h1/cordon", `{"reason":"x"}`, "operator"},
	} {
		for name, token := range tokens {
			w := s.ask(c.method, c.path, token, c.body)
			may := strings.Contains(" "+c.may+" ", " "+name+" ")
			if (w.Code != 403 && w.Code != 404) != may {
				t.Errorf("%s for %s %s: %d %s", name, c.method, c.path, w.Code, w.Body)
			}
			if !may && w.Code == 403 && !strings.Contains(c.path, "operator") && !strings.Contains(decode[apiv1.ErrorResponse](t, w).Error, "caveat") {
				t.Errorf("%s for %s %s is not told which caveat refuses: %s", name, c.method, c.path, w.Body)
			}
			if strings.Contains(w.Body.String(), "theirs") && name != "operator" && name != "op-read" {
				t.Errorf("%s for %s %s learns of another organization: %s", name, c.method, c.path, w.Body)
			}
		}
	}
	if list := decode[[]apiv1.Machine](t, s.ask("GET", "/v1/apps/ledger/machines", tokens["machine"], "")); len(list) != 1 || list[0].ID != m.ID {
		t.Errorf("a token for one machine sees %d", len(list))
	}
	if list := decode[apiv1.ListAppsResponse](t, s.ask("GET", "/v1/apps", tokens["app"], "")); len(list.Apps) != 1 {
		t.Errorf("a token for one app sees %+v", list.Apps)
	}
	// An app that is not the token's is refused in the same words whether it exists or not.
	exists, missing := s.ask("GET", "/v1/apps/shop", tokens["app"], ""), s.ask("GET", "/v1/apps/nowhere", tokens["app"], "")
	if exists.Code != 403 || missing.Code != 403 || decode[apiv1.ErrorResponse](t, exists).Error != decode[apiv1.ErrorResponse](t, missing).Error {
		t.Errorf("%s\n%s", exists.Body, missing.Body)
	}
}

func TestTokensInTime(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Now: backend.Now})
	now := backend.Now()
	org := made(s, `{"name":"org","org_slug":"acme"}`)
	for status, caveat := range map[int]drover.Caveat{
		200: drover.Moment(drover.CaveatExpires, now.Add(time.Minute)), 401: drover.Moment(drover.CaveatExpires, now),
	} {
		if w := s.ask("GET", "/v1/whoami", narrow(t, org, caveat.String()), ""); w.Code != status {
			t.Errorf("%s: %d %s", caveat, w.Code, w.Body)
		}
	}
	if w := s.ask("GET", "/v1/whoami", narrow(t, org, drover.Moment(drover.CaveatNotBefore, now.Add(time.Hour)).String()), ""); w.Code != 401 {
		t.Errorf("before its time: %d", w.Code)
	}
	for _, body := range []string{`{"name":"x","org_slug":"acme","caveats":["ap = x"]}`, `{"name":"x","org_slug":"acme","caveats":["allow = everything"]}`,
		`{"name":"x","org_slug":"acme","caveats":["expires = tomorrow"]}`, `{"name":"x","org_slug":"acme","caveats":["machine = 1"]}`,
		`{"name":"x","org_slug":"acme","caveats":["source = home"]}`, `{"name":"x","org_slug":"acme","caveats":["org = a b"]}`} {
		if r := s.refused(400, "POST", "/v1/tokens", body); r.Field != "caveats[0]" {
			t.Errorf("%s: %+v", body, r)
		}
	}
	if r := s.refused(400, "POST", "/v1/tokens", `{"name":"x"}`); r.Field != "org_slug" {
		t.Errorf("%+v", r)
	}
	s.refused(404, "POST", "/v1/tokens", `{"name":"x","caveats":["app = nowhere"]}`)
	for _, body := range []string{`{"name":"x","operator":true}`, `{"name":"x","org_slug":"other"}`} {
		if w := s.ask("POST", "/v1/tokens", org, body); w.Code != 403 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	// Of several tokens the first counts that may.
	many := narrow(t, org, "allow = read") + ",fm2_of-another-maker," + apitest.OtherToken + "," + org
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	if w := s.ask("DELETE", "/v1/apps/ledger", many, ""); w.Code != 202 {
		t.Errorf("several tokens: %d %s", w.Code, w.Body)
	}
	info := decode[apiv1.Whoami](t, s.ask("GET", "/v1/whoami", org, ""))
	if w := s.ask("DELETE", "/v1/tokens/"+string(info.Token), apitest.OtherToken, ""); w.Code != 404 {
		t.Errorf("revoked by another organization: %d", w.Code)
	}
	s.want(200, "DELETE", "/v1/tokens/"+string(info.Token), "")
	if w := s.ask("GET", "/v1/whoami", narrow(t, org, "allow = read"), ""); w.Code != 401 {
		t.Errorf("revoked: %d", w.Code)
	}
	trail := decode[[]drover.AuditEntry](t, s.want(200, "GET", "/v1/audit?limit=1&token="+string(info.Token), ""))
	if len(trail) != 1 || trail[0].Name != "org" || trail[0].Route != "Whoami" || trail[0].Outcome != drover.AuditRefused {
		t.Errorf("who tried with the revoked token is not told: %+v", trail)
	}
}

func TestTheAuditTrailTellsWhoDidWhat(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Now: backend.Now})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	s.want(201, "POST", "/v1/apps", `{"app_name":"theirs","org_slug":"other"}`)
	read := narrow(t, made(s, `{"name":"reader","org_slug":"acme"}`), "allow = read")
	made := s.ask("POST", "/v1/apps/ledger/machines", apitest.AcmeToken, `{"config":{"image":"debian","env":{"PASSWORD":"hunter2"}}}`)
	m := decode[apiv1.Machine](t, made)
	s.ask("POST", "/v1/apps/ledger/machines/"+string(m.ID)+"/stop", read, "{}")
	s.ask("POST", "/v1/apps/ledger/machines/"+string(m.ID)+"/exec", apitest.AcmeToken, `{"cmd":"echo hunter2"}`)
	s.ask("DELETE", "/v1/apps/ledger/machines/"+string(m.ID), apitest.AcmeToken, "") // it runs: refused, but not by the token
	s.ask("DELETE", "/v1/apps/ledger", "a-token-of-nobody", "")
	s.ask("GET", "/v1/apps/ledger", apitest.AcmeToken, "")
	w := s.ask("GET", "/v1/audit?app=ledger&since=1h", apitest.AcmeToken, "")
	want := []string{
		"alice tok_0000000000000002 Machines_delete failed 412", "alice tok_0000000000000002 Machines_exec done 200",
		"reader tok_0000000000000011 Machines_stop refused 403", "alice tok_0000000000000002 Machines_create done 200",
		"operator tok_0000000000000001 Apps_create done 201",
	}
	entries := decode[[]drover.AuditEntry](t, w)
	for i, e := range entries {
		text := strings.Join([]string{e.Name, string(e.Token), e.Route, e.Outcome, map[int]string{200: "200", 201: "201", 403: "403", 412: "412"}[e.Status]}, " ")
		if i >= len(want) || text != want[i] || e.App != "ledger" || (e.Object != string(m.ID) && e.Route != "Apps_create") || e.Request == "" || e.Source != "192.0.2.1" || e.At.IsZero() {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	if len(entries) != len(want) || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("%s", w.Body)
	}
	all := decode[[]drover.AuditEntry](t, s.want(200, "GET", "/v1/audit?limit=2", ""))
	if len(all) != 2 || all[0].Outcome != drover.AuditRefused || all[0].Token != "" || all[0].Status != 401 {
		t.Errorf("%+v", all)
	}
	if entries := decode[[]drover.AuditEntry](t, s.ask("GET", "/v1/audit", apitest.OtherToken, "")); len(entries) != 1 || entries[0].App != "theirs" {
		t.Errorf("another organization sees %+v", entries)
	}
	if w := s.ask("GET", "/v1/audit?org_slug=acme", apitest.OtherToken, ""); w.Code != 403 {
		t.Errorf("another organization's trail: %d", w.Code)
	}
	for _, query := range []string{"since=yesterday", "limit=0", "limit=9999", "token=drv_secret", "app=A"} {
		s.refused(400, "GET", "/v1/audit?"+query, "")
	}
}

// What cannot be written into the trail is not done.
func TestNothingIsChangedWithoutATrail(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	backend.Fail = func(method string) error {
		if method == "AuditBegin" {
			return drover.Errorf(drover.Unavailable, "the bus is away")
		}
		return nil
	}
	s.refused(504, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	if apps, _, _ := backend.Count(); apps != 0 {
		t.Error("it was done")
	}
	s.want(200, "GET", "/v1/apps", "")
}

func TestGuardForOtherDoors(t *testing.T) {
	backend := apitest.New()
	g := api.NewGuard(backend, nil)
	r := httptest.NewRequest("POST", "/graphql", nil)
	if _, err := g.Identify(r); !drover.Is(err, drover.Denied) {
		t.Errorf("%v", err)
	}
	r.Header.Set("Authorization", "Bearer "+apitest.AcmeToken)
	who, err := g.Identify(r)
	if err != nil || len(who) != 1 || who[0].Organization != "acme" {
		t.Fatalf("%+v, %v", who, err)
	}
	if err := g.Allow(who[0], api.Permission{Need: g.Need(r, drover.ActDeploy, "ledger", "", false)}); err != nil {
		t.Error(err)
	}
	if err := g.Allow(who[0], api.Permission{Operators: true, Need: g.Need(r, drover.ActRead, "", "", false)}); !drover.Is(err, drover.Denied) {
		t.Error(err)
	}
	if !api.MaySee(who[0], drover.App{Name: "x", Organization: "acme"}) || api.MaySee(who[0], drover.App{Name: "x", Organization: "other"}) {
		t.Error("what it may see")
	}
}
