// Package api is the HTTP face of the control side: the Machines API under /v1, the operator API under /v1/operator, and the OpenAPI
// document that describes both at /v1/openapi.json. One table of routes (routes.go) makes the handlers and the document.
//
// It decides nothing and keeps no state but rate limits: it reads requests, asks its Backend, and writes answers.
//
// Invariants:
//   - Whatever is sent, the answer is JSON. A request that is malformed, has a field of the wrong type or a name that cannot be one
//     never reaches the Backend. What a machine's config means is for the Backend to judge.
//   - 502 and 503 are never used: clients of the Machines API repeat any request that gets one, POST included.
//   - An organisation's token sees its own apps only. Another's app and an app that does not exist get the same answer.
//   - Details of internal errors are logged, not sent; the answer has the request's ID instead.
//
// Whoever serves the handler sets the server's timeouts. A wait may take 60 s, an exec ten minutes: use ReadHeaderTimeout and
// IdleTimeout, and no WriteTimeout below that.
package api
