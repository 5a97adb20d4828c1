package nbd

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// talk writes the bytes to a peer and reads whatever it says until it ends the connection, or has nothing more to say after the end of ours.
func talk(conn net.Conn, say []byte) {
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, conn) }) //nolint:errcheck // it ends when conn is closed
	conn.Write(say)                             //nolint:errcheck // the peer may hang up at any time
	conn.Close()                                //nolint:errcheck // a pipe
	wg.Wait()
}

// fuzzSize is small, so that random offsets are often inside.
const fuzzSize = 1 << 16

func fuzzShelf(tb testing.TB) *shelf {
	s := newShelf()
	s.add("d", &quick{memory: newMemory(tb, fuzzSize)}, fuzzSize, false)
	s.add("r", &readOnly{newMemory(tb, fuzzSize)}, fuzzSize, true)
	return s
}

// readOnly fails the test when it is written to.
type readOnly struct{ *memory }

func (r *readOnly) WriteAt(context.Context, []byte, int64, bool) error {
	r.tb.Error("a write reached a read-only export")
	return nil
}

func (r *readOnly) Zero(context.Context, int64, int64, bool, bool) error {
	r.tb.Error("a write of zeroes reached a read-only export")
	return nil
}

func (r *readOnly) Discard(context.Context, int64, int64, bool) error {
	r.tb.Error("a discard reached a read-only export")
	return nil
}

// FuzzServer sends arbitrary bytes, from the beginning of the option phase. The backends fail the test when they are asked for anything outside
// the export.
func FuzzServer(f *testing.F) {
	hello := []byte{0, 0, 0, 3}
	begin := bytes.Join([][]byte{
		hello, appendOption(nil, optStructuredReply, nil), appendOption(nil, optSetMetaContext, metaRequest("d", ContextAllocation, contextCompressed, ContextPresent)),
		appendOption(nil, optGo, infoRequest("d", infoBlockSize, infoName)),
	}, nil)
	f.Add([]byte{})
	f.Add(append(hello, appendOption(nil, optList, nil)...))
	f.Add(append(hello, appendOption(nil, optStartTLS, nil)...))
	f.Add(append(hello, appendOption(nil, optListMetaContext, metaRequest("r"))...))
	f.Add(append(hello, appendOption(nil, optInfo, make([]byte, maxOptionData+1))...))
	f.Add(append(hello, appendOption(nil, optExportName, []byte("r"))...))
	for kind := command(0); kind < 9; kind++ {
		for _, rng := range []struct {
			off uint64
			n   uint32
		}{{0, 512}, {fuzzSize - 512, 512}, {fuzzSize - 511, 512}, {^uint64(0), 2}, {0, 0}, {0, 1 << 31}, {0, fuzzSize}} {
			h := requestHeader{kind: kind, offset: rng.off, length: rng.n, cookie: 1}
			f.Add(append(h.append(bytes.Clone(begin)), make([]byte, min(rng.n, 2*fuzzSize))...))
		}
	}
	f.Fuzz(func(t *testing.T, say []byte) {
		talk(startPipe(t, fuzzShelf(t), linkOf(1)), say)
	})
}

// FuzzRequests sends arbitrary requests in the transmission phase: each 28 bytes of the input are one header, corrected so that it is
// one, and the payload is there.
func FuzzRequests(f *testing.F) {
	for kind := command(0); kind < 9; kind++ {
		a := requestHeader{kind: kind, flags: 1, offset: 4096, length: 8192}.append(nil)
		f.Add(true, requestHeader{kind: kind, offset: 60000, length: 70000}.append(a))
		f.Add(false, requestHeader{kind: cmdDisc}.append(a))
	}
	f.Fuzz(func(t *testing.T, writable bool, say []byte) {
		export := map[bool]string{true: "d", false: "r"}[writable]
		b := append([]byte{0, 0, 0, 3}, appendOption(nil, optStructuredReply, nil)...)
		b = append(b, appendOption(nil, optSetMetaContext, metaRequest(export, ContextAllocation, contextCompressed))...)
		b = append(b, appendOption(nil, optGo, infoRequest(export))...)
		for len(say) >= requestSize && len(b) < 1<<20 {
			h, _ := parseRequest(say[:requestSize])
			say = say[requestSize:]
			h.length %= 2 * fuzzSize
			h.kind %= 10
			b = h.append(b)
			if h.kind == cmdWrite {
				b = append(b, make([]byte, h.length)...)
			}
		}
		talk(startPipe(t, fuzzShelf(t), linkOf(1)), b)
	})
}

// FuzzClient answers a client with arbitrary bytes, from the greeting on.
func FuzzClient(f *testing.F) {
	begin := bytes.Join([][]byte{
		u64(magicInit), u64(magicOption), {0, 3}, appendOptionReply(nil, optStructuredReply, repAck, nil),
		appendOptionReply(nil, optSetMetaContext, repMetaContext, append(u32(5), ContextAllocation...)),
		appendOptionReply(nil, optSetMetaContext, repMetaContext, append(u32(6), contextCompressed...)), appendOptionReply(nil, optSetMetaContext, repAck, nil),
		appendOptionReply(nil, optGo, repInfo, bytes.Join([][]byte{{0, 0}, u64(fuzzSize), {0xff, 0xfd}}, nil)),
		appendOptionReply(nil, optGo, repInfo, bytes.Join([][]byte{{0, 3}, u32(1), u32(4096), u32(maxBlock)}, nil)), appendOptionReply(nil, optGo, repAck, nil),
	}, nil)
	f.Add([]byte{})
	f.Add(begin)
	f.Add(begin[:greetingSize+10])
	f.Add(append(bytes.Clone(begin[:greetingSize]), appendOptionReply(nil, optStructuredReply, repErrTooBig, []byte("x [conflict]"))...))
	f.Add(append(bytes.Clone(begin[:greetingSize]), appendOptionReply(nil, optStructuredReply, repAck, make([]byte, maxOptionData+1))...))
	plain := make([]byte, 4096)
	text(plain, 3)
	packed := newEncoder().EncodeAll(plain, nil)
	for index := range uint64(3) { // the calls below get the first places, each in its first use, in some order
		h := requestHeader{cookie: 1<<32 | index, offset: 512}
		for _, frame := range [][]byte{
			appendSimple(nil, errnoIO, h.cookie), appendSimple(nil, errnoNone, h.cookie), h.data(true, 0, 4096, 1), h.data(false, 0, 100, 1),
			h.data(true, 0, 5000, 1), h.chunk(true, chunkHole, u64(512), u32(4096)), h.chunk(true, chunkHole, u64(512), u32(1<<31)),
			h.chunk(true, chunkStatus, u32(5), u32(4096), u32(3)), h.chunk(true, chunkError, u32(5), []byte{0, 1, 'x'}),
			appendChunk(nil, 1, chunkData, h.cookie, 1<<32-1), appendChunk(nil, 1, chunkStatus, h.cookie, maxStatusChunk), h.chunk(true, chunkNone),
			h.chunk(true, chunkZstd, u64(512), u32(4096), packed), h.chunk(true, chunkZstd, u64(513), u32(4095), packed),
			h.chunk(false, chunkZstd, u64(512), u32(100), packed[:len(packed)-1]), appendChunk(nil, 1, chunkZstd, h.cookie, packedHeadSize+maxBlock),
		} {
			f.Add(append(bytes.Clone(begin), frame...))
		}
	}
	f.Fuzz(func(t *testing.T, say []byte) {
		server, conn := net.Pipe()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { talk(server, say) })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := open(ctx, conn, ClientConfig{Export: "d", MetaContexts: []string{ContextAllocation}, Compress: true})
		if err != nil {
			return
		}
		guard := bytes.Repeat([]byte{0xee}, 3*4096)
		var calls sync.WaitGroup
		calls.Go(func() { c.ReadAt(ctx, guard[4096:8192], 512) }) //nolint:errcheck // mostly fails
		calls.Go(func() {
			extents, err := c.Extents(ctx, ContextAllocation, 512, 4096)
			total := int64(0)
			for _, e := range extents {
				total += e.Length
			}
			if err == nil && (total < 1 || total > 4096) {
				t.Errorf("extents %v", extents)
			}
		})
		calls.Go(func() { c.Flush(ctx) }) //nolint:errcheck // mostly fails
		calls.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for i, v := range guard {
			if v != 0xee && (i < 4096 || i >= 8192) {
				t.Fatalf("byte %d around the buffer was written", i)
			}
		}
	})
}

// FuzzCoverage compares the list of spans with a plain set of bytes.
func FuzzCoverage(f *testing.F) {
	f.Add([]byte{0, 10, 10, 5, 3, 4})
	f.Add([]byte{20, 10, 0, 10, 10, 10})
	f.Fuzz(func(t *testing.T, say []byte) {
		var c coverage
		var have [512]bool
		for ; len(say) >= 2; say = say[2:] {
			from, to := int64(say[0]), int64(say[0])+int64(say[1])%16+1
			free := true
			for i := from; i < to; i++ {
				free = free && !have[i]
			}
			if got := c.add(from, to); got != free {
				t.Fatalf("add(%d, %d) is %v with %v", from, to, got, c.spans)
			}
			if !free {
				continue
			}
			for i := from; i < to; i++ {
				have[i] = true
			}
		}
		n := int64(0)
		for n < 512 && have[n] {
			n++
		}
		rest := false
		for i := n; i < 512; i++ {
			rest = rest || have[i]
		}
		if n > 0 && c.complete(n) == rest {
			t.Fatalf("complete(%d) is %v with %v", n, !rest, c.spans)
		}
	})
}
