package api_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

// FuzzCreateMachine: whatever the body of a create is, the answer is JSON, is the client's fault when it is a refusal, and a config that
// was accepted is given back as one that is accepted again.
func FuzzCreateMachine(f *testing.F) {
	for _, seed := range []string{``, `{}`, `null`, image, `{"config":{"image":"a","env":{"A":"b"},"mounts":[{"volume":"vol_0123456789abcdef","path":"/d"}]}}`,
		`{"config":{"image":"a","stop_config":{"timeout":{"Duration":5}}}}`, `{"config":{"image":"a","checks":{"x":{"type":"tcp","port":1,"interval":"1s"}}}}`,
		`{"config":{"image":"a","extra":{"deep":[1,2,{"x":null}]}},"name":"x"}`, `{"config":{"IMAGE":"a","image":7}}`, "{\"config\":{\"image\":\"\xff\"}}"} {
		f.Add([]byte(seed))
	}
	backend := apitest.New()
	handler, err := api.New(api.Config{Backend: backend})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := backend.CreateApp(f.Context(), drover.App{Name: "ledger", Organization: "acme"}); err != nil {
		f.Fatal(err)
	}
	create := func(body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/v1/apps/ledger/machines", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+apitest.AcmeToken)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := create(string(body))
		if w.Code >= 500 {
			t.Fatalf("answered %d: %s", w.Code, w.Body)
		}
		if w.Code != 200 {
			if refusal := decode[apiv1.ErrorResponse](t, w); refusal.Error == "" || refusal.Code == "" {
				t.Fatalf("a refusal says nothing: %s", w.Body)
			}
			return
		}
		var machine struct{ Config json.RawMessage }
		if err := json.Unmarshal(w.Body.Bytes(), &machine); err != nil {
			t.Fatalf("cannot read the answer: %v", err)
		}
		if again := create(`{"config":` + string(machine.Config) + `}`); again.Code != 200 {
			t.Fatalf("the config that was answered is refused: %d %s\n%s", again.Code, again.Body, machine.Config)
		}
	})
}

// FuzzVolumeRequests: whatever the body of a request about a volume is, the answer is JSON, and the client's fault when it is a refusal.
func FuzzVolumeRequests(f *testing.F) {
	for _, seed := range []string{``, `{}`, `null`, `{"name":"a","size_gb":1,"encrypted":null}`, `{"source_volume_id":"vol_0000000000000001","limits":{"iops":5}}`,
		`{"snapshot_id":"vs_0000000000000002","compute":{"cpus":1}}`, `{"snapshot_retention":9,"limits":{"x":1}}`, `{"size":8192,"LIMITS":null}`,
		`{"limit":4096,"paused":true}`, `{"quiesce":true,"retention_days":3}`, "{\"\xff\":1}"} {
		f.Add([]byte(seed))
	}
	backend := apitest.New()
	handler, err := api.New(api.Config{Backend: backend})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := backend.CreateApp(f.Context(), drover.App{Name: "ledger", Organization: "acme"}); err != nil {
		f.Fatal(err)
	}
	if _, err := backend.CreateVolume(f.Context(), fleet.CreateVolume{App: "ledger", Name: "data", Size: drover.GiB}); err != nil {
		f.Fatal(err)
	}
	const volume = "/v1/apps/ledger/volumes/vol_0000000000000001"
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, request := range [][2]string{{"POST", "/v1/apps/ledger/volumes"}, {"PUT", volume}, {"PUT", volume + "/extend"}, {"PUT", volume + "/hydration"},
			{"POST", volume + "/verify"}, {"POST", volume + "/snapshots"}} {
			r := httptest.NewRequest(request[0], request[1], strings.NewReader(string(body)))
			r.Header.Set("Authorization", "Bearer "+apitest.AcmeToken)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %s answered %d: %s", request[0], request[1], w.Code, w.Body)
			}
		}
	})
}
