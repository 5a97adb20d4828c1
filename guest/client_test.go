package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

// fakeGuest answers one client; respond gets each request and a way to write bytes.
func fakeGuest(t *testing.T, respond func(req Request, write func([]byte))) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return // the test has ended
		}
		defer conn.Close()
		var d Decoder
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			d.Feed(buffer[:n])
			for f := d.Next(); f != nil; f = d.Next() {
				var req Request
				if err := json.Unmarshal(f, &req); err != nil {
					t.Error(err)
				}
				respond(req, func(b []byte) {
					if _, err := conn.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
						t.Log(err) // the client has left
					}
				})
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return socket
}

func TestDialDropsWhatAnEarlierClientLeft(t *testing.T) {
	socket := fakeGuest(t, func(req Request, write func([]byte)) {
		if req.Op == OpHello {
			stale := append([]byte("rest of a frame"+Magic), encode(t, Answer{ID: 1, Nonce: "another's"})...)
			// It has the ID of the first request of this client.
			write(append(stale, encode(t, Answer{ID: 2, Error: drover.Errorf(drover.Internal, "stale")})...))
			write(append([]byte(Magic), encode(t, Answer{ID: req.ID, Nonce: req.Nonce})...))
			return
		}
		write(encode(t, Answer{ID: 99}))
		write(encode(t, Answer{ID: req.ID}))
	})
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Ping(t.Context()); !drover.Is(err, drover.Unavailable) {
		t.Errorf("ping of a closed client: %v", err)
	}
}

func TestDialOfASilentGuestEndsWithTheContext(t *testing.T) {
	socket := fakeGuest(t, func(Request, func([]byte)) {})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := Dial(ctx, socket)
	if !drover.Is(err, drover.Unavailable) {
		t.Errorf("got %v", err)
	}
	_, missing := Dial(t.Context(), socket+".none")
	if !drover.Is(missing, drover.Unavailable) {
		t.Errorf("without a socket: %v", missing)
	}
	for _, err := range []error{err, missing} {
		if strings.Contains(err.Error(), filepath.Dir(socket)) {
			t.Errorf("the host's paths are told to the machine's users: %v", err)
		}
	}
}

func TestBrokenAnswerEndsTheConnection(t *testing.T) {
	socket := fakeGuest(t, func(req Request, write func([]byte)) {
		if req.Op == OpHello {
			write(append([]byte(Magic), encode(t, Answer{ID: req.ID, Nonce: req.Nonce})...))
			return
		}
		write([]byte{0xff, 0, 0, 0})
	})
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()); !drover.Is(err, drover.Unavailable) {
		t.Errorf("got %v", err)
	}
	<-c.Done()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCanceledExecIsCanceledInTheGuest(t *testing.T) {
	canceled := make(chan Request, 1)
	begun := make(chan uint64, 1)
	socket := fakeGuest(t, func(req Request, write func([]byte)) {
		switch req.Op {
		case OpHello:
			write(append([]byte(Magic), encode(t, Answer{ID: req.ID, Nonce: req.Nonce})...))
		case OpExec:
			begun <- req.ID
		case OpCancel:
			canceled <- req
		}
	})
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, drover.ExecRequest{Command: []string{"sleep", "1000"}})
		ended <- err
	}()
	id := <-begun
	cancel()
	if err := <-ended; !drover.Is(err, drover.Canceled) {
		t.Errorf("got %v", err)
	}
	if req := <-canceled; req.Cancel != id {
		t.Errorf("request %d was canceled, not %d", req.Cancel, id)
	}
}
