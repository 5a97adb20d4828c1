package contract_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"drover/internal/testkit/contract"
)

const document = `{"openapi":"3.0.3","info":{"title":"t","version":"1"},"servers":[{"url":"/v1"}],"paths":{"/apps/{name}":{"get":{"operationId":"show",
	"parameters":[{"name":"name","in":"path","required":true,"schema":{"type":"string"}}],"responses":{"200":{"description":"ok","content":{"application/json":
	{"schema":{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}}}}}}}}}`

// TestTheProxySeesWhatDoesNotFit: answers pass as they are, and those that do not fit the document are told.
func TestTheProxySeesWhatDoesNotFit(t *testing.T) {
	own, err := contract.Own([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	answer := ""
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer x" || r.URL.RawQuery != "a=b" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		w.Write([]byte(answer))
	}))
	defer api.Close()
	proxy, err := contract.NewProxy(api.URL, own, nil)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	ask := func(path, body string) {
		t.Helper()
		answer = body
		r, err := http.NewRequest("GET", front.URL+path+"?a=b", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer x")
		got, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		var passed json.RawMessage
		if err := json.NewDecoder(got.Body).Decode(&passed); err != nil || string(passed) != body || got.StatusCode != 200 {
			t.Errorf("%d %s, %v", got.StatusCode, passed, err)
		}
	}
	ask("/v1/apps/shop", `{"name":"shop"}`)
	ask("/graphql", `{"data":{}}`)
	if wrong := proxy.Wrong(); len(wrong) != 0 {
		t.Errorf("what fits is told: %q", wrong)
	}
	ask("/v1/apps/shop", `{"name":3}`)
	ask("/v1/nothing", `{}`)
	wrong := proxy.Wrong()
	if len(wrong) != 2 || !strings.Contains(wrong[0], "name") || !strings.Contains(wrong[1], "/v1/nothing is not in the own document") {
		t.Errorf("told: %q", wrong)
	}
	if seen := proxy.Seen(); seen["show 200"] != 2 {
		t.Errorf("seen: %v", seen)
	}
	api.Close()
	if _, err := http.Get(front.URL + "/v1/apps/shop"); err == nil {
		t.Error("an API that is gone answers")
	}
}

func TestEveryDifferenceHasItsReason(t *testing.T) {
	for _, d := range contract.Differences() {
		if d.What == "" || d.Why == "" {
			t.Errorf("%+v", d)
		}
	}
}
