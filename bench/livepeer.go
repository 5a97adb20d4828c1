package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drover/guest"
	"drover/internal/testkit"
)

// peerMachine is the name of the peer's guest.
const peerMachine = "livepeerguest1"

// livePeer is a guest under QEMU alone, with the kernel, the load and the memory of Drover's, and raw files as disks.
type livePeer struct {
	setup
	size liveSize
	dir  string
}

// peerQEMU is one of its two QEMUs.
type peerQEMU struct {
	cmd *exec.Cmd
	qmp *peerQMP
	// ended is closed when the process is gone.
	ended chan struct{}
}

// peerMoves measures QEMU's own live migration with storage. Each run begins with a new guest.
func peerMoves(ctx context.Context, s setup, size liveSize) (runs liveRuns, err error) {
	for run := range s.runs {
		p := &livePeer{setup: s, size: size, dir: filepath.Join(s.dir, fmt.Sprintf("peer-%s-%d", size.name, run))}
		gap, left, bytes, err := p.measure(ctx)
		if err = errors.Join(err, os.RemoveAll(p.dir)); err != nil {
			return runs, fmt.Errorf("QEMU's own live migration: %w", err)
		}
		runs.gap, runs.left, runs.bytes = append(runs.gap, gap), append(runs.left, left), append(runs.bytes, bytes)
		fmt.Fprintf(s.log, "qemu %s: interruption %.0f ms, left after %.2f s\n", size.name, 1000*gap, left)
	}
	return runs, nil
}

// measure boots the guest, lets it fill its disk, and moves it.
func (p *livePeer) measure(ctx context.Context) (gap, left, bytes float64, err error) {
	if err := p.prepare(ctx); err != nil {
		return 0, 0, 0, err
	}
	src, err := p.start(ctx, "src")
	defer func() { err = errors.Join(err, src.end()) }()
	if err != nil {
		return 0, 0, 0, err
	}
	watch := testkit.NewWatch(p.dir, peerMachine)
	watching, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); watch.Run(watching) }()
	defer func() { cancel(); <-done }()
	err = testkit.Eventually(ctx, 10*time.Minute, "the fill of QEMU's guest", func() (bool, error) {
		select {
		case <-src.ended:
			return false, fmt.Errorf("the guest has ended: see its console, %s", p.file("src", "console"))
		default:
		}
		now := watch.Now()
		return now.Filled >= uint64(p.size.fillMiB)<<20/4096 && now.Acked > 0, now.Err
	})
	if err != nil {
		return 0, 0, 0, err
	}
	watch.ResetGap()
	begin := time.Now()
	dst, err := p.start(ctx, "dst", "-incoming", "defer", "-S")
	defer func() { err = errors.Join(err, dst.end()) }()
	if err != nil {
		return 0, 0, 0, err
	}
	if bytes, err = p.move(ctx, src.qmp, dst.qmp); err != nil {
		return 0, 0, 0, err
	}
	err = src.end()
	left = time.Since(begin).Seconds()
	if err == nil {
		err = pause(ctx, settleTime)
	}
	return watch.Now().Gap.Seconds(), left, bytes, err
}

// prepare makes the disks of both sides.
func (p *livePeer) prepare(ctx context.Context) error {
	tree := filepath.Join(p.dir, "tree")
	for _, name := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "run", "data"} {
		if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", filepath.Join(filepath.Dir(p.drover), "writer"), filepath.Join(tree, "bin/writer")).CombinedOutput(); err != nil {
		return fmt.Errorf("the writer is missing (make build): %w: %s", err, out)
	}
	for _, side := range []string{"src", "dst"} {
		if err := os.MkdirAll(filepath.Dir(p.log(side)), 0o755); err != nil {
			return err
		}
		for name, size := range map[string]int64{"root": 64 << 20, "data": int64(p.size.gib) << 30} {
			f, err := os.Create(p.file(side, name))
			if err != nil {
				return err
			}
			if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
				return err
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-d", tree, p.file("src", "root")).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs: %w: %s", err, out)
	}
	return guest.WriteConfig(filepath.Join(p.dir, "config"), guest.Config{Run: "1", Hostname: peerMachine,
		Argv:    []string{"/bin/writer", "run", "-fill", strconv.Itoa(p.size.fillMiB)},
		Volumes: []guest.Volume{{Name: "data", Path: "/data", MkFS: true}}, Network: guest.Network{User: true}})
}

// file is a disk of a side, log what its guest says: where testkit.Watch looks.
func (p *livePeer) file(side, name string) string { return filepath.Join(p.dir, side+"-"+name) }
func (p *livePeer) log(side string) string {
	return filepath.Join(p.dir, "hosts", side, "data", "machines", peerMachine, "log")
}

// start starts one of the two QEMUs, with the devices of Drover's VMs as far as the guest's work depends on them.
func (p *livePeer) start(ctx context.Context, side string, more ...string) (*peerQEMU, error) {
	dir, err := filepath.Abs("build/guest")
	if err != nil {
		return nil, err
	}
	args := []string{"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-name", peerMachine,
		"-machine", "pc,usb=off,vmport=off,smm=off", "-m", "128", "-smp", "1", "-boot", "strict=on"}
	accel, kernel, words := []string{"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,erms=off,fsrm=off"}, "vmlinux",
		"cryptomgr.notests initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init mitigations=off"
	if p.kvm(ctx) {
		accel, kernel, words = []string{"-accel", "kvm", "-cpu", "host"}, "vmlinuz", ""
	}
	args = append(append(args, accel...), "-kernel", filepath.Join(dir, kernel), "-initrd", filepath.Join(dir, "initrd.img"),
		"-append", strings.TrimSpace("console=ttyS0 quiet panic=-1 reboot=t pci=noacpi "+words),
		"-chardev", "file,id=console,path="+p.file(side, "console"), "-serial", "chardev:console",
		"-qmp", "unix:"+p.file(side, "qmp")+",server=on,wait=off", "-object", "iothread,id=io",
		"-device", "virtio-serial-pci,id=ports", "-chardev", "file,id=log,append=on,path="+p.log(side),
		"-device", "virtserialport,bus=ports.0,chardev=log,name=drover.log",
		"-chardev", "null,id=agent", "-device", "virtserialport,bus=ports.0,chardev=agent,name=drover.agent",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-chardev", "file,id=status,append=on,path="+p.file(side, "status"), "-device", "virtserialport,bus=ports.0,chardev=status,name=drover.status")
	for _, name := range []string{"root", "config", "data"} {
		path, readOnly := p.file(side, name), "off"
		if name == "config" {
			path, readOnly = filepath.Join(p.dir, "config"), "on"
		}
		args = append(args, "-blockdev", fmt.Sprintf("driver=file,filename=%s,node-name=%s-file,read-only=%s,discard=unmap,cache.direct=%s,aio=threads", path, name,
			readOnly, map[string]string{"on": "off", "off": "on"}[readOnly]),
			"-blockdev", fmt.Sprintf("driver=raw,file=%s-file,node-name=%s,read-only=%s,discard=unmap", name, name, readOnly),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,iothread=io", name, map[string]string{"root": "root", "config": "config", "data": "volume0"}[name]))
	}
	q := &peerQEMU{cmd: exec.CommandContext(ctx, "qemu-system-x86_64", append(args, more...)...)}
	q.cmd.Stderr = p.setup.log
	if err := q.cmd.Start(); err != nil {
		return nil, err
	}
	q.ended = make(chan struct{})
	go func() {
		_ = q.cmd.Wait() // it is killed at the end, or its guest has ended
		close(q.ended)
	}()
	err = testkit.Eventually(ctx, time.Minute, "QEMU's control socket", func() (bool, error) {
		q.qmp, err = dialPeer(p.file(side, "qmp"))
		return err == nil, nil
	})
	return q, err
}

// kvm reports whether Drover's VMs run under KVM here.
func (p *livePeer) kvm(ctx context.Context) bool {
	var hosts []struct {
		Accel string `json:"accel"`
	}
	cli := testkit.CLI{Bin: p.drover, Dir: filepath.Join(p.setup.dir, "fleet"), Stderr: p.setup.log}
	return cli.Ask(ctx, &hosts, "host", "list") == nil && len(hosts) > 0 && hosts[0].Accel == "kvm"
}

func (q *peerQEMU) end() error {
	if q == nil || q.ended == nil {
		return nil
	}
	if err := q.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-q.ended
	return nil
}

// move mirrors the disks, migrates the memory, and returns how many bytes travelled.
func (p *livePeer) move(ctx context.Context, src, dst *peerQMP) (bytes float64, err error) {
	port := freePort()
	steps := []peerCommand{
		{dst, "nbd-server-start", map[string]any{"addr": map[string]any{"type": "inet", "data": map[string]any{"host": "127.0.0.1", "port": port}}}},
	}
	disks := []string{"root", "data"}
	for _, d := range disks {
		server := map[string]any{"type": "inet", "host": "127.0.0.1", "port": port}
		steps = append(steps,
			peerCommand{dst, "block-export-add", map[string]any{"type": "nbd", "id": d, "node-name": d, "writable": true, "name": d}},
			peerCommand{src, "blockdev-add", map[string]any{"driver": "raw", "node-name": "to-" + d, "discard": "unmap", "detect-zeroes": "unmap",
				"file": map[string]any{"driver": "nbd", "server": server, "export": d}}},
			peerCommand{src, "blockdev-mirror", map[string]any{"job-id": "job-" + d, "device": d, "target": "to-" + d, "sync": "full"}})
	}
	if err := runPeer(steps); err != nil {
		return 0, err
	}
	jobs := func(want func(ready bool, n int) bool) error {
		return testkit.Eventually(ctx, 10*time.Minute, "QEMU's mirror", func() (bool, error) {
			var list []struct {
				Ready bool    `json:"ready"`
				Len   float64 `json:"len"`
			}
			err := src.ask(&list, "query-block-jobs", nil)
			ready, sum := true, 0.0
			for _, j := range list {
				ready, sum = ready && j.Ready, sum+j.Len
			}
			bytes = max(bytes, sum)
			return err == nil && want(ready, len(list)), err
		})
	}
	if err := jobs(func(ready bool, n int) bool { return ready && n == len(disks) }); err != nil {
		return 0, err
	}
	caps := map[string]any{"capabilities": []any{map[string]any{"capability": "pause-before-switchover", "state": true}}}
	at := "tcp:127.0.0.1:" + freePort()
	if err := runPeer([]peerCommand{{src, "migrate-set-capabilities", caps},
		{src, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(10) << 30, "downtime-limit": 300}},
		{dst, "migrate-incoming", map[string]any{"uri": at}}, {src, "migrate", map[string]any{"uri": at}}}); err != nil {
		return 0, err
	}
	if _, err := src.migrated(ctx, "pre-switchover"); err != nil {
		return 0, err
	}
	for _, d := range disks {
		if err := src.ask(nil, "block-job-cancel", map[string]any{"device": "job-" + d}); err != nil {
			return 0, err
		}
	}
	if err := jobs(func(_ bool, n int) bool { return n == 0 }); err != nil {
		return 0, err
	}
	if err := src.ask(nil, "migrate-continue", map[string]any{"state": "pre-switchover"}); err != nil {
		return 0, err
	}
	ram, err := src.migrated(ctx, "completed")
	if err == nil {
		_, err = dst.migrated(ctx, "completed")
	}
	if err != nil {
		return 0, err
	}
	return bytes + ram, runPeer([]peerCommand{{dst, "nbd-server-stop", nil}, {dst, "cont", nil}})
}

// freePort finds a port that nobody listens on now.
func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer l.Close() // nobody has connected
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// peerQMP is a client of QEMU's control socket that asks one thing at a time.
type peerQMP struct {
	conn net.Conn
	in   *json.Decoder
}

type peerCommand struct {
	to        *peerQMP
	name      string
	arguments any
}

func runPeer(steps []peerCommand) error {
	for _, s := range steps {
		if err := s.to.ask(nil, s.name, s.arguments); err != nil {
			return err
		}
	}
	return nil
}

func dialPeer(path string) (*peerQMP, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	q := &peerQMP{conn: conn, in: json.NewDecoder(conn)}
	var greeting struct{ QMP any }
	if err := q.in.Decode(&greeting); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return q, q.ask(nil, "qmp_capabilities", nil)
}

// ask runs one command; events that come before its answer are passed over.
func (q *peerQMP) ask(answer any, name string, arguments any) error {
	request := map[string]any{"execute": name}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return err
	}
	for {
		var m struct {
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		switch err := q.in.Decode(&m); {
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case m.Event != "":
		case m.Error != nil:
			return fmt.Errorf("%s: %s", name, m.Error.Desc)
		case answer == nil:
			return nil
		default:
			return json.Unmarshal(m.Return, answer)
		}
	}
}

// migrated waits for a state of the migration, and returns how much memory was sent.
func (q *peerQMP) migrated(ctx context.Context, want string) (sent float64, err error) {
	for {
		var info struct {
			Status string `json:"status"`
			Reason string `json:"error-desc"`
			RAM    struct {
				Transferred float64 `json:"transferred"`
			} `json:"ram"`
		}
		if err := q.ask(&info, "query-migrate", nil); err != nil {
			return 0, err
		}
		switch {
		case info.Status == want:
			return info.RAM.Transferred, nil
		case info.Status == "failed":
			return 0, fmt.Errorf("the migration failed: %s", info.Reason)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
}
