package guest_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
	"drover/guest"
)

func TestMainProcessRunsAsConfigured(t *testing.T) {
	v := boot(t, guest.Config{
		Hostname: "m-test",
		Argv: []string{"sh", "-c", "id -u; id -g; id -G; pwd; hostname; echo $A-$B-$HOME; cat /etc/resolv.conf; " +
			"grep db /etc/hosts; ulimit -n; touch /dev/shm/x && echo shm; echo open >/dev/stdout; echo err >&2; exit 7"},
		Env: []string{"A=1", "B=2", "A=3"}, WorkDir: "/var/deep", User: "ann", DNS: []string{"fdaa::3"},
		Hosts: []guest.HostName{{Address: "fdaa::7", Names: []string{"db", "db.internal"}}},
	}, vmOptions{})
	ev := v.wait(guest.EventStarted)
	if ev.Run != t.Name() || ev.PID < 2 {
		t.Errorf("started: %+v", ev)
	}
	if ev := v.wait(guest.EventExited); ev.Code != 7 || ev.Signal != 0 || ev.Error != "" {
		t.Errorf("exited: %+v", ev)
	}
	if ev := v.wait(guest.EventPowerOff); ev.Error != "" {
		t.Errorf("poweroff: %+v", ev)
	}
	v.waitEnd()
	var stdout, stderr []string
	for _, l := range v.lines() {
		if text, ok := strings.CutPrefix(l, "stdout: "); ok {
			stdout = append(stdout, text)
		} else {
			stderr = append(stderr, l)
		}
	}
	want := []string{"1000", "1001", "1001 1234", "/var/deep", "m-test", "3-2-/home/ann", "nameserver fdaa::3",
		"fdaa::7\tdb db.internal", "65536", "shm", "open"}
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if !slices.Equal(stderr, []string{"stderr: err"}) {
		t.Errorf("stderr: %q", stderr)
	}
	var kinds []string
	for _, e := range v.seen {
		kinds = append(kinds, e.Event)
		t.Logf("%s at %.2f s", e.Event, e.Uptime)
	}
	if diff := cmp.Diff([]string{"booted", "started", "exited", "poweroff"}, kinds); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
}

func TestMissingProgramIsExit127(t *testing.T) {
	v := boot(t, guest.Config{Argv: []string{"no-such-program", "-x"}}, vmOptions{})
	ev := v.wait(guest.EventExited)
	if ev.Code != 127 || !strings.Contains(ev.Error, `"no-such-program" is not in PATH`) {
		t.Errorf("exited: %+v", ev)
	}
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	if lines := v.lines(); len(lines) != 1 || !strings.Contains(lines[0], "no-such-program") {
		t.Errorf("log: %q", lines)
	}
	for _, e := range v.seen {
		if e.Event == guest.EventStarted {
			t.Error("reported as started")
		}
	}
}

func TestLogIsExact(t *testing.T) {
	long := strings.Repeat("0123456789", 2000)
	v := boot(t, guest.Config{Argv: []string{"sh", "-c", `seq 20000; yes 0123456789 | head -n 2000 | tr -d '\n'; echo; ` +
		`printf 'tab\t"quote" \\ \303\244 \377 bell\007\r\n\n'; (sleep 1000 &) ; printf 'no newline'`}}, vmOptions{})
	if ev := v.wait(guest.EventExited); ev.Code != 0 {
		t.Errorf("exited: %+v", ev)
	}
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	var want []string
	for i := range 20000 {
		want = append(want, "stdout: "+itoa(i+1))
	}
	want = append(want, "stdout: "+long[:guest.MaxLogText], "stdout: "+long[guest.MaxLogText:],
		"stdout: tab\t\"quote\" \\ ä \ufffd bell\a\r", "stdout: ", "stdout: no newline")
	if diff := cmp.Diff(want, v.lines()); diff != "" {
		t.Errorf("log (-want +got):\n%.4000s", diff)
	}
}

func TestChecksReportChanges(t *testing.T) {
	second := drover.Duration(time.Second)
	quick := drover.Duration(200 * time.Millisecond)
	v := boot(t, guest.Config{
		Argv:    []string{"sh", "-c", "mkdir -p /www; echo ok >/www/index.html; exec httpd -f -p [fdaa::42]:8080 -h /www"},
		Network: guest.Network{Address: "fdaa::42"},
		Checks: map[string]drover.Check{
			"web":   {Type: drover.CheckHTTP, Port: 8080, Path: "/", Interval: quick, Timeout: 5 * second},
			"gone":  {Type: drover.CheckHTTP, Port: 8080, Path: "/gone", Interval: quick, Timeout: 5 * second},
			"port":  {Type: drover.CheckTCP, Port: 8080, Interval: quick, Timeout: 5 * second},
			"other": {Type: drover.CheckTCP, Port: 8081, Interval: quick, Timeout: 5 * second},
		},
	}, vmOptions{})
	first := v.wait(guest.EventChecks)
	if len(first.Checks) != 4 || first.Checks[0].Status != "critical" {
		t.Errorf("first report: %+v", first.Checks)
	}
	waitChecks(t, v, map[string]string{"web": "passing", "gone": "critical", "port": "passing", "other": "critical"})
	c := v.dial()
	if res := sh(t, c, "mkdir /www/gone && echo ok >/www/gone/index.html; nc -l -p 8081 -e true & sleep 2"); res.ExitCode != 0 {
		t.Errorf("cannot change what is served: %+v", res)
	}
	waitChecks(t, v, map[string]string{"web": "passing", "gone": "passing", "port": "passing"})
	if err := c.Stop(t.Context(), "SIGKILL", 0); err != nil {
		t.Fatal(err)
	}
	v.waitEnd()
}

// waitChecks waits for a report in which the checks are as wanted.
func waitChecks(t *testing.T, v *vm, want map[string]string) {
	t.Helper()
	for {
		ev := v.wait(guest.EventChecks)
		right := 0
		for _, c := range ev.Checks {
			if want[c.Name] == c.Status {
				right++
			}
		}
		if right == len(want) {
			return
		}
	}
}

func TestHangingBootEndsAtItsDeadline(t *testing.T) {
	path := disk(t, 64<<20)
	v := boot(t, guest.Config{Argv: []string{"true"}, Volumes: []guest.Volume{{Name: "vol_slow", Path: "/data", MkFS: true}},
		BootDeadline: drover.Duration(3 * time.Second)},
		// Firmware and kernel may look at the disk; to see whether all of its edges are blank takes longer than anybody waits.
		vmOptions{volumes: []string{path + ",throttling.bps-total=1000,throttling.bps-total-max=100000"}})
	ev := v.wait(guest.EventFailed)
	if ev.Stage != "prepare the volumes" || !strings.Contains(ev.Error, "deadline") {
		t.Errorf("failed: %+v", ev)
	}
	v.waitEnd()
}

func TestRootDiskGrowsAndKeepsWrites(t *testing.T) {
	parts.once.Do(func() { parts.err = parts.build() })
	if parts.err != nil {
		t.Fatal(parts.err)
	}
	image, err := os.ReadFile(parts.root)
	if err != nil {
		t.Fatal(err)
	}
	root := disk(t, 0)
	if err := os.WriteFile(root, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(root, 1<<30); err != nil {
		t.Fatal(err)
	}
	script := "df -m / | sed -n '$p' | tr -s ' ' | cut -d' ' -f2; echo again >>/kept; wc -l </kept"
	for boots := 1; boots <= 2; boots++ {
		v := boot(t, guest.Config{Argv: []string{"busybox", "sh", "-c", strings.ReplaceAll(script, "cut", "busybox cut")}},
			vmOptions{root: root})
		if ev := v.wait(guest.EventPowerOff); ev.Error != "" {
			t.Errorf("poweroff: %+v", ev)
		}
		v.waitEnd()
		lines := v.lines()
		if len(lines) != 2 || lines[1] != "stdout: "+itoa(boots) {
			t.Fatalf("boot %d: %q", boots, lines)
		}
		if size := atoi(t, strings.TrimPrefix(lines[0], "stdout: ")); size < 900 {
			t.Errorf("boot %d: the root file system has %d MiB", boots, size)
		}
	}
	checkDisk(t, root)
}
