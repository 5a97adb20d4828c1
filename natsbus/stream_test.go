package natsbus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"drover"
	"drover/internal/frames"
)

// serveStream runs a handler of streams until the test ends.
func serveStream(t *testing.T, bus *HostBus, order drover.Order, handler StreamHandler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bus.ServeStream(ctx, order, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStreamsCarryFramesBothWays(t *testing.T) {
	server := startServer(t, t.TempDir(), 0)
	conn, hostConn := connect(t, server.ClientURL()), connect(t, server.ClientURL())
	bus := NewHostBus(hostConn, "h1")
	left := make(chan error, 10)
	serveEcho(t, bus)
	serveStream(t, bus, drover.OrderExecStream, func(ctx context.Context, request []byte, open func() (frames.Conn, error)) error {
		if bytes.Contains(request, []byte("refuse")) {
			return drover.Errorf(drover.Precondition, "machine is stopped").WithHint("start it")
		}
		s, err := open()
		if err != nil {
			return err
		}
		for {
			f, err := s.Receive(ctx)
			if err != nil {
				left <- err
				return nil
			}
			if f.Kind == frames.StdinEnd {
				return s.Send(ctx, frames.NewExit(drover.StreamExit{ExitCode: 4}))
			}
			if err := s.Send(ctx, frames.Frame{Kind: frames.Stdout, Data: f.Data}); err != nil {
				return err
			}
		}
	})
	waitServed(t, conn)

	_, err := OpenStream(t.Context(), conn, "h1", drover.OrderExecStream, "refuse")
	if e := drover.AsError(err); e == nil || e.Code != drover.Precondition || e.Hint != "start it" {
		t.Errorf("refusal is %#v", e)
	}
	if _, err := OpenStream(t.Context(), conn, "h2", drover.OrderExecStream, "x"); !drover.Is(err, drover.Unavailable) {
		t.Errorf("a host that is not there: %v", err)
	}

	s := openStream(t, conn)
	piece := bytes.Repeat([]byte{0xff}, frames.MaxData)
	for range 3 * frames.QueueSize { // more than any queue holds
		if err := s.Send(t.Context(), frames.Frame{Kind: frames.Stdin, Data: piece}); err != nil {
			t.Fatal(err)
		}
		if f, err := s.Receive(t.Context()); err != nil || f.Kind != frames.Stdout || !bytes.Equal(f.Data, piece) {
			t.Fatalf("got %d bytes, %v", len(f.Data), err)
		}
	}
	if err := s.Send(t.Context(), frames.Frame{Kind: frames.StdinEnd}); err != nil {
		t.Fatal(err)
	}
	f, err := s.Receive(t.Context())
	if exit, endErr := f.Ended(); err != nil || endErr != nil || exit.ExitCode != 4 {
		t.Errorf("the end is %+v, %v, %v", exit, err, endErr)
	}
	if _, err := s.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}

	openStream(t, conn).Close()
	if err := <-left; !errors.Is(err, io.EOF) {
		t.Errorf("the host was told %v of an asker that closed", err)
	}

	// An asker whose process is gone cannot say so.
	gone := connect(t, server.ClientURL())
	eventually(t, "the second asker is connected", gone.Up)
	openStream(t, gone)
	gone.Close()
	select {
	case err := <-left:
		if !drover.Is(err, drover.Unavailable) {
			t.Errorf("the host was told %v of an asker that died", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the host waits for ever for an asker that died")
	}
}

func openStream(t *testing.T, conn *Conn) frames.Conn {
	t.Helper()
	s, err := OpenStream(t.Context(), conn, "h1", drover.OrderExecStream, "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestAStreamOfAHostThatDiedEnds(t *testing.T) {
	server := startServer(t, t.TempDir(), 0)
	conn, hostConn := connect(t, server.ClientURL()), connect(t, server.ClientURL())
	bus := NewHostBus(hostConn, "h1")
	serveEcho(t, bus)
	serveStream(t, bus, drover.OrderExecStream, func(ctx context.Context, _ []byte, open func() (frames.Conn, error)) error {
		if _, err := open(); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	waitServed(t, conn)
	s := openStream(t, conn)
	hostConn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := s.Receive(ctx); !drover.Is(err, drover.Unavailable) {
		t.Errorf("the asker was told %v", err)
	}
}
