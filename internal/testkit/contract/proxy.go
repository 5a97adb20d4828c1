package contract

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// Proxy passes requests on to an API and holds every answer under Prefix that is JSON against documents. An API that does not answer looks as it would
// without the proxy: the connection ends.
type Proxy struct {
	forward *httputil.ReverseProxy
	docs    []*Document

	mu sync.Mutex
	// seen counts the answers by operation of the first document, with their status; wrong has what did not fit.
	seen  map[string]int
	wrong []string
}

// maxWrong bounds how many answers that do not fit are told.
const maxWrong = 20

// NewProxy returns a proxy to the API at an address. Nil documents are left out; the first is checked strictly, the others where they say something.
func NewProxy(target string, docs ...*Document) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	p := &Proxy{docs: docs, seen: map[string]int{}}
	p.forward = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(u); r.SetXForwarded() },
		ModifyResponse: p.look,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		FlushInterval:  -1,
	}
	return p, nil
}

// ServeHTTP passes a request on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.forward.ServeHTTP(w, r) }

// look reads an answer and gives it on as it was.
func (p *Proxy) look(response *http.Response) error {
	r := response.Request
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if !strings.HasPrefix(r.URL.Path, Prefix) || kind != "application/json" || response.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err // the client gets no answer either
	}
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	p.check(Answer{Method: r.Method, URI: r.URL.RequestURI(), Status: response.StatusCode, Header: response.Header, Body: body})
	return nil
}

func (p *Proxy) check(a Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, d := range p.docs {
		if d == nil {
			continue
		}
		operation, err := d.Check(a, i > 0 || a.Status == http.StatusNotFound || a.Status == http.StatusMethodNotAllowed)
		if err != nil && len(p.wrong) < maxWrong {
			p.wrong = append(p.wrong, err.Error())
		}
		if i == 0 {
			p.seen[fmt.Sprintf("%s %d", operation, a.Status)]++
		}
	}
}

// Wrong lists the answers so far that did not fit, the first ones.
func (p *Proxy) Wrong() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.wrong...)
}

// Seen counts the answers so far, by the operation and the status.
func (p *Proxy) Seen() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[string]int{}
	for k, n := range p.seen {
		seen[k] = n
	}
	return seen
}
