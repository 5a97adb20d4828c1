package natsbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"drover"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// nats-server keeps one of these per process after the first server.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.(*tick).loop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// startServer starts a server on a store and port; port 0 takes a free one.
func startServer(t *testing.T, dir string, port int) *Server {
	t.Helper()
	srv, err := StartServer(ServerConfig{Name: "c1", Host: "127.0.0.1", Port: port, StoreDir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	return srv
}

func portOf(t *testing.T, s *Server) int {
	t.Helper()
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func connect(t *testing.T, url string) *Conn {
	t.Helper()
	conn, err := Connect(t.Context(), Config{URLs: []string{url}, Name: "test", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func open[T any](t *testing.T, conn *Conn, name string) *Bucket[T] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b, err := OpenBucket[T](ctx, conn, name, BucketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eventually polls a condition for at most 20 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if ok() {
			tick.Stop()
			return
		}
		select {
		case <-deadline:
			tick.Stop()
			t.Fatalf("did not happen within 20 s: %s", what)
		case <-tick.C:
		}
	}
}

func wantCode(t *testing.T, err error, code drover.Code) {
	t.Helper()
	if drover.CodeOf(err) != code {
		t.Fatalf("error is %q (%v), want code %q", drover.CodeOf(err), err, code)
	}
}

func TestRecordsChangeByCompareAndSetOnly(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	checkCompareAndSet(t, open[string](t, conn, "things"))
}

// checkCompareAndSet is what every bucket promises, on one server or on three.
func checkCompareAndSet(t *testing.T, b *Bucket[string]) {
	t.Helper()
	ctx := t.Context()
	_, _, err := b.Get(ctx, "a")
	wantCode(t, err, drover.NotFound)
	_, _, err = b.GetConfirmed(ctx, "a")
	wantCode(t, err, drover.NotFound)
	_, err = b.Update(ctx, "a", "x", 12345)
	wantCode(t, err, drover.Conflict)

	first, err := b.Create(ctx, "a", "one")
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Create(ctx, "a", "other")
	wantCode(t, err, drover.Exists)
	second, err := b.Update(ctx, "a", "two", first)
	if err != nil || second <= first {
		t.Fatalf("update gave revision %d after %d, %v", second, first, err)
	}
	_, err = b.Update(ctx, "a", "stale", first)
	wantCode(t, err, drover.Conflict)
	_, err = b.Delete(ctx, "a", first)
	wantCode(t, err, drover.Conflict)
	for name, get := range map[string]func(context.Context, string) (string, uint64, error){"Get": b.Get, "GetConfirmed": b.GetConfirmed} {
		if v, rev, err := get(ctx, "a"); v != "two" || rev != second || err != nil {
			t.Fatalf("%s: %q at %d, %v; want \"two\" at %d", name, v, rev, err, second)
		}
	}

	gone, err := b.Delete(ctx, "a", second)
	if err != nil || gone <= second {
		t.Fatalf("delete gave revision %d after %d, %v", gone, second, err)
	}
	_, _, err = b.Get(ctx, "a")
	wantCode(t, err, drover.NotFound)
	_, _, err = b.GetConfirmed(ctx, "a")
	wantCode(t, err, drover.NotFound)
	_, err = b.Update(ctx, "a", "stale", second)
	wantCode(t, err, drover.Conflict)
	again, err := b.Create(ctx, "a", "three")
	if err != nil || again <= gone {
		t.Fatalf("create after delete gave revision %d after %d, %v", again, gone, err)
	}
	_, err = b.Create(ctx, "a", "four")
	wantCode(t, err, drover.Exists)
	if _, err := b.Put(ctx, "b", "five"); err != nil {
		t.Fatal(err)
	}
	all, err := b.All(ctx)
	if err != nil || len(all) != 2 || all["a"].Value != "three" || all["a"].Revision != again || all["b"].Value != "five" {
		t.Fatalf("all is %v, %v", all, err)
	}
}

func TestOneOfManyConcurrentWritersWins(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[int](t, conn, "things")
	rev, err := b.Create(t.Context(), "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 16)
	for i := range cap(results) {
		go func() {
			_, err := b.Update(t.Context(), "a", i+1, rev)
			results <- err
		}()
	}
	won := 0
	for range cap(results) {
		if err := <-results; err == nil {
			won++
		} else {
			wantCode(t, err, drover.Conflict)
		}
	}
	if won != 1 {
		t.Fatalf("%d writers of one revision won", won)
	}
}

func TestWatchTellsOldThenSyncedThenNew(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[string](t, conn, "things")
	mustCreate(t, b, "a", "1")
	entries := watchAll(t, b)
	if e := <-entries; e.Key != "a" || e.Value != "1" {
		t.Fatalf("first entry is %+v", e)
	}
	if e := <-entries; !e.Synced {
		t.Fatalf("second entry is %+v, want Synced", e)
	}
	rev := mustCreate(t, b, "b", "2")
	if e := <-entries; e.Key != "b" || e.Revision != rev || e.Deleted {
		t.Fatalf("entry is %+v", e)
	}
	del, err := b.Delete(t.Context(), "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-entries; e.Key != "a" || !e.Deleted || e.Revision != del {
		t.Fatalf("entry is %+v, want a deleted at %d", e, del)
	}
}

func mustCreate[T any](t *testing.T, b *Bucket[T], key string, v T) uint64 {
	t.Helper()
	rev, err := b.Create(t.Context(), key, v)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func watchAll[T any](t *testing.T, b *Bucket[T]) <-chan Entry[T] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	entries := make(chan Entry[T], 1000)
	ended := make(chan error, 1)
	go func() { ended <- b.Watch(ctx, func(e Entry[T]) error { entries <- e; return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return entries
}

func TestABrokenRecordHidesNoOther(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	text := open[string](t, conn, "things")
	mustCreate(t, text, "a", "not a number")
	mustCreate(t, text, "b", "7")
	numbers := open[int](t, conn, "things")
	_, _, err := numbers.Get(t.Context(), "a")
	wantCode(t, err, drover.Internal)
	if e := <-watchAll(t, numbers); !e.Synced {
		t.Fatalf("got %+v, want Synced alone", e)
	}
}

func TestServerRestartKeepsDataAndEverybodyComesBack(t *testing.T) {
	dir := t.TempDir()
	srv := startServer(t, dir, 0)
	port := portOf(t, srv)
	conn := connect(t, srv.ClientURL())
	b := open[string](t, conn, "things")
	rev := mustCreate(t, b, "a", "1")
	entries := watchAll(t, b)
	<-entries
	<-entries
	bus := NewHostBus(conn, "h1")
	serveEcho(t, bus)
	waitServed(t, conn)

	signal := conn.Connected()
	srv.Shutdown()
	_, err := b.Update(t.Context(), "a", "lost", rev)
	wantCode(t, err, drover.Unavailable)
	wantCode(t, Order(t.Context(), conn, "h1", "echo", "x", nil), drover.Unavailable)

	startServer(t, dir, port)
	select {
	case <-signal:
	case <-time.After(20 * time.Second):
		t.Fatal("no signal of the reconnection")
	}
	eventually(t, "the record can be read again", func() bool {
		v, got, err := b.Get(t.Context(), "a")
		return err == nil && v == "1" && got == rev
	})
	next, err := b.Update(t.Context(), "a", "2", rev)
	if err != nil {
		t.Fatal(err)
	}
	for {
		e := <-entries
		if e.Key == "a" && e.Value == "lost" {
			t.Fatal("a write that failed was carried out after the reconnection")
		}
		if e.Key == "a" && e.Value == "2" && e.Revision == next {
			break
		}
	}
	waitServed(t, conn)
}

// A process may be told to end before what it serves has begun: that is an end like any other.
func TestServingThatEndsBeforeItBeginsIsNoFailure(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	conn.Close()
	err := ServeKeys(ctx, conn, func(context.Context, drover.KeyRequest) (drover.SealedKey, error) {
		return drover.SealedKey{}, errors.New("nobody asks")
	})
	if err != nil {
		t.Error(err)
	}
}

func TestConnectReturnsBeforeThereIsAServer(t *testing.T) {
	dir := t.TempDir()
	first := startServer(t, dir, 0)
	port := portOf(t, first)
	first.Shutdown()
	conn := connect(t, fmt.Sprintf("nats://127.0.0.1:%d", port))
	signal := conn.Connected()
	if conn.Up() {
		t.Fatal("connected to nothing")
	}
	_, err := NewHostBus(conn, "h1").Placement(t.Context(), "m1")
	wantCode(t, err, drover.Unavailable)
	startServer(t, dir, port)
	<-signal
	_, err = NewHostBus(conn, "h1").Placement(t.Context(), "m1")
	wantCode(t, err, drover.Unavailable) // the buckets are not made yet
	open[drover.Placement](t, conn, BucketPlacements)
	_, err = NewHostBus(conn, "h1").Placement(t.Context(), "m1")
	wantCode(t, err, drover.NotFound)
}

func TestInProcessConnection(t *testing.T) {
	srv := startServer(t, t.TempDir(), 0)
	conn, err := Connect(t.Context(), Config{InProcess: srv, Name: "test", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	mustCreate(t, open[string](t, conn, "things"), "a", "1")
}

func TestABucketOfALaterFormatIsNotOpened(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[string](t, conn, "things")
	cfg := b.stream.CachedInfo().Config
	cfg.Metadata[formatKey] = "99"
	if _, err := conn.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, err := OpenBucket[string](t.Context(), conn, "things", BucketOptions{})
	wantCode(t, err, drover.Invalid)
}
