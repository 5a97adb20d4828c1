package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// contract is an OpenAPI document that answers are held against.
type contract struct {
	name   string
	router routers.Router
	base   string
}

// contracts are the two documents, loaded once: to load them takes longer than a test.
type contracts struct{ own, published *contract }

var loadContracts = sync.OnceValues(func() (contracts, error) {
	handler, err := api.New(api.Config{Backend: apitest.New()})
	if err != nil {
		return contracts{}, err
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1/openapi.json", nil))
	document, err := openapi3.NewLoader().LoadFromData(w.Body.Bytes())
	if err != nil {
		return contracts{}, err
	}
	own, err := newContract("own document", document, "http://drover.test")
	if err != nil {
		return contracts{}, err
	}
	published, err := publishedContract(document)
	return contracts{own: own, published: published}, err
})

// publishedPath is where a copy of the published document of the Machines API may be: it is not part of this repository.
func publishedPath() string {
	return filepath.Join("..", "..", "shared", "reference", "machines-api-2024-09.openapi.json")
}

// publishedContract is the published document, nil when there is no copy. Of it only the paths count that Drover has; some of the
// others are not valid OpenAPI.
func publishedContract(drovers *openapi3.T) (*contract, error) {
	data, err := os.ReadFile(publishedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, err
	}
	for path := range doc.Paths.Map() {
		if strings.HasPrefix(path, "/apps/{app_name}/secrets") {
			doc.Paths.Delete(path) // clients of today send and read another form
			continue
		}
		if drovers.Paths.Value(path) == nil {
			doc.Paths.Delete(path)
		}
	}
	// The document shows the Go type of a duration as an object; the service and its clients write durations as text. The schemas of
	// a check's times name the object type once more beside their reference.
	text := openapi3.NewStringSchema()
	*doc.Components.Schemas["fly.Duration"].Value = *text
	for _, p := range doc.Components.Schemas["fly.MachineCheck"].Value.Properties {
		if len(p.Value.AllOf) == 1 {
			*p.Value = *text
		}
	}
	return newContract("published document", doc, "https://api.machines.dev")
}

func newContract(name string, doc *openapi3.T, base string) (*contract, error) {
	for _, server := range doc.Servers {
		if strings.HasPrefix(server.URL, "/") {
			server.URL = base + server.URL
		}
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("the %s is not a valid OpenAPI document: %w", name, err)
	}
	return &contract{name: name, router: router, base: base}, nil
}

// check holds an answer against the document. A path that the document does not have, and a status that it does not describe, pass
// only when lenient.
func (c *contract) check(tb testing.TB, r *http.Request, w *httptest.ResponseRecorder, lenient bool) (operation string) {
	tb.Helper()
	described, err := http.NewRequest(r.Method, c.base+r.URL.RequestURI(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	route, params, err := c.router.FindRoute(described)
	if err != nil {
		if !lenient {
			tb.Errorf("%s %s is not in the %s: %v", r.Method, r.URL.Path, c.name, err)
		}
		return ""
	}
	if route.Operation.Responses.Status(w.Code) == nil && lenient {
		return route.Operation.OperationID
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: described, PathParams: params, Route: route},
		Status:                 w.Code,
		Header:                 w.Header(),
		Body:                   io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}
	if err := openapi3filter.ValidateResponse(tb.Context(), input); err != nil {
		tb.Errorf("%s %s answered %d, against the %s: %v\n%s", r.Method, r.URL.Path, w.Code, c.name, err, w.Body)
	}
	return route.Operation.OperationID
}

// server is the handler under test. Every answer is held against both documents.
type server struct {
	tb        testing.TB
	handler   http.Handler
	own       *contract
	published *contract
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
	if w.Code != http.StatusMethodNotAllowed {
		s.seen[s.own.check(s.tb, r, w, w.Code == http.StatusNotFound)]++
		if s.published != nil {
			s.seenPublished[s.published.check(s.tb, r, w, true)]++
		}
	}
	return w
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
