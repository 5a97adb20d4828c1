package api

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// Config describes the API.
type Config struct {
	// Backend answers what is asked.
	Backend Backend
	// Log gets one line per request: Debug for reads, Info for changes and refusals, Error for internal errors. Nil logs nothing.
	Log *slog.Logger
	// Version is what /v1/healthz and the document say.
	Version string
	// Limits is how often a token may ask. Its zero value is without limits.
	Limits Limits
	// OpenMetrics lets everybody read GET /metrics who can reach the API; without it an operator's token is needed.
	OpenMetrics bool
	// Now is the clock that as_of of a migration shows. Nil means time.Now.
	Now func() time.Time
}

// prefix is where the API's version 1 lives.
const prefix = "/v1"

// New returns the handler of every path under /v1, and of /metrics. It starts nothing, and is safe for concurrent use.
func New(config Config) (http.Handler, error) {
	if config.Backend == nil {
		return nil, errors.New("api: no Backend")
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	h := &handler{
		backend:   config.Backend,
		log:       config.Log,
		version:   config.Version,
		now:       config.Now,
		limits:    newLimits(config.Limits),
		forms:     formCache{write: machineForm},
		summaries: formCache{write: func(v fleet.MachineView) apiv1.Machine { return summaryOf(machineForm(v)) }},
		guard:     NewGuard(config.Backend, config.Now),
		mux:       http.NewServeMux(),
	}
	routes := routes()
	document, err := document(config.Version, routes)
	if err != nil {
		return nil, err
	}
	h.document = document
	byPath := map[string][]route{}
	for _, r := range routes {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for path, routes := range byPath {
		h.mux.Handle(prefix+path, h.dispatch(routes))
	}
	h.mountClients()
	h.mux.Handle(metricsPath, newMetrics(h, config.OpenMetrics))
	h.mux.HandleFunc("/", h.noRoute)
	return h, nil
}

type handler struct {
	backend Backend
	log     *slog.Logger
	version string
	now     func() time.Time
	limits  *limits
	guard   *Guard
	// forms and summaries are machines as lists have them.
	forms, summaries formCache
	mux              *http.ServeMux
	document         []byte
}

// call is one request on its way through a route.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	id        string
	route     route
	principal fleet.Principal
	// app is there on routes with {app_name}: it exists and the principal may see it.
	app drover.App
	// answered: the route has written the answer itself.
	answered bool
	// quiet: the refusal is one of many, and another one is in the log.
	quiet bool
}

func (c *call) ctx() context.Context { return c.r.Context() }

// ServeHTTP serves one request. A path that is not in its shortest form is no route: the mux would redirect it, with a page in HTML.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = tidied(r)
	if r.URL.Path != "/" && r.URL.Path != path.Clean(r.URL.Path) {
		h.noRoute(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *handler) noRoute(w http.ResponseWriter, r *http.Request) {
	h.respond(&call{w: w, r: r, id: requestID(r)}, time.Now(), nil, drover.Errorf(drover.NotFound, "no such path: %s", r.URL.Path).
		WithHint("GET /v1/openapi.json lists every path"))
}

// maxRequestID bounds the ID that a request may bring along.
const maxRequestID = 128

// requestID is what the request is called: by the ID that it brought along, so that its way can be followed through several programs, or by
// a new one. What an ID cannot look like is not taken, for it is written into the log.
func requestID(r *http.Request) string {
	id := r.Header.Get(apiv1.RequestIDHeader)
	valid := id != "" && len(id) <= maxRequestID
	for _, c := range id {
		valid = valid && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.')
	}
	if !valid {
		return rand.Text()
	}
	return id
}

// dispatch picks the route of the request's method among those of one path.
func (h *handler) dispatch(routes []route) http.Handler {
	var allowed []string
	for _, r := range routes {
		allowed = append(allowed, r.method)
	}
	slices.Sort(allowed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		c := &call{w: w, r: r, id: requestID(r)}
		i := slices.IndexFunc(routes, func(route route) bool { return route.method == r.Method })
		if i < 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			h.respond(c, begun, nil, withStatus(http.StatusMethodNotAllowed,
				drover.Errorf(drover.Invalid, "%s is not allowed here; %s is", r.Method, strings.Join(allowed, " or "))))
			return
		}
		c.route = routes[i]
		answer, err := h.serve(c)
		h.respond(c, begun, answer, err)
	})
}

// serve lets a request in and has it answered. What changes something is in the audit trail before it is done.
func (h *handler) serve(c *call) (any, error) {
	if c.route.access == public {
		return c.route.handle(h, c)
	}
	if err := h.admit(c); err != nil {
		h.refuse(c, err)
		return nil, err
	}
	if err := h.guardLease(c); err != nil {
		return nil, err
	}
	if !c.changes() {
		return h.answer(c)
	}
	attempt := h.attempt(c)
	if err := h.guard.Begin(c.ctx(), attempt); err != nil {
		return nil, err
	}
	answer, err := h.answer(c)
	status := c.route.status
	if err != nil {
		status, _ = errorAnswer(err, c.id)
	}
	h.guard.End(made(attempt, answer), status, err)
	return answer, err
}

// answer has the route answer; one that takes its time, for as long as the token is good for it.
func (h *handler) answer(c *call) (any, error) {
	if !c.route.held() {
		return c.route.handle(h, c)
	}
	let := h.hold(c)
	answer, err := c.route.handle(h, c)
	if refused := let(); refused != nil {
		return nil, refused
	}
	return answer, err
}

// refuse notes what the token does not allow; other refusals are noted by nobody.
func (h *handler) refuse(c *call, err error) {
	if status, _ := errorAnswer(err, c.id); status == http.StatusUnauthorized || status == http.StatusForbidden {
		h.guard.Refuse(h.attempt(c), status, err)
	}
}

// admit finds out who asks, and refuses whom the route is not for. Of several tokens the first counts that may.
func (h *handler) admit(c *call) error {
	who, err := h.identify(c)
	if err != nil {
		return err
	}
	var first error
	for _, p := range who {
		c.principal = p
		err := h.guard.Allow(p, h.permission(c))
		if name := c.r.PathValue("app_name"); err == nil && name != "" {
			c.app, err = h.findApp(c, name)
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	c.principal = who[0]
	return first
}

// respond writes the answer, and one line to the log.
func (h *handler) respond(c *call, begun time.Time, answer any, err error) {
	c.w.Header().Set(apiv1.RequestIDHeader, c.id)
	status := c.route.status
	if err != nil {
		var body apiv1.ErrorResponse
		status, body = errorAnswer(err, c.id)
		if status == http.StatusUnauthorized {
			c.w.Header().Set("WWW-Authenticate", "Bearer")
		}
		answer = body
	}
	h.logAnswer(c, begun, status, err)
	if c.answered {
		return
	}
	if err := writeJSON(c.w, status, answer); err != nil {
		h.log.LogAttrs(c.ctx(), slog.LevelInfo, "api answer not delivered", slog.String("request", c.id), slog.Any("err", err))
	}
}

func (h *handler) logAnswer(c *call, begun time.Time, status int, err error) {
	level := slog.LevelInfo
	switch {
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case c.quiet, err == nil && c.r.Method == http.MethodGet:
		level = slog.LevelDebug
	}
	if !h.log.Enabled(c.ctx(), level) {
		return
	}
	attrs := []slog.Attr{slog.String("request", c.id), slog.String("method", c.r.Method), slog.String("path", c.r.URL.Path),
		slog.Int("status", status), slog.String("actor", c.principal.Name), slog.Duration("dur", time.Since(begun))}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	h.log.LogAttrs(c.ctx(), level, "api request", attrs...)
}
