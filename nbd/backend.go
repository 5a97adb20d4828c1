package nbd

import (
	"context"
	"crypto/tls"
)

// Backend is the content of one export. All methods may be called from many goroutines at once; each works on a
// range that the server has checked to lie within the export. An error is a *drover.Error, which the server translates to an NBD
// error number: Denied EPERM, Exhausted ENOSPC, Invalid EINVAL, Unavailable and Canceled ESHUTDOWN, all others EIO.
type Backend interface {
	// ReadAt fills p from the offset, whole or not at all.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes p at the offset. With fua it is durable before the call returns.
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	// Flush makes everything durable whose call had returned before Flush was called.
	Flush(ctx context.Context) error
	// Discard says that the content of the range does not matter any more; it reads as zeroes afterwards.
	Discard(ctx context.Context, off, n int64, fua bool) error
	// Zero makes the range read as zeroes. With keep, the space stays allocated (NBD_CMD_FLAG_NO_HOLE).
	Zero(ctx context.Context, off, n int64, keep, fua bool) error
	// Extents describes the range in the metadata context, from off on without gaps. It may stop short of the end
	// of the range, but returns one extent at least.
	Extents(ctx context.Context, metaContext string, off, n int64) ([]Extent, error)
}

// Info describes an export to a client.
type Info struct {
	// Size is the size of the export in bytes.
	Size     int64
	ReadOnly bool
	// MetaContexts lists what NBD_OPT_SET_META_CONTEXT may choose; ContextAllocation is expected in it.
	MetaContexts []string
}

// Extent is a run of bytes of one kind. The meaning of Flags is the metadata context's.
type Extent struct {
	Length int64
	Flags  uint32
}

// Metadata contexts.
const (
	// ContextAllocation tells holes from data: FlagHole and FlagZero (NBD protocol, "Metadata contexts").
	ContextAllocation = "base:allocation"
	// ContextPresent is Drover's own: FlagPresent is set where the layer, or a parent of it on another host, has the block itself,
	// clear where the block comes from the base image or is zeroes because nobody wrote it.
	ContextPresent = "drover:present"
	// ContextSum is Drover's own: an extent per block of 4 KiB, neighbours of one kind as one, whose flags are the CRC-32C of
	// what was written to each block of it, or 0 where that is not known. A client asks for it on a connection of its own, because a
	// request describes its range in every context that was chosen.
	ContextSum = "drover:crc32c"
)

// Flags of extents.
const (
	FlagHole    uint32 = 1 << 0
	FlagZero    uint32 = 1 << 1
	FlagPresent uint32 = 1 << 0
)

// Peer is who connected.
type Peer struct {
	// TLS is nil on a unix socket.
	TLS *tls.ConnectionState
	// Remote is the peer's network address, empty on a unix socket.
	Remote string
	// Process is the process that connected over a unix socket; 0 where that is not known.
	Process int
	// HungUp reports whether the peer has closed its side by now. Safe for concurrent use; it neither waits nor reads.
	HungUp func() bool
}

// Opener finds the export for a client in the option phase. It returns NotFound for an unknown name, Denied for a
// peer that may not have it, Conflict for a stale epoch. The close function is called once when the connection ends. When the context
// that it got is cancelled by the owner of the export, the server ends the connection.
type Opener interface {
	Open(ctx context.Context, name string, peer Peer) (*Session, error)
	// List names the exports that the peer may have (NBD_OPT_LIST).
	List(ctx context.Context, peer Peer) []string
}

// Session is one opened export on one connection.
type Session struct {
	Backend Backend
	Info    Info
	// Gone is closed by the owner when the connection must end (the export was withdrawn, the epoch became stale). Close it
	// before requests begin to fail: errors after it are not sent, so that the client sees a lost connection, after which it may
	// connect again, and no I/O error. Nil means never.
	Gone <-chan struct{}
	// Close is called once, after the last request on the connection has ended. Nil when there is nothing to do.
	Close func()
}

// TryReader is an optional interface of a Backend, for speed. The server calls it from the goroutine that reads the connection, so
// whatever it waits for holds up every later request of that connection.
type TryReader interface {
	// TryReadAt is ReadAt for what can be had at once: it fills p and returns true, or leaves the request to ReadAt and returns
	// false with a nil error. It never waits for the network or for another request; it should not wait for the disk
	// either where the system can tell (preadv2 with RWF_NOWAIT). p is at most 64 KiB long.
	TryReadAt(p []byte, off int64) (done bool, err error)
}

// PieceReader is an optional interface of a Backend, for speed: a large read is sent piece by piece out of a small buffer, which stays in the
// CPU's cache between the read and the send.
type PieceReader interface {
	// TryReadPiece fills p with a piece of what a request asks for, or leaves that and what is behind it to ReadAt and returns false. It waits
	// for nothing, as TryReader.TryReadAt.
	TryReadPiece(p []byte, off int64) bool
}

// TryWriter is the same for writes that need not be durable when the call returns.
type TryWriter interface {
	// TryWriteAt is WriteAt without fua, or leaves the request to WriteAt, untouched, and returns false with a nil error.
	TryWriteAt(p []byte, off int64) (done bool, err error)
}

// ZeroFinder is an optional interface of a Backend that knows, from memory, where it reads as zeroes. Replies to large
// reads then leave the zeroes out (NBD_REPLY_TYPE_OFFSET_HOLE).
type ZeroFinder interface {
	// ZeroRun returns how many bytes from off on, at most n and at least 1, are of one kind: known to read as zeroes or not. It
	// never waits.
	ZeroRun(off, n int64) (run int64, zero bool)
}
