package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

// everyOperationAround asks what there is to ask around a machine that runs.
func everyOperationAround(s *server, path string) {
	s.tb.Helper()
	s.want(204, "POST", path+"/metadata/drover.role", `{"value":"replica"}`)
	s.want(200, "GET", path+"/metadata", "")
	s.want(204, "DELETE", path+"/metadata/drover.role", "")
	s.want(200, "GET", path+"/versions", "")
	s.want(200, "POST", path+"/cordon", "")
	s.want(200, "POST", path+"/uncordon", "")
	s.want(200, "GET", path+"/ps?sort_by=rss&order=desc", "")
	lease := decode[apiv1.LeaseResponse](s.tb, s.want(200, "POST", path+"/lease?ttl=30", ""))
	s.want(200, "GET", path+"/lease", "")
	s.with(200, "DELETE", path+"/lease", "", apiv1.LeaseNonceHeader, lease.Data.Nonce)
}

// with is want with a header.
func (s *server) with(status int, method, path, body, header, value string) *httptest.ResponseRecorder {
	s.tb.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+apitest.OperatorToken)
	r.Header.Set(header, value)
	w := s.send(r)
	if w.Code != status {
		s.tb.Fatalf("%s %s with %s: %s: %d, want %d\n%s", method, path, header, value, w.Code, status, w.Body)
	}
	return w
}

// aMachine returns the server with an app and a machine that runs, and the machine's path.
func aMachine(t *testing.T, config api.Config) (*server, *apitest.Backend, apiv1.Machine, string) {
	t.Helper()
	backend := apitest.New()
	config.Backend = backend
	s := newServer(t, config)
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	return s, backend, m, "/v1/apps/ledger/machines/" + string(m.ID)
}

// TestALeaseKeepsOthersOut: while somebody has the lease, what changes the machine needs its nonce; what clients do without a nonce passes.
func TestALeaseKeepsOthersOut(t *testing.T) {
	s, _, m, path := aMachine(t, api.Config{})
	if got := s.refused(404, "GET", path+"/lease", ""); !strings.Contains(got.Error, " lease not found") {
		t.Errorf("%+v", got)
	}
	taken := decode[apiv1.LeaseResponse](t, s.want(200, "POST", path+"/lease?ttl=30", ""))
	if taken.Status != "success" || taken.Data.Nonce == "" || taken.Data.Owner != "operator" || taken.Data.Version != m.InstanceID || taken.Data.ExpiresAt == 0 {
		t.Fatalf("%+v", taken)
	}
	nonce := taken.Data.Nonce
	if seen := decode[apiv1.LeaseResponse](t, s.want(200, "GET", path+"/lease", "")); seen.Data.Nonce != nonce {
		t.Errorf("the lease is shown as %+v", seen)
	}
	verbs := [][3]string{{"POST", path, image}, {"POST", path + "/start", ""}, {"POST", path + "/stop", ""}, {"POST", path + "/restart", ""},
		{"POST", path + "/cordon", ""}, {"POST", path + "/uncordon", ""}, {"DELETE", path + "?kill=true", ""}}
	for _, v := range append(verbs, [3]string{"POST", path + "/lease", ""}, [3]string{"DELETE", path + "/lease", ""}) {
		for _, w := range []*httptest.ResponseRecorder{s.ask(v[0], v[1], apitest.OperatorToken, v[2]), s.with(409, v[0], v[1], v[2], apiv1.LeaseNonceHeader, "wrong")} {
			got := decode[apiv1.ErrorResponse](t, w)
			if w.Code != 409 || !strings.HasPrefix(got.Message, "machine ID "+string(m.ID)+" lease currently held by operator, expires at 2026-") {
				t.Errorf("%s %s: %d %+v", v[0], v[1], w.Code, got)
			}
			if about := strings.HasSuffix(v[1], "/lease"); about != (got.Status == "error") {
				t.Errorf("%s %s: the status is %q", v[0], v[1], got.Status)
			}
		}
	}
	for _, v := range [][3]string{{"POST", path + "/metadata/role", `{"value":"web"}`}, {"DELETE", path + "/metadata/role", ""}} {
		s.want(204, v[0], v[1], v[2])
	}
	for _, v := range [][3]string{{"POST", path + "/signal", `{"signal":1}`}, {"POST", path + "/exec", `{"cmd":"ls"}`}, {"GET", path + "/ps", ""},
		{"GET", path + "/wait", ""}, {"GET", path, ""}, {"GET", path + "/versions", ""}, {"GET", "/v1/apps/ledger/machines", ""}} {
		s.want(200, v[0], v[1], v[2])
	}
	if again := decode[apiv1.LeaseResponse](t, s.with(200, "POST", path+"/lease?ttl=60", "", apiv1.LeaseNonceHeader, nonce)); again.Data.Nonce != nonce ||
		again.Data.ExpiresAt <= taken.Data.ExpiresAt {
		t.Errorf("prolonged to %+v", again)
	}
	s.with(200, "POST", path+"/cordon", "", apiv1.LeaseNonceHeader, nonce)
	s.with(200, "DELETE", path+"/lease", "", apiv1.LeaseNonceHeader, nonce)
	s.with(404, "DELETE", path+"/lease", "", apiv1.LeaseNonceHeader, nonce)
	s.with(200, "POST", path+"/stop", "", apiv1.LeaseNonceHeader, nonce) // stale
	s.refused(404, "POST", "/v1/apps/ledger/machines/00000000000000/lease", "")
	s.refused(404, "POST", "/v1/apps/ledger/machines/00000000000000/stop", "")
}

func TestALeaseEndsByItself(t *testing.T) {
	s, backend, _, path := aMachine(t, api.Config{})
	s.want(200, "POST", path+"/lease?ttl=30", "")
	s.refused(409, "POST", path+"/stop", "")
	now := backend.Now().Add(31 * time.Second)
	backend.Now = func() time.Time { return now }
	s.refused(404, "GET", path+"/lease", "")
	s.want(200, "POST", path+"/stop", "")
}

func TestACreateWithALeaseAnswersTheNonce(t *testing.T) {
	s, _, _, _ := aMachine(t, api.Config{})
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", `{"lease_ttl":300,"config":{"image":"debian"}}`))
	path := "/v1/apps/ledger/machines/" + string(m.ID)
	s.refused(409, "POST", path+"/stop", "")
	s.with(200, "POST", path+"/stop", "", apiv1.LeaseNonceHeader, m.Nonce)
	if later := decode[apiv1.Machine](t, s.want(200, "GET", path, "")); m.Nonce == "" {
		t.Errorf("nonce %q, later %q", m.Nonce, later.Nonce)
	}
}

func TestVersionsHaveEveryConfig(t *testing.T) {
	s, _, m, path := aMachine(t, api.Config{})
	s.want(200, "POST", path, `{"config":{"image":"alpine","something_new":{"a":1}}}`)
	list := decode[[]apiv1.MachineVersion](t, s.want(200, "GET", path+"/versions", ""))
	if len(list) != 2 || list[1].Version != m.InstanceID || !list[1].Replaced || list[1].Status != "replaced" || list[1].UserConfig.Image != "debian" ||
		list[0].Replaced || list[0].UserConfig.Image != "alpine" {
		t.Errorf("%+v", list)
	}
}

func TestACordonedMachineSaysSo(t *testing.T) {
	s, backend, m, path := aMachine(t, api.Config{})
	s.want(200, "POST", path+"/cordon", "")
	if !decode[apiv1.Machine](t, s.want(200, "GET", path, "")).Cordoned {
		t.Error("it is not cordoned")
	}
	v, err := backend.Machine(t.Context(), "ledger", m.ID)
	if err != nil || v.Serves() {
		t.Errorf("a cordoned machine is to have traffic: %v", err)
	}
	s.want(200, "POST", path+"/uncordon", "")
	if v, err = backend.Machine(t.Context(), "ledger", m.ID); err != nil || !v.Serves() {
		t.Errorf("a machine that is not cordoned any more has no traffic: %v", err)
	}
	for name, change := range map[string]func(*fleet.MachineView){
		"its host is gone": func(v *fleet.MachineView) { v.HostStatus = drover.HostUnreachable },
		"it is destroyed":  func(v *fleet.MachineView) { v.Machine.Goal = drover.GoalDestroyed },
		"it is stopped":    func(v *fleet.MachineView) { v.Status.State = drover.StateStopped },
	} {
		changed := v
		if change(&changed); changed.Serves() {
			t.Errorf("%s, and it is to have traffic", name)
		}
	}
}

// TestAMachineMayBeMadeWithoutTraffic: what a bluegreen deployment asks of its new machines, until it uncordons them. An update that says nothing of it
// leaves a machine as it is.
func TestAMachineMayBeMadeWithoutTraffic(t *testing.T) {
	s, _, m, path := aMachine(t, api.Config{})
	green := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", `{"skip_service_registration":true,"config":{"image":"debian"}}`))
	if !green.Cordoned {
		t.Errorf("it is made with traffic: %+v", green)
	}
	at := "/v1/apps/ledger/machines/" + string(green.ID)
	const plain = `{"config":{"image":"debian"},"skip_service_registration":false}`
	if !decode[apiv1.Machine](t, s.want(200, "POST", at, plain)).Cordoned {
		t.Error("an update gave it traffic")
	}
	s.want(200, "POST", at+"/uncordon", "")
	if decode[apiv1.Machine](t, s.want(200, "POST", at, plain)).Cordoned {
		t.Error("an update took its traffic away")
	}
	if m.Cordoned || !decode[apiv1.Machine](t, s.want(200, "POST", path, `{"config":{"image":"debian"},"skip_service_registration":true}`)).Cordoned {
		t.Error("an update with skip_service_registration leaves it its traffic")
	}
}

func TestARestartTakesItsOwnWayOfStopping(t *testing.T) {
	s, backend, m, path := aMachine(t, api.Config{})
	for query, want := range map[string]drover.StopConfig{"": {}, "?force_stop=true": {Signal: "SIGKILL"}, "?timeout=7s&signal=SIGTERM": {Signal: "SIGTERM", Timeout: drover.Duration(7 * time.Second)},
		"?timeout=7&force_stop=false": {Timeout: drover.Duration(7 * time.Second)}} {
		s.want(200, "POST", path+"/restart"+query, "")
		if v, err := backend.Machine(t.Context(), "ledger", m.ID); err != nil || v.Machine.Stop != want {
			t.Errorf("%q: %+v, %v", query, v.Machine.Stop, err)
		}
	}
}

// TestAWaitSeesWhatIsOver: a machine that started and ended at once satisfies a wait that comes late, but not one for what is asked now.
func TestAWaitSeesWhatIsOver(t *testing.T) {
	t.Parallel()
	s, backend, m, path := aMachine(t, api.Config{})
	backend.ChangeMachine(m.ID, func(v *fleet.MachineView) {
		v.Status.Events = append(v.Status.Events, drover.Event{ID: string(m.ID) + "-1-9", Type: "exit", Status: drover.StateStopped, Run: 1, Instance: m.InstanceID})
		v.Status.State = drover.StateStopped
	})
	for _, query := range []string{"?state=started&timeout=1", "?state=started&timeout=1&version=" + string(m.InstanceID), "?state=settled&timeout=1", "?state=created&timeout=1"} {
		s.want(200, "GET", path+"/wait"+query, "")
	}
	for _, query := range []string{"?state=started&timeout=1&from_event_id=" + string(m.ID) + "-1-9", "?state=started&timeout=1&version=other", "?state=suspended&timeout=1"} {
		if got := s.refused(408, "GET", path+"/wait"+query, ""); !strings.Contains(got.Error, "timeout") {
			t.Errorf("%s: %+v", query, got)
		}
	}
	// It is asked to start again: that it was started before does not count.
	backend.ChangeMachine(m.ID, func(v *fleet.MachineView) { v.Machine.Run++ })
	s.refused(408, "GET", path+"/wait?state=started&timeout=1", "")
	s.refused(408, "GET", path+"/wait?state=settled&timeout=1", "")
}

func TestPagesOfAList(t *testing.T) {
	s, backend, first, _ := aMachine(t, api.Config{})
	for i := range 6 {
		now := backend.Now().Add(time.Duration(i/2) * time.Second) // some are of the same time
		backend.Now = func() time.Time { return now }
		s.want(200, "POST", "/v1/apps/ledger/machines", fmt.Sprintf(`{"name":"m%d","config":{"image":"debian","metadata":{"n":"%d"}}}`, i, i%2))
	}
	for _, order := range []string{"asc", "desc"} {
		var all []drover.MachineID
		next := "/v1/apps/ledger/machines?limit=3&order=" + order
		pages := 0
		for ; next != ""; pages++ {
			w := s.want(200, "GET", next, "")
			for _, m := range decode[[]apiv1.Machine](t, w) {
				all = append(all, m.ID)
			}
			next = ""
			if link := w.Header().Get("Link"); link != "" {
				next = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
			}
		}
		at := 0
		if order == "desc" {
			at = 6
		}
		if pages != 3 || len(all) != 7 || all[at] != first.ID {
			t.Errorf("%s: %d pages with %v", order, pages, all)
		}
	}
	for query, want := range map[string]int{"?metadata.n=1": 3, "?state=started&state=stopped": 7, "?state=stopped,failed": 0, "?state=created": 0} {
		if got := decode[[]apiv1.Machine](t, s.want(200, "GET", "/v1/apps/ledger/machines"+query, "")); len(got) != want {
			t.Errorf("%s: %d machines, want %d", query, len(got), want)
		}
	}
	if body := s.want(200, "GET", "/v1/apps/ledger/machines?summary=true", "").Body.String(); strings.Contains(body, `"config"`) || !strings.Contains(body, `"state":"started"`) {
		t.Errorf("a summary is %s", body)
	}
}

func TestAnIdempotencyKeyMakesOneMachine(t *testing.T) {
	s, _, _, _ := aMachine(t, api.Config{})
	const path, key = "/v1/apps/ledger/machines", apiv1.IdempotencyHeader
	one := decode[apiv1.Machine](t, s.with(200, "POST", path, `{"name":"one","config":{"image":"debian"}}`, key, "k"))
	two := decode[apiv1.Machine](t, s.with(200, "POST", path, `{"name":"one", "config":{"image":"debian"}}`, key, "k"))
	if one.ID != two.ID {
		t.Errorf("made %s and %s", one.ID, two.ID)
	}
	if got := decode[apiv1.ErrorResponse](t, s.with(422, "POST", path, `{"name":"two","config":{"image":"debian"}}`, key, "k")); got.Field != key {
		t.Errorf("%+v", got)
	}
	if other := decode[apiv1.Machine](t, s.with(200, "POST", path, `{"name":"two","config":{"image":"debian"}}`, key, "l")); other.ID == one.ID {
		t.Error("another key found the machine of the first")
	}
	s.with(400, "POST", path, image, key, strings.Repeat("k", 256))
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"name":"alices","config":{"image":"debian"}}`))
	r.Header.Set("Authorization", "Bearer "+apitest.AcmeToken)
	r.Header.Set(key, "k")
	if w := s.send(r); w.Code != 200 || decode[apiv1.Machine](t, w).ID == one.ID {
		t.Errorf("the key of somebody else: %d %s", w.Code, w.Body)
	}
}

// TestACommandThatTakesTooLong: the client has not gone, its command has, and the answer says so.
func TestACommandThatTakesTooLong(t *testing.T) {
	s, backend, _, path := aMachine(t, api.Config{})
	backend.Exec = func(drover.ExecRequest) (drover.ExecResult, error) {
		return drover.ExecResult{}, drover.Errorf(drover.Canceled, "%q was killed: it ran longer than 1s", "sleep")
	}
	if got := s.refused(408, "POST", path+"/exec", `{"command":["sleep","5"],"timeout":1}`); !strings.Contains(got.Error, "longer than 1s") || !strings.Contains(got.Hint, "timeout") {
		t.Errorf("%+v", got)
	}
}
