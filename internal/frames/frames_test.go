package frames

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"drover"
)

// end is one end of a stream in memory.
type end struct{ in, out *Queue }

func pipe() (a, b end) {
	x, y := NewQueue(), NewQueue()
	return end{x, y}, end{y, x}
}

func (e end) Send(_ context.Context, f Frame) error {
	if !e.out.Put(f) {
		return io.ErrShortBuffer
	}
	return nil
}
func (e end) Receive(ctx context.Context) (Frame, error) { return e.in.Get(ctx) }
func (e end) Close() error                               { e.out.End(io.EOF); e.in.End(io.EOF); return nil }

func TestAWindowHoldsBackAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWindow()
		taken := 0
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			for w.Take(ctx, MaxData) == nil {
				taken++
			}
		}()
		synctest.Wait()
		if taken != WindowSize/MaxData {
			t.Fatalf("%d frames are on their way", taken)
		}
		if err := w.Give(2 * MaxData); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if taken != WindowSize/MaxData+2 {
			t.Errorf("%d frames after two were taken in", taken)
		}
		cancel(errors.New("enough"))
		synctest.Wait()
		if err := w.Give(WindowSize + 1); !drover.Is(err, drover.Invalid) {
			t.Errorf("more is given back than was taken: %v", err)
		}
	})
}

// TestCreditsKeepAStreamGoing: whatever the sizes, what is owed never stops a sender for ever.
func TestCreditsKeepAStreamGoing(t *testing.T) {
	w, tally := NewWindow(), &Tally{}
	for k := range 10_000 {
		f := Frame{Kind: Stdout, Data: make([]byte, (k*7919)%(MaxData+1))}
		if err := w.Take(t.Context(), f.Cost()); err != nil {
			t.Fatal(err)
		}
		if n := tally.Took(f.Cost()); n > 0 {
			taken, err := NewCredit(n).Taken()
			if err != nil || w.Give(taken) != nil {
				t.Fatal(err)
			}
		}
	}
	if (Frame{Kind: Credit}).Cost() != 0 || (Frame{Kind: Stdin, Data: []byte("x")}).Cost() != leastCost {
		t.Error("costs")
	}
}

func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := func(ctx context.Context) (client, guest end, result chan error) {
			client, a := pipe()
			b, guest := pipe()
			result = make(chan error, 1)
			go func() { result <- Relay(ctx, a, b) }()
			return client, guest, result
		}
		// The command ends.
		client, guest, result := start(t.Context())
		client.Send(t.Context(), Frame{Kind: Stdin, Data: []byte("in")})
		if f, err := guest.Receive(t.Context()); err != nil || string(f.Data) != "in" {
			t.Errorf("%v %v", f, err)
		}
		guest.Send(t.Context(), NewExit(drover.StreamExit{ExitCode: 4}))
		f, err := client.Receive(t.Context())
		if exit, endErr := f.Ended(); err != nil || endErr != nil || exit.ExitCode != 4 {
			t.Errorf("%+v, %v, %v", exit, err, endErr)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
		// The client leaves: the guest's end is closed.
		client, guest, result = start(t.Context())
		client.Close()
		if err := <-result; !Left(err) {
			t.Errorf("the client left: %v", err)
		}
		if _, err := guest.Receive(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("the guest's end: %v", err)
		}
		// The guest is lost, or somebody between is stopped: the client is told.
		ctx, cancel := context.WithCancel(t.Context())
		for what, lose := range map[string]func(guest end){"lost": func(guest end) { guest.out.End(Cut(errors.New("the machine is off"))) },
			"stopped": func(end) { cancel() }} {
			client, guest, result = start(ctx)
			synctest.Wait()
			lose(guest)
			if err := <-result; Left(err) || !drover.Is(err, drover.Unavailable) {
				t.Errorf("%s: %v", what, err)
			}
			f, err := client.Receive(t.Context())
			if _, endErr := f.Ended(); err != nil || !drover.Is(endErr, drover.Unavailable) {
				t.Errorf("%s: the client was told %v, %v", what, endErr, err)
			}
			if what == "stopped" {
				ctx, cancel = context.WithCancel(t.Context())
			}
		}
		cancel()
	})
}

func TestFailuresFitIntoAFrame(t *testing.T) {
	long := drover.Errorf(drover.Invalid, "%s", strings.Repeat("\x00", 100_000)).WithHint("%s", strings.Repeat("h", 100_000))
	f := NewFail(long)
	if _, err := f.Ended(); len(f.Data) > MaxData || err == nil {
		t.Errorf("%d bytes, %v", len(f.Data), err)
	}
}
