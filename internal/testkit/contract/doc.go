// Package contract holds answers of the API against OpenAPI documents: the one that the API serves, and a copy of the published one of the Machines
// API where there is a copy. Tests of the API do so with every answer, and the end-to-end tests put a Proxy between the fleet and its clients.
// Where Drover differs from the published document on purpose is said in one place, with the reason: Differences.
package contract
