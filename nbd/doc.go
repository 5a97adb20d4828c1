// Package nbd speaks the NBD protocol (https://github.com/NetworkBlockDevice/nbd, doc/proto.md): a server with fixed newstyle
// negotiation, STARTTLS, structured replies, block status, multi-conn, many requests in flight; and a client that
// pipelines. It knows nothing of layers or epochs: an Opener gives it a Backend per connection.
//
// Invariants: a malformed frame ends its own connection and nothing else; no request reaches a Backend with a range outside
// the export or, on a read-only export, a write; memory per connection is bounded.
package nbd
