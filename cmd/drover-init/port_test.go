package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// testPort returns a port and the host's end of it.
func testPort(t *testing.T) (*port, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	host := os.NewFile(uintptr(fds[1]), "host")
	t.Cleanup(func() { unix.Close(fds[0]); host.Close() }) // the test may have closed them
	return &port{name: "test", fd: fds[0]}, host
}

// drain reads what is there.
func drain(t *testing.T, host *os.File) []byte {
	t.Helper()
	var all []byte
	buffer := make([]byte, 1<<20)
	for {
		if err := host.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := host.Read(buffer)
		all = append(all, buffer[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestStuckPortKeepsLinesWhole(t *testing.T) {
	p, host := testPort(t)
	logs := &logWriter{port: p}
	var sent int
	for !logs.stuck {
		logs.write([]byte(strings.Repeat("x", 9999)+"\n"), 1)
		if sent++; sent == 1 {
			logs.stuck = true // do not wait for logPatience
			logs.write([]byte(strings.Repeat("y", 9_999_999)+"\n"), 1)
		}
	}
	if logs.lost() != 0 {
		t.Fatalf("%d lines were dropped, though the last one was begun", logs.lost())
	}
	logs.write([]byte("lost\n"), 1)
	logs.write([]byte("lost\n"), 1)
	if logs.lost() != 2 {
		t.Errorf("%d lines were dropped", logs.lost())
	}
	var got []byte
	for len(p.rest) > 0 {
		got = append(got, drain(t, host)...)
		logs.write([]byte("after\n"), 1)
	}
	got = append(got, drain(t, host)...)
	lines := bytes.Split(got, []byte("\n"))
	if len(lines[0]) != 9999 || len(lines[1]) != 9_999_999 {
		t.Errorf("the first lines have %d and %d bytes", len(lines[0]), len(lines[1]))
	}
	if !bytes.Contains(lines[2], []byte("lines were dropped")) || string(lines[3]) != "after" {
		t.Errorf("then came %q %q", lines[2], lines[3])
	}
	if bytes.Contains(got, []byte("lost\n")) {
		t.Error("a line that counts as dropped arrived")
	}
}

func TestReportsWaitForTheirPort(t *testing.T) {
	p, host := testPort(t)
	r := &reporter{}
	r.emit(guest.StatusEvent{Event: guest.EventFailed, Stage: "early"})
	r.attach(p)
	r.setRun("run1")
	r.emit(guest.StatusEvent{Event: guest.EventPowerOff})
	var events []guest.StatusEvent
	decoder := json.NewDecoder(bytes.NewReader(drain(t, host)))
	for decoder.More() {
		var ev guest.StatusEvent
		if err := decoder.Decode(&ev); err != nil {
			t.Fatal(err)
		}
		events = append(events, ev)
	}
	if len(events) != 2 || events[0].Stage != "early" || events[1].Run != "run1" || events[1].T == 0 || events[1].Uptime == 0 {
		t.Errorf("got %+v", events)
	}
}

// fakeMachine does what an agent asks.
type fakeMachine struct {
	execs chan context.Context
}

var _ handler = (*fakeMachine)(nil)

func (f *fakeMachine) exec(ctx context.Context, req guest.Request) (drover.ExecResult, error) {
	if req.Argv[0] == "block" {
		f.execs <- ctx
		<-ctx.Done()
		return drover.ExecResult{}, drover.Errorf(drover.Canceled, "killed: %w", context.Cause(ctx))
	}
	return drover.ExecResult{Stdout: req.Stdin}, nil
}
func (f *fakeMachine) stream(ctx context.Context, req guest.Request, conn frames.Conn) (drover.StreamExit, error) {
	if req.Argv[0] == "block" {
		f.execs <- ctx
		<-ctx.Done()
		return drover.StreamExit{}, context.Cause(ctx)
	}
	for {
		got, err := conn.Receive(ctx)
		if err != nil || got.Kind == frames.StdinEnd {
			return drover.StreamExit{ExitCode: 3}, err
		}
		if err := conn.Send(ctx, frames.Frame{Kind: frames.Stdout, Data: got.Data}); err != nil {
			return drover.StreamExit{}, err
		}
	}
}
func (f *fakeMachine) freeze(volume string, _ time.Duration) error {
	if volume == "slow" {
		f.execs <- context.Background()
	}
	return nil
}
func (f *fakeMachine) thaw(volume string) error {
	return drover.Errorf(drover.Precondition, "%s is not frozen", volume)
}
func (f *fakeMachine) grow(string, drover.Bytes) error  { return nil }
func (f *fakeMachine) signal(name string) error         { return drover.Errorf(drover.Invalid, "no %s", name) }
func (f *fakeMachine) stop(string, time.Duration) error { return nil }
func (f *fakeMachine) ps() ([]drover.Process, error)    { return []drover.Process{{PID: 7}}, nil }
func (f *fakeMachine) status() guest.Status             { return guest.Status{Run: "r", PID: 9} }

// hostEnd is a client that is written by hand.
type hostEnd struct {
	t       *testing.T
	file    *os.File
	decoder guest.Decoder
}

func (h *hostEnd) send(before string, req guest.Request) {
	h.t.Helper()
	frame, err := guest.EncodeFrame(req)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.file.Write(append([]byte(before), frame...)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostEnd) answer() guest.Answer {
	h.t.Helper()
	buffer := make([]byte, 4096)
	for {
		if frame := h.decoder.Next(); frame != nil {
			var a guest.Answer
			if err := json.Unmarshal(frame, &a); err != nil {
				h.t.Fatal(err)
			}
			return a
		}
		if err := h.file.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			h.t.Fatal(err)
		}
		n, err := h.file.Read(buffer)
		if err != nil {
			h.t.Fatal(err)
		}
		h.decoder.Feed(buffer[:n])
	}
}

func TestAgentServesOneSessionAfterAnother(t *testing.T) {
	p, file := testPort(t)
	m := &fakeMachine{execs: make(chan context.Context, 100)}
	a := &agent{handler: m, port: p}
	go func() { a.serve() }() // it ends with the process: a port has no end
	h := &hostEnd{t: t, file: file}

	h.send(guest.Magic, guest.Request{ID: 5, Op: guest.OpPing})
	h.decoder.Feed([]byte(guest.Magic)) // the guest begins with Magic only after hello
	if got := h.answer(); got.ID != 5 || !drover.Is(got.Error, drover.Precondition) {
		t.Errorf("before hello: %+v", got)
	}
	h.send(guest.Magic, guest.Request{ID: 1, Op: guest.OpHello, Nonce: "n1"})
	if got := h.answer(); got.ID != 1 || got.Nonce != "n1" {
		t.Errorf("hello: %+v", got)
	}
	h.send("", guest.Request{ID: 2, Op: guest.OpStatus})
	if got := h.answer(); got.ID != 2 || got.Status == nil || got.Status.PID != 9 {
		t.Errorf("status: %+v", got)
	}
	h.send("", guest.Request{ID: 3, Op: guest.OpSignal, Signal: "X"})
	if got := h.answer(); got.ID != 3 || !drover.Is(got.Error, drover.Invalid) {
		t.Errorf("signal: %+v", got)
	}
	h.send("", guest.Request{ID: 4, Op: "dance"})
	if got := h.answer(); got.ID != 4 || !drover.Is(got.Error, drover.Invalid) {
		t.Errorf("unknown request: %+v", got)
	}
	h.send("", guest.Request{ID: 6, Op: guest.OpExec, Argv: []string{"block"}})
	h.send("", guest.Request{ID: 7, Op: guest.OpExec, Argv: []string{"cat"}, Stdin: []byte("in")})
	if got := h.answer(); got.ID != 7 || got.Exec == nil || string(got.Exec.Stdout) != "in" {
		t.Errorf("exec beside another: %+v", got)
	}
	h.send("", guest.Request{ID: 8, Op: guest.OpCancel, Cancel: 6})
	byID := map[uint64]guest.Answer{}
	for range 2 {
		got := h.answer()
		byID[got.ID] = got
	}
	if !drover.Is(byID[6].Error, drover.Canceled) || byID[8].Error != nil {
		t.Errorf("cancel: %+v", byID)
	}
	<-m.execs
	h.send("", guest.Request{ID: 9, Op: guest.OpExec, Argv: []string{"block"}})
	running := <-m.execs
	// A new session ends what the old one began, and gets no answer of it.
	h.send(guest.Magic, guest.Request{ID: 1, Op: guest.OpHello, Nonce: "n2"})
	<-running.Done()
	if got := h.answer(); got.Nonce != "n2" {
		t.Errorf("hello: %+v", got)
	}
	h.send("", guest.Request{ID: 2, Op: guest.OpPing})
	if got := h.answer(); got.ID != 2 || got.Error != nil {
		t.Errorf("ping: %+v", got)
	}
}

func TestAgentBoundsCommands(t *testing.T) {
	p, file := testPort(t)
	m := &fakeMachine{execs: make(chan context.Context, 100)}
	a := &agent{handler: m, port: p}
	go func() { a.serve() }() // it ends with the process: a port has no end
	h := &hostEnd{t: t, file: file}
	h.send(guest.Magic, guest.Request{ID: 1, Op: guest.OpHello, Nonce: "n"})
	h.answer()
	for i := range guest.MaxExecs {
		h.send("", guest.Request{ID: uint64(10 + i), Op: guest.OpExec, Argv: []string{"block"}})
	}
	h.send("", guest.Request{ID: 99, Op: guest.OpExec, Argv: []string{"block"}})
	if got := h.answer(); got.ID != 99 || !drover.Is(got.Error, drover.Exhausted) {
		t.Errorf("one too many: %+v", got)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	for range guest.MaxExecs {
		<-(<-m.execs).Done()
	}
}
