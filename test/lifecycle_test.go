package test

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

func TestMachineRunsWhatTheImageAndTheConfigSay(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	m := shell(t, app, "echo from $FROM_IMAGE and $MINE as $(id -u) in $(pwd) on $(hostname); exec sleep 100000", "--env", "MINE=config", "--name", "teller")
	eventually(t, boundBoot, "the line in the log", func() bool {
		return strings.Contains(run(t, "machine", "logs", string(m.ID)), "from yes and config as 0 in /tmp on")
	})
	if got := inside(t, m.ID, "cat", "/proc/1/comm"); got == "" {
		t.Error("no process 1")
	}
	if m.PrivateIP == "" || !strings.HasPrefix(m.PrivateIP, "fdaa:") {
		t.Errorf("private address %q", m.PrivateIP)
	}
	if got := inside(t, m.ID, "ip", "-6", "addr", "show", "dev", "eth0"); !strings.Contains(got, m.PrivateIP) {
		t.Errorf("the machine's address %s is not on its link:\n%s", m.PrivateIP, got)
	}
	cmd := fleet.cli.Command(t.Context(), "machine", "exec", string(m.ID), "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 || out.String() != "out\n" || said.String() != "err\n" {
		t.Errorf("exec gave %v, %q and %q", err, out.String(), said.String())
	}
}

// TestExecOneAfterTheOther: a client may come before the guest's kernel has told that the last one left.
func TestExecOneAfterTheOther(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	m := shell(t, app, "exec sleep 100000")
	for n := range 20 {
		if got := inside(t, m.ID, "echo", strconv.Itoa(n)); got != strconv.Itoa(n) {
			t.Fatalf("command %d printed %q", n, got)
		}
	}
}

func TestMachineStopStartRestartDestroy(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	// The shell writes a file when it is asked to stop: the signal came, and the root disk outlives the run.
	m := shell(t, app, "trap 'echo asked > /root/asked; sync; exit 0' INT; echo ready; while true; do sleep 0.1; done", "--stop-timeout", "60s")
	eventually(t, boundBoot, "the trap", func() bool { return strings.Contains(run(t, "machine", "logs", string(m.ID)), "ready") })
	run(t, "machine", "stop", string(m.ID))
	if now := machine(t, m.ID); now.State != drover.StateStopped {
		t.Fatalf("after stop: %s", now.State)
	}
	run(t, "machine", "start", string(m.ID))
	if got := inside(t, m.ID, "cat", "/root/asked"); got != "asked" {
		t.Errorf("the main process was not asked to stop: %q", got)
	}
	before := machine(t, m.ID).StartedAt
	run(t, "machine", "restart", string(m.ID))
	if now := machine(t, m.ID); now.State != drover.StateStarted || !now.StartedAt.After(before) {
		t.Errorf("after restart: %s since %s, before %s", now.State, now.StartedAt, before)
	}
	run(t, "machine", "destroy", string(m.ID), "--force", "--yes")
	if left := ask[[]apiv1.Machine](t, "machine", "list", "--app", app); len(left) != 0 {
		t.Errorf("still listed: %+v", left)
	}
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	cases := []struct {
		policy, command string
		state           drover.MachineState
		restarts        bool
	}{
		{"no", "exit 3", drover.StateStopped, false},
		{"on-failure", "exit 0", drover.StateStopped, false},
		{"on-failure", "test -e /root/once && exec sleep 100000; touch /root/once; sync; exit 3", drover.StateStarted, true},
		{"always", "test -e /root/once && exec sleep 100000; touch /root/once; sync; exit 0", drover.StateStarted, true},
	}
	for _, c := range cases {
		m := shell(t, app, c.command, "--restart", c.policy, "--detach")
		eventually(t, boundBoot, c.policy+" after "+c.command, func() bool {
			now := machine(t, m.ID)
			return now.State == c.state && now.ExitCode != nil && (now.Restarts > 0) == c.restarts
		})
	}
}

func TestUpdateChangesTheInstanceAndKeepsTheVolume(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	w := newWriter(t, app, "h1")
	before, boot := machine(t, w.id), w.Now().Boot
	run(t, "machine", "update", string(w.id), "--env", "MORE=yes")
	w.comesBack(t, boot)
	after := machine(t, w.id)
	if after.InstanceID == before.InstanceID || after.Config.Env["MORE"] != "yes" {
		t.Errorf("after the update: %+v", after)
	}
	w.intact(t)
}
