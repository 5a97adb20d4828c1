package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"drover"
	"drover/guest"
	"drover/internal/testkit"
	"drover/qemu"
)

const (
	guestMachine drover.MachineID = "benchguest0001"
	guestDisk                     = drover.GiB
)

// guestRig is a storage daemon, qemu-storage-daemon, and a VM that has disks from both.
type guestRig struct {
	setup
	daemon *daemon
	qsd    *exec.Cmd
	driver *qemu.Driver
	spec   drover.VMSpec
}

// measureGuest measures disks from inside an emulated guest, in turn: Drover's vhost-user-blk, Drover's NBD and qemu-storage-daemon's
// vhost-user-blk, each over a file of its own with the same content. Then the storage daemon is killed and started again under load.
func measureGuest(ctx context.Context, s setup) (results []result, err error) {
	r := &guestRig{setup: s}
	defer func() { err = errors.Join(err, r.close(context.WithoutCancel(ctx))) }()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	lines, err := r.boot(ctx, []string{"/bin/load", "bench", "-runs", fmt.Sprint(s.runs), "/dev/vdc", "/dev/vdd", "/dev/vde"}, func(context.Context) error { return nil })
	if err != nil {
		return nil, err
	}
	results = compareDisks(lines)
	for disk, name := range map[string]string{"/dev/vdc": "vhost", "/dev/vdd": "nbd"} {
		var gaps []float64
		for range s.runs {
			lines, err := r.boot(ctx, []string{"/bin/load", "gap", "-time", "6s", disk}, r.restartDaemon)
			if err != nil {
				return results, err
			}
			for _, l := range lines {
				gaps = append(gaps, l.GapMs/1000)
			}
		}
		results = append(results, compare("guest.restart."+name, "s", "lower", "limit", gaps, []float64{1}))
	}
	return results, nil
}

// guestLine is a line of bench/load's output.
type guestLine struct {
	Disk, Work   string
	Ops, MiBps   float64
	P99us, GapMs float64
	Count        int
}

// compareDisks makes results of what the guest measured.
func compareDisks(lines []guestLine) (results []result) {
	values := map[string][]float64{}
	var works []string
	for _, l := range lines {
		key := l.Work + l.Disk
		if len(values[key]) == 0 && l.Disk == "/dev/vdc" {
			works = append(works, l.Work)
		}
		values[key] = append(values[key], l.Ops)
		values["p99"+key] = append(values["p99"+key], l.P99us)
	}
	for _, w := range works {
		for i, disk := range []string{"/dev/vdc", "/dev/vdd"} {
			name := []string{"vhost", "nbd"}[i]
			results = append(results, compare("guest."+name+"."+w, "1/s", "higher", "qemu-storage-daemon vhost-user-blk", values[w+disk], values[w+"/dev/vde"]),
				compare("guest."+name+"."+w+".p99", "us", "lower", "qemu-storage-daemon vhost-user-blk", values["p99"+w+disk], values["p99"+w+"/dev/vde"]))
		}
	}
	return results
}

// prepare makes the disks and the VM's files, and starts both daemons.
func (r *guestRig) prepare(ctx context.Context) (err error) {
	if r.daemon, err = startDaemon(ctx, r.setup, "a"); err != nil {
		return err
	}
	raw := filepath.Join(r.dir, "raw")
	if err := writeData(raw, guestDisk); err != nil {
		return err
	}
	root, err := r.rootImage(ctx)
	if err != nil {
		return err
	}
	r.spec = drover.VMSpec{Machine: guestMachine, CPUs: 1, MemoryMB: 256, MAC: guestMachine.MAC(), ConfigPath: filepath.Join(r.dir, "config"),
		ConsolePath: filepath.Join(r.dir, "console"), LogPath: filepath.Join(r.dir, "log"), StatusPath: filepath.Join(r.dir, "status"),
		AgentSocket: filepath.Join(r.dir, "agent")}
	if r.spec.Root, err = r.layer(ctx, drover.LayerID(drover.RootDisk(guestMachine)), root, 64*drover.MiB, drover.TransportNBD); err != nil {
		return err
	}
	for id, t := range map[drover.LayerID]drover.Transport{"vol_vhost": drover.TransportVhost, "vol_nbd": drover.TransportNBD} {
		at, err := r.layer(ctx, id, raw, guestDisk, t)
		if err != nil {
			return err
		}
		r.spec.Volumes = append(r.spec.Volumes, at)
	}
	if r.spec.Volumes[0].Transport != drover.TransportVhost {
		r.spec.Volumes[0], r.spec.Volumes[1] = r.spec.Volumes[1], r.spec.Volumes[0]
	}
	socket := filepath.Join(r.dir, "qsd.sock")
	r.qsd = exec.CommandContext(ctx, "qemu-storage-daemon", "--blockdev", "driver=file,node-name=f,discard=unmap,filename="+raw,
		"--export", "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,writable=on,addr.path="+socket)
	r.qsd.Stderr = r.log
	if err := r.qsd.Start(); err != nil {
		return err
	}
	listens := filepath.Join(r.dir, "peer.sock") // where the VM waits for its disk
	go relayVhost(ctx, listens, socket)
	r.spec.Volumes = append(r.spec.Volumes, drover.Attachment{Transport: drover.TransportVhost, Socket: listens})
	guestDir, err := filepath.Abs("build/guest")
	if err != nil {
		return err
	}
	r.driver, err = qemu.New(ctx, qemu.Config{RunDir: filepath.Join(r.dir, "vm"), GuestDir: guestDir})
	return err
}

// layer makes a layer with a raw file's content, and opens it.
func (r *guestRig) layer(ctx context.Context, id drover.LayerID, raw string, size drover.Bytes, t drover.Transport) (at drover.Attachment, err error) {
	if _, err := r.daemon.CreateLayer(ctx, drover.LayerSpec{ID: id, Disk: drover.DiskID(id), Size: size}); err != nil {
		return at, err
	}
	if at, err = r.daemon.Open(ctx, id, 1); err != nil {
		return at, err
	}
	uri := "nbd+unix:///" + at.Export + "?socket=" + at.Socket
	if out, err := exec.CommandContext(ctx, "nbdcopy", "--connections=1", "--flush", "--destination-is-zero", raw, uri).CombinedOutput(); err != nil {
		return at, fmt.Errorf("nbdcopy to the layer: %w: %s", err, out)
	}
	return at.Over(t)
}

// rootImage makes a file system with the load program.
func (r *guestRig) rootImage(ctx context.Context) (string, error) {
	tree, file := filepath.Join(r.dir, "tree"), filepath.Join(r.dir, "root")
	for _, name := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "run"} {
		if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
			return "", err
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", filepath.Join(filepath.Dir(r.drover), "load"), filepath.Join(tree, "bin/load")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("the load program is missing (make build): %w: %s", err, out)
	}
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(int64(64*drover.MiB)), f.Close()); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-d", tree, file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mkfs: %w: %s", err, out)
	}
	return file, nil
}

// boot runs a command in the guest until the guest ends, and returns what it said. meanwhile is called when it has begun.
func (r *guestRig) boot(ctx context.Context, argv []string, meanwhile func(context.Context) error) (lines []guestLine, err error) {
	if err := os.Remove(r.spec.LogPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := guest.WriteConfig(r.spec.ConfigPath, guest.Config{Run: "1", Hostname: string(guestMachine), Argv: argv}); err != nil {
		return nil, err
	}
	vm, err := r.driver.Start(ctx, r.spec)
	if err != nil {
		return nil, err
	}
	ready := func() (bool, error) {
		if at, reason := vm.Ended(); !at.IsZero() {
			return false, fmt.Errorf("the VM ended: %s", reason)
		}
		text, err := os.ReadFile(r.spec.LogPath)
		return err == nil && len(text) > 0, nil
	}
	err = testkit.Eventually(ctx, time.Minute, "the load in the guest", ready)
	if err == nil {
		err = meanwhile(ctx)
	}
	if err == nil {
		err = testkit.Eventually(ctx, 20*time.Minute, "the end of the guest", func() (bool, error) {
			select {
			case <-vm.Done():
				return true, nil
			default:
				return false, nil
			}
		})
	}
	if err != nil {
		console, _ := os.ReadFile(r.spec.ConsolePath)
		status, _ := os.ReadFile(r.spec.StatusPath)
		return nil, errors.Join(fmt.Errorf("%w: %s %s", err, console, status), vm.Kill(ctx))
	}
	said, _, err := guest.ReadLog(r.spec.LogPath, 0, 10000, 1<<20)
	if err != nil {
		return nil, err
	}
	for _, l := range said {
		var line guestLine
		if !strings.HasPrefix(l.Text, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(l.Text), &line); err != nil {
			return nil, err
		}
		fmt.Fprintln(r.log, l.Text)
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("the guest measured nothing: %v", said)
	}
	return lines, nil
}

// restartDaemon kills the storage daemon under load and starts it again.
func (r *guestRig) restartDaemon(ctx context.Context) error {
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return r.daemon.restart(ctx)
}

// restart kills the daemon and starts it again, with its first command line.
func (d *daemon) restart(ctx context.Context) error {
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = d.cmd.Wait() // killed
	again := exec.Command(d.cmd.Path, d.cmd.Args[1:]...)
	if err := again.Start(); err != nil {
		return err
	}
	d.cmd = again
	return testkit.Eventually(ctx, 10*time.Second, "the restart of the storage daemon", func() (bool, error) {
		_, err := d.Layers(ctx)
		return err == nil, nil
	})
}

// writeData makes a file of random data without holes.
func writeData(path string, size drover.Bytes) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{2}), int64(size))
	return err
}

func (r *guestRig) close(ctx context.Context) error {
	var errs []error
	if r.driver != nil {
		if vm, err := r.driver.Find(ctx, guestMachine); err == nil {
			errs = append(errs, vm.Kill(ctx))
		}
		errs = append(errs, r.driver.Close())
	}
	if r.qsd != nil && r.qsd.Process != nil {
		errs = append(errs, r.qsd.Process.Kill())
		_ = r.qsd.Wait() // killed
	}
	if r.daemon != nil {
		errs = append(errs, r.daemon.stop())
	}
	return errors.Join(errs...)
}
