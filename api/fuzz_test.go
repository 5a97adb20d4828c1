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
