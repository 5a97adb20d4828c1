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
	peers  []*exec.Cmd
	driver *qemu.Driver
	spec   drover.VMSpec
}

// guestTime is how long a guest measures one workload on one disk before it goes on to the next, and guestRounds how often it does so for each of
// the runs that were asked for: what disturbs a shared machine lasts longer than a round, so that it disturbs all disks.
const (
	guestTime   = 300 * time.Millisecond
	guestRounds = 8
)

// measureGuest measures disks from inside an emulated guest, in turn: Drover's vhost-user-blk, Drover's NBD and qemu-storage-daemon's
// vhost-user-blk, each over a file of its own with the same content.
func measureGuest(ctx context.Context, s setup) (results []result, err error) {
	r := &guestRig{setup: s}
	defer func() { err = errors.Join(err, r.close(context.WithoutCancel(ctx))) }()
	if err := r.prepare(ctx, guestPeers()); err != nil {
		return nil, err
	}
	argv := []string{"/bin/load", "bench", "-runs", fmt.Sprint(guestRounds * s.runs), "-time", guestTime.String()}
	for i := range r.spec.Volumes {
		argv = append(argv, guestDevice(i))
	}
	lines, err := r.boot(ctx, argv, func(context.Context) error { return nil })
	if err != nil {
		return nil, err
	}
	return compareDisks(lines, guestPeers()), nil
}

// measureRestart kills the storage daemon and starts it again while a guest writes.
func measureRestart(ctx context.Context, s setup) (results []result, err error) {
	r := &guestRig{setup: s}
	defer func() { err = errors.Join(err, r.close(context.WithoutCancel(ctx))) }()
	if err := r.prepare(ctx, nil); err != nil {
		return nil, err
	}
	for i, name := range []string{"vhost", "nbd"} {
		var gaps []float64
		for range s.runs {
			lines, err := r.boot(ctx, []string{"/bin/load", "gap", "-time", "6s", guestDevice(i)}, r.restartDaemon)
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

// guestDevice is what the i-th volume is called in the guest, behind the root disk and its configuration.
func guestDevice(i int) string { return "/dev/vd" + string(rune('c'+i)) }

// guestLine is a line of bench/load's output.
type guestLine struct {
	Disk, Work   string
	Ops, MiBps   float64
	P99us, GapMs float64
	Count        int
}

// compareDisks makes results of what the guest measured. The first two disks are Drover's, the others the peers'. Each workload is compared with the
// peer that has the better median at it, by the median of the ratios of all rounds.
func compareDisks(lines []guestLine, peers []guestPeer) (results []result) {
	ops, p99 := map[string][]float64{}, map[string][]float64{}
	var works []string
	for _, l := range lines {
		key := l.Work + l.Disk
		if len(ops[key]) == 0 && l.Disk == guestDevice(0) {
			works = append(works, l.Work)
		}
		ops[key], p99[key] = append(ops[key], l.Ops), append(p99[key], l.P99us)
	}
	for _, w := range works {
		best := 0
		for i := range peers {
			if median(ops[w+guestDevice(2+i)]) > median(ops[w+guestDevice(2+best)]) {
				best = i
			}
		}
		peer, name := w+guestDevice(2+best), "qemu-storage-daemon "+peers[best].name
		for i, transport := range []string{"vhost", "nbd"} {
			row, key := "guest."+transport+"."+w, w+guestDevice(i)
			results = append(results, comparePairs(row, "1/s", "higher", name, ops[key], ops[peer]),
				comparePairs(row+".p99", "us", "lower", name, p99[key], p99[peer]))
		}
	}
	return results
}

// prepare makes the disks and the VM's files, and starts both daemons.
func (r *guestRig) prepare(ctx context.Context, peers []guestPeer) (err error) {
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
	for _, p := range peers {
		if err := r.addPeer(ctx, p, raw); err != nil {
			return err
		}
	}
	guestDir, err := filepath.Abs("build/guest")
	if err != nil {
		return err
	}
	r.driver, err = qemu.New(ctx, qemu.Config{RunDir: filepath.Join(r.dir, "vm"), GuestDir: guestDir})
	return err
}

// layer makes a layer with a raw file's content, and opens it.
func (r *guestRig) layer(ctx context.Context, id drover.LayerID, raw string, size drover.Bytes, t drover.Transport) (at drover.Attachment, err error) {
	if _, err := r.daemon.fillVolume(ctx, id, raw, size); err != nil {
		return at, err
	}
	if at, err = r.daemon.Open(ctx, id, 1); err != nil {
		return at, err
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
	if err := d.begin(nil, d.cmd.Args...); err != nil {
		return err
	}
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
	for _, p := range r.peers {
		errs = append(errs, p.Process.Kill())
		_ = p.Wait() // killed
	}
	if r.daemon != nil {
		errs = append(errs, r.daemon.stop())
	}
	return errors.Join(errs...)
}
