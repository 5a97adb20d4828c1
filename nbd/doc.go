// Package nbd speaks the NBD protocol (https://github.com/NetworkBlockDevice/nbd, doc/proto.md): a server with fixed newstyle
// negotiation, STARTTLS, structured replies, block status, multi-conn, many requests in flight; and a client that
// pipelines. It knows nothing of layers or epochs: an Opener gives it a Backend per connection.
//
// A Server serves what an Opener opens. A Backend may implement TryReader, TryWriter and ZeroFinder as well: without the first two
// each request is handed to a goroutine of its own, which costs a few microseconds. Dial returns a Client, which is itself a Backend.
//
// Errors of an Opener reach the Client with code and text; other clients get the protocol's nearest error with the same text, and
// the code in brackets behind it where the protocol has none for it ("stale epoch 4 [conflict]").
//
// Invariants:
//   - A malformed frame ends its own connection and nothing else.
//   - No request reaches a Backend with a range outside the export or, on a read-only export, a write.
//   - Memory per connection is bounded: 128 requests, 64 MiB of data. Within that, no request waits for another.
//   - A reply to a write is sent after the Backend has returned, so a Flush of the Backend covers it.
//   - When the server ends a connection (Session.Gone, the end of Serve), the socket is closed before requests are cancelled: the
//     client sees a lost connection, never an I/O error that is not one.
//   - When Client.ReadAt has returned, nothing writes to the caller's buffer any more.
package nbd
