package qemu

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover"
)

// eventually polls a condition. Boots are slow on an emulated CPU that others use, too.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never happened: " + what)
		}
	}
}

// export serves a raw image over NBD as the storage daemon would.
type export struct {
	t    *testing.T
	file string
	at   drover.Attachment
	cmd  *exec.Cmd
}

func serve(t *testing.T, dir, name string, file string) *export {
	t.Helper()
	e := &export{t: t, file: file, at: drover.Attachment{Socket: filepath.Join(dir, name+".sock"), Export: name + "@7"}}
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *export) start() {
	e.t.Helper()
	e.cmd = exec.Command("qemu-nbd", "--persistent", "--shared=0", "--discard=unmap", "--export-name="+e.at.Export, "--socket="+e.at.Socket,
		"--image-opts", "driver=raw,file.driver=file,file.locking=off,file.filename="+escape(e.file))
	e.cmd.Stderr = e.t.Output()
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	eventually(e.t, "the NBD server listens", func() bool { _, err := os.Stat(e.at.Socket); return err == nil })
}

func (e *export) kill() {
	if e.cmd.ProcessState != nil {
		return
	}
	if err := e.cmd.Process.Kill(); err != nil {
		e.t.Error(err)
	}
	e.cmd.Wait() // killed: the status says nothing
	if err := os.Remove(e.at.Socket); err != nil {
		e.t.Error(err)
	}
}

// machine is a VM to be, with all its files in one directory.
type machine struct {
	dir    string
	spec   drover.VMSpec
	root   *export
	volume *export
}

// newMachine makes a machine that runs a shell script, which has the console as its output.
func newMachine(t *testing.T, dir string, id drover.MachineID, script string) *machine {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	for _, name := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "run"} {
		if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"bin/busybox": busybox, "bin/main": []byte("#!/bin/busybox sh\nexec >/dev/ttyS0 2>&1\n" +
		"export PATH=/bin\n/bin/busybox --install -s /bin\n" + script)} {
		if err := os.WriteFile(filepath.Join(tree, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rootFile, volumeFile := filepath.Join(dir, "root.img"), filepath.Join(dir, "volume.img")
	for _, f := range []string{rootFile, volumeFile} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f, 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-d", tree, rootFile).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v %s", err, out)
	}
	config, err := json.Marshal(map[string]any{"version": 1, "run": "1", "hostname": "test", "argv": []string{"/bin/main"}})
	if err != nil {
		t.Fatal(err)
	}
	configFile := filepath.Join(dir, "config.img")
	if err := os.WriteFile(configFile, append(config, make([]byte, 512-len(config)%512)...), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: dir, root: serve(t, dir, "r", rootFile), volume: serve(t, dir, "v", volumeFile)}
	m.spec = drover.VMSpec{Machine: id, CPUs: 1, MemoryMB: 192, Root: m.root.at, Volumes: []drover.Attachment{m.volume.at}, MAC: id.MAC(),
		ConfigPath: configFile, ConsolePath: filepath.Join(dir, "console"), LogPath: filepath.Join(dir, "log"),
		StatusPath: filepath.Join(dir, "status"), AgentSocket: filepath.Join(dir, "agent")}
	return m
}

func (m *machine) console(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(m.spec.ConsolePath)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// waitConsole waits until the guest has printed the text.
func (m *machine) waitConsole(t *testing.T, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("console:\n%s", m.console(t))
		}
	}()
	eventually(t, "the guest prints "+text, func() bool { return strings.Contains(m.console(t), text) })
}

// tell writes a word to the start of the volume, where the guest's script looks.
func (m *machine) tell(t *testing.T, word string) {
	t.Helper()
	f, err := os.OpenFile(m.volume.file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(word), 0); err != nil {
		t.Fatal(err)
	}
}

// untilTold is a script that waits for the word.
const untilTold = `
until [ "$(dd if=/dev/vdc bs=1 count=2 2>/dev/null)" = go ]; do
	blockdev --flushbufs /dev/vdc; sleep 0.2
done
`

// newDriver makes a Driver for TCG or what the host has; its VMs are killed at the end of the test.
func newDriver(t *testing.T, dir string) *Driver {
	t.Helper()
	d, err := New(t.Context(), Config{RunDir: dir, GuestDir: guestDir(t), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		running, err := d.Running(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, id := range running {
			vm, err := d.Find(ctx, id)
			if err != nil {
				t.Errorf("cannot clean up %s: %v", id, err)
				continue
			}
			if err := vm.Kill(ctx); err != nil {
				t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func start(t *testing.T, d *Driver, m *machine) *VM {
	t.Helper()
	vm, err := d.Start(t.Context(), m.spec)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// waitEnd waits for the VM's end and checks the reason.
func waitEnd(t *testing.T, vm *VM, reason string) {
	t.Helper()
	select {
	case <-vm.Done():
	case <-time.After(90 * time.Second):
		t.Fatal("the VM does not end")
	}
	at, got := vm.Ended()
	if at.IsZero() || !strings.HasPrefix(got, reason) {
		t.Errorf("ended at %v: %q, want %q", at, got, reason)
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// wantCode checks the code and words of an error.
func wantCode(t *testing.T, err error, code drover.Code, words ...string) {
	t.Helper()
	if !drover.Is(err, code) {
		t.Fatalf("got %v (%s), want %s", err, drover.CodeOf(err), code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error lacks %q: %v", w, err)
		}
	}
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
