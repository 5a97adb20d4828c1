package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
	"drover/guest/initrd"
)

// bootDeadline is generous: a busy machine without KVM takes its time.
const bootDeadline = 60 * time.Second

// sector is what QEMU counts a disk in.
const sector = 512

// commandLine is what doc.go recommends for machine type "pc" under TCG.
const commandLine = "console=ttyS0 quiet panic=-1 reboot=t pci=noacpi cryptomgr.notests mitigations=off " +
	"initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init"

// shared is what all boots of a test run have in common: the initial RAM disk of the drover-init as it is now, and a root disk.
type shared struct {
	once                sync.Once
	dir                 string
	kernel, image, root string
	err                 error
}

var parts shared

func TestMain(m *testing.M) {
	code := m.Run()
	if parts.dir != "" {
		if err := os.RemoveAll(parts.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// build makes the shared parts.
func (s *shared) build() error {
	var err error
	if s.dir, err = os.MkdirTemp("", "drover-guest-test-"); err != nil {
		return err
	}
	s.kernel, s.image, s.root = "../build/guest/vmlinux", filepath.Join(s.dir, "initrd.img"), filepath.Join(s.dir, "root.img")
	if _, err := os.Stat(s.kernel); err != nil {
		return fmt.Errorf("there is no guest kernel (run script/bootstrap): %w", err)
	}
	// "go test" remembers results by the files that a test reads: so that it sees a change of drover-init, read it.
	sources, err := filepath.Glob("../cmd/drover-init/*.go")
	if err != nil {
		return err
	}
	for _, file := range sources {
		if _, err := os.ReadFile(file); err != nil {
			return err
		}
	}
	program := filepath.Join(s.dir, "init")
	build := exec.Command("go", "build", "-tags", "netgo,osusergo", "-ldflags", "-s -w", "-o", program, "drover/cmd/drover-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build drover-init: %w\n%s", err, out)
	}
	var c initrd.Contents
	if c.Init, err = os.ReadFile(program); err != nil {
		return err
	}
	if c.Modules, err = initrd.Modules("../build/guest/modules"); err != nil {
		return err
	}
	if c.Tools, err = initrd.ReadTools("/sbin"); err != nil {
		return err
	}
	var image bytes.Buffer
	if err := initrd.Write(&image, c); err != nil {
		return err
	}
	if err := os.WriteFile(s.image, image.Bytes(), 0o600); err != nil {
		return err
	}
	return s.buildRoot()
}

// buildRoot makes a root disk of a static busybox.
func (s *shared) buildRoot() error {
	tree := filepath.Join(s.dir, "tree")
	for _, dir := range []string{"bin", "etc", "data", "var/own"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("there is no static busybox (run script/bootstrap): %w", err)
	}
	for name, file := range map[string]struct {
		data string
		mode os.FileMode
	}{
		"bin/busybox": {string(box), 0o755},
		"bin/nothing": {"this is no program\n", 0o755},
		"bin/lost":    {"#!/bin/there-is-no-such-shell\n", 0o755},
		"bin/plain":   {"not executable\n", 0o644},
		"etc/passwd":  {"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n", 0o644},
		"etc/group":   {"root:x:0:\nann:x:1001:\nextra:x:1234:ann,bob\n", 0o644},
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(file.data), file.mode); err != nil {
			return err
		}
	}
	for applet := range strings.FieldsSeq("sh echo cat sleep id pwd ls stat seq httpd nc kill mkdir touch sync df head dd env " +
		"hostname ip wc true false yes grep sed printf nohup test date od tr mount ps dmesg ping") {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", applet)); err != nil {
			return err
		}
	}
	if err := os.Chown(filepath.Join(tree, "var/own"), 1000, 1001); err != nil {
		return err
	}
	if err := os.Truncate(s.root, 0); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(s.root, nil, 0o600); err != nil {
			return err
		}
	}
	if err := os.Truncate(s.root, 64<<20); err != nil {
		return err
	}
	out, err := exec.Command("/sbin/mkfs.ext4", "-q", "-F", "-d", tree, "-E", "lazy_itable_init=1", s.root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make a root disk: %w\n%s", err, out)
	}
	return nil
}

// vm is one boot.
type vm struct {
	t                           *testing.T
	dir                         string
	socket, log, status, serial string
	cmd                         *exec.Cmd
	stderr                      bytes.Buffer
	ended                       chan struct{}
	// seen are the status events up to next.
	seen []guest.StatusEvent
	next int64
}

// vmOptions are what differs between boots; the zero value will do.
type vmOptions struct {
	// dir is where the files are; a new one if empty. Status and log of an earlier boot there go on.
	dir string
	// root is a root disk that is written to; if empty the shared one is used and what is written is lost.
	root    string
	volumes []string
	// refused is where the first volume takes no writes, an offset in bytes, as a host that is full would; 0 for nowhere.
	refused int64
	args    []string
}

// boot starts a VM, which ends with the test at the latest.
func boot(t *testing.T, cfg guest.Config, o vmOptions) *vm {
	t.Helper()
	parts.once.Do(func() { parts.err = parts.build() })
	if parts.err != nil {
		t.Fatal(parts.err)
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	v := &vm{t: t, dir: o.dir, socket: filepath.Join(o.dir, "agent"), log: filepath.Join(o.dir, "log"),
		status: filepath.Join(o.dir, "status"), serial: filepath.Join(o.dir, "console"), ended: make(chan struct{})}
	if cfg.Run == "" {
		cfg.Run = t.Name()
	}
	config := filepath.Join(o.dir, "config.img")
	if err := guest.WriteConfig(config, cfg); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(v.status); err == nil {
		v.next = st.Size()
	}
	rootDrive := "file=" + parts.root + ",snapshot=on"
	if o.root != "" {
		rootDrive = "file=" + o.root
	}
	args := []string{"-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "256M", "-smp", "1", "-display", "none",
		"-nodefaults", "-no-user-config", "-no-reboot", "-kernel", parts.kernel, "-initrd", parts.image, "-append", commandLine,
		"-serial", "file:" + v.serial,
		"-drive", "if=none,id=root,format=raw,discard=unmap," + rootDrive, "-device", "virtio-blk-pci,drive=root,serial=root",
		"-drive", "if=none,id=config,format=raw,readonly=on,file=" + config,
		"-device", "virtio-blk-pci,drive=config,serial=config"}
	for i, path := range o.volumes {
		file := "file=" + path
		if i == 0 && o.refused > 0 { // QEMU would stop the VM by itself
			file = fmt.Sprintf("werror=report,file.driver=blkdebug,file.image.filename=%s,file.inject-error.0.event=none,file.inject-error.0.iotype=write,"+
				"file.inject-error.0.errno=%d,file.inject-error.0.sector=%d", path, unix.ENOSPC, o.refused/sector)
		}
		args = append(args, "-drive", fmt.Sprintf("if=none,id=v%d,format=raw,discard=unmap,%s", i, file),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=v%d,serial=%s", i, guest.VolumeSerial(i)))
	}
	args = append(args, "-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,server=on,wait=off,path="+v.socket, "-device", "virtserialport,chardev=agent,name=drover.agent",
		"-chardev", "file,id=log,append=on,path="+v.log, "-device", "virtserialport,chardev=log,name=drover.log",
		"-chardev", "file,id=status,append=on,path="+v.status, "-device", "virtserialport,chardev=status,name=drover.status",
		"-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci")
	v.cmd = exec.Command("qemu-system-x86_64", append(args, o.args...)...)
	v.cmd.Stderr = &v.stderr
	if err := v.cmd.Start(); err != nil {
		t.Fatalf("cannot start QEMU (run script/bootstrap): %v", err)
	}
	go func() {
		defer close(v.ended)
		v.cmd.Wait() // how it ended is seen in the status file
	}()
	t.Cleanup(func() {
		v.cmd.Process.Kill() // it may have ended
		<-v.ended
		if t.Failed() {
			v.dump()
		}
	})
	return v
}

// dump shows what is known about a boot that went wrong.
func (v *vm) dump() {
	for _, path := range []string{v.status, v.log, v.serial} {
		data, err := os.ReadFile(path)
		v.t.Logf("%s: %v\n%s", filepath.Base(path), err, data[:min(len(data), 8000)])
	}
	v.t.Logf("QEMU: %s", v.stderr.String())
}

// errFound ends a TailStatus.
var errFound = errors.New("found")

// wait returns the next event of the kind.
func (v *vm) wait(kind string) guest.StatusEvent {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), bootDeadline)
	defer cancel()
	var found guest.StatusEvent
	err := guest.TailStatus(ctx, v.status, v.next, func(ev guest.StatusEvent, next int64) error {
		v.next = next
		v.seen = append(v.seen, ev)
		if ev.Event == kind {
			found = ev
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		v.t.Fatalf("no event %q: %v; seen %+v", kind, err, v.seen)
	}
	return found
}

// waitEnd returns when the VM is gone.
func (v *vm) waitEnd() {
	v.t.Helper()
	select {
	case <-v.ended:
	case <-time.After(bootDeadline):
		v.t.Fatal("the VM does not end")
	}
}

// lines returns all lines of the log, as "stream: text".
func (v *vm) lines() []string {
	v.t.Helper()
	var all []string
	for offset := int64(0); ; {
		lines, next, err := guest.ReadLog(v.log, offset, 1000, 1<<20)
		if err != nil {
			v.t.Fatal(err)
		}
		for _, l := range lines {
			all = append(all, l.Stream+": "+l.Text)
		}
		if next == offset {
			return all
		}
		offset = next
	}
}

// dial connects to the guest.
func (v *vm) dial() *guest.Client {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), bootDeadline)
	defer cancel()
	c, err := guest.Dial(ctx, v.socket)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { c.Close() }) // it may be closed
	return c
}

// sh runs a shell command in the guest.
func sh(t *testing.T, c *guest.Client, script string) drover.ExecResult {
	t.Helper()
	res, err := c.Exec(t.Context(), drover.ExecRequest{Command: []string{"sh", "-c", script}, Timeout: bootDeadline})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// disk makes an empty raw disk.
func disk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}
