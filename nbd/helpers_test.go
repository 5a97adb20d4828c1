package nbd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"drover"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// block is the unit in which memory tells holes from data.
const block = 4096

// memory is a Backend on a byte slice. It fails the test when it gets a range outside it, and counts what it is asked for.
type memory struct {
	tb testing.TB

	mu      sync.RWMutex
	content []byte
	flushes int
	fua     int
	kept    int // zeroed with keep
	// dirty is set by writes and cleared by Flush: what a power cut would lose.
	dirty bool
}

func newMemory(tb testing.TB, size int) *memory { return &memory{tb: tb, content: make([]byte, size)} }

func (m *memory) slice(off, n int64) []byte {
	if off < 0 || n <= 0 || off+n > int64(len(m.content)) {
		m.tb.Errorf("the backend was asked for %d bytes at %d of %d", n, off, len(m.content))
		return nil
	}
	return m.content[off : off+n]
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.slice(off, int64(len(p))))
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64, fua bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.slice(off, int64(len(p))), p)
	m.wroteLocked(fua)
	return nil
}

func (m *memory) wroteLocked(fua bool) {
	if fua {
		m.fua++
	} else {
		m.dirty = true
	}
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	m.dirty = false
	return nil
}

func (m *memory) Discard(ctx context.Context, off, n int64, fua bool) error {
	return m.Zero(ctx, off, n, false, fua)
}

func (m *memory) Zero(_ context.Context, off, n int64, keep, fua bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.slice(off, n))
	if keep {
		m.kept++
	}
	m.wroteLocked(fua)
	return nil
}

// zeroRunLocked looks at whole blocks.
func (m *memory) zeroRunLocked(off, n int64) (int64, bool) {
	var run int64
	var first bool
	for run < n {
		k := min(block-(off+run)%block, n-run)
		zero := len(bytes.Trim(m.content[off+run:off+run+k], "\x00")) == 0
		if run > 0 && zero != first {
			break
		}
		first = zero
		run += k
	}
	return run, first
}

func (m *memory) Extents(_ context.Context, metaContext string, off, n int64) ([]Extent, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.slice(off, n)
	var out []Extent
	for n > 0 {
		run, zero := m.zeroRunLocked(off, n)
		e := Extent{Length: run}
		switch {
		case metaContext == ContextAllocation && zero:
			e.Flags = FlagHole | FlagZero
		case metaContext == ContextPresent && !zero:
			e.Flags = FlagPresent
		}
		out = append(out, e)
		off, n = off+run, n-run
	}
	return out, nil
}

func (m *memory) bytes() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return bytes.Clone(m.content)
}

// quick is memory with the optional interfaces. Every third request is left to a worker.
type quick struct {
	*memory
	turn sync.Mutex
	n    int
}

func (q *quick) mine() bool {
	q.turn.Lock()
	defer q.turn.Unlock()
	q.n++
	return q.n%3 != 0
}

func (q *quick) TryReadAt(p []byte, off int64) (bool, error) {
	if !q.mine() {
		return false, nil
	}
	return true, q.ReadAt(context.Background(), p, off)
}

func (q *quick) TryWriteAt(p []byte, off int64) (bool, error) {
	if !q.mine() {
		return false, nil
	}
	return true, q.WriteAt(context.Background(), p, off, false)
}

func (q *quick) ZeroRun(off, n int64) (int64, bool) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.zeroRunLocked(off, n)
}

var (
	_ Backend    = (*memory)(nil)
	_ TryReader  = (*quick)(nil)
	_ TryWriter  = (*quick)(nil)
	_ ZeroFinder = (*quick)(nil)
)

// shelf is an Opener with a list of exports.
type shelf struct {
	mu      sync.Mutex
	exports map[string]Session // without Close
	errors  map[string]error
	peers   []Peer
	open    int
	opened  int
	closed  chan struct{} // gets an element at each Close, if there is room
}

func newShelf() *shelf {
	return &shelf{exports: map[string]Session{}, errors: map[string]error{}, closed: make(chan struct{}, 100)}
}

// add puts an export with both contexts on the shelf.
func (s *shelf) add(name string, b Backend, size int, readOnly bool) {
	s.exports[name] = Session{Backend: b, Info: Info{Size: int64(size), ReadOnly: readOnly, MetaContexts: []string{ContextAllocation, ContextPresent}}}
}

func (s *shelf) Open(_ context.Context, name string, peer Peer) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = append(s.peers, peer)
	if err := s.errors[name]; err != nil {
		return nil, err
	}
	found, ok := s.exports[name]
	if !ok {
		return nil, drover.Errorf(drover.NotFound, "there is no export %q", name)
	}
	s.open++
	s.opened++
	var once sync.Once
	found.Close = func() {
		twice := true
		once.Do(func() { twice = false })
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		if twice {
			s.open = -1000 // seen by the check at the end of the test
		}
		select {
		case s.closed <- struct{}{}:
		default:
		}
	}
	return &found, nil
}

func (s *shelf) List(context.Context, Peer) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.exports {
		names = append(names, name)
	}
	return names
}

// startServer serves the shelf and returns the address. At the end of the test it checks that every session was closed once.
func startServer(tb testing.TB, network string, s *shelf, edit func(*ServerConfig)) string {
	tb.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(tb.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := ServerConfig{Opener: s, Threads: 2} // so that of several connections over a unix socket some have threads
	if edit != nil {
		edit(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(cfg).Serve(ctx, l) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			tb.Errorf("Serve: %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open != 0 {
			tb.Errorf("%d sessions are open after the server has ended (negative: closed twice)", s.open)
		}
	})
	return l.Addr().String()
}

// dial connects and closes at the end of the test.
func dial(tb testing.TB, network, address, export string, edit func(*ClientConfig)) *Client {
	tb.Helper()
	cfg := ClientConfig{Network: network, Address: address, Export: export, MetaContexts: []string{ContextAllocation, ContextPresent}}
	if edit != nil {
		edit(&cfg)
	}
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// wantCode fails the test unless err is a *drover.Error of the code.
func wantCode(tb testing.TB, err error, code drover.Code) {
	tb.Helper()
	var e *drover.Error
	if code == "" && err == nil {
		return
	}
	if !errors.As(err, &e) || e.Code != code {
		tb.Fatalf("got error %v of code %q, want code %q", err, drover.CodeOf(err), code)
	}
}

// patience bounds waits for what must happen.
const patience = 20 * time.Second

// await receives, within bounds.
func await[T any](tb testing.TB, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		tb.Fatalf("waited %v for %s", patience, what)
		panic("not reached")
	}
}

// tool returns the path of a program from a Debian package, or skips the test and says what it lacks.
func tool(tb testing.TB, name, pkg string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Skipf("%s is not installed (Debian package %s): its interoperability is not tested here", name, pkg)
	}
	return path
}

// run runs a program to its successful end and returns what it printed.
func run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := try(name, args...)
	if err != nil {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// try runs a program for a bounded time.
func try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}
