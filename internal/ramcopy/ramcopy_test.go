package ramcopy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"drover"
)

// newMemory makes a memory as a VM has it.
func newMemory(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t testing.TB, f *os.File, data []byte, at int64) {
	t.Helper()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, f *os.File, size int64) []byte {
	t.Helper()
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

// blocks is how much a memory takes of its host.
func blocks(t testing.TB, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// receive lets a receiver take what comes over a connection; got is closed when it has returned err.
type receiving struct {
	err error
	got chan struct{}
}

func connect(t testing.TB, to *os.File, size int64) (net.Conn, *receiving) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiving{got: make(chan struct{})}
	go func() {
		defer close(r.got)
		conn, err := l.Accept()
		l.Close() // one is enough
		if err != nil {
			r.err = err
			return
		}
		defer conn.Close()
		r.err = Receive(conn, to, drover.Bytes(size), "state:1")
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, r
}

func newSender(t testing.TB, from *os.File, size int64) *Sender {
	t.Helper()
	s, err := NewSender(from, drover.Bytes(size), 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func attach(t testing.TB, s *Sender, conn net.Conn) {
	t.Helper()
	if state, err := s.Attach(conn); err != nil || state != "state:1" {
		t.Fatalf("%q %v", state, err)
	}
}

// change makes random changes, as a guest and its devices do: bytes, pages, zeroes, memory that is given back.
func change(t testing.TB, rng *rand.Rand, f *os.File, size int64) {
	t.Helper()
	page := make([]byte, pageSize)
	at := rng.Int64N(size/pageSize) * pageSize
	switch rng.IntN(4) {
	case 0: // one bit of a page that may be there
		write(t, f, []byte{byte(rng.Int())}, at+rng.Int64N(pageSize))
	case 1:
		for i := range page {
			page[i] = byte(rng.Int())
		}
		for n := rng.IntN(80); n >= 0 && at < size; n, at = n-1, at+pageSize {
			write(t, f, page, at)
		}
	case 2:
		write(t, f, page, at)
	case 3:
		length := min(size-at, pageSize*(1+rng.Int64N(80)))
		if err := punch(f, at, length); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever was written before, between and during the passes: after the last one both memories are equal, and holes take no room at either side.
func TestMemoriesAreEqualInTheEnd(t *testing.T) {
	const size = 8 << 20
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		from, to := newMemory(t, size), newMemory(t, size)
		write(t, to, bytes.Repeat([]byte("stale"), 1000), 3*pageSize+17) // of a sender that was cut
		for range rng.IntN(20) {
			change(t, rng, from, size)
		}
		s := newSender(t, from, size)
		conn, r := connect(t, to, size)
		attach(t, s, conn)
		var writer sync.WaitGroup
		stop := make(chan struct{})
		writer.Go(func() { // while it is copied
			rng := rand.New(rand.NewPCG(seed, 2))
			for {
				select {
				case <-stop:
					return
				default:
					change(t, rng, from, size)
				}
			}
		})
		for range 1 + rng.IntN(4) {
			if _, err := s.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		writer.Wait()
		before := blocks(t, from)
		if err := s.Last(t.Context()); err != nil {
			t.Fatal(err)
		}
		if <-r.got; r.err != nil {
			t.Fatal(r.err)
		}
		if !bytes.Equal(content(t, from, size), content(t, to, size)) {
			t.Fatalf("seed %d: the memories differ", seed)
		}
		if after := blocks(t, to); after > before {
			t.Errorf("seed %d: %d bytes of memory became %d", seed, before, after)
		}
	}
}

// A pass over a memory that has not changed sends nothing of it.
func TestWhatWasSentIsNotSentAgain(t *testing.T) {
	const size = 4 << 20
	from, to := newMemory(t, size), newMemory(t, size)
	write(t, from, bytes.Repeat([]byte("x"), 1<<20), 1<<20)
	s := newSender(t, from, size)
	conn, _ := connect(t, to, size)
	attach(t, s, conn)
	for n, want := range []drover.Bytes{1 << 20, 0, 4096, 0} {
		if n == 2 {
			write(t, from, []byte("y"), 1<<20+4095)
		}
		if got, err := s.Pass(t.Context()); err != nil || got.Changed != want {
			t.Errorf("pass %d sent %d bytes, want %d (%v)", n, got.Changed, want, err)
		}
	}
	if p := s.Progress(); p.Rounds != 4 || p.Total != size || p.Transferred < 1<<20 || p.Transferred > 1<<20+8192 {
		t.Errorf("progress %+v", p)
	}
}

// A sender whose connection is lost begins anew with the next one, and leaves nothing there that is not so any more.
func TestALostConnectionIsBegunAnew(t *testing.T) {
	const size = 4 << 20
	from, to := newMemory(t, size), newMemory(t, size)
	write(t, from, bytes.Repeat([]byte("before"), 1000), 0)
	s := newSender(t, from, size)
	conn, r := connect(t, to, size)
	attach(t, s, conn)
	if _, err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if <-r.got; r.err == nil {
		t.Fatal("half a memory was taken for all")
	}
	write(t, from, make([]byte, 6000), 0)
	write(t, from, []byte("after"), 1<<20)
	conn, r = connect(t, to, size)
	attach(t, s, conn)
	if err := s.Last(t.Context()); err != nil {
		t.Fatal(err)
	}
	if <-r.got; r.err != nil {
		t.Fatal(r.err)
	}
	if !bytes.Equal(content(t, from, size), content(t, to, size)) {
		t.Fatal("the memories differ")
	}
}

// What is not the protocol, or does not fit, is refused and writes nothing beside the memory.
func TestWhatDoesNotFitIsRefused(t *testing.T) {
	const size = 1 << 20
	from, to := newMemory(t, size), newMemory(t, size)
	conn, _ := connect(t, to, size)
	if _, err := newSender(t, from, 2*size).Attach(conn); !drover.Is(err, drover.Precondition) {
		t.Errorf("a memory of another size: %v", err)
	}
	if _, err := newSender(t, from, size).Attach(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(bytes.Repeat([]byte("QEVM"), 100)), io.Discard}); !drover.Is(err, drover.Precondition) {
		t.Errorf("something else that listens: %v", err)
	}
	var head [headSize]byte
	for name, frame := range map[string][]byte{
		"unknown":      putHead(&head, '?', 0, 0),
		"beyond":       putHead(new([headSize]byte), framePages, size, pageSize),
		"negative":     putHead(new([headSize]byte), framePages, -pageSize, pageSize),
		"overflow":     putHead(new([headSize]byte), frameZeroes, size-pageSize, 1<<62),
		"not a page":   putHead(new([headSize]byte), framePages, 0, 100),
		"half a frame": putHead(new([headSize]byte), framePages, 0, pageSize)[:9],
	} {
		err := Receive(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(frame), io.Discard}, to, size, "")
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if n := blocks(t, to); n != 0 {
		t.Errorf("%d bytes were written", n)
	}
}

// A bound is kept, and a copy that nobody wants any more ends.
func TestACopyEndsWhenItIsCanceled(t *testing.T) {
	const size = 8 << 20
	from, to := newMemory(t, size), newMemory(t, size)
	write(t, from, bytes.Repeat([]byte("x"), size), 0)
	s, err := NewSender(from, size, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := connect(t, to, size)
	attach(t, s, conn)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var canceler sync.WaitGroup
	canceler.Go(func() {
		for s.Progress().Transferred < chunk {
			if _, err := to.Stat(); err != nil {
				t.Error(err)
			}
		}
		cancel(enough)
	})
	if _, err := s.Pass(ctx); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	canceler.Wait()
	if sent := s.Progress().Transferred; sent > size/2 {
		t.Errorf("%d bytes were sent in no time", sent)
	}
}

func BenchmarkPassWithoutChanges(b *testing.B) {
	const size = 128 << 20
	from, to := newMemory(b, size), newMemory(b, size)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 4000 {
		change(b, rng, from, size)
	}
	s := newSender(b, from, size)
	conn, _ := connect(b, to, size)
	attach(b, s, conn)
	b.SetBytes(blocks(b, from))
	for b.Loop() {
		if _, err := s.Pass(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
