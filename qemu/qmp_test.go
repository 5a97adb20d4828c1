package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

// fakeQEMU answers one client with the lines of a script: "> x" waits for a line that contains x, everything else is sent.
func fakeQEMU(t *testing.T, script ...string) (path string) {
	t.Helper()
	path = filepath.Join(runDir(t), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			in := bufio.NewScanner(c)
			for _, line := range script {
				if want, ok := strings.CutPrefix(line, "> "); ok {
					if !in.Scan() || !strings.Contains(in.Text(), want) {
						return fmt.Errorf("got %q, want %q", in.Text(), want)
					}
					continue
				}
				if _, err := c.Write([]byte(line + "\n")); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return path
}

const greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}`

func TestQMP(t *testing.T) {
	path := fakeQEMU(t, greeting, `> "qmp_capabilities","id":1`, ``, `{"event": "RESUME", "timestamp": {"seconds": 1}}`, `{"return": {}, "id": 1}`,
		`> "query-status","id":2`, `{"return": {}, "id": 77}`, `{"return": {"running": true}, "id": 2}`,
		`> "quit","id":3`, `{"error": {"class": "GenericError", "desc": "no"}, "id": 3}`,
		`> "stop"`, `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`)
	var events []qmpEvent
	c, err := dialQMP(t.Context(), path, func(e qmpEvent) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.execute(t.Context(), "query-status")
	if err != nil || string(got) != `{"running": true}` {
		t.Errorf("%s %v", got, err)
	}
	if _, err := c.execute(t.Context(), "quit"); err == nil || !strings.Contains(err.Error(), "GenericError") {
		t.Errorf("an error became %v", err)
	}
	if _, err := c.execute(t.Context(), "stop"); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a connection that ends: %v", err)
	}
	<-c.done
	if _, err := c.execute(t.Context(), "stop"); err == nil {
		t.Error("a command after the end")
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if len(events) != 2 || events[0].Name != "RESUME" || events[1].Name != "SHUTDOWN" {
		t.Errorf("events %v", events)
	}
}

func TestQMPThatIsNone(t *testing.T) {
	for _, lines := range [][]string{{`{"hello": 1}`}, {`no JSON`}, {}, {strings.Repeat("x", maxMessage+1)}} {
		if c, err := dialQMP(t.Context(), fakeQEMU(t, lines...), func(qmpEvent) {}); err == nil {
			t.Errorf("%.20v: accepted", lines)
			if err := c.close(); err != nil {
				t.Error(err)
			}
		}
	}
	// Another client has the socket: nothing comes.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	l, err := net.Listen("unix", filepath.Join(runDir(t), "qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := dialQMP(ctx, l.Addr().String(), func(qmpEvent) {}); err == nil {
		t.Error("silence was accepted")
	}
}

func FuzzQMPMessages(f *testing.F) {
	for _, s := range []string{greeting, `{"return": {}, "id": 1}`, `{"event": "X", "data": null}`, `{"error": {}}`, "\n\n{}", `[]`, `{"id": "text"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := newMessageReader(strings.NewReader(s))
		for n := 0; ; n++ {
			if _, err := r.next(); err != nil {
				return
			}
			if n > len(s) {
				t.Fatal("more messages than bytes")
			}
		}
	})
}

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		shutdown string
		killed   bool
		exit     string
		own      bool
		want     string
	}{
		{"guest-shutdown", false, "", true, "guest-shutdown: "},
		{"guest-shutdown", true, "signal: killed", true, "guest-shutdown: "},
		{"guest-reset", false, "", true, "guest-reset: "},
		{"guest-panic", false, "", true, "guest-panic: "},
		{"host-qmp-quit", false, "", true, "host-qmp-quit: "},
		{"host-signal", false, "", true, "host-signal: "},
		{"new-in-qemu-99", false, "", true, "new-in-qemu-99: "},
		{"", true, "signal: killed", true, "killed: "},
		{"", false, "signal: killed", true, "QEMU ended by itself: signal: killed: last words"},
		{"", false, "", true, "QEMU ended without"},
		{"", false, "", false, "the process is gone"},
	} {
		vm := &VM{shutdown: c.shutdown, killed: c.killed}
		said := ""
		if c.exit != "" {
			said = ": last words"
		}
		if got := vm.why(c.exit, c.own, said); !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
	vm := &VM{}
	vm.event(qmpEvent{Name: "SHUTDOWN", Data: []byte(`broken`)})
	if vm.shutdown != "unknown" {
		t.Errorf("a broken event: %q", vm.shutdown)
	}
	vm.event(qmpEvent{Name: "RESET", Data: []byte(`{"reason":"guest-reset"}`)})
	if vm.shutdown != "unknown" {
		t.Errorf("an event that is no end: %q", vm.shutdown)
	}
}

func TestArguments(t *testing.T) {
	d := &Driver{cfg: Config{RunDir: "/run/a,b", GuestDir: "/guest"}, accel: drover.AccelKVM}
	spec := drover.VMSpec{Machine: testID, CPUs: 2, MemoryMB: 512, Root: drover.Attachment{Socket: "/s,1", Export: "root_x@9"},
		Volumes: []drover.Attachment{{Socket: "/s,1", Export: `v"o,l@9`}}, MAC: "02:00:00:00:00:01", Tap: "t0", ConfigPath: "/m/c,onfig",
		ConsolePath: "/m/con,sole", LogPath: "/m/log", StatusPath: "/m/status", AgentSocket: "/m/agent"}
	line := strings.Join(d.arguments(spec), " ")
	for _, want := range []string{
		"-accel kvm -cpu host -kernel /guest/vmlinuz", "-m 512 -smp 2", "path=/run/a,,b/0123456789abcd/qmp.sock", "path=/m/con,,sole", "-no-reboot",
		`"path":"/s,1"`, `"export":"root_x@9"`, `"export":"v\"o,l@9"`, `"serial":"root"`, `"serial":"volume0"`, `"serial":"config"`,
		`"filename":"/m/c,onfig"`, `"reconnect-delay":86400`, `"write-cache":"on"`, `"werror":"report"`, `"ifname":"t0"`, `"script":"no"`, "spawn=deny",
		"name=drover.agent", "name=drover.log", "name=drover.status", "panic=-1", "virtio-rng-pci", "virtio-balloon-pci",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("the arguments lack %s:\n%s", want, line)
		}
	}
	if strings.Contains(line, "mitigations=off") {
		t.Error("a real CPU needs its mitigations")
	}
	if strings.Contains(line, "memory-backend") {
		t.Error("memory is shared with nobody")
	}
	vhost := spec
	vhost.Volumes = []drover.Attachment{{Transport: drover.TransportVhost, Socket: "/v,1.sock"}}
	line = strings.Join(d.arguments(vhost), " ")
	for _, want := range []string{"memory-backend=ram", `"qom-type":"memory-backend-memfd","share":true,"size":536870912`, `"export":"root_x@9"`,
		"socket,id=volume0,server=on,wait=off,path=/v,,1.sock", `"driver":"vhost-user-blk-pci"`, `"chardev":"volume0"`} {
		if !strings.Contains(line, want) {
			t.Errorf("the arguments lack %s:\n%s", want, line)
		}
	}
	d.accel, spec.Tap = drover.AccelTCG, ""
	line = strings.Join(d.arguments(spec), " ")
	for _, want := range []string{"-accel tcg,thread=multi,tb-size=256", "/guest/vmlinux ", "mitigations=off", "-netdev user,id=net"} {
		if !strings.Contains(line, want) {
			t.Errorf("the arguments lack %s:\n%s", want, line)
		}
	}
}
