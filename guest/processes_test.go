package guest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/guest"
)

// TestSeveralProcesses: they run side by side, each as its own user and with its own environment; files and swap are there before them; the
// machine ends when the first does, the others get their time to end, and the code is that of the first.
func TestSeveralProcesses(t *testing.T) {
	v := boot(t, guest.Config{
		Env: []string{"A=machine"},
		Processes: []guest.Process{
			{Name: "web", Argv: []string{"sh", "-c", "echo web $A $(id -u); cat /etc/app/conf; stat -c '%a %u' /etc/app/conf; exec httpd -f -p 8080 -h /etc"}, Env: []string{"A=web"}, User: "ann"},
			{Name: "worker", Argv: []string{"sh", "-c", `trap 'echo asked; sleep 1; echo clean; exit 0' TERM; echo worker $A; while true; do sleep 0.1; done`}, Env: []string{"A=worker"}},
			{Name: "first", Argv: []string{"sh", "-c", "while ! test -e /tmp/end; do sleep 0.1; done; exit 4"}},
		},
		Files: []guest.File{{Path: "/etc/app/conf", Data: []byte("setting\n"), Mode: 0o400}}, User: "ann",
		Swap: 8 * drover.MiB,
		Stop: drover.StopConfig{Signal: "SIGTERM", Timeout: drover.Duration(30 * time.Second)},
	}, vmOptions{})
	v.wait(guest.EventStarted)
	c := v.dial()
	list, err := c.Ps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	web := slices.IndexFunc(list, func(p drover.Process) bool { return strings.HasPrefix(p.Command, "httpd -f") })
	for web < 0 { // the shell has not become it yet
		if list, err = c.Ps(t.Context()); err != nil {
			t.Fatal(err)
		}
		web = slices.IndexFunc(list, func(p drover.Process) bool { return strings.HasPrefix(p.Command, "httpd -f") })
	}
	if p := list[web]; p.PID < 2 || p.RSS == 0 || p.Directory != "/" && p.Directory != "/etc" { // it goes to its -h, sooner or later
		t.Errorf("ps tells of httpd: %+v", p)
	}
	if res := sh(t, c, "echo $A; cat /proc/swaps; mkdir -p /tmp; touch /tmp/end"); !strings.Contains(string(res.Stdout), "machine") || !strings.Contains(string(res.Stdout), "/.drover-swap") {
		t.Errorf("in the machine: %s", res.Stdout)
	}
	if ev := v.wait(guest.EventExited); ev.Code != 4 {
		t.Errorf("exited: %+v", ev)
	}
	if ev := v.wait(guest.EventPowerOff); ev.Error != "" {
		t.Errorf("poweroff: %+v", ev)
	}
	v.waitEnd()
	lines, _, err := guest.ReadLog(v.log, 0, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for _, l := range lines {
		said[l.Process] = append(said[l.Process], l.Text)
	}
	if want := []string{"web web 1000", "setting", "400 1000"}; !slices.Equal(said["web"], want) {
		t.Errorf("web said %q, want %q", said["web"], want)
	}
	if want := []string{"worker worker", "asked", "clean"}; !slices.Equal(said["worker"], want) {
		t.Errorf("the worker said %q, want %q", said["worker"], want)
	}
}

func TestMainProcessHasATerminal(t *testing.T) {
	v := boot(t, guest.Config{Argv: []string{"sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo terminal; cat /dev/tty & sleep 0; echo end; exit 3"}, TTY: true, User: "ann"}, vmOptions{})
	if ev := v.wait(guest.EventExited); ev.Code != 3 {
		t.Errorf("exited: %+v", ev)
	}
	v.wait(guest.EventPowerOff)
	v.waitEnd()
	if lines := v.lines(); !slices.Equal(lines, []string{"stdout: terminal", "stdout: end"}) {
		t.Errorf("log: %q", lines)
	}
}
