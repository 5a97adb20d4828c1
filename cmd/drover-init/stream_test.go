package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// reaper is shared: it reaps all children of the test. Signals are not ignored in them, whatever the test itself was started with.
var reaper = sync.OnceValue(func() *processes {
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGHUP)
	return newProcesses()
})

// pipeEnd is one end of a stream in memory.
type pipeEnd struct{ in, out *frames.Queue }

var _ frames.Conn = pipeEnd{}

func (p pipeEnd) Send(_ context.Context, f frames.Frame) error {
	f.Data = bytes.Clone(f.Data)
	if !p.out.Put(f) {
		return io.ErrShortBuffer // somebody sent more than there is room for
	}
	return nil
}
func (p pipeEnd) Receive(ctx context.Context) (frames.Frame, error) { return p.in.Get(ctx) }
func (p pipeEnd) Close() error                                      { p.out.End(io.EOF); return nil }

// clientEnd is a command that runs with a stream, seen from its client.
type clientEnd struct {
	t    *testing.T
	conn pipeEnd
	read frames.Tally
	// got is what came so far, by kind.
	got map[frames.Kind]*bytes.Buffer
	// ended is closed when the command has, exit and err say how.
	ended chan struct{}
	exit  drover.StreamExit
	err   error
}

// runStream starts a command; the test ends it.
func runStream(t *testing.T, req guest.Request) *clientEnd {
	t.Helper()
	up, down := frames.NewQueue(), frames.NewQueue()
	c := &clientEnd{t: t, conn: pipeEnd{in: down, out: up}, got: map[frames.Kind]*bytes.Buffer{frames.Stdout: {}, frames.Stderr: {}},
		ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(c.ended)
		c.exit, c.err = streamCommand(ctx, reaper(), req, "/", []string{"PATH=/usr/bin:/bin"}, pipeEnd{in: up, out: down})
		down.End(io.EOF)
	}()
	t.Cleanup(func() { cancel(); <-c.ended })
	return c
}

func (c *clientEnd) send(f frames.Frame) {
	c.t.Helper()
	if err := c.conn.Send(c.t.Context(), f); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clientEnd) write(text string) { c.send(frames.Frame{Kind: frames.Stdin, Data: []byte(text)}) }

// next takes one frame; false at the end.
func (c *clientEnd) next() (frames.Frame, bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	f, err := c.conn.Receive(ctx)
	if err == io.EOF {
		return f, false
	}
	if err != nil {
		c.t.Fatalf("no frame: %v; so far %q", err, c.got[frames.Stdout])
	}
	if f.Counts() {
		c.got[f.Kind].Write(f.Data)
		if credit := c.read.Took(f.Cost()); credit > 0 {
			c.send(frames.NewCredit(credit))
		}
	}
	return f, true
}

// until reads until stdout has the text.
func (c *clientEnd) until(text string) {
	c.t.Helper()
	for !strings.Contains(c.got[frames.Stdout].String(), text) {
		if _, ok := c.next(); !ok {
			c.t.Fatalf("no %q in %q", text, c.got[frames.Stdout])
		}
	}
}

// wait reads everything and returns how the command ended.
func (c *clientEnd) wait() (drover.StreamExit, error) {
	c.t.Helper()
	for ok := true; ok; {
		_, ok = c.next()
	}
	<-c.ended
	return c.exit, c.err
}

func sh(script string) guest.Request { return guest.Request{Argv: []string{"sh", "-c", script}} }

func TestStreamKeepsOutputsApartAndTellsTheExit(t *testing.T) {
	c := runStream(t, sh("cat; echo err >&2; exit 7"))
	c.write("one\n")
	c.until("one\n")
	c.write("two\n")
	c.send(frames.Frame{Kind: frames.StdinEnd})
	exit, err := c.wait()
	if err != nil || exit.ExitCode != 7 || c.got[frames.Stdout].String() != "one\ntwo\n" || c.got[frames.Stderr].String() != "err\n" {
		t.Errorf("%+v, %v, %q, %q", exit, err, c.got[frames.Stdout], c.got[frames.Stderr])
	}
	c = runStream(t, sh("kill -TERM $$"))
	if exit, err := c.wait(); err != nil || exit.ExitSignal != 15 {
		t.Errorf("a killed command: %+v, %v", exit, err)
	}
	c = runStream(t, guest.Request{Argv: []string{"there-is-no-such-program"}})
	if exit, err := c.wait(); err != nil || exit.ExitCode != 127 || !strings.Contains(c.got[frames.Stderr].String(), "there-is-no-such-program") {
		t.Errorf("no program: %+v, %v, %q", exit, err, c.got[frames.Stderr])
	}
}

// TestStreamPassesAnySize sends much more than the window both ways, to a command that gives all of it back.
func TestStreamPassesAnySize(t *testing.T) {
	c := runStream(t, guest.Request{Argv: []string{"cat"}})
	window := frames.NewWindow()
	sum := sha256.New()
	const pieces = 200
	go func() {
		defer c.conn.Send(context.Background(), frames.Frame{Kind: frames.StdinEnd})
		piece := make([]byte, frames.MaxData)
		for i := range pieces {
			for k := range piece {
				piece[k] = byte(i*k) | byte(0xff*(k&1))
			}
			sum.Write(piece)
			f := frames.Frame{Kind: frames.Stdin, Data: piece}
			if window.Take(t.Context(), f.Cost()) != nil || c.conn.Send(t.Context(), f) != nil {
				return // the test has failed
			}
		}
	}()
	for {
		f, ok := c.next()
		if !ok {
			break
		}
		if f.Kind != frames.Credit {
			continue
		}
		n, err := f.Taken()
		if err == nil {
			err = window.Give(n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	<-c.ended
	got := sha256.Sum256(c.got[frames.Stdout].Bytes())
	if c.err != nil || c.got[frames.Stdout].Len() != pieces*frames.MaxData || !bytes.Equal(got[:], sum.Sum(nil)) {
		t.Errorf("%v: %d bytes came back, or other ones", c.err, c.got[frames.Stdout].Len())
	}
}

// TestStreamStopsAtTheWindow: a client that reads nothing costs one window, and the command waits.
func TestStreamStopsAtTheWindow(t *testing.T) {
	c := runStream(t, sh("yes"))
	sum := 0
	receive := func(limit time.Duration) bool {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		f, err := c.conn.Receive(ctx)
		sum += f.Cost()
		return err == nil
	}
	for sum+frames.MaxData <= frames.WindowSize {
		if !receive(30 * time.Second) {
			t.Fatalf("only %d bytes came", sum)
		}
	}
	for receive(50 * time.Millisecond) { // what is there; if anything comes later, another run of this test may see it
	}
	if sum > frames.WindowSize {
		t.Errorf("%d bytes came without a credit, the window is %d", sum, frames.WindowSize)
	}
}

func TestTerminal(t *testing.T) {
	c := runStream(t, guest.Request{Argv: []string{"sh"}, Terminal: true, TerminalSize: drover.TerminalSize{Rows: 33, Columns: 101}, Env: []string{"PS1=>"}})
	c.write("tty; stty size\n")
	c.until("/dev/pts/")
	c.until("33 101")
	c.send(frames.NewResize(drover.TerminalSize{Rows: 44, Columns: 120}))
	c.write("stty size\n")
	c.until("44 120")
	// Ctrl-C ends what runs in the terminal, and not the shell. Who says that it has begun has the terminal by then.
	c.write("sh -c \"echo be''gun; exec sleep 1000\"\n")
	c.until("begun")
	c.write("\x03")
	c.write("echo st''ill here\n")
	c.until("still here")
	c.write("exit 9\n")
	if exit, err := c.wait(); err != nil || exit.ExitCode != 9 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestHangUp(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		said := filepath.Join(t.TempDir(), "said")
		req := sh("trap 'echo hung up >" + said + "; exit 1' HUP; echo ready; while true; do sleep 0.05; done")
		req.Terminal = terminal
		c := runStream(t, req)
		c.until("ready")
		c.conn.Close()
		if _, err := c.wait(); !drover.Is(err, drover.Canceled) {
			t.Errorf("terminal %v: %v", terminal, err)
		}
		if text, err := os.ReadFile(said); err != nil || string(text) != "hung up\n" {
			t.Errorf("terminal %v: the command was not hung up on: %q, %v", terminal, text, err)
		}
	}
	// One that does not listen is killed.
	c := runStream(t, sh("trap '' HUP; echo ready; while true; do sleep 0.05; done"))
	c.until("ready")
	c.conn.Close()
	if _, err := c.wait(); !drover.Is(err, drover.Canceled) {
		t.Errorf("deaf: %v", err)
	}
}

func TestStreamSignals(t *testing.T) {
	c := runStream(t, sh("trap 'echo int; exit 4' INT; echo ready; while true; do sleep 0.05; done"))
	c.until("ready")
	c.send(frames.Frame{Kind: frames.Signal, Data: []byte("INT")})
	if exit, err := c.wait(); err != nil || exit.ExitCode != 4 {
		t.Errorf("%+v, %v", exit, err)
	}
}
