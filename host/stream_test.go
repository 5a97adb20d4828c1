package host

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"drover"
	"drover/internal/frames"
)

// memoryStream is one end of a stream.
type memoryStream struct{ in, out *frames.Queue }

func (p memoryStream) Send(_ context.Context, f frames.Frame) error { p.out.Put(f); return nil }
func (p memoryStream) Receive(ctx context.Context) (frames.Frame, error) {
	return p.in.Get(ctx)
}
func (p memoryStream) Close() error { p.out.End(io.EOF); return nil }

// execStream runs a command and returns the client's end and what the handler returned.
func (h *fakeHost) execStream(req drover.ExecStreamRequest) (client memoryStream, ended <-chan error) {
	h.w.t.Helper()
	data, err := json.Marshal(req)
	if err != nil {
		h.w.t.Fatal(err)
	}
	up, down := frames.NewQueue(), frames.NewQueue()
	result := make(chan error, 1)
	go func() {
		result <- h.agent.execStream(context.Background(), data, func() (frames.Conn, error) { return memoryStream{in: up, out: down}, nil })
	}()
	return memoryStream{in: down, out: up}, result
}

func TestExecStream(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		refusals := []struct {
			req  drover.ExecStreamRequest
			code drover.Code
		}{
			{drover.ExecStreamRequest{Machine: "other"}, drover.NotFound},
			{drover.ExecStreamRequest{Machine: "m1", Env: []string{"=x"}}, drover.Invalid},
			{drover.ExecStreamRequest{Machine: "m1", Command: []string{"refused"}}, drover.Exhausted},
		}
		for _, c := range refusals {
			if _, ended := h.execStream(c.req); !drover.Is(<-ended, c.code) {
				t.Errorf("%+v was not refused with %s", c.req, c.code)
			}
		}
		client, ended := h.execStream(drover.ExecStreamRequest{Machine: "m1"})
		client.Send(t.Context(), frames.Frame{Kind: frames.Stdin, Data: []byte("in")})
		if f, err := client.Receive(t.Context()); err != nil || f.Kind != frames.Stdout || string(f.Data) != "in" {
			t.Errorf("got %c %q, %v", f.Kind, f.Data, err)
		}
		// Beside it other requests are answered: the machine has one socket.
		if _, err := h.agent.exec(t.Context(), drover.ExecRequest{Machine: "m1", Command: []string{"x"}}); err != nil {
			t.Errorf("exec beside a stream: %v", err)
		}
		client.Send(t.Context(), frames.Frame{Kind: frames.StdinEnd})
		f, err := client.Receive(t.Context())
		if exit, endErr := f.Ended(); err != nil || endErr != nil || exit.ExitCode != 5 {
			t.Errorf("the end is %+v, %v, %v", exit, err, endErr)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// The client leaves.
		client, ended = h.execStream(drover.ExecStreamRequest{Machine: "m1"})
		client.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// The machine is stopped under the command: the client is told.
		client, ended = h.execStream(drover.ExecStreamRequest{Machine: "m1"})
		synctest.Wait()
		h.apply(req, func(m *drover.Machine) { m.Goal = drover.GoalStopped })
		w.awaitState("m1", drover.StateStopped)
		f, err = client.Receive(t.Context())
		if _, endErr := f.Ended(); err != nil || !drover.Is(endErr, drover.Unavailable) {
			t.Errorf("the end is %v, %v", err, endErr)
		}
		<-ended
		if _, ended := h.execStream(drover.ExecStreamRequest{Machine: "m1"}); !drover.Is(<-ended, drover.Precondition) {
			t.Error("a stopped machine runs commands")
		}
	})
}

// countedGuest counts what is open.
type countedGuest struct {
	Guest
	open *int
	done chan struct{}
}

func (g countedGuest) Done() <-chan struct{} { return g.done }
func (g countedGuest) Close() error          { *g.open--; return nil }

func TestGuestsShareOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open, dials := 0, 0
		var last countedGuest
		p := newGuests(func(ctx context.Context, _ string) (Guest, error) {
			dials++
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			open++
			last = countedGuest{open: &open, done: make(chan struct{})}
			return last, nil
		})
		// The first has no time: the second dials for itself.
		results := make(chan Guest, 2)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := p.get(ctx, "s"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first got %v", err)
			}
		}()
		synctest.Wait()
		for range 2 {
			go func() {
				g, err := p.get(t.Context(), "s")
				if err != nil {
					t.Error(err)
				}
				results <- g
			}()
		}
		a, b := <-results, <-results
		if open != 1 || dials != 2 {
			t.Fatalf("%d connections after %d tries", open, dials)
		}
		a.Close()
		a.Close()
		if open != 1 {
			t.Fatal("the connection was closed under its second user")
		}
		// One that is over is not used again.
		close(last.done)
		c, err := p.get(t.Context(), "s")
		if err != nil || open != 2 {
			t.Fatalf("%d connections, %v", open, err)
		}
		b.Close()
		c.Close()
		if open != 0 || len(p.open) != 0 {
			t.Errorf("%d connections are left open", open)
		}
	})
}
