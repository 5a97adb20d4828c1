package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
	"drover/dev"
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

// TestAConfigOfTheMachinesAPI makes a machine by the API alone, with much of what a config may say, and lets it end.
func TestAConfigOfTheMachinesAPI(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	body := fmt.Sprintf(`{"region":"ams","config":{"image":%q,"guest":{"memory_mb":128},"auto_destroy":true,"restart":{"policy":"no"},
		"env":{"PRIMARY_REGION":"ams"},"metadata":{"fly_process_group":"web"},"init":{"swap_size_mb":16,"kernel_args":["drover_test=yes"]},
		"files":[{"guest_path":"/www/index.html","raw_value":"aGVsbG8K","mode":384}],
		"processes":[{"exec":["/bin/busybox","httpd","-f","-p","8080","-h","/www"]},
			{"cmd":["echo $FLY_APP_NAME $FLY_PROCESS_GROUP $PRIMARY_REGION $OWN; until test -e /end; do sleep 0.1; done; exit 4"],"env":{"OWN":"mine"}}],
		"services":[{"internal_port":8080,"protocol":"tcp","autostop":false,"force_instance_key":null,"ports":[{"port":80,"handlers":["http"],"x":[1.50]}],
			"checks":[{"type":"http","path":"/","interval":"1s","timeout":"5s"}]}]}}`, "oci:"+fleet.shellImage)
	api, err := dev.ReadAPIInfo(fleet.cli.Dir)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", api.URL+"/v1/apps/"+app+"/machines", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+api.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(answer), `"x":[1.50]`) || !strings.Contains(string(answer), `"force_instance_key":null`) {
		t.Fatalf("%v, %s: %s", err, res.Status, answer)
	}
	var m apiv1.Machine
	if err := json.Unmarshal(answer, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Checks) != 1 || m.Checks[0].Status != "critical" || m.Checks[0].Name != "servicecheck-00-http-8080" {
		t.Errorf("checks of a new machine: %+v", m.Checks)
	}
	eventually(t, boundBoot, "the service's check passes", func() bool {
		now := machine(t, m.ID)
		return len(now.Checks) == 1 && now.Checks[0].Status == "passing"
	})
	eventually(t, boundBoot, "the line of the second process", func() bool {
		return strings.Contains(run(t, "machine", "logs", string(m.ID)), app+" web ams mine")
	})
	if got := inside(t, m.ID, "/bin/sh", "-c", "cat /proc/cmdline /proc/swaps; touch /end"); !strings.Contains(got, "drover_test=yes") || !strings.Contains(got, "swap") {
		t.Errorf("kernel and swap: %s", got)
	}
	eventually(t, boundBoot, "the machine is destroyed, and tells why", func() bool {
		now := machine(t, m.ID)
		for _, e := range now.Events {
			exit, ok := e.Request["exit_event"].(map[string]any)
			if e.Type == "exit" && now.State == drover.StateDestroyed {
				return ok && exit["exit_code"] == 4.0 && exit["requested_stop"] == false && e.Source == "flyd"
			}
		}
		return false
	})
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
