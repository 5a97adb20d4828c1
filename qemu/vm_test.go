package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

const testID drover.MachineID = "0123456789abcd"

// TestLifeOfAVM boots in a directory whose name has everything that option syntax could trip over, and goes through a life: a second
// start, a second driver, a driver that lets go, a power-off.
func TestLifeOfAVM(t *testing.T) {
	run := runDir(t)
	m := newMachine(t, filepath.Join(runDir(t), `a,b=c d"é'%s`), testID, "echo up; hostname\n"+untilTold+"echo told; exit 0\n")
	d := newDriver(t, run)
	vm := start(t, d, m)
	m.waitConsole(t, "up")

	if _, err := d.Start(t.Context(), m.spec); !drover.Is(err, drover.Exists) {
		t.Errorf("a second start: %v", err)
	}
	again, err := d.Find(t.Context(), testID)
	if err != nil || again != vm {
		t.Errorf("found %p, %v, want %p", again, err, vm)
	}
	running, err := d.Running(t.Context())
	if err != nil || len(running) != 1 || running[0] != testID {
		t.Errorf("running %v %v", running, err)
	}
	if cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(vm.PID()) + "/stat"); err != nil || !strings.Contains(string(cmdline), "drover-vm") {
		t.Errorf("%s %v", cmdline, err)
	}
	if sid, err := unix.Getsid(vm.PID()); err != nil || sid != vm.PID() {
		t.Errorf("session %d %v", sid, err)
	}

	// The agent is replaced.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := vm.Kill(t.Context()); !drover.Is(err, drover.Unavailable) {
		t.Errorf("killing by a driver that let go: %v", err)
	}
	next := newDriver(t, run)
	if _, err := next.Start(t.Context(), m.spec); !drover.Is(err, drover.Exists) {
		t.Errorf("a start by the next driver: %v", err)
	}
	found, err := next.Find(t.Context(), testID)
	if err != nil || found.PID() != vm.PID() {
		t.Fatalf("found %+v, %v", found, err)
	}
	if at, _ := found.Ended(); !at.IsZero() {
		t.Error("it ended")
	}
	eventually(t, "the control socket is taken over", func() bool { found.mu.Lock(); defer found.mu.Unlock(); return found.qmp != nil })
	m.tell(t, "go")
	waitEnd(t, found, "guest-shutdown")
	if running, err := next.Running(t.Context()); err != nil || len(running) != 0 {
		t.Errorf("running %v %v", running, err)
	}
	if _, err := next.Find(t.Context(), testID); !drover.Is(err, drover.NotFound) {
		t.Errorf("find after the end: %v", err)
	}
	if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	vm.proc.reap() // this process is the parent, but its first driver let go
}

// startEnv makes the test binary start a machine and end, as an agent that is killed.
const startEnv = "DROVER_QEMU_TEST_START"

// TestHelperAgent is the other process of TestVMOutlivesItsAgent.
func TestHelperAgent(t *testing.T) {
	dir := os.Getenv(startEnv)
	if dir == "" {
		return // only of use to the other test
	}
	d, err := New(t.Context(), Config{RunDir: dir, GuestDir: guestDir(t), Accel: drover.AccelTCG})
	if err != nil {
		t.Fatal(err)
	}
	var spec drover.VMSpec
	if err := readJSON(filepath.Join(dir, "spec.json"), &spec); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {}
}

func TestVMOutlivesItsAgent(t *testing.T) {
	run := runDir(t)
	d := newDriver(t, run)
	m := newMachine(t, runDir(t), testID, "echo up; "+untilTold)
	if err := writeJSON(filepath.Join(run, "spec.json"), m.spec); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(os.Args[0], "-test.run=^TestHelperAgent$", "-test.v")
	agent.Env = append(os.Environ(), startEnv+"="+run)
	out, err := agent.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the agent: %v\n%s", err, out)
	}
	vm, err := d.Find(t.Context(), testID)
	if err != nil {
		t.Fatal(err)
	}
	m.waitConsole(t, "up")
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, vm, "killed")
	if err := vm.Kill(t.Context()); err != nil {
		t.Errorf("killing what is gone: %v", err)
	}
}

func TestStorageRestarts(t *testing.T) {
	m := newMachine(t, runDir(t), testID, `
i=1
while dd if=/dev/zero of=/dev/vdc bs=4k count=1 seek=$i conv=fsync 2>/dev/null; do echo wrote $i.; i=$((i+1)); sleep 0.1; done
echo failed at $i
`)
	d := newDriver(t, runDir(t))
	vm := start(t, d, m)
	m.waitConsole(t, "wrote 3.")
	m.volume.kill()
	m.root.kill()
	before := strings.Count(m.console(t), "wrote")
	m.root.start()
	m.volume.start()
	m.waitConsole(t, "wrote "+strconv.Itoa(before+5)+".")
	if text := m.console(t); strings.Contains(text, "failed at") || strings.Contains(text, "error") {
		t.Errorf("the guest noticed:\n%s", text)
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, vm, "killed")
}

func TestTwoStartsAtOnce(t *testing.T) {
	run := runDir(t)
	m := newMachine(t, runDir(t), testID, untilTold)
	drivers := []*Driver{newDriver(t, run), newDriver(t, run)}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		vms  []*VM
		errs []error
	)
	for i := range 6 {
		wg.Go(func() {
			vm, err := drivers[i%2].Start(t.Context(), m.spec)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				vms = append(vms, vm)
			}
		})
	}
	wg.Wait()
	if len(vms) != 1 {
		t.Fatalf("%d VMs, errors %v", len(vms), errs)
	}
	for _, err := range errs {
		wantCode(t, err, drover.Exists, string(testID))
	}
	// Somebody else ends it: the reason tells how.
	if err := syscall.Kill(vms[0].PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, vms[0], "QEMU ended by itself: signal: killed")
}

// TestLeftovers: what a lost VM leaves must not be mistaken for one, and no stranger must be touched.
func TestLeftovers(t *testing.T) {
	run := runDir(t)
	dir := filepath.Join(run, string(testID))
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stranger.Process.Kill(); err != nil {
			t.Error(err)
		}
		stranger.Wait() // killed
	})
	leave := func() {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{lockFile: "", pidFile: strconv.Itoa(stranger.Process.Pid) + "\n", qmpFile: "", opFile: ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	leave()
	d := newDriver(t, run)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the leftovers of a lost VM are still there: %v", err)
	}
	leave()
	if _, err := d.Find(t.Context(), testID); !drover.Is(err, drover.NotFound) {
		t.Errorf("find: %v", err)
	}
	if running, err := d.Running(t.Context()); err != nil || len(running) != 0 {
		t.Errorf("running: %v %v", running, err)
	}
	// The lock is held, but by no QEMU: not known is not the same as not running.
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	_, err = d.Find(t.Context(), testID)
	wantCode(t, err, drover.Unavailable, string(testID))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !alive(stranger.Process.Pid) {
		t.Error("a stranger was killed")
	}
	m := newMachine(t, runDir(t), testID, untilTold)
	vm := start(t, d, m)
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// QEMU waits for the storage daemon without a word; who started it does not.
func TestAStartTellsThatNobodyServesADisk(t *testing.T) {
	run := runDir(t)
	d := newDriver(t, run)
	d.startWait = time.Second
	m := newMachine(t, runDir(t), testID, "")
	socket := filepath.Join(t.TempDir(), "v.sock")
	m.spec.Volumes = []drover.Attachment{{Transport: drover.TransportVhost, Socket: socket}}
	_, err := d.Start(t.Context(), m.spec)
	wantCode(t, err, drover.Unavailable, socket)
	if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestStartErrors(t *testing.T) {
	run := runDir(t)
	d := newDriver(t, run)
	good := newMachine(t, runDir(t), testID, "")
	for name, c := range map[string]struct {
		change func(*drover.VMSpec)
		code   drover.Code
		words  string
	}{
		"evil ID":          {func(s *drover.VMSpec) { s.Machine = "../x" }, drover.Invalid, "../x"},
		"no memory":        {func(s *drover.VMSpec) { s.MemoryMB = 0 }, drover.Invalid, "0 MB"},
		"no CPU":           {func(s *drover.VMSpec) { s.CPUs = 0 }, drover.Invalid, "0 CPUs"},
		"no root":          {func(s *drover.VMSpec) { s.Root.Socket = "" }, drover.Invalid, "disk 0"},
		"bad MAC":          {func(s *drover.VMSpec) { s.MAC = "02:00" }, drover.Invalid, "02:00"},
		"relative path":    {func(s *drover.VMSpec) { s.LogPath = "log" }, drover.Invalid, `"log"`},
		"long socket":      {func(s *drover.VMSpec) { s.AgentSocket = "/" + strings.Repeat("x", 107) }, drover.Invalid, "107"},
		"evil tap":         {func(s *drover.VMSpec) { s.Tap = "t0,script=/x" }, drover.Invalid, "t0,script"},
		"many volumes":     {func(s *drover.VMSpec) { s.Volumes = make([]drover.Attachment, 99) }, drover.Invalid, "99 volumes"},
		"unknown export":   {func(s *drover.VMSpec) { s.Root.Export = "nope" }, drover.Unavailable, "nope"},
		"no transport":     {func(s *drover.VMSpec) { s.Root.Transport = "scsi" }, drover.Invalid, "scsi"},
		"no such tap":      {func(s *drover.VMSpec) { s.Tap = "no-such-tap0" }, drover.Precondition, "no-such-tap0"},
		"no config":        {func(s *drover.VMSpec) { s.ConfigPath = "/nowhere/config" }, drover.Unavailable, "/nowhere/config"},
		"no log directory": {func(s *drover.VMSpec) { s.LogPath = "/nowhere/log" }, drover.Unavailable, "/nowhere/log"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := good.spec
			c.change(&spec)
			_, err := d.Start(t.Context(), spec)
			wantCode(t, err, c.code, c.words)
			if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}
