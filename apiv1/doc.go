// Package apiv1 holds the JSON forms of Drover's HTTP API, version 1: what the server writes and the client reads, and the other
// way round. Apps, machines and volumes have the field names of the published Machines API, with fields of Drover's own beside
// them; the operator's part (hosts, layers, migrations) is Drover's own.
//
// It holds data and how data is written as JSON, nothing else; it imports the root package only. Fields are added, never renamed
// or removed.
package apiv1
