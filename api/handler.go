package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	// RateLimit is how many requests per second each token's owner may make on average, RateBurst how many at once. A RateLimit of 0
	// means no limit; a RateBurst of 0 means twice the rate, and 1 at least.
	RateLimit float64
	RateBurst int
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
		backend: config.Backend,
		log:     config.Log,
		version: config.Version,
		now:     config.Now,
		limits:  newLimits(config.RateLimit, config.RateBurst),
		mux:     http.NewServeMux(),
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
	h.mux.Handle(metricsPath, newMetrics(h, config.OpenMetrics))
	h.mux.HandleFunc("/", h.noRoute)
	return h, nil
}

type handler struct {
	backend  Backend
	log      *slog.Logger
	version  string
	now      func() time.Time
	limits   *limits
	mux      *http.ServeMux
	document []byte
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
}

func (c *call) ctx() context.Context { return c.r.Context() }

// ServeHTTP serves one request. A path that is not in its shortest form is no route: the mux would redirect it, with a page in HTML.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != path.Clean(r.URL.Path) {
		h.noRoute(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *handler) noRoute(w http.ResponseWriter, r *http.Request) {
	h.respond(&call{w: w, r: r, id: rand.Text()}, time.Now(), nil, drover.Errorf(drover.NotFound, "no such path: %s", r.URL.Path).
		WithHint("GET /v1/openapi.json lists every path"))
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
		c := &call{w: w, r: r, id: rand.Text()}
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

// serve lets a request in and has it answered.
func (h *handler) serve(c *call) (any, error) {
	if c.route.access != public {
		if err := h.admit(c); err != nil {
			return nil, err
		}
	}
	return c.route.handle(h, c)
}

// admit finds out who asks, and refuses whom the route is not for.
func (h *handler) admit(c *call) error {
	token, err := bearer(c.r.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	c.principal, err = h.backend.Authenticate(c.ctx(), token)
	if drover.Is(err, drover.Denied) {
		return unauthorized("the token is not known to this fleet")
	}
	if err != nil {
		return err
	}
	if wait := h.limits.wait(c.principal.Name); wait > 0 {
		seconds := int(wait/time.Second) + 1
		c.w.Header().Set("Retry-After", fmt.Sprint(seconds))
		return withStatus(http.StatusTooManyRequests,
			drover.Errorf(drover.Exhausted, "too many requests with this token").WithHint("try again in %d s", seconds))
	}
	if c.route.access == operators && !c.principal.Operator {
		return drover.Errorf(drover.Denied, "the operator API is not for the token of organization %q", c.principal.Organization).
			WithHint("use an operator's token")
	}
	if name := c.r.PathValue("app_name"); name != "" {
		c.app, err = h.findApp(c, name)
	}
	return err
}

// bearer reads an Authorization header: "Bearer X", or "FlyV1 X" as some clients write it.
func bearer(header string) (string, error) {
	if header == "" {
		return "", unauthorized("the request has no Authorization header")
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "FlyV1") {
		return "", unauthorized("the Authorization header has a scheme other than Bearer")
	}
	if token == "" {
		return "", unauthorized("the Authorization header has no token")
	}
	return token, nil
}

func unauthorized(text string) error {
	return withStatus(http.StatusUnauthorized, drover.Errorf(drover.Denied, "not authenticated: %s", text).
		WithHint("give a token of this fleet: --token or DROVER_API_TOKEN for drover, the header 'Authorization: Bearer TOKEN' otherwise"))
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
	level := slog.LevelInfo
	switch {
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case err == nil && c.r.Method == http.MethodGet:
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("request", c.id), slog.String("method", c.r.Method), slog.String("path", c.r.URL.Path),
		slog.Int("status", status), slog.String("actor", c.principal.Name), slog.Duration("dur", time.Since(begun))}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	h.log.LogAttrs(c.ctx(), level, "api request", attrs...)
	if c.answered {
		return
	}
	if err := writeJSON(c.w, status, answer); err != nil {
		h.log.LogAttrs(c.ctx(), slog.LevelInfo, "api answer not delivered", slog.String("request", c.id), slog.Any("err", err))
	}
}
