package nbd

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"

	"drover"
)

// gated is memory in which reads at an offset of 1 MiB or more wait for the gate, or for their context.
type gated struct {
	*memory
	gate    chan struct{}
	started chan int64 // the offset of each read that waits

	mu            sync.Mutex
	waiting, most int
	cancelled     int
}

const gateFrom = 1 << 20

func newGated(t *testing.T, size int) *gated {
	return &gated{memory: newMemory(t, size), gate: make(chan struct{}), started: make(chan int64, 1000)}
}

func (g *gated) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < gateFrom {
		return g.memory.ReadAt(ctx, p, off)
	}
	g.count(1)
	defer g.count(-1)
	g.started <- off
	select {
	case <-g.gate:
		return g.memory.ReadAt(ctx, p, off)
	case <-ctx.Done():
		g.mu.Lock()
		g.cancelled++
		g.mu.Unlock()
		return drover.Errorf(drover.Canceled, "cancelled: %w", context.Cause(ctx))
	}
}

func (g *gated) count(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting += n
	g.most = max(g.most, g.waiting)
}

// gatedServer serves a gated backend of 64 MiB as "disk".
func gatedServer(t *testing.T) (socket string, g *gated, s *shelf, gone chan struct{}) {
	t.Helper()
	const size = 64 << 20
	g = newGated(t, size)
	s = newShelf()
	s.add("disk", g, size, false)
	gone = make(chan struct{})
	e := s.exports["disk"]
	e.Gone = gone
	s.exports["disk"] = e
	return startServer(t, "unix", s, nil), g, s, gone
}

func TestBlockedReadHoldsUpNothingElse(t *testing.T) {
	socket, g, _, _ := gatedServer(t)
	w := attach(t, "unix", socket, "disk")
	for i := range uint64(maxInFlight - 1) {
		w.request(cmdRead, 1000+i, gateFrom+4096*i, 4096)
	}
	for range maxInFlight - 1 {
		await(t, g.started, "all reads to wait")
	}
	for i := range uint64(50) {
		w.request(cmdWrite, i, 4096, 4096, make([]byte, 4096))
		w.wantSimple(i, errnoNone)
		w.request(cmdFlush, i, 0, 0)
		w.wantSimple(i, errnoNone)
		w.request(cmdRead, i, 0, 4096)
		w.wantSimple(i, errnoNone)
		w.receive(4096)
	}
	close(g.gate)
	for range maxInFlight - 1 {
		if cookie, e := w.simple(); cookie < 1000 || e != errnoNone {
			t.Fatalf("reply %d: %s", cookie, e)
		}
		w.receive(4096)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		length    uint32
		most, all int
	}{
		"by number": {4096, maxInFlight, maxInFlight + 40},
		"by bytes":  {16 << 20, maxInFlightBytes / (16 << 20), 7},
	} {
		t.Run(name, func(t *testing.T) {
			socket, g, _, _ := gatedServer(t)
			w := attach(t, "unix", socket, "disk")
			for i := range uint64(tc.all) {
				w.request(cmdRead, i, gateFrom, tc.length)
			}
			for range tc.most {
				await(t, g.started, "reads to begin")
			}
			g.gate <- struct{}{} // one may end; then one more may begin, once its reply is written
			w.simple()
			w.receive(int(tc.length))
			await(t, g.started, "one more read to begin")
			close(g.gate)
			for range tc.all - 1 {
				w.simple()
				w.receive(int(tc.length))
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.most != tc.most {
				t.Errorf("%d reads at once, want %d", g.most, tc.most)
			}
		})
	}
}

// Whatever ends a connection must cancel what is in flight, without telling the client that it failed, and then close the session.
func TestEndOfAConnectionCancelsRequests(t *testing.T) {
	for name, tc := range map[string]struct {
		reads int
		end   func(w *wire, gone chan struct{})
	}{
		"the export is gone":                     {3, func(_ *wire, gone chan struct{}) { close(gone) }},
		"the client closes":                      {3, func(w *wire, _ chan struct{}) { w.Close() }},               //nolint:errcheck // seen by the test
		"the client closes while nothing's read": {maxInFlight + 9, func(w *wire, _ chan struct{}) { w.Close() }}, //nolint:errcheck // seen by the test
		"a broken frame":                         {3, func(w *wire, _ chan struct{}) { w.send(make([]byte, requestSize)) }},
	} {
		t.Run(name, func(t *testing.T) {
			socket, g, s, gone := gatedServer(t)
			other := attach(t, "unix", socket, "disk")
			w := attach(t, "unix", socket, "disk")
			for i := range tc.reads {
				w.request(cmdRead, uint64(i), gateFrom, 4096)
			}
			for range min(tc.reads, maxInFlight) {
				await(t, g.started, "reads to begin")
			}
			tc.end(w, gone)
			await(t, s.closed, "the session to be closed")
			if name == "the export is gone" {
				await(t, s.closed, "the other session to be closed")
			}
			g.mu.Lock()
			if g.waiting != 0 || g.cancelled != min(tc.reads, maxInFlight) {
				t.Errorf("%d reads wait, %d were cancelled", g.waiting, g.cancelled)
			}
			g.mu.Unlock()
			if name == "the export is gone" {
				w.wantEnd()
				other.wantEnd()
				return
			}
			if name == "a broken frame" {
				w.wantEnd()
			}
			other.request(cmdFlush, 1, 0, 0)
			other.wantSimple(1, errnoNone)
		})
	}
}

func TestServerEndCancelsRequests(t *testing.T) {
	g := newGated(t, 64<<20)
	s := newShelf()
	s.add("disk", g, 64<<20, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(ServerConfig{Opener: s}).Serve(ctx, l) }()
	w := attach(t, "tcp", l.Addr().String(), "disk")
	silent := connect(t, "tcp", l.Addr().String())
	silent.greet(3)
	w.request(cmdRead, 1, gateFrom, 4096)
	await(t, g.started, "the read to begin")
	cancel()
	if err := await(t, served, "Serve to return"); err != nil {
		t.Fatal(err)
	}
	if s.open != 0 || g.cancelled != 1 {
		t.Errorf("%d sessions open, %d requests cancelled", s.open, g.cancelled)
	}
	w.wantEnd()
	silent.wantEnd()
}

// After Gone is closed, errors are not told any more: the client must see a lost connection.
func TestErrorsOfAWithdrawnExportAreNotSent(t *testing.T) {
	socket, g, s, gone := gatedServer(t)
	s.mu.Lock()
	e := s.exports["disk"]
	e.Backend = &withdrawn{gated: g, gone: gone}
	s.exports["disk"] = e
	s.mu.Unlock()
	w := attach(t, "unix", socket, "disk")
	w.request(cmdWrite, 1, 0, 512, make([]byte, 512))
	w.wantEnd()
}

// withdrawn fails each write because the export is gone since just now.
type withdrawn struct {
	*gated
	gone chan struct{}
}

func (b *withdrawn) WriteAt(context.Context, []byte, int64, bool) error {
	close(b.gone)
	return drover.Errorf(drover.Conflict, "stale epoch")
}

func TestDisconnectWaitsForRequests(t *testing.T) {
	socket, g, _, _ := gatedServer(t)
	w := attach(t, "unix", socket, "disk")
	w.request(cmdRead, 1, gateFrom, 4096)
	await(t, g.started, "the read to begin")
	w.request(cmdDisc, 2, 0, 0)
	close(g.gate)
	w.wantSimple(1, errnoNone)
	w.receive(4096)
	w.wantEnd()
}

func TestRefusedWriteIsSkippedWhole(t *testing.T) {
	socket, _, _ := exported(t, sample(sampleSize))
	w := attach(t, "unix", socket, "frozen")
	for i, tc := range []struct {
		offset uint64
		length uint32
		want   errno
	}{{0, 3 << 20, errnoPerm}, {sampleSize, 100, errnoPerm}, {0, 0, errnoPerm}} {
		w.request(cmdWrite, uint64(i), tc.offset, tc.length, make([]byte, tc.length))
		w.wantSimple(uint64(i), tc.want)
	}
	w = attach(t, "unix", socket, "disk")
	for i, tc := range []struct {
		offset uint64
		length uint32
		want   errno
	}{
		{sampleSize - 1, 2, errnoNoSpace}, {1 << 63, 100, errnoNoSpace}, {^uint64(0), 100, errnoNoSpace}, {0, maxBlock + 1, errnoInval}, {5, 1, errnoNone},
	} {
		w.request(cmdWrite, uint64(i), tc.offset, tc.length, make([]byte, tc.length))
		w.wantSimple(uint64(i), tc.want)
	}
	w.request(cmdRead, 9, 0, maxBlock+1)
	w.wantSimple(9, errnoInval)
	w.request(55, 10, 0, 0)
	w.wantSimple(10, errnoInval)
}

func TestFailuresOfTheBackendAreTranslated(t *testing.T) {
	for code, want := range map[drover.Code]errno{
		drover.Denied: errnoPerm, drover.Exhausted: errnoNoSpace, drover.Invalid: errnoInval, drover.Unavailable: errnoShutdown,
		drover.Canceled: errnoShutdown, drover.Internal: errnoIO, drover.Conflict: errnoIO, drover.NotFound: errnoIO,
	} {
		s := newShelf()
		s.add("disk", &failing{memory: newMemory(t, 1<<20), code: code}, 1<<20, false)
		socket := startServer(t, "unix", s, nil)
		w := attach(t, "unix", socket, "disk")
		for i, kind := range []command{cmdRead, cmdTrim, cmdWriteZeroes} {
			w.request(kind, uint64(i), 0, 4096)
			w.wantSimple(uint64(i), want)
		}
		w.request(cmdFlush, 8, 0, 0)
		w.wantSimple(8, want)
		// Structured, the text comes along.
		c := dial(t, "unix", socket, "disk", nil)
		err := c.ReadAt(t.Context(), make([]byte, 10), 0)
		wantCode(t, err, want.code())
		if got := err.Error(); !strings.Contains(got, "the platter is scratched") {
			t.Errorf("the client was told %q", got)
		}
		_, err = c.Extents(t.Context(), ContextPresent, 0, 4096)
		wantCode(t, err, drover.Internal) // it describes nothing
	}
}

// failing fails everything, and describes nothing.
type failing struct {
	*memory
	code drover.Code
}

func (f *failing) err() error { return drover.Errorf(f.code, "the platter is scratched") }

func (f *failing) ReadAt(context.Context, []byte, int64) error          { return f.err() }
func (f *failing) Flush(context.Context) error                          { return f.err() }
func (f *failing) Discard(context.Context, int64, int64, bool) error    { return f.err() }
func (f *failing) Zero(context.Context, int64, int64, bool, bool) error { return f.err() }
func (f *failing) Extents(context.Context, string, int64, int64) ([]Extent, error) {
	return nil, nil
}

func TestExtentsAreJoinedAndCut(t *testing.T) {
	got := appendExtents(nil, []Extent{{10, 1}, {20, 1}, {5, 0}, {100, 3}}, 50, 10)
	want := []uint32{30, 1, 5, 0, 15, 3}
	for i, v := range want {
		if n := binary.BigEndian.Uint32(got[4*i:]); n != v {
			t.Errorf("number %d is %d, want %d", i, n, v)
		}
	}
	if len(got) != 4*len(want) {
		t.Errorf("%d bytes", len(got))
	}
	if one := appendExtents(nil, []Extent{{10, 1}, {20, 1}, {5, 0}}, 50, 1); binary.BigEndian.Uint32(one) != 30 || len(one) != 8 {
		t.Errorf("% x", one)
	}
	if none := appendExtents(nil, []Extent{{0, 1}}, 50, 10); len(none) != 0 {
		t.Errorf("% x", none)
	}
}
