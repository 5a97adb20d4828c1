package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"drover"
	"drover/apiv1"
)

// object is a JSON object of the document.
type object = map[string]any

// document returns the OpenAPI 3.0 description of the routes, as JSON.
func document(version string, routes []route) ([]byte, error) {
	if version == "" {
		version = "unknown" // OpenAPI requires one
	}
	schemas := newSchemas()
	paths := map[string]object{}
	for _, r := range routes {
		operation, err := describeRoute(r, schemas)
		if err != nil {
			return nil, fmt.Errorf("api: %s %s: %w", r.method, r.path, err)
		}
		if paths[r.path] == nil {
			paths[r.path] = object{}
		}
		paths[r.path][strings.ToLower(r.method)] = operation
	}
	doc, err := json.MarshalIndent(object{
		"openapi": "3.0.3",
		"info": object{
			"title":   "Drover",
			"version": version,
			"description": "Apps, machines and volumes under the paths of the Machines API, and the operator's API for hosts and migrations. " +
				"Unknown fields of requests are ignored, but in a machine's config: there they are kept, and in requests about volumes: there they are " +
				"refused. Durations are text such as \"5s\". " +
				"Every answer names its request in the header " + apiv1.RequestIDHeader + ". 502 and 503 are never answered.",
		},
		"servers":    []object{{"url": prefix}},
		"paths":      paths,
		"components": object{"schemas": schemas.components, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("api: cannot write the document: %w", err)
	}
	return append(doc, '\n'), nil
}

func describeRoute(r route, schemas *schemas) (object, error) {
	tag, _, _ := strings.Cut(r.id, "_")
	operation := object{"operationId": r.id, "summary": r.summary, "tags": []string{tag}, "security": []object{{"token": []string{}}}}
	if r.access == public {
		operation["security"] = []object{}
	}
	if params := describeParams(r); len(params) > 0 {
		operation["parameters"] = params
	}
	if r.request != nil {
		schema, err := schemas.of(reflect.TypeOf(r.request))
		if err != nil {
			return nil, err
		}
		operation["requestBody"] = object{"required": !r.optional, "content": object{"application/json": object{"schema": schema}}}
	}
	responses, err := describeResponses(r, schemas)
	operation["responses"] = responses
	return operation, err
}

func describeParams(r route) []object {
	var params []object
	for segment := range strings.SplitSeq(r.path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			params = append(params, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, p := range r.headers {
		params = append(params, object{"name": p.name, "in": "header", "description": p.summary, "schema": object{"type": p.kind}})
	}
	for _, q := range r.query {
		params = append(params, object{"name": q.name, "in": "query", "description": q.summary, "schema": object{"type": q.kind}})
	}
	return params
}

// refusals lists the statuses with which the route may refuse. Behind a token any code may come from the Backend.
func refusals(r route) []int {
	statuses := append([]int{http.StatusBadRequest}, r.errors...)
	if r.access != public {
		for _, code := range drover.Codes {
			statuses = append(statuses, statusOf(code))
		}
		statuses = append(statuses, http.StatusUnauthorized, http.StatusTooManyRequests)
	}
	if r.request != nil {
		statuses = append(statuses, http.StatusRequestEntityTooLarge)
	}
	slices.Sort(statuses)
	return slices.Compact(statuses)
}

func describeResponses(r route, schemas *schemas) (object, error) {
	header := object{apiv1.RequestIDHeader: object{"description": "the request's ID", "schema": object{"type": "string"}}}
	answer := func(status int, t reflect.Type) (object, error) {
		text := http.StatusText(status)
		if status == http.StatusNoContent {
			return object{"description": text, "headers": header}, nil
		}
		schema, err := schemas.of(t)
		if status == statusClientGone {
			text = "Canceled by the client, or by an abort"
		}
		return object{"description": text, "headers": header, "content": object{"application/json": object{"schema": schema}}}, err
	}
	success, err := answer(r.status, reflect.TypeOf(r.response))
	if err != nil {
		return nil, err
	}
	responses := object{fmt.Sprint(r.status): success}
	for _, status := range refusals(r) {
		if responses[fmt.Sprint(status)], err = answer(status, reflect.TypeFor[apiv1.ErrorResponse]()); err != nil {
			return nil, err
		}
	}
	return responses, nil
}

// serveDocument answers the document as it was made by New.
func (h *handler) serveDocument(*call) (any, error) { return json.RawMessage(h.document), nil }
