package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/internal/testkit/contract"
)

// contracts are the two documents, loaded once: to load them takes longer than a test.
type contracts struct{ own, published *contract.Document }

var loadContracts = sync.OnceValues(func() (contracts, error) {
	handler, err := api.New(api.Config{Backend: apitest.New()})
	if err != nil {
		return contracts{}, err
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1/openapi.json", nil))
	own, err := contract.Own(w.Body.Bytes())
	if err != nil {
		return contracts{}, err
	}
	published, err := contract.Published(publishedPath(), own)
	return contracts{own: own, published: published}, err
})

// publishedPath is where a copy of the published document of the Machines API may be: it is not part of this repository.
func publishedPath() string {
	return filepath.Join("..", "..", "shared", "reference", "machines-api-2024-09.openapi.json")
}

// server is the handler under test. Every answer is held against both documents.
type server struct {
	tb        testing.TB
	handler   http.Handler
	own       *contract.Document
	published *contract.Document
	// seen counts the operations of each document that were asked.
	seen, seenPublished map[string]int
}

func newServer(tb testing.TB, config api.Config) *server {
	tb.Helper()
	h, err := api.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	both, err := loadContracts()
	if err != nil {
		tb.Fatal(err)
	}
	if both.published == nil {
		tb.Logf("no copy of the published Machines API document at %s: answers are held against Drover's own document only", publishedPath())
	}
	return &server{tb: tb, handler: h, own: both.own, published: both.published, seen: map[string]int{}, seenPublished: map[string]int{}}
}

// ask sends a request with the token and returns the answer.
func (s *server) ask(method, path, token, body string) *httptest.ResponseRecorder {
	s.tb.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.send(r)
}

func (s *server) send(r *http.Request) *httptest.ResponseRecorder {
	s.tb.Helper()
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Header().Get(apiv1.RequestIDHeader) == "" {
		s.tb.Errorf("%s %s: the answer has no request ID", r.Method, r.URL.Path)
	}
	if w.Code == http.StatusBadGateway || w.Code == http.StatusServiceUnavailable {
		s.tb.Errorf("%s %s answered %d, which clients repeat", r.Method, r.URL.Path, w.Code)
	}
	if w.Code != http.StatusMethodNotAllowed && strings.HasPrefix(r.URL.Path, contract.Prefix) {
		s.check(s.own, s.seen, r, w, w.Code == http.StatusNotFound)
		if s.published != nil {
			s.check(s.published, s.seenPublished, r, w, true)
		}
	}
	return w
}

// check holds an answer against a document, and counts its operation.
func (s *server) check(d *contract.Document, seen map[string]int, r *http.Request, w *httptest.ResponseRecorder, lenient bool) {
	s.tb.Helper()
	operation, err := d.Check(contract.Answer{Method: r.Method, URI: r.URL.RequestURI(), Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}, lenient)
	if err != nil {
		s.tb.Error(err)
	}
	seen[operation]++
}

// want asks as the operator and fails unless the status is the one.
func (s *server) want(status int, method, path, body string) *httptest.ResponseRecorder {
	s.tb.Helper()
	w := s.ask(method, path, apitest.OperatorToken, body)
	if w.Code != status {
		s.tb.Fatalf("%s %s %s: %d, want %d\n%s", method, path, body, w.Code, status, w.Body)
	}
	return w
}

// refused asks as the operator and returns the refusal.
func (s *server) refused(status int, method, path, body string) apiv1.ErrorResponse {
	s.tb.Helper()
	return decode[apiv1.ErrorResponse](s.tb, s.want(status, method, path, body))
}

func decode[T any](tb testing.TB, w *httptest.ResponseRecorder) T {
	tb.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		tb.Fatalf("cannot read %s: %v", w.Body, err)
	}
	return v
}

func newRequest(method, path, body string) *http.Request {
	return httptest.NewRequest(method, path, strings.NewReader(body))
}
