package dev

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover"
	"drover/volume"
)

func TestFleetLivesAndLeavesNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		dir := shortDir(t)
		before := lookAround(t, dir)
		f := bringUp(t, dir, mode)
		awaitRegistered(t, f, "h1", "h2", "h3")
		s := status(t, f)
		if !s.Up || s.Mode != mode || !s.APIAnswers || len(s.Hosts) != 4 {
			t.Errorf("status: %+v", s)
		}
		for _, h := range s.Hosts {
			if h.State != "up" || h.Link != "ok" || !alive(h.PID) {
				t.Errorf("host: %+v", h)
			}
			for _, service := range h.Services {
				if service.PID == 0 || !alive(service.PID) {
					t.Errorf("host %s, service: %+v", h.ID, service)
				}
			}
		}
		pids := paths(dir).fleetMembers().members()
		if len(pids) < 1+4+1+3*4 { // the rack, the hosts, control, and storage, worker and two orphans on each worker
			t.Errorf("processes: %v", pids)
		}
		spaces := namespaces(pids)
		if mode == ModeNamespaces && len(spaces) < 2+4*4 {
			t.Errorf("namespaces: %v", spaces)
		}
		if _, err := Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Wait: patience}); err != nil {
			t.Fatalf("up of a fleet that is up: %v", err)
		}
		if now := status(t, f); now.RackPID != s.RackPID || starts(t, f, "h1") != 1 {
			t.Error("up of a fleet that is up started something")
		}
		for range 2 {
			if err := f.Down(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			checkNothingLeft(t, dir, before, pids, spaces)
		}
		if s := status(t, f); s.Up || s.Hosts[0].State != "off" {
			t.Errorf("status of a fleet that is down: %+v", s)
		}
		f = bringUp(t, dir, mode)
		awaitRegistered(t, f, "h1", "h2", "h3")
		if n := starts(t, f, "h1"); n != 2 {
			t.Errorf("the worker of h1 was started %d times and should remember 2", n)
		}
		if err := f.Down(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("purge left %s: %v", dir, err)
		}
	})
}

func TestDownAfterEverythingWasKilled(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		dir := shortDir(t)
		before := lookAround(t, dir)
		f := bringUp(t, dir, mode)
		pids := paths(dir).fleetMembers().members()
		spaces := namespaces(pids)
		// Whoever kills by the program's name misses the VMs, which are another program.
		drovers := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !hasVariable(pid, envMark+"="+dir) })
		if len(drovers) == len(pids) {
			t.Error("no process is like a VM")
		}
		if err := killAll(drovers); err != nil {
			t.Fatal(err)
		}
		<-f.rackEnded
		for range 2 {
			if err := Down(t.Context(), dir, false); err != nil {
				t.Fatal(err)
			}
			checkNothingLeft(t, dir, before, pids, spaces)
		}
		f = bringUp(t, dir, mode)
		awaitRegistered(t, f, "h1", "h2", "h3")
	})
}

func TestUpAfterTheRackWasKilled(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		dir := shortDir(t)
		f := bringUp(t, dir, mode)
		pids := paths(dir).fleetMembers().members()
		if err := unix.Kill(status(t, f).RackPID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f = bringUp(t, dir, mode) // at once: the rest may still be about to end
		awaitRegistered(t, f, "h1", "h2", "h3")
		for _, pid := range pids {
			if alive(pid) {
				t.Errorf("process %d of the first fleet is left", pid)
			}
		}
	})
}

func TestKillIsAPowerCut(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		f := bringUp(t, shortDir(t), mode)
		awaitRegistered(t, f, "h1", "h2", "h3")
		h := host(t, f, "h2")
		if data, err := os.ReadFile(filepath.Join(h.RunDir, "vm.pid")); err != nil || len(data) == 0 {
			t.Fatalf("the run directory cannot be seen: %v", err)
		}
		all := descendants(h.PID)
		if len(all) < 5 {
			t.Errorf("processes of h2: %v", all)
		}
		for range 2 {
			if err := f.Kill(t.Context(), "h2"); err != nil {
				t.Fatal(err)
			}
			for _, pid := range all {
				if alive(pid) {
					t.Errorf("process %d of h2 is left", pid)
				}
			}
		}
		if h := host(t, f, "h2"); h.State != "off" || h.Why != "killed" {
			t.Errorf("h2: %+v", h)
		}
		awaitRegistered(t, f, "h1", "h3")
		if entries, err := os.ReadDir(f.p.run("h2", ModeLoopback)); err == nil {
			t.Errorf("the run directory outlived the power cut: %v", entries)
		}
		for range 2 {
			if err := f.Start(t.Context(), "h2"); err != nil {
				t.Fatal(err)
			}
		}
		awaitRegistered(t, f, "h1", "h2", "h3")
		if n := starts(t, f, "h2"); n != 2 {
			t.Errorf("the worker of h2 was started %d times and should remember 2", n)
		}
		if err := f.Kill(t.Context(), "h9"); !drover.Is(err, drover.NotFound) {
			t.Errorf("kill of a host that is not there: %v", err)
		}
	})
}

func TestControlHostComesBackOnItsPort(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		f := bringUp(t, shortDir(t), mode)
		before, err := ReadAPIInfo(f.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Kill(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp", strings.TrimPrefix(before.URL, "http://")); err == nil {
			t.Error("somebody listens on the API's port of a control host without power")
		}
		if err := f.Start(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
		awaitRegistered(t, f, "h1", "h2", "h3")
		if after, err := ReadAPIInfo(f.Dir()); err != nil || after != before {
			t.Errorf("the API was %v and is %v, %v", before, after, err)
		}
		if err := f.KillService(t.Context(), "c1", "control"); err != nil {
			t.Fatal(err)
		}
		awaitRegistered(t, f, "h1", "h2", "h3")
	})
}

func TestServicesAreStartedAgain(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		f := bringUp(t, shortDir(t), mode)
		vm := descendants(host(t, f, "h1").PID)
		before := starts(t, f, "h1")
		if err := f.KillService(t.Context(), "h1", "worker"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the worker is started again", func() bool { return starts(t, f, "h1") == before+1 })
		kept := 0
		for _, pid := range vm {
			if alive(pid) {
				kept++
			}
		}
		if kept != len(vm)-1 {
			t.Errorf("%d of %d processes are left; only the worker should have ended", kept, len(vm))
		}
		if err := f.KillService(t.Context(), "h1", "boss"); !drover.Is(err, drover.NotFound) {
			t.Errorf("kill of a service that is not there: %v", err)
		}
	})
}

// Who connects to a host's volumes is answered, whether the storage daemon runs just now or not, but not while the host has no power.
func TestTheSocketOfVolumesOutlivesTheDaemon(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		f := bringUp(t, shortDir(t), mode)
		socket := func() string { return volume.NBDSocket(host(t, f, "h1").RunDir) }
		answered := func(when string) {
			t.Helper()
			conn, err := net.Dial("unix", socket())
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			defer conn.Close()
			if said, err := io.ReadAll(conn); err != nil || string(said) != "h1\n" {
				t.Errorf("%s: answered %q, %v", when, said, err)
			}
		}
		kill := func() {
			t.Helper()
			if err := f.KillService(t.Context(), "h1", "storage"); err != nil {
				t.Fatal(err)
			}
		}
		answered("after the start")
		for range 3 {
			kill()
			answered("after the daemon was killed")
		}
		old := socket()
		if err := f.Kill(t.Context(), "h1"); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("unix", old); err == nil {
			t.Error("a host without power is connected to")
		}
		if err := f.Start(t.Context(), "h1"); err != nil {
			t.Fatal(err)
		}
		answered("after a power cut")
		if err := os.Remove(socket()); err != nil {
			t.Fatal(err)
		}
		kill()
		eventually(t, "the socket that was removed is made anew", func() bool {
			conn, err := net.Dial("unix", socket())
			if err != nil {
				return false
			}
			conn.Close()
			return true
		})
		answered("after the socket was removed")
	})
}

func TestFaultsStrike(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		f := bringUp(t, shortDir(t), mode)
		if err := f.Fault("h3", "worker.start", "host"); err != nil {
			t.Fatal(err)
		}
		if err := f.KillService(t.Context(), "h3", "worker"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "h3 loses its power", func() bool { return host(t, f, "h3").State == "off" })
		if h := host(t, f, "h3"); h.Why != "power cut (fault)" {
			t.Errorf("h3: %+v", h)
		}
		if err := f.Fault("h3", "worker.start", "process"); err != nil {
			t.Fatal(err)
		}
		if err := f.Start(t.Context(), "h3"); err != nil {
			t.Fatal(err)
		}
		awaitRegistered(t, f, "h1", "h2", "h3")
		eventually(t, "the worker died once", func() bool {
			return slices.ContainsFunc(host(t, f, "h3").Services, func(s ServiceStatus) bool { return s.Name == "worker" && s.Restarts == 1 })
		})
		if err := f.Fault("h3", "../worker.start", "process"); !drover.Is(err, drover.Invalid) {
			t.Errorf("a fault outside of the directory: %v", err)
		}
	})
}

func TestExecRunsInsideTheHost(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		f := bringUp(t, shortDir(t), mode)
		out, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Fatal(err)
		}
		in, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		code, err := f.Exec(t.Context(), "h1", []string{"/bin/sh", "-c", "ls $DROVER_RUN_DIR; exit 7"}, in, out, out)
		if err != nil || code != 7 {
			t.Fatalf("exit code %d, %v", code, err)
		}
		printed, err := os.ReadFile(out.Name())
		if err != nil || !bytes.Contains(printed, []byte("nbd.sock")) {
			t.Errorf("printed %q, %v", printed, err)
		}
		if _, err := f.Exec(t.Context(), "h1", []string{"/no/such/program"}, in, out, out); !drover.Is(err, drover.Invalid) {
			t.Errorf("a program that is not there: %v", err)
		}
		here, there, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := f.Exec(ctx, "h1", []string{"/bin/sh", "-c", "sleep 1000 & echo begun; wait"}, in, there, out)
			there.Close()
			ended <- err
		}()
		lines := bufio.NewReader(here)
		if line, err := lines.ReadString('\n'); line != "begun\n" {
			t.Fatalf("%q, %v", line, err)
		}
		cancel()
		if err := <-ended; !drover.Is(err, drover.Canceled) {
			t.Errorf("a command that was given up: %v", err)
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 { // ends when nobody can write there any more
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestFleetGrows(t *testing.T) {
	dir := shortDir(t)
	f := bringUp(t, dir, ModeLoopback)
	if _, err := Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Workers: 4, Wait: patience}); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h1", "h2", "h3", "h4")
	if _, err := Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Workers: 2}); !drover.Is(err, drover.Precondition) {
		t.Errorf("a fleet that shrinks: %v", err)
	}
	if _, err := Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Mode: ModeNamespaces}); !drover.Is(err, drover.Precondition) {
		t.Errorf("another mode while it is up: %v", err)
	}
}

func TestTakenPortIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := shortDir(t)
	t.Cleanup(func() {
		if err := Down(context.WithoutCancel(t.Context()), dir, false); err != nil {
			t.Error(err)
		}
	})
	port := l.Addr().(*net.TCPAddr).Port
	if _, err := Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Mode: ModeLoopback, APIPort: &port}); !drover.Is(err, drover.Conflict) {
		t.Fatal(err)
	}
}

func TestCommandsOnAFleetThatIsDown(t *testing.T) {
	dir := shortDir(t)
	if _, err := Open(dir); !drover.Is(err, drover.NotFound) {
		t.Errorf("open: %v", err)
	}
	if err := Down(t.Context(), dir, false); err != nil {
		t.Errorf("down: %v", err)
	}
	f := bringUp(t, dir, ModeLoopback)
	if err := f.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"kill": f.Kill(t.Context(), "h1"), "start": f.Start(t.Context(), "h1"), "cut": f.Cut(t.Context(), "h1"),
		"kill service": f.KillService(t.Context(), "h1", "worker")} {
		if !drover.Is(err, drover.Precondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPurgeSparesOtherDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), dir, true); !drover.Is(err, drover.Precondition) {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("left: %v", got)
	}
}
