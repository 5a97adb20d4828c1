// Package api is the HTTP face of the control side: the Machines API under /v1, the operator API under /v1/operator, and the OpenAPI
// document that describes both at /v1/openapi.json. One table of routes makes the handlers and the document.
//
// It decides nothing and keeps no state: it reads requests, asks its Backend, and writes answers.
package api
