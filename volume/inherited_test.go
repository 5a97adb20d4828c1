package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/sockets"
)

// newHeldHost is a host whose daemon is a process that is started with nbd.sock, as a supervisor starts it. It does not run yet.
func newHeldHost(t *testing.T) *processHost {
	t.Helper()
	p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
	noErr(t, os.Mkdir(p.cfg.RunDir, 0o700))
	p.held = sockets.Hold(p.nbdSocket())
	must[*os.File](t)(p.held.File())
	t.Cleanup(func() { noErr(t, p.held.Close()) })
	return p
}

func (h *testHost) nbdSocket() string { return NBDSocket(h.cfg.RunDir) }

// knock connects to nbd.sock and says nothing.
func (p *processHost) knock() net.Conn {
	p.tb.Helper()
	conn := must[net.Conn](p.tb)(net.Dial("unix", p.nbdSocket()))
	p.tb.Cleanup(func() { conn.Close() })
	return conn
}

// answered waits for the greeting of an NBD server.
func (p *processHost) answered(conn net.Conn) {
	p.tb.Helper()
	noErr(p.tb, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	magic := make([]byte, 8)
	if _, err := io.ReadFull(conn, magic); err != nil || string(magic) != "NBDMAGIC" {
		p.tb.Fatalf("who waited was answered with %q, %v", magic, err)
	}
}

// day is how long VMs wait for a daemon.
const day = 24 * time.Hour

// qemuIO is a running qemu-io with the layer that is open, by QEMU's own NBD client, as a VM has it.
type qemuIO struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

func newQemuIO(t *testing.T, at drover.Attachment, patience time.Duration) *qemuIO {
	t.Helper()
	cmd := exec.Command("qemu-io", "--image-opts",
		fmt.Sprintf("driver=nbd,server.type=unix,server.path=%s,export=%s,reconnect-delay=%d", at.Socket, at.Export, int(patience.Seconds())))
	q := &qemuIO{t: t, in: must[io.WriteCloser](t)(cmd.StdinPipe())}
	q.out = bufio.NewScanner(must[io.ReadCloser](t)(cmd.StdoutPipe()))
	cmd.Stderr = t.Output()
	noErr(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return q
}

func (q *qemuIO) ask(command string) {
	q.t.Helper()
	must[int](q.t)(fmt.Fprintln(q.in, command))
}

// said is the next line that tells how a command ended.
func (q *qemuIO) said() string {
	q.t.Helper()
	for q.out.Scan() {
		if line := q.out.Text(); strings.Contains(line, "failed") || strings.Contains(line, "bytes at offset") {
			return line
		}
	}
	q.t.Fatalf("qemu-io ended: %v", q.out.Err())
	return ""
}

// awaits fails unless the next command to end said the text.
func (q *qemuIO) awaits(text string) {
	q.t.Helper()
	if line := q.said(); !strings.Contains(line, text) {
		q.t.Fatalf("qemu-io says %q, not %q", line, text)
	}
}

// Who connects while the daemon is dead is answered by the next one, and requests that a VM has in flight are done by it.
func TestANewDaemonAnswersWhoWaitedForIt(t *testing.T) {
	p := newHeldHost(t)
	first := p.knock() // before there was any daemon
	p.start()
	p.answered(first)
	p.create("vol_a", 4*drover.MiB)
	q := newQemuIO(t, must[drover.Attachment](t)(p.Open(t.Context(), "vol_a", 1)), day)
	q.ask("write -P 7 0 1M")
	q.awaits("wrote 1048576/1048576")
	for round := range 3 {
		p.kill()
		q.ask("read -P 7 0 1M") // fails if what it reads is not 7
		waits, gone := p.knock(), p.knock()
		gone.Close()
		p.start()
		q.awaits("read 1048576/1048576")
		p.answered(waits)
		q.ask(fmt.Sprintf("write -P %d 1M 1M", round))
		q.awaits("wrote 1048576/1048576")
	}
}

// A VM that is set to wait for so long only is told then, although its connection waits in the socket; and a later daemon serves it again.
func TestADaemonThatStaysAwayIsAnErrorWhenTheVMSaysSo(t *testing.T) {
	p := newHeldHost(t)
	p.start()
	p.create("vol_a", 4*drover.MiB)
	q := newQemuIO(t, must[drover.Attachment](t)(p.Open(t.Context(), "vol_a", 1)), time.Second)
	q.ask("write -P 7 0 1M")
	q.awaits("wrote 1048576/1048576")
	p.kill()
	q.ask("read -P 7 0 1M")
	q.awaits("read failed")
	p.start()
	eventually(t, func() error { // from here on QEMU does not let requests wait until it is connected
		q.ask("read -P 7 0 1M")
		if line := q.said(); !strings.Contains(line, "read 1048576/1048576") {
			return errors.New(line)
		}
		return nil
	})
}

// A daemon that ends in order leaves the socket as one that is killed does.
func TestTheSocketIsThereAfterAnOrderlyEnd(t *testing.T) {
	p := newHeldHost(t)
	for range 2 {
		p.start()
		noErr(t, p.cmd.Process.Signal(os.Interrupt))
		<-p.gone
		waits := p.knock()
		p.start()
		p.answered(waits)
		p.kill()
	}
}

// More clients than the socket has room for wait in front of it.
func TestAFullBacklogLosesNobody(t *testing.T) {
	p := newHeldHost(t)
	socket := must[*os.File](t)(p.held.File())
	noErr(t, unix.Listen(int(socket.Fd()), 1))
	connected := make(chan net.Conn, 8)
	for range cap(connected) {
		go func() {
			// A connect that waits, as that of a VM: Go's own gives up when there is no room.
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Connect(fd, &unix.SockaddrUnix{Name: p.nbdSocket()})
			}
			f := os.NewFile(uintptr(fd), "client")
			defer f.Close()
			conn, fileErr := net.FileConn(f)
			if err != nil || fileErr != nil {
				t.Errorf("a client that waits was told %v, %v", err, fileErr)
			}
			connected <- conn
		}()
	}
	eventually(t, func() error { // no room is left
		conn, err := net.Dial("unix", p.nbdSocket())
		if err == nil {
			return errors.Join(errors.New("there is room still"), conn.Close())
		}
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		return err
	})
	p.start()
	for range cap(connected) {
		conn := <-connected
		p.answered(conn)
		conn.Close()
	}
}

// A socket that was removed, or replaced by a daemon that was started by hand, is made anew beside the one that the daemon was started with.
func TestASocketWithoutItsPathIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(p *processHost) error{
		"removed": func(p *processHost) error { return os.Remove(p.nbdSocket()) },
		"replaced": func(p *processHost) error {
			held := p.held
			defer func() { p.held = held }()
			p.held = nil
			p.start()
			p.kill()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newHeldHost(t)
			socket := must[*os.File](t)(p.held.File())
			p.start()
			p.kill()
			early := p.knock()
			noErr(t, spoil(p))
			p.spawnWith(socket) // as a supervisor does that does not look
			eventually(t, func() error { _, err := p.Layers(t.Context()); return err })
			p.answered(early)
			p.answered(p.knock())
			if st := must[os.FileInfo](t)(os.Stat(p.nbdSocket())); st.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", st.Mode())
			}
		})
	}
}

// A daemon does not serve a socket that others may connect to, or that its VMs do not look for.
func TestAStrangeSocketIsRefused(t *testing.T) {
	for name, change := range map[string]func(h *testHost) net.Listener{
		"open to all": func(h *testHost) net.Listener {
			l := must[*net.UnixListener](t)(sockets.Listen(h.nbdSocket()))
			noErr(t, os.Chmod(h.nbdSocket(), 0o666))
			return l
		},
		"elsewhere": func(h *testHost) net.Listener {
			return must[*net.UnixListener](t)(sockets.Listen(filepath.Join(h.cfg.RunDir, "volumes.sock")))
		},
		"TCP": func(*testHost) net.Listener { return must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")) },
	} {
		t.Run(name, func(t *testing.T) {
			h := prepareHost(t, newCA(t), "h1")
			noErr(t, os.Mkdir(h.cfg.RunDir, 0o700))
			h.cfg.NBD = change(h)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			wantCode(t, Run(ctx, h.cfg), drover.Invalid)
		})
	}
}
