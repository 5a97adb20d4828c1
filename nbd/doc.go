// Package nbd speaks the NBD protocol (https://github.com/NetworkBlockDevice/nbd, doc/proto.md): a server with fixed newstyle
// negotiation, STARTTLS, structured replies, block status, multi-conn, many requests in flight; and a client that
// pipelines. It knows nothing of layers or epochs: an Opener gives it a Backend per connection.
//
// A Server serves what an Opener opens. A Backend may implement TryReader, TryWriter, PieceReader and ZeroFinder as well: without the first two
// each request is handed to a goroutine of its own, which costs a few microseconds. Dial returns a Client, which is itself a Backend.
//
// Errors of an Opener reach the Client with code and text; other clients get the protocol's nearest error with the same text, and
// the code in brackets behind it where the protocol has none for it ("stale epoch 4 [conflict]").
//
// Compression. A Client with ClientConfig.Compress chooses, in NBD_OPT_SET_META_CONTEXT, the metadata context "drover:zstd" beside its
// others. Servers that do not know it leave it out of their answer, and nothing changes. Drover's server answers it with the number
// 1<<30; it lists it nowhere and describes no blocks in it, so that other clients never notice it. From then on a chunk of the reply to
// a READ may be of the private kind 0x4452 instead of NBD_REPLY_TYPE_OFFSET_DATA:
//
//	64 bits: offset    32 bits: length of the data    the rest: the data as one zstd frame, its window at most 256 KiB
//
// Whether a reply is compressed is decided for each anew, from what compression took and saved lately and from how fast the
// kernel sees the connection's data acknowledged while there is some.
//
// Invariants:
//   - A malformed frame ends its own connection and nothing else.
//   - No request reaches a Backend with a range outside the export or, on a read-only export, a write.
//   - Memory per connection is bounded: 128 requests, 64 MiB of data (compressed and plain together). Within that, no request waits for
//     another, but for the sending of replies: a client that does not read them is not read either.
//   - A Client decompresses to the caller's buffer and nowhere else; what does not fit exactly ends the connection.
//   - A reply to a write is sent after the Backend has returned, so a Flush of the Backend covers it.
//   - When the server ends a connection (Session.Gone, the end of Serve), the socket is closed before requests are cancelled: the
//     client sees a lost connection, never an I/O error that is not one.
//   - When Client.ReadAt has returned, nothing writes to the caller's buffer any more.
package nbd
