package test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

// TestDeployAndLogs: an app comes from a file, gets a new version machine by machine, keeps the rest when a version is bad, and its logs are one
// stream, over a move too.
func TestDeployAndLogs(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	deploy := func(version, command string, args ...string) (string, error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "fly.toml")
		file := fmt.Sprintf("app = %q\n[build]\nimage = %q\n[env]\nVERSION = %q\n[processes]\nweb = %q\nworker = %q\n[[vm]]\nmemory = \"256mb\"\n[[mounts]]\n"+
			"source = \"data\"\ndestination = \"/data\"\ninitial_size = \"1gb\"\nprocesses = [\"web\"]\n[[restart]]\npolicy = \"never\"\n",
			app, "oci:"+fleet.shellImage, version, command, command)
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := fleet.cli.Command(t.Context(), append([]string{"deploy", "-c", path, "--yes", "--wait-timeout", "3m"}, args...)...).Output()
		return string(out), err
	}
	const serve = "'echo version $VERSION; test -e /data/lost+found && echo first > /data/kept; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.2; done'"
	if out, err := deploy("one", serve); err != nil || !strings.Contains(out, "is done: 2 of 2 machines") {
		t.Fatalf("%v, %s", err, out)
	}
	before := ask[[]apiv1.Machine](t, "machine", "list", "-a", app)
	if out, err := deploy("two", serve); err != nil || !strings.Contains(out, "is done: 2 of 2 machines") {
		t.Fatalf("%v, %s", err, out)
	}
	after := ask[[]apiv1.Machine](t, "machine", "list", "-a", app)
	var web apiv1.Machine
	for k, m := range after {
		if m.ID != before[k].ID || m.InstanceID == before[k].InstanceID || m.State != drover.StateStarted || m.Config.Env["VERSION"] != "two" {
			t.Errorf("after the second deploy: %+v", m)
		}
		if len(m.Config.Mounts) == 1 {
			web = m
		}
	}
	if got := inside(t, web.ID, "cat", "/data/kept"); got != "first" {
		t.Errorf("the volume has %q", got)
	}

	// A group grows by a machine like those that it has, with a volume of its own, and that one goes first when it shrinks again.
	if out := run(t, "scale", "count", "web=2", "-a", app); !strings.Contains(out, "is done: 1 of 1 machines") {
		t.Error(out)
	}
	for _, m := range ask[[]apiv1.Machine](t, "machine", "list", "-a", app) {
		if m.ID == after[0].ID || m.ID == after[1].ID {
			continue
		}
		if got := inside(t, m.ID, "sh", "-c", "cat /data/kept; echo $VERSION"); got != "first\ntwo" || m.Config.Mounts[0].Volume == web.Config.Mounts[0].Volume {
			t.Errorf("the new machine has %q, %+v", got, m.Config.Mounts)
		}
	}
	run(t, "scale", "count", "web=1", "-a", app, "--yes")
	// A machine is the deploy's no more once it is to be destroyed; that takes a moment.
	eventually(t, boundBoot, "the end of the machine that was too many", func() bool {
		left := ask[[]apiv1.Machine](t, "machine", "list", "-a", app)
		return len(left) == 2 && left[0].ID == after[0].ID && left[1].ID == after[1].ID
	})

	// The logs of both, and of the one that moves, come on: no line of it is missing or comes twice.
	cmd := fleet.cli.Command(t.Context(), "logs", "-a", app, "-f", "-n", "1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10_000)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	run(t, "machine", "move", string(web.ID))
	last, restarted, workers := 0, false, 0
	for line := range lines {
		name, text, _ := strings.Cut(line, "|")
		if strings.HasPrefix(name, "worker-") {
			workers++
			continue
		}
		n := 0
		if fmt.Sscanf(strings.TrimSpace(text), "line %d", &n); n == 0 {
			continue
		}
		if n == 1 {
			restarted = true
		} else if last != 0 && n != last+1 {
			t.Errorf("line %d comes after line %d", n, last)
		}
		if last = n; restarted && n > 3 {
			break
		}
	}
	cmd.Process.Kill() // it would follow for ever
	cmd.Wait()
	if !restarted || workers < 10 {
		t.Errorf("the move is not in the log, or the other machine's %d lines", workers)
	}

	// A bad version stops at the first machine; the other one serves the old version.
	if out, err := deploy("three", "'exit 3'"); err == nil || !strings.Contains(out, "is failed: 0 of 2 machines") {
		t.Errorf("a bad version: %v, %s", err, out)
	}
	versions := map[string]int{}
	for _, m := range ask[[]apiv1.Machine](t, "machine", "list", "-a", app) {
		versions[m.Config.Env["VERSION"]+" "+string(m.State)]++
	}
	if versions["two started"] != 1 || len(versions) != 2 {
		t.Errorf("after a bad version: %v", versions)
	}
}
