package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

func TestExecPassesStreamsAndExitCode(t *testing.T) {
	_, r, id := prepared(t)
	r.stdin = strings.Repeat("much\n", 200_000)
	got := r.run(t.Context(), "exec", string(id), "-i", "--", "cat")
	_, rest, _ := strings.Cut(got.stdout, "\n")
	if got.code != 3 || rest != r.stdin || got.stderr != "end\n" {
		t.Errorf("code %d, %d bytes, %q", got.code, len(rest), got.stderr)
	}
	got = r.run(t.Context(), "machine", "exec", string(id), "--", "cat")
	if got.code != 3 || strings.Contains(got.stdout, "much") {
		t.Errorf("without -i: %+v", got)
	}
	if got := r.run(t.Context(), "exec", string(id), "-it", "--", "sh"); got.code != 5 || !strings.Contains(got.stderr, "not one here") {
		t.Errorf("-t without a terminal: %+v", got)
	}
	if got := r.run(t.Context(), "exec", string(id), "--", "refused"); got.code != 5 || !strings.Contains(got.stderr, "Hint: start the machine first") {
		t.Errorf("refused: %+v", got)
	}
	if got := r.run(t.Context(), "ssh", "-a", "ledger"); got.code != 3 || !strings.Contains(got.stdout, "much") {
		t.Errorf("ssh without a terminal reads commands: %d %q", got.code, got.stderr)
	}
	r.vars[envApp] = "ledger"
	if got := r.run(t.Context(), "ssh"); got.code != 3 {
		t.Errorf("ssh to the app of the environment: %d %q", got.code, got.stderr)
	}
}

// TestExecThatTakesTooLong: scripts tell it from a command that failed, and from Ctrl-C.
func TestExecThatTakesTooLong(t *testing.T) {
	backend, r, id := prepared(t)
	if got := r.run(t.Context(), "exec", string(id), "--timeout", "2s", "--", "slow"); got.code != 124 || !strings.Contains(got.stderr, `Error: "slow" was ended: it ran longer than 2s`) {
		t.Errorf("%+v", got)
	}
	backend.Exec = func(drover.ExecRequest) (drover.ExecResult, error) {
		return drover.ExecResult{}, drover.Errorf(drover.Canceled, "it ran longer than 2s").WithField(drover.TimeoutField)
	}
	if got := r.run(t.Context(), "exec", string(id), "--json", "--timeout", "2s", "--", "slow"); got.code != 124 || !strings.Contains(got.stderr, `"code":"canceled"`) {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "exec", string(id), "--timeout", "-2s", "--", "ls"); got.code != 2 || !strings.Contains(got.stderr, "--timeout is -2s; expected") {
		t.Errorf("%+v", got)
	}
}

// tty is a terminal with a person before it: what is shown, and keys to press.
type tty struct {
	t      *testing.T
	person *os.File
	side   *os.File

	mu    sync.Mutex
	shown bytes.Buffer
	more  chan struct{}
}

func newTTY(t *testing.T, rows, columns uint16) *tty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &tty{t: t, person: os.NewFile(uintptr(fd), "ptmx"), more: make(chan struct{}, 1)}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err == nil {
		x.side, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := x.person.Read(buffer)
			x.mu.Lock()
			x.shown.Write(buffer[:n])
			x.mu.Unlock()
			select {
			case x.more <- struct{}{}:
			default:
			}
			if err != nil {
				return // the terminal is closed
			}
		}
	})
	t.Cleanup(func() {
		x.side.Close()
		x.person.Close()
		reading.Wait()
	})
	return x
}

func (x *tty) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.String()
}

func (x *tty) until(text string) {
	x.t.Helper()
	limit := time.After(30 * time.Second)
	for !strings.Contains(x.text(), text) {
		select {
		case <-x.more:
		case <-limit:
			x.t.Fatalf("%q is not shown; there is %q", text, x.text())
		}
	}
}

func (x *tty) press(keys string) {
	x.t.Helper()
	if _, err := x.person.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// raw tells whether keys come one by one.
func (x *tty) raw() bool {
	x.t.Helper()
	state, err := unix.IoctlGetTermios(int(x.side.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return state.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0
}

// start runs a command line in the terminal.
func (x *tty) start(r runner, args ...string) (code <-chan int) {
	ended := make(chan int, 1)
	go func() {
		ended <- execute(context.Background(), args, environment{stdin: x.side, stdout: x.side, stderr: x.side,
			getenv: func(name string) string { return r.vars[name] }, now: testNow, asks: true, redraw: true, width: 100, interval: time.Millisecond})
	}()
	return ended
}

func TestExecInATerminal(t *testing.T) {
	_, r, id := prepared(t)
	r.vars["TERM"] = "xterm-256color"
	x := newTTY(t, 31, 99)
	code := x.start(r, "exec", "-it", string(id), "--", "sh")
	x.until(`["sh"] true 31x99`)
	if !x.raw() {
		t.Error("the terminal is not raw while the command runs")
	}
	x.press("\x03a~.b\r~~.")
	x.until("\x03a~.b\r~.") // Ctrl-C and what looks like an escape are the command's
	x.press("exit")
	if got := <-code; got != 3 {
		t.Errorf("exit code %d", got)
	}
	if x.raw() {
		t.Error("the terminal stays raw")
	}
}

func TestLeavingATerminal(t *testing.T) {
	_, r, _ := prepared(t)
	x := newTTY(t, 31, 99)
	code := x.start(r, "ssh", "one")
	x.until("[] true 31x99")
	x.press("x\r~.")
	if got := <-code; got != 130 {
		t.Errorf("exit code %d", got)
	}
	x.until("Left machine")
	if x.raw() {
		t.Error("the terminal stays raw")
	}
}

// TestCtrlCIsPassedOn: the command gets the signal, and what it does then is its own.
func TestCtrlCIsPassedOn(t *testing.T) {
	_, r, id := prepared(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdin, keep := io.Pipe()
	var out bytes.Buffer
	code := execute(ctx, []string{"exec", string(id), "-i", "--", "cat"}, environment{stdin: stdin, stdout: writerFunc(func(b []byte) (int, error) {
		cancel() // it has begun
		n, err := out.Write(b)
		if strings.Contains(out.String(), "signal INT") {
			go keep.Close() // the command has its signal and ends
		}
		return n, err
	}), stderr: io.Discard, getenv: func(name string) string { return r.vars[name] }, now: testNow, width: 100})
	if code != 3 || !strings.Contains(out.String(), "signal INT") {
		t.Errorf("code %d, %q", code, out.String())
	}
}

// TestCtrlCBeforeTheCommandBegan: nobody is there who could get the signal, and the user is told that it was theirs.
func TestCtrlCBeforeTheCommandBegan(t *testing.T) {
	backend, r, id := prepared(t)
	ctx, cancel := context.WithCancel(t.Context())
	backend.Fail = func(method string) error {
		if method == "Machine" {
			cancel()
		}
		return nil
	}
	var stderr bytes.Buffer
	code := execute(ctx, []string{"exec", string(id), "--", "cat"}, environment{stdout: io.Discard, stderr: &stderr,
		getenv: func(name string) string { return r.vars[name] }, now: testNow, width: 100})
	if code != exitCode(drover.Canceled) || !strings.Contains(stderr.String(), "canceled") {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestEscapeReaderAcrossReads(t *testing.T) {
	for _, c := range []struct {
		keys []string
		want string
		left bool
	}{
		{[]string{"~", "."}, "", true},
		{[]string{"a~."}, "a~.", false},
		{[]string{"a\r", "~", "x~."}, "a\r~x~.", false},
		{[]string{"\r~~", ".\r~.more"}, "\r~.\r", true},
	} {
		left := false
		e := &escapeReader{r: &pieces{c.keys}, left: func() { left = true }}
		got, err := io.ReadAll(e)
		if err != nil && !errors.Is(err, io.EOF) || string(got) != c.want || left != c.left {
			t.Errorf("%q: %q, left %v, %v", c.keys, got, left, err)
		}
	}
}

// pieces is a reader that returns one text at a time.
type pieces struct{ texts []string }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.texts) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.texts[0])
	p.texts = p.texts[1:]
	return n, nil
}
