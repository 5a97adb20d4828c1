package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"time"

	"drover"
	"drover/api/graphql"
	"drover/apiv1"
)

// graphPath is where GraphQL is served.
const graphPath = "/graphql"

// mountClients adds what clients of the Machines API ask beside it, on the same port.
func (h *handler) mountClients() {
	byPath := map[string][]route{}
	for _, r := range webRoutes() {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for path, routes := range byPath {
		h.mux.Handle(path, h.dispatch(routes))
	}
	h.mux.HandleFunc("POST "+graphPath, h.serveGraph)
}

// graph answers one GraphQL request. It is a translation: what it tells of apps, machines, volumes and addresses it asks the routes of the API for, with
// the client's own token (inside).
type graph struct {
	h *handler
	c *call
}

// serveGraph answers 200 whatever becomes of the request: of any other status clients show the number, and not the reason.
func (h *handler) serveGraph(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	c := &call{w: w, r: r, id: rand.Text(), route: route{method: http.MethodPost, path: graphPath, id: "GraphQL", access: tenants,
		need: need{drover.ActFind, true}, status: http.StatusOK}}
	var answer graphql.Response
	req, err := h.graphRequest(c)
	if err == nil {
		g := &graph{h: h, c: c}
		answer = graphql.Root{Query: g.query(), Mutation: g.mutation(), How: g.how, Limits: graphql.DefaultLimits()}.Execute(c.ctx(), req)
	} else {
		message, extensions := (&graph{h: h, c: c}).how(err)
		answer = graphql.Failure(message, extensions)
	}
	if len(answer.Errors) > 0 {
		h.log.LogAttrs(c.ctx(), slog.LevelInfo, "graphql refusal", slog.String("request", c.id), slog.String("actor", c.principal.Name),
			slog.String("operation", req.OperationName), slog.String("err", answer.Errors[0].Message))
	}
	h.respond(c, begun, answer, nil)
}

// graphRequest lets a request in and reads it.
func (h *handler) graphRequest(c *call) (graphql.Request, error) {
	var req graphql.Request
	if err := h.admit(c); err != nil {
		return req, err
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		return req, bodyError(c.r, err)
	}
	if err := json.Unmarshal(raw, &req); err != nil {
		return req, drover.Errorf(drover.Invalid, "the request is not a JSON object with query and variables: %w", err)
	}
	if req.Query == "" {
		return req, drover.Errorf(drover.Invalid, "query is missing").WithField("query")
	}
	return req, nil
}

// how tells a client of an error, with the words of the API's errors.
func (g *graph) how(err error) (string, map[string]any) {
	_, body := errorAnswer(err, g.c.id)
	message := body.Error
	extensions := map[string]any{"code": body.Code, "request_id": body.RequestID}
	if body.Hint != "" {
		message += " (" + body.Hint + ")"
		extensions["hint"] = body.Hint
	}
	if body.Field != "" {
		extensions["field"] = body.Field
	}
	if body.Status != "" {
		extensions["status"] = body.Status
	}
	return message, extensions
}

// appNamed asks for an app. Clients look for the words of the refusal.
func (g *graph) appNamed(name string) (apiv1.App, error) {
	noApp := drover.Errorf(drover.NotFound, "Could not find App %q", name)
	var app apiv1.App
	if !drover.ValidName(name) {
		return app, noApp
	}
	err := g.h.inside(g.c, http.MethodGet, prefix+"/apps/"+name, nil, &app)
	if drover.Is(err, drover.NotFound) {
		return app, noApp
	}
	return app, err
}

// list makes the object in which GraphQL has lists.
func list(nodes any) graphql.Object {
	return graphql.Object{Type: "Connection", Values: map[string]any{"nodes": nodes, "pageInfo": graphql.Object{Type: "PageInfo",
		Values: map[string]any{"hasNextPage": false, "endCursor": ""}}}}
}

// value makes a field of something that has to be looked up and takes no arguments.
func value(find func() (any, error)) graphql.Field {
	return func(context.Context, graphql.Args) (any, error) { return find() }
}
