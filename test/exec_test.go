package test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExecStreams: a shell in a terminal, streams of any size both ways, and what becomes of commands whose client has left.
func TestExecStreams(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	m := shell(t, app, "exec sleep 100000", "--name", "streams")

	// 24 MiB there and back, more than any window or message.
	sent := bytes.Repeat([]byte("0123456789abcde\xff\xff\xff\xffDRV1"), 1<<20)
	cmd := fleet.cli.Command(t.Context(), "exec", string(m.ID), "-i", "--", "cat")
	cmd.Stdin = bytes.NewReader(sent)
	if got, err := cmd.Output(); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, or other ones: %v", len(got), len(sent), err)
	}

	x := newScreen(t)
	cmd = fleet.cli.Command(t.Context(), "ssh", "-a", app)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = x.side, x.side, x.side
	cmd.Env = append(cmd.Env, "TERM=vt220")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // so that it is told of the window's size
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x.press("echo $TERM in $(tty), $(stty size)\r")
	x.until(t, "vt220 in /dev/pts/0, 40 90")
	x.resize(t, 41, 91)
	x.press("stty size\r")
	x.until(t, "41 91")
	x.press("echo be''gun; sleep 100000\r")
	x.until(t, "begun")
	// Beside it the machine answers: its socket is shared.
	if got := inside(t, m.ID, "echo", "beside"); got != "beside" {
		t.Errorf("beside a shell: %q", got)
	}
	x.press("\x03echo st''ill here\r")
	x.until(t, "still here")
	x.press("exit 9\r")
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
		t.Errorf("the shell's end: %v", err)
	}

	// A command that takes too long ends as timeout(1) has it.
	cmd = fleet.cli.Command(t.Context(), "exec", string(m.ID), "--timeout", "1s", "--", "sleep", "100000")
	var tooLong strings.Builder
	cmd.Stderr = &tooLong
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 124 || !strings.Contains(tooLong.String(), "ran longer than 1s") {
		t.Errorf("too long: %v, %q", err, tooLong.String())
	}

	// A client that is killed leaves nothing running.
	cmd = fleet.cli.Command(t.Context(), "exec", string(m.ID), "--", "sh", "-c", "echo ready; exec sleep 4711")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if got := inside(t, m.ID, "sh", "-c", "ps | grep -c '[s]leep 4711'"); got != "1" {
		t.Fatalf("%s commands run", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	eventually(t, boundBoot, "the command is gone", func() bool {
		return inside(t, m.ID, "sh", "-c", "ps | grep -c '[s]leep 4711' || true") == "0"
	})

	// A machine that is stopped under a shell: it says so, and does not hang.
	cmd = fleet.cli.Command(t.Context(), "exec", string(m.ID), "--", "sh", "-c", "echo ready; exec sleep 100000")
	var said strings.Builder
	cmd.Stderr = &said
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	run(t, "machine", "stop", string(m.ID), "--timeout", "3m")
	// It was killed with everything in the machine, or the machine was gone before that could be told.
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 137 && (exit.ExitCode() != 7 || !strings.Contains(said.String(), "lost")) {
		t.Errorf("after the stop: %v, %q", err, said.String())
	}
}

// screen is a terminal with somebody before it.
type screen struct {
	person, side *os.File
	mu           sync.Mutex
	shown        bytes.Buffer
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &screen{person: os.NewFile(uintptr(fd), "ptmx")}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		x.side, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(number)), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	x.resize(t, 40, 90)
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(x, x.person) }) // it ends when the terminal is closed
	t.Cleanup(func() {
		x.side.Close()
		x.person.Close()
		reading.Wait()
	})
	return x
}

// Write takes what is shown.
func (x *screen) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.Write(b)
}

func (x *screen) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	raw, err := x.person.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if e := unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); e != nil {
				t.Error(e)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (x *screen) press(keys string) { x.person.WriteString(keys) } // what is not typed is not shown either

func (x *screen) until(t *testing.T, text string) {
	t.Helper()
	eventually(t, boundBoot, "shown: "+text, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return strings.Contains(x.shown.String(), text)
	})
}
