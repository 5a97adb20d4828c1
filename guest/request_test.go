package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/guest"
)

// TestRequests asks one machine everything that the host can ask.
func TestRequests(t *testing.T) {
	v := boot(t, guest.Config{
		Argv: []string{"sh", "-c", "trap 'echo got hup' HUP; trap 'echo got usr1' USR1; trap 'echo no' TERM; " +
			"echo ready; while true; do sleep 1000 & wait; done"},
		Env: []string{"GREETING=hello"}, WorkDir: "/var",
		Network: guest.Network{Address: "fdaa::42", User: true},
	}, vmOptions{})
	v.wait(guest.EventStarted)
	c := v.dial()
	v.waitLine("stdout: ready")
	t.Run("Exec", func(t *testing.T) { testExec(t, c) })
	t.Run("ExecLimits", func(t *testing.T) { testExecLimits(t, c) })
	t.Run("Network", func(t *testing.T) { testNetwork(t, c) })
	t.Run("Signals", func(t *testing.T) { testSignals(t, v, c) })
	t.Run("Reconnect", func(t *testing.T) { c = testReconnect(t, v, c) })
	t.Run("Stop", func(t *testing.T) { testStop(t, v, c) })
}

// waitLine waits for a line of the log.
func (v *vm) waitLine(want string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), bootDeadline)
	defer cancel()
	for offset := int64(0); ; {
		lines, next, err := guest.ReadLog(v.log, offset, 1000, 1<<20)
		if err != nil {
			v.t.Fatal(err)
		}
		for _, l := range lines {
			if l.Stream+": "+l.Text == want {
				return
			}
		}
		offset = next
		if err := guest.WaitLog(ctx, v.log, offset); err != nil {
			v.t.Fatalf("no line %q in the log: %v; there is %q", want, err, v.lines())
		}
	}
}

func testExec(t *testing.T, c *guest.Client) {
	res := sh(t, c, "pwd; id -u; echo $GREETING; echo oops >&2; exit 3")
	if string(res.Stdout) != "/var\n0\nhello\n" || string(res.Stderr) != "oops\n" || res.ExitCode != 3 || res.Truncated {
		t.Errorf("exec: %+v", res)
	}
	in := bytes.Repeat([]byte("0123456789abcdef"), guest.MaxStdin/16)
	res, err := c.Exec(t.Context(), drover.ExecRequest{Command: []string{"wc", "-c"}, Stdin: in, Timeout: bootDeadline})
	if err != nil || strings.TrimSpace(string(res.Stdout)) != itoa(guest.MaxStdin) {
		t.Errorf("exec with stdin: %s %v", res.Stdout, err)
	}
	res = sh(t, c, "kill -9 $$")
	if res.ExitCode != 137 || res.ExitSignal != 9 {
		t.Errorf("exec that is killed: %+v", res)
	}
	res, err = c.Exec(t.Context(), drover.ExecRequest{Command: []string{"nowhere"}})
	if err != nil || res.ExitCode != 127 || !strings.Contains(string(res.Stderr), `"nowhere" is not in PATH`) {
		t.Errorf("exec of nothing: %d %s %v", res.ExitCode, res.Stderr, err)
	}
	res, err = c.Exec(t.Context(), drover.ExecRequest{Command: []string{"/bin/nothing"}})
	if err != nil || res.ExitCode != 126 {
		t.Errorf("exec of what is no program: %d %s %v", res.ExitCode, res.Stderr, err)
	}
	if _, err := c.Exec(t.Context(), drover.ExecRequest{}); !drover.Is(err, drover.Invalid) {
		t.Errorf("exec of no command: %v", err)
	}
	// What a command leaves in the background does not hold up its answer.
	if res = sh(t, c, "sleep 1000 & echo left"); string(res.Stdout) != "left\n" {
		t.Errorf("exec with a child in the background: %+v", res)
	}
}

func testExecLimits(t *testing.T, c *guest.Client) {
	res := sh(t, c, "yes | head -c 1500000; yes no | head -c 1048576 >&2")
	if len(res.Stdout) != guest.MaxOutput || len(res.Stderr) != guest.MaxOutput || !res.Truncated {
		t.Errorf("exec with much output: %d and %d bytes, truncated %v", len(res.Stdout), len(res.Stderr), res.Truncated)
	}
	_, err := c.Exec(t.Context(), drover.ExecRequest{Command: []string{"sleep", "1000"}, Timeout: 100 * time.Millisecond})
	if !drover.Is(err, drover.Canceled) {
		t.Errorf("exec that is too slow: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range guest.MaxExecs {
		all.Go(func() {
			err := error(drover.Errorf(drover.Exhausted, "not asked yet"))
			for drover.Is(err, drover.Exhausted) { // the question below may take a place
				_, err = c.Exec(ctx, drover.ExecRequest{Command: []string{"sleep", "2000"}})
			}
			if !drover.Is(err, drover.Canceled) {
				t.Errorf("canceled exec: %v", err)
			}
		})
	}
	eventually(t, "too many commands are refused", func() bool {
		_, err := c.Exec(t.Context(), drover.ExecRequest{Command: []string{"true"}})
		return drover.Is(err, drover.Exhausted)
	})
	cancel()
	all.Wait()
	eventually(t, "canceled commands are gone", func() bool {
		res, err := c.Exec(t.Context(), drover.ExecRequest{Command: []string{"sh", "-c", "ps | grep -c '[s]leep 2000'"}})
		return err == nil && string(res.Stdout) == "0\n"
	})
}

// eventually asks until it is so, for as long as bootDeadline. What is asked goes to the guest and back, so this does not spin.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bootDeadline); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("not after %s: %s", bootDeadline, what)
		}
	}
}

func testNetwork(t *testing.T, c *guest.Client) {
	res := sh(t, c, "ip -6 addr show eth0; ip -4 addr show eth0; ip route; ip -4 addr show lo; cat /etc/hosts; ping -c1 -W5 ::1")
	for _, want := range []string{"fdaa::42/128", "10.0.2.15/24", "default via 10.0.2.2", "127.0.0.1/8", "::1\tlocalhost",
		"1 packets received"} {
		if !strings.Contains(string(res.Stdout), want) {
			t.Errorf("no %q in:\n%s%s", want, res.Stdout, res.Stderr)
		}
	}
	if strings.Contains(string(res.Stdout), "tentative") {
		t.Errorf("an address is not ready:\n%s", res.Stdout)
	}
}

func testSignals(t *testing.T, v *vm, c *guest.Client) {
	if err := c.Signal(t.Context(), "HUP"); err != nil {
		t.Fatal(err)
	}
	v.waitLine("stdout: got hup")
	if res := sh(t, c, "kill -USR1 1"); res.ExitCode != 0 {
		t.Errorf("kill: %+v", res)
	}
	v.waitLine("stdout: got usr1")
	if err := c.Signal(t.Context(), "SIGNOTHING"); !drover.Is(err, drover.Invalid) {
		t.Errorf("unknown signal: %v", err)
	}
}

// testReconnect lets clients leave in the middle of things.
func testReconnect(t *testing.T, v *vm, c *guest.Client) *guest.Client {
	asked := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), drover.ExecRequest{Command: []string{"sh", "-c", "touch /begun; sleep 3000"}})
		asked <- err
	}()
	eventually(t, "the command runs", func() bool { return sh(t, c, "test -e /begun").ExitCode == 0 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; !drover.Is(err, drover.Unavailable) {
		t.Errorf("exec on a closed client: %v", err)
	}
	half, err := guest.EncodeFrame(guest.Request{ID: 2, Op: guest.OpExec, Argv: []string{"touch", strings.Repeat("x", 100_000)}})
	if err != nil {
		t.Fatal(err)
	}
	hello, err := guest.EncodeFrame(guest.Request{ID: 1, Op: guest.OpHello, Nonce: "n"})
	if err != nil {
		t.Fatal(err)
	}
	hello = append([]byte(guest.Magic), hello...)
	flood, err := guest.EncodeFrame(guest.Request{ID: 3, Op: guest.OpExec, Argv: []string{"sh", "-c", "yes | head -c 900000"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string][]byte{
		"nothing":                {},
		"half a frame":           append(bytes.Clone(hello), half[:50_000]...),
		"half a magic":           []byte(guest.Magic[:5]),
		"a length that can't be": binary.BigEndian.AppendUint32(bytes.Clone(hello), 1<<31),
		"noise":                  bytes.Repeat([]byte{0xff, 0, 1, 'x'}, 10_000),
		"no JSON":                append(bytes.Clone(hello), 0, 0, 0, 2, '{', '{'),
		"an answer unread":       append(bytes.Clone(hello), flood...),
	} {
		conn, err := net.Dial("unix", v.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		next := v.dial()
		if err := next.Ping(t.Context()); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c = v.dial()
	eventually(t, "the command of a client that left is killed", func() bool {
		return string(sh(t, c, "ps | grep -c '[s]leep 3000'").Stdout) == "0\n"
	})
	return c
}

func testStop(t *testing.T, v *vm, c *guest.Client) {
	if err := c.Stop(t.Context(), "SIGTERM", time.Hour); err != nil {
		t.Fatal(err)
	}
	v.waitLine("stdout: no")
	st, err := c.Status(t.Context())
	if err != nil || !st.Stopping || st.PID == 0 || !strings.HasPrefix(st.Run, "TestRequests") {
		t.Errorf("status: %+v %v", st, err)
	}
	// It does not listen to SIGTERM: the shorter time counts.
	if err := c.Stop(t.Context(), "SIGTERM", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if ev := v.wait(guest.EventExited); ev.Code != 137 || ev.Signal != 9 || ev.OOM {
		t.Errorf("exited: %+v", ev)
	}
	if ev := v.wait(guest.EventPowerOff); ev.Error != "" {
		t.Errorf("poweroff: %+v", ev)
	}
	v.waitEnd()
	if err := c.Ping(t.Context()); !drover.Is(err, drover.Unavailable) {
		t.Errorf("ping of a VM that ended: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := guest.Dial(ctx, v.socket); !drover.Is(err, drover.Unavailable) {
		t.Errorf("dial of a VM that ended: %v", err)
	}
}
