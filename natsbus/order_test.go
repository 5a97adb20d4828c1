package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"drover"
)

// serve runs a handler until the test ends.
func serve(t *testing.T, bus *HostBus, order drover.Order, handler handlerFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bus.Serve(ctx, order, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func serveEcho(t *testing.T, bus *HostBus) {
	t.Helper()
	serve(t, bus, "echo", func(_ context.Context, request []byte) (any, error) {
		var text string
		if err := json.Unmarshal(request, &text); err != nil {
			return nil, err
		}
		return "echo " + text, nil
	})
}

// waitServed waits until h1 answers.
func waitServed(t *testing.T, conn *Conn) {
	t.Helper()
	eventually(t, "h1 answers", func() bool {
		var answer string
		return Order(t.Context(), conn, "h1", "echo", "hello", &answer) == nil && answer == "echo hello"
	})
}

func TestAnErrorOfTheHostArrivesWhole(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	bus := NewHostBus(conn, "h1")
	serveEcho(t, bus)
	serve(t, bus, "move.reserve", func(context.Context, []byte) (any, error) {
		return nil, drover.Errorf(drover.Exhausted, "412 MiB free").WithHint("move something").WithField("config.guest.memory_mb")
	})
	waitServed(t, conn)
	err := Order(t.Context(), conn, "h1", drover.OrderMoveReserve, drover.Empty{}, nil)
	e := drover.AsError(err)
	if e == nil || e.Code != drover.Exhausted || e.Text != "412 MiB free" || e.Hint != "move something" || e.Field != "config.guest.memory_mb" {
		t.Fatalf("error is %#v", e)
	}
}

func TestAHostThatIsNotThereIsNamed(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	eventually(t, "connected", conn.Up)
	err := Order(t.Context(), conn, "h2", drover.OrderOffer, drover.Empty{}, nil)
	wantCode(t, err, drover.Unavailable)
}

func TestASlowHandlerIsWaitedForAndASilentHostIsNot(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	bus := NewHostBus(conn, "h1")
	serveEcho(t, bus)
	release := make(chan struct{})
	serve(t, bus, "slow", func(ctx context.Context, _ []byte) (any, error) {
		select {
		case <-release:
			return "done", nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	// A host that took the order and then died: somebody listens and never says a word.
	sub, err := conn.nc.SubscribeSync(orderSubject("h1", "mute"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.drop(sub)
	waitServed(t, conn)

	slow := make(chan error, 1)
	var answer string
	go func() { slow <- Order(t.Context(), conn, "h1", "slow", drover.Empty{}, &answer) }()
	// The silent one takes the whole bound of silence; the slow one, asked before it, is still waited for after that.
	wantCode(t, Order(t.Context(), conn, "h1", "mute", drover.Empty{}, nil), drover.Unavailable)
	select {
	case err := <-slow:
		t.Fatalf("the slow order ended with %v before its handler did", err)
	default:
	}
	close(release)
	if err := <-slow; err != nil || answer != "done" {
		t.Fatalf("slow order: %q, %v", answer, err)
	}
}

func TestTheAskersContextBoundsTheWait(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	bus := NewHostBus(conn, "h1")
	serveEcho(t, bus)
	serve(t, bus, "slow", func(ctx context.Context, _ []byte) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	waitServed(t, conn)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantCode(t, Order(ctx, conn, "h1", "slow", drover.Empty{}, nil), drover.Unavailable)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	wantCode(t, Order(ctx, conn, "h1", "slow", drover.Empty{}, nil), drover.Canceled)
}

func TestALongAnswerComesInParts(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	bus := NewHostBus(conn, "h1")
	serveEcho(t, bus)
	want := drover.ExecResult{Stdout: bytes.Repeat([]byte("0123456789abcdef"), 1<<16), Stderr: bytes.Repeat([]byte{0xff}, 1<<20)}
	serve(t, bus, drover.OrderExec, func(context.Context, []byte) (any, error) { return want, nil })
	waitServed(t, conn)
	var got drover.ExecResult
	if err := Order(t.Context(), conn, "h1", drover.OrderExec, drover.ExecRequest{}, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Stdout, want.Stdout) || !bytes.Equal(got.Stderr, want.Stderr) {
		t.Fatal("the answer changed on its way")
	}
}

func TestTooManyRequestsAreRefusedNotQueued(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	bus := NewHostBus(conn, "h1")
	serveEcho(t, bus)
	serve(t, bus, "slow", func(ctx context.Context, _ []byte) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	waitServed(t, conn)
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, 2*maxHandlers)
	for range maxHandlers + 1 {
		go func() { answers <- Order(ctx, conn, "h1", "slow", drover.Empty{}, nil) }()
	}
	wantCode(t, <-answers, drover.Unavailable)
	cancel()
	for range maxHandlers {
		wantCode(t, <-answers, drover.Canceled)
	}
}
