package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// Prefix is where the paths are that the documents are about.
const Prefix = "/v1/"

// Document is an OpenAPI document that answers are held against. It is safe for concurrent use.
type Document struct {
	Name string
	// T is the document itself.
	T      *openapi3.T
	router routers.Router
	base   string
}

// Own reads the document that an API serves.
func Own(data []byte) (*Document, error) {
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, err
	}
	return newDocument("own document", doc, "http://drover.test")
}

// Published reads a copy of the published document of the Machines API; nil when there is none at the path. Of it only the operations count that the
// other document has too.
func Published(path string, own *Document) (*Document, error) {
	data, err := os.ReadFile(path)
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
		if own.T.Paths.Value(path) == nil {
			doc.Paths.Delete(path) // some of them are no valid OpenAPI
		}
	}
	for _, d := range Differences() {
		if err := d.apply(doc); err != nil {
			return nil, fmt.Errorf("the difference %q does not fit the published document: %w", d.What, err)
		}
	}
	return newDocument("published document", doc, "https://api.machines.dev")
}

func newDocument(name string, doc *openapi3.T, base string) (*Document, error) {
	for _, server := range doc.Servers {
		if strings.HasPrefix(server.URL, "/") {
			server.URL = base + server.URL
		}
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("the %s is not a valid OpenAPI document: %w", name, err)
	}
	return &Document{Name: name, T: doc, router: router, base: base}, nil
}

// Answer is one answer of an API.
type Answer struct {
	// Method and URI are those of the request; the URI begins with Prefix.
	Method, URI string
	Status      int
	Header      http.Header
	Body        []byte
}

// Check holds an answer against the document and returns the operation that it belongs to. A path that the document does not have, and a status that it
// does not describe, pass only when lenient.
func (d *Document) Check(a Answer, lenient bool) (operation string, err error) {
	described, err := http.NewRequest(a.Method, d.base+a.URI, nil)
	if err != nil {
		return "", err
	}
	route, params, err := d.router.FindRoute(described)
	if err != nil {
		if lenient {
			return "", nil
		}
		return "", fmt.Errorf("%s %s is not in the %s: %w", a.Method, described.URL.Path, d.Name, err)
	}
	operation = route.Operation.OperationID
	if route.Operation.Responses.Status(a.Status) == nil && lenient {
		return operation, nil
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: described, PathParams: params, Route: route},
		Status:                 a.Status,
		Header:                 a.Header,
		Body:                   io.NopCloser(bytes.NewReader(a.Body)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}
	if err := openapi3filter.ValidateResponse(described.Context(), input); err != nil {
		return operation, fmt.Errorf("%s %s answered %d, against the %s: %w\n%s", a.Method, described.URL.Path, a.Status, d.Name, err, a.Body)
	}
	return operation, nil
}

// Operations lists the document's operations, each with its method and path.
func (d *Document) Operations() map[string]string {
	all := map[string]string{}
	for path, item := range d.T.Paths.Map() {
		for method, operation := range item.Operations() {
			all[operation.OperationID] = method + " " + path
		}
	}
	return all
}
