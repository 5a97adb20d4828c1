package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"drover"
	"drover/apiv1"
)

// killService sends SIGKILL to a service of a host and waits until another process has taken its place.
func killService(t *testing.T, host, role string) {
	t.Helper()
	old := servicePID(host, role)
	if old == 0 {
		t.Fatalf("no %s runs on %s", role, host)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, boundBoot, "the next "+role+" of "+host, func() bool {
		now := servicePID(host, role)
		return now != 0 && now != old
	})
}

// servicePID finds `drover serve ROLE` of a host in the process table.
func servicePID(host, role string) int {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte("\x00serve\x00"+role+"\x00")) ||
			!bytes.Contains(line, []byte(filepath.Join(fleet.cli.Dir, "hosts", host)+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			return pid
		}
	}
	return 0
}

func TestGuestsDoNotNoticeTheDeathOfAnyDaemon(t *testing.T) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	boot := w.Now().Boot
	for _, victim := range [][2]string{{"h1", "worker"}, {"h1", "storage"}, {"c1", "control"}, {"h1", "storage"}} {
		killService(t, victim[0], victim[1])
		w.goesOn(t)
		if now := w.Now().Boot; now != boot {
			t.Fatalf("after the death of %s on %s the machine started again", victim[1], victim[0])
		}
	}
	eventually(t, boundBoot, "the control side", func() bool {
		var m drover.Machine
		return fleet.cli.Ask(t.Context(), &m, "machine", "show", string(w.id)) == nil
	})
	eventually(t, boundBoot, "exec through the new agent", func() bool {
		return fleet.cli.Ask(t.Context(), nil, "machine", "exec", string(w.id), "--", "true") == nil
	})
	w.intact(t)
}

func TestPowerCutOfAHost(t *testing.T) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	stopped := shell(t, app, "exec sleep 100000", "--host", "h1")
	run(t, "machine", "stop", string(stopped.ID))
	boot := w.Now().Boot
	run(t, "dev", "kill", "h1")
	eventually(t, boundBoot, "the host's status", func() bool {
		for _, h := range ask[[]drover.HostInfo](t, "host", "list") {
			if h.ID == "h1" {
				return h.Status == drover.HostUnreachable
			}
		}
		return false
	})
	if m := machine(t, w.id); m.HostStatus != drover.HostUnreachable {
		t.Errorf("the machine's host status is %q", m.HostStatus)
	}
	run(t, "dev", "start", "h1")
	w.comesBack(t, boot) // nobody asked for it
	w.intact(t)
	if m := machine(t, stopped.ID); m.State != drover.StateStopped {
		t.Errorf("the stopped machine is %s", m.State)
	}
}

func TestMachinesRunWhileTheControlHostIsDown(t *testing.T) {
	app := newApp(t)
	v := ask[apiv1.Volume](t, "volume", "create", "records", "--app", app, "--host", "h2", "--size", "1GiB", "--no-encryption")
	w := writerOn(t, app, v.ID)
	sealed := ask[apiv1.Volume](t, "volume", "create", "sealed", "--app", app, "--host", "h2", "--size", "1GiB")
	m := shell(t, app, "exec sleep 100000", "--volume", string(sealed.ID)+":/data")
	run(t, "dev", "kill", "c1")
	w.goesOn(t)
	boot := w.Now().Boot
	// The worker host loses its power, too: it starts its machines without asking anybody, but for the keys of encrypted volumes, which
	// only a control host has.
	run(t, "dev", "kill", "h2")
	run(t, "dev", "start", "h2")
	w.comesBack(t, boot)
	run(t, "dev", "start", "c1")
	eventually(t, boundBoot, "the machine whose key was not to be had", func() bool {
		return fleet.cli.Ask(t.Context(), nil, "machine", "exec", string(m.ID), "--", "ls", "/data/lost+found") == nil
	})
	eventually(t, boundBoot, "the control side", func() bool {
		return fleet.cli.Ask(t.Context(), nil, "machine", "show", string(w.id)) == nil
	})
	w.intact(t)
}
