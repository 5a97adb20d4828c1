package nbd

import (
	"context"
	"crypto/tls"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"drover"
)

// Bounds of a client.
const (
	defaultDialTimeout = 10 * time.Second
	// clientDepth is how many requests may be without an answer; more wait for a place.
	clientDepth = 128
	// maxRange is the longest range in a request without data.
	maxRange = 1 << 30
	// sendTimeout bounds a write to a server that does not read.
	sendTimeout = 30 * time.Second
	// closeTimeout bounds the leave-taking.
	closeTimeout = time.Second
	// stallTimeout bounds how long a cancelled request waits for the rest of a reply that is just arriving.
	stallTimeout = 2 * time.Second
)

// ClientConfig says where an export is.
type ClientConfig struct {
	// Network is "unix" or "tcp", Address a path or a host and port, as for net.Dial.
	Network, Address string
	// Export is the name of the export.
	Export string
	// TLS, when set, is required of the server. An empty ServerName is taken from the address.
	TLS *tls.Config
	// MetaContexts are asked for; see Client.HasContext for what the server has.
	MetaContexts []string
	// Compress asks the server for compressed replies to reads, where that pays. Only Drover's server knows them.
	Compress bool
	// DialTimeout bounds the time until the export is open. 0 means 10 s.
	DialTimeout time.Duration
}

// Client is a connection to one export. It is a Backend, so that what it reaches can be served again. Its methods may be called from
// many goroutines; their requests are sent at once, up to a bound, and answered in any order.
//
// Errors are *drover.Error: Invalid for a range outside the export and whatever the server calls EINVAL, Denied for a write to a
// read-only export, Exhausted, Internal for an I/O error on the server, Canceled when ctx ended, Unavailable when the connection is
// lost. After the last one the client is of no use any more: see Done.
type Client struct {
	cfg    ClientConfig
	raw    net.Conn
	nc     net.Conn
	export exportInfo

	traffic atomic.Pointer[Traffic]
	decoder *zstd.Decoder // nil when nothing comes compressed
	packed  []byte        // of the reader, for what came compressed

	free  chan *call
	calls [clientDepth]call

	senders atomic.Int32 // goroutines that wait for sendMu and will write what is in unsent
	sendMu  sync.Mutex   // guards what follows and the order of frames on the wire
	out     sender
	unsent  []byte
	parts   [2][]byte

	failMu sync.Mutex // guards err
	err    error
	failed chan struct{} // closed when err is set
	done   chan struct{} // closed when the reader has ended
}

var _ Backend = (*Client)(nil)

// exportInfo is what the server said of the export.
type exportInfo struct {
	size       int64
	flags      uint16
	structured bool
	maxBlock   int
	contexts   map[string]uint32
	compressed bool
}

func (e exportInfo) can(flag uint16) bool { return e.flags&flag != 0 }

// Traffic counts what the replies to reads brought. Several clients may add to one.
type Traffic struct {
	// Data counts the bytes that were read from exports, but for the zeroes that replies leave out.
	Data atomic.Int64
	// Wire counts the bytes that carried them: fewer where they came compressed.
	Wire atomic.Int64
}

func (t *Traffic) add(data, wire int64) {
	if t != nil {
		t.Data.Add(data)
		t.Wire.Add(wire)
	}
}

// Count makes the client add to t from now on.
func (c *Client) Count(t *Traffic) { c.traffic.Store(t) }

// Size is the size of the export in bytes.
func (c *Client) Size() int64 { return c.export.size }

// ReadOnly tells whether the server refuses writes.
func (c *Client) ReadOnly() bool { return c.export.can(flagReadOnly) }

// HasContext tells whether the server knows the metadata context, so that Extents may be asked for it.
func (c *Client) HasContext(name string) bool {
	_, ok := c.export.contexts[name]
	return ok
}

// Done is closed when the connection is lost or closed and no request uses it any more.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection is of no use: Unavailable with the cause, Canceled after Close, nil while it works.
func (c *Client) Err() error {
	c.failMu.Lock()
	defer c.failMu.Unlock()
	return c.err
}

// fail ends the connection; the reader then fails what is in flight. The first cause counts.
func (c *Client) fail(err error) {
	c.failMu.Lock()
	defer c.failMu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.failed)
	c.raw.Close() //nolint:errcheck // the connection is lost already, and that is what is reported
}

// lost makes the error of a broken connection.
func (c *Client) lost(err error) error {
	return drover.Errorf(drover.Unavailable, "lost the connection to NBD export %q at %s: %w", c.cfg.Export, c.cfg.Address, err)
}

// Close takes leave of the server, fails what is in flight with Canceled and waits for the end. More calls do nothing.
func (c *Client) Close() error {
	closed := drover.Errorf(drover.Canceled, "the connection to NBD export %q at %s was closed", c.cfg.Export, c.cfg.Address)
	late := time.AfterFunc(closeTimeout, func() { c.fail(closed) })
	defer late.Stop()
	if c.Err() == nil {
		bye := requestHeader{kind: cmdDisc} // nothing is answered to it, so it is no call
		if err := c.send(bye.append(nil), nil); err != nil {
			c.fail(c.lost(err))
		}
	}
	c.fail(closed)
	<-c.done
	return nil
}

// ReadAt fills p from the offset. When it returns, with whatever result, nothing writes to p any more.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := c.check("read", off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), c.export.maxBlock)
		if err := c.do(ctx, requestHeader{kind: cmdRead, offset: uint64(off), length: uint32(n)}, p[:n], nil); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// WriteAt writes p at the offset. A server that has no FUA flushes instead.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := c.checkWrite("write", off, int64(len(p))); err != nil {
		return err
	}
	flags, flush := c.durability(fua)
	for len(p) > 0 {
		n := min(len(p), c.export.maxBlock)
		h := requestHeader{kind: cmdWrite, flags: flags, offset: uint64(off), length: uint32(n)}
		if err := c.do(ctx, h, p[:n], nil); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return flush(ctx)
}

// Flush makes every write durable that has returned. A server that has no flush writes through.
func (c *Client) Flush(ctx context.Context) error {
	if !c.export.can(flagSendFlush) {
		return nil
	}
	return c.do(ctx, requestHeader{kind: cmdFlush}, nil, nil)
}

// Discard says that the content of the range does not matter any more. With Drover's own server it reads as zeroes
// afterwards; others may keep it, and one that has no trim does nothing.
func (c *Client) Discard(ctx context.Context, off, n int64, fua bool) error {
	if err := c.checkWrite("discard", off, n); err != nil || !c.export.can(flagSendTrim) {
		return err
	}
	flags, flush := c.durability(fua)
	if err := c.each(ctx, requestHeader{kind: cmdTrim, flags: flags}, off, n); err != nil {
		return err
	}
	return flush(ctx)
}

// Zero makes the range read as zeroes. To a server that has no command for it the zeroes are sent.
func (c *Client) Zero(ctx context.Context, off, n int64, keep, fua bool) error {
	if err := c.checkWrite("zero", off, n); err != nil {
		return err
	}
	if !c.export.can(flagSendWriteZeroes) {
		return c.writeZeroes(ctx, off, n, fua)
	}
	flags, flush := c.durability(fua)
	if keep {
		flags |= cmdFlagNoHole
	}
	if err := c.each(ctx, requestHeader{kind: cmdWriteZeroes, flags: flags}, off, n); err != nil {
		return err
	}
	return flush(ctx)
}

func (c *Client) writeZeroes(ctx context.Context, off, n int64, fua bool) error {
	zeroes := make([]byte, min(n, 1<<20))
	for n > 0 {
		k := min(n, int64(len(zeroes)))
		if err := c.WriteAt(ctx, zeroes[:k], off, fua); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Extents describes the range in the metadata context, from off on without gaps. It may stop short of the end of the range.
// Precondition when the server does not know the context.
func (c *Client) Extents(ctx context.Context, metaContext string, off, n int64) ([]Extent, error) {
	if err := c.check("describe", off, n); err != nil || n == 0 {
		return nil, err
	}
	id, ok := c.export.contexts[metaContext]
	if !ok {
		return nil, drover.Errorf(drover.Precondition, "NBD export %q at %s has no metadata context %q", c.cfg.Export, c.cfg.Address, metaContext)
	}
	want := statusWanted{context: id}
	h := requestHeader{kind: cmdBlockStatus, offset: uint64(off), length: uint32(min(n, maxRange))}
	if err := c.do(ctx, h, nil, &want); err != nil {
		return nil, err
	}
	return want.extents, nil
}

// each sends a request without data in pieces.
func (c *Client) each(ctx context.Context, h requestHeader, off, n int64) error {
	for n > 0 {
		h.offset, h.length = uint64(off), uint32(min(n, maxRange))
		if err := c.do(ctx, h, nil, nil); err != nil {
			return err
		}
		off, n = off+int64(h.length), n-int64(h.length)
	}
	return nil
}

// durability is how the server makes writes durable: by the flag, or by the call afterwards.
func (c *Client) durability(fua bool) (flags uint16, flush func(context.Context) error) {
	switch {
	case !fua:
		return 0, func(context.Context) error { return nil }
	case c.export.can(flagSendFUA):
		return cmdFlagFUA, func(context.Context) error { return nil }
	default:
		return 0, c.Flush
	}
}

// check refuses a range that is not in the export.
func (c *Client) check(verb string, off, n int64) error {
	if off < 0 || n < 0 || off > math.MaxInt64-n || off+n > c.export.size {
		return drover.Errorf(drover.Invalid, "cannot %s %d bytes at %d of NBD export %q: it ends at %d", verb, n, off, c.cfg.Export, c.export.size)
	}
	return nil
}

func (c *Client) checkWrite(verb string, off, n int64) error {
	if c.ReadOnly() {
		return drover.Errorf(drover.Denied, "cannot %s %d bytes at %d of NBD export %q: it is read-only", verb, n, off, c.cfg.Export)
	}
	return c.check(verb, off, n)
}
