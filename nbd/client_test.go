package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover"
)

// script is a server of which every byte is written by hand. The export has 1 MiB.
type script struct{ *wire }

const scriptSize = 1 << 20

// negotiate leads a client into the transmission phase, with structured replies and one metadata context with the number 5.
func (s *script) negotiate() {
	s.send(binary.BigEndian.AppendUint64(nil, magicInit), binary.BigEndian.AppendUint64(nil, magicOption), []byte{0, 3})
	s.receive(4)
	for {
		head := s.receive(optionSize)
		opt := option(binary.BigEndian.Uint32(head[8:]))
		s.receive(int(binary.BigEndian.Uint32(head[12:])))
		switch opt {
		case optSetMetaContext:
			s.send(appendOptionReply(nil, opt, repMetaContext, append([]byte{0, 0, 0, 5}, ContextAllocation...)))
		case optGo:
			info := binary.BigEndian.AppendUint64([]byte{0, 0}, scriptSize)
			s.send(appendOptionReply(nil, opt, repInfo, binary.BigEndian.AppendUint16(info, flagHasFlags|flagSendFlush|flagSendTrim)))
		}
		s.send(appendOptionReply(nil, opt, repAck, nil))
		if opt == optGo {
			return
		}
	}
}

// next reads a request, without the payload.
func (s *script) next() requestHeader {
	s.tb.Helper()
	h, ok := parseRequest(s.receive(requestSize))
	if !ok {
		s.tb.Fatal("the client's request is malformed")
	}
	return h
}

// chunk makes a structured reply chunk.
func (h requestHeader) chunk(last bool, kind chunkKind, body ...[]byte) []byte {
	all := bytes.Join(body, nil)
	var flags uint16
	if last {
		flags = chunkDone
	}
	return append(appendChunk(nil, flags, kind, h.cookie, uint32(len(all))), all...)
}

// data makes a data chunk for part of the request.
func (h requestHeader) data(last bool, from, to int, v byte) []byte {
	return h.chunk(last, chunkData, u64(h.offset+uint64(from)), bytes.Repeat([]byte{v}, to-from))
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// scripted returns a client and its server. The client is closed at the end of the test.
func scripted(tb testing.TB) (*Client, *script) {
	tb.Helper()
	server, conn := net.Pipe()
	s := &script{&wire{tb: tb, Conn: server}}
	negotiated := make(chan struct{})
	go func() { defer close(negotiated); s.negotiate() }()
	c, err := open(context.Background(), conn, ClientConfig{Export: "disk", MetaContexts: []string{ContextAllocation}})
	if err != nil {
		tb.Fatal(err)
	}
	<-negotiated
	tb.Cleanup(func() {
		server.Close() //nolint:errcheck // a pipe
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c, s
}

// async calls f and returns where its result will be.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func TestClientPutsChunksTogetherInAnyOrder(t *testing.T) {
	c, s := scripted(t)
	p := bytes.Repeat([]byte{0xee}, 1000)
	done := async(func() error { return c.ReadAt(t.Context(), p, 5000) })
	h := s.next()
	s.send(h.data(false, 900, 1000, 4), h.data(false, 100, 300, 2), h.data(false, 0, 100, 1))
	s.send(h.chunk(false, chunkHole, u64(5300), u32(600)), h.chunk(true, chunkNone))
	if err := await(t, done, "the read"); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{bytes.Repeat([]byte{1}, 100), bytes.Repeat([]byte{2}, 200), make([]byte, 600), bytes.Repeat([]byte{4}, 100)}, nil)
	if !bytes.Equal(p, want) {
		t.Fatal("wrong content")
	}
}

func TestClientKeepsOneErrorOfAReplyAndGoesOn(t *testing.T) {
	c, s := scripted(t)
	p := make([]byte, 1000)
	done := async(func() error { return c.ReadAt(t.Context(), p, 0) })
	h := s.next()
	text := "bad sector"
	s.send(h.data(false, 0, 500, 1), h.chunk(false, chunkErrorOffset, u32(5), []byte{0, byte(len(text))}, []byte(text), u64(500)))
	s.send(h.chunk(true, chunkErrorBit|99, u32(28), []byte{0, 0}))
	err := await(t, done, "the read")
	wantCode(t, err, drover.Internal)
	if !strings.Contains(err.Error(), text) {
		t.Errorf("got %v", err)
	}
	done = async(func() error { return c.Flush(t.Context()) })
	s.send(appendSimple(nil, errnoNone, s.next().cookie))
	if err := await(t, done, "the flush"); err != nil {
		t.Fatal(err)
	}
}

// A server that breaks the protocol loses the connection: everything in flight fails with Unavailable.
func TestClientFailsEverythingAtABrokenFrame(t *testing.T) {
	read := func(c *Client) error { return c.ReadAt(context.Background(), make([]byte, 1000), 0) }
	flush := func(c *Client) error { return c.Flush(context.Background()) }
	status := func(c *Client) error {
		_, err := c.Extents(context.Background(), ContextAllocation, 0, 4096)
		return err
	}
	for name, tc := range map[string]struct {
		ask  func(*Client) error
		tell func(h requestHeader) []byte
	}{
		"wrong magic":                 {read, func(requestHeader) []byte { return make([]byte, 64) }},
		"unknown cookie":              {read, func(requestHeader) []byte { return appendSimple(nil, errnoIO, 12345<<32) }},
		"cookie of another use":       {read, func(h requestHeader) []byte { return appendSimple(nil, errnoIO, h.cookie+1<<32) }},
		"index too large":             {read, func(requestHeader) []byte { return appendSimple(nil, errnoIO, 1<<32|0xffffffff) }},
		"simple reply to a read":      {read, func(h requestHeader) []byte { return appendSimple(nil, errnoNone, h.cookie) }},
		"simple reply to a status":    {status, func(h requestHeader) []byte { return appendSimple(nil, errnoNone, h.cookie) }},
		"data missing":                {read, func(h requestHeader) []byte { return h.data(true, 0, 999, 1) }},
		"data missing before the end": {read, func(h requestHeader) []byte { return h.data(true, 1, 1000, 1) }},
		"data twice":                  {read, func(h requestHeader) []byte { return append(h.data(false, 0, 600, 1), h.data(true, 500, 1000, 1)...) }},
		"data before the range":       {read, func(h requestHeader) []byte { h.offset--; return h.data(true, 0, 1000, 1) }},
		"data past the range":         {read, func(h requestHeader) []byte { return h.data(true, 0, 1001, 1) }},
		"data far past the range":     {read, func(h requestHeader) []byte { return h.chunk(true, chunkData, u64(1<<63), []byte{1}) }},
		"no data":                     {read, func(h requestHeader) []byte { return h.chunk(true, chunkData, u64(0)) }},
		"hole past the range":         {read, func(h requestHeader) []byte { return h.chunk(true, chunkHole, u64(0), u32(1001)) }},
		"hole of no bytes":            {read, func(h requestHeader) []byte { return h.chunk(true, chunkHole, u64(0), u32(0)) }},
		"hole too long":               {read, func(h requestHeader) []byte { return h.chunk(true, chunkHole, make([]byte, 13)) }},
		"nothing at all":              {read, func(h requestHeader) []byte { return h.chunk(true, chunkNone) }},
		"nothing, and more":           {read, func(h requestHeader) []byte { return h.chunk(false, chunkNone) }},
		"unknown chunk":               {read, func(h requestHeader) []byte { return h.chunk(true, 77) }},
		"huge chunk":                  {read, func(h requestHeader) []byte { return appendChunk(nil, 0, chunkStatus, h.cookie, 1<<31) }},
		"status of a read":            {read, func(h requestHeader) []byte { return h.chunk(true, chunkStatus, u32(5), u32(1), u32(0)) }},
		"data of a flush":             {flush, func(h requestHeader) []byte { return h.data(true, 0, 10, 1) }},
		"error without a number":      {flush, func(h requestHeader) []byte { return h.chunk(true, chunkError, make([]byte, 6)) }},
		"error with too long a text":  {flush, func(h requestHeader) []byte { return h.chunk(true, chunkError, u32(5), []byte{0, 3}, []byte("ab")) }},
		"status without extents":      {status, func(h requestHeader) []byte { return h.chunk(true, chunkStatus, u32(5)) }},
		"status of half an extent":    {status, func(h requestHeader) []byte { return h.chunk(true, chunkStatus, u32(5), u32(1)) }},
		"status of no bytes":          {status, func(h requestHeader) []byte { return h.chunk(true, chunkStatus, u32(5), u32(0), u32(0)) }},
		"status of another context":   {status, func(h requestHeader) []byte { return h.chunk(true, chunkStatus, u32(6), u32(1), u32(0)) }},
		"end of the connection":       {read, func(requestHeader) []byte { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := scripted(t)
			other := async(func() error { return c.Flush(t.Context()) })
			first := s.next()
			done := async(func() error { return tc.ask(c) })
			h := s.next()
			if first.kind != cmdFlush {
				h = first
			}
			if b := tc.tell(h); b == nil {
				s.Close() //nolint:errcheck // a pipe
			} else if _, err := s.Write(b); err != nil {
				t.Log("the client hung up early:", err)
			}
			wantCode(t, await(t, done, "the request"), drover.Unavailable)
			wantCode(t, await(t, other, "the other request"), drover.Unavailable)
			await(t, c.Done(), "the client to be done")
			wantCode(t, c.Err(), drover.Unavailable)
			wantCode(t, c.Flush(t.Context()), drover.Unavailable)
		})
	}
}

func TestClientCutsExtentsToTheRange(t *testing.T) {
	c, s := scripted(t)
	var got []Extent
	done := async(func() (err error) {
		got, err = c.Extents(t.Context(), ContextAllocation, 4096, 8192)
		return err
	})
	h := s.next()
	s.send(h.chunk(false, chunkStatus, u32(6), u32(1), u32(9)), h.chunk(true, chunkStatus, u32(5), u32(4096), u32(3), u32(1<<31), u32(0), u32(7), u32(1)))
	if err := await(t, done, "the status"); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != (Extent{4096, 3}) || got[1] != (Extent{4096, 0}) {
		t.Errorf("got %v", got)
	}
}

// A read that was cancelled returns at once, and the reply that comes late is not written where the caller could see it.
func TestLateReplyToACancelledReadTouchesNothing(t *testing.T) {
	c, s := scripted(t)
	ctx, cancel := context.WithCancel(context.Background())
	p := make([]byte, 1000)
	done := async(func() error { return c.ReadAt(ctx, p, 0) })
	h := s.next()
	cancel()
	wantCode(t, await(t, done, "the cancelled read"), drover.Canceled)
	s.send(h.data(false, 0, 500, 0xff), h.chunk(false, chunkHole, u64(500), u32(250)), h.data(true, 750, 1000, 0xff))
	q := make([]byte, 1000)
	done = async(func() error { return c.ReadAt(t.Context(), q, 0) })
	h = s.next()
	s.send(h.data(true, 0, 1000, 7))
	if err := await(t, done, "the next read"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, make([]byte, 1000)) || q[0] != 7 {
		t.Error("the late reply was written into a buffer")
	}
}

// Cancelled while its data arrives, a read returns after the chunk at the latest.
func TestCancelWhileDataArrives(t *testing.T) {
	c, s := scripted(t)
	ctx, cancel := context.WithCancel(context.Background())
	p := make([]byte, 1000)
	done := async(func() error { return c.ReadAt(ctx, p, 0) })
	h := s.next()
	b := h.data(false, 0, 500, 0xff)
	s.send(b[:len(b)-100])
	cancel()
	s.send(b[len(b)-100:])
	wantCode(t, await(t, done, "the cancelled read"), drover.Canceled)
	before := bytes.Clone(p)
	s.send(h.data(true, 500, 1000, 0xff))
	done = async(func() error { return c.Flush(t.Context()) })
	s.send(appendSimple(nil, errnoNone, s.next().cookie))
	if err := await(t, done, "the flush"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, before) {
		t.Error("the late chunk was written into the buffer")
	}
}

func TestReplyThatStopsInTheMiddleDoesNotHoldACancelledRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scripted(t)
		ctx, cancel := context.WithCancel(context.Background())
		p := make([]byte, 1000)
		done := async(func() error { return c.ReadAt(ctx, p, 0) })
		h := s.next()
		s.send(h.data(true, 0, 1000, 1)[:500])
		synctest.Wait()
		cancel()
		began := time.Now()
		wantCode(t, <-done, drover.Unavailable)
		if took := time.Since(began); took != stallTimeout { // by the bubble's clock
			t.Errorf("it took %v", took)
		}
	})
}

// Requests that were cancelled keep their place until they are answered; the bound holds, and waiting for a place ends with ctx.
func TestCancelledRequestsKeepTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scripted(t)
		ctx, cancel := context.WithCancel(context.Background())
		results := make(chan error, clientDepth)
		for range clientDepth {
			go func() { results <- c.ReadAt(ctx, make([]byte, 10), 0) }()
		}
		var hs []requestHeader
		for range clientDepth {
			hs = append(hs, s.next())
		}
		cancel()
		for range clientDepth {
			wantCode(t, <-results, drover.Canceled)
		}
		short, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		wantCode(t, c.Flush(short), drover.Canceled)
		done := async(func() error { return c.Flush(t.Context()) })
		for _, h := range hs {
			s.send(h.data(true, 0, 10, 1))
		}
		s.send(appendSimple(nil, errnoNone, s.next().cookie))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseFailsWhatIsInFlight(t *testing.T) {
	socket, g, _, _ := gatedServer(t)
	c := dial(t, "unix", socket, "disk", nil)
	done := async(func() error { return c.ReadAt(context.Background(), make([]byte, 10), gateFrom) })
	await(t, g.started, "the read to begin")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, await(t, done, "the read"), drover.Canceled)
	wantCode(t, c.Err(), drover.Canceled)
	close(g.gate)
}

func TestDialSaysWhyItCannot(t *testing.T) {
	socket, _, _ := exported(t, sample(sampleSize))
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, tc := range map[string]struct {
		ctx  context.Context
		cfg  ClientConfig
		code drover.Code
	}{
		"nobody listens": {context.Background(), ClientConfig{Network: "unix", Address: socket + "x", Export: "disk"}, drover.Unavailable},
		"unknown":        {context.Background(), ClientConfig{Network: "unix", Address: socket, Export: "unknown"}, drover.NotFound},
		"stale":          {context.Background(), ClientConfig{Network: "unix", Address: socket, Export: "old"}, drover.Conflict},
		"secret":         {context.Background(), ClientConfig{Network: "unix", Address: socket, Export: "secret"}, drover.Denied},
		"cancelled":      {canceled, ClientConfig{Network: "unix", Address: socket, Export: "disk"}, drover.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(tc.ctx, tc.cfg)
			wantCode(t, err, tc.code)
		})
	}
}

func TestDialDoesNotWaitForASilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Dial(t.Context(), ClientConfig{Network: "tcp", Address: l.Addr().String(), DialTimeout: 50 * time.Millisecond})
	wantCode(t, err, drover.Unavailable)
}

func TestClientRefusesWhatCannotBe(t *testing.T) {
	socket, _, _ := exported(t, sample(sampleSize))
	c, frozen := dial(t, "unix", socket, "disk", nil), dial(t, "unix", socket, "frozen", nil)
	ctx := t.Context()
	for _, err := range []error{
		c.ReadAt(ctx, make([]byte, 2), sampleSize-1), c.ReadAt(ctx, make([]byte, 2), -1), c.WriteAt(ctx, make([]byte, 1), sampleSize, false),
		c.Discard(ctx, 0, sampleSize+1, false), c.Zero(ctx, 1<<62, 1<<62, false, false), c.Zero(ctx, 0, -1, false, false),
	} {
		wantCode(t, err, drover.Invalid)
	}
	for _, err := range []error{
		frozen.WriteAt(ctx, make([]byte, 1), 0, false), frozen.Discard(ctx, 0, 1, false), frozen.Zero(ctx, 0, 1, false, false),
	} {
		wantCode(t, err, drover.Denied)
	}
	for _, err := range []error{c.ReadAt(ctx, nil, 0), c.WriteAt(ctx, nil, sampleSize, true), frozen.Flush(ctx)} {
		wantCode(t, err, "")
	}
}

func TestClientSplitsWhatIsTooLongForOneRequest(t *testing.T) {
	const size = int(maxBlock) + 12345
	m := newMemory(t, size)
	s := newShelf()
	s.add("disk", m, size, false)
	c := dial(t, "unix", startServer(t, "unix", s, nil), "disk", nil)
	want := make([]byte, size)
	fill(want, 1)
	if err := c.WriteAt(t.Context(), want, 0, true); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := c.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) || !bytes.Equal(m.bytes(), want) {
		t.Fatalf("read back: %v, equal %v", err, bytes.Equal(got, want))
	}
	if m.dirty || m.fua != 2 {
		t.Errorf("dirty %v, %d writes with FUA", m.dirty, m.fua)
	}
}
