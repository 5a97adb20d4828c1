package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"drover"
	"drover/internal/fleetca"
	"drover/internal/hostconf"
	"drover/internal/testkit"
	"drover/volume"
)

// measureHydration fills a layer from another storage daemon over TLS, both processes of their own on this machine, and copies
// the same data with nbdcopy from qemu-nbd to a file. Both end with the data durable.
func measureHydration(ctx context.Context, s setup) (results []result, err error) {
	const (
		size = 4 * drover.GiB
		data = 2 * drover.GiB
	)
	source, err := startDaemon(ctx, s, "a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	target, err := startDaemon(ctx, s, "b")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.stop()) }()

	raw := filepath.Join(s.dir, "raw")
	if err := writeRandom(raw, size, data); err != nil {
		return nil, err
	}
	export, err := source.offer(ctx, raw, size, "b")
	if err != nil {
		return nil, err
	}
	var drovers, peers, copied, allocated []float64
	for run := range s.runs {
		status, took, err := target.hydrate(ctx, drover.LayerID(fmt.Sprintf("vol_bench.%d", run)), export)
		if err != nil {
			return nil, err
		}
		peer, err := nbdcopy(ctx, s.dir, raw)
		if err != nil {
			return nil, err
		}
		drovers, peers = append(drovers, mibPerSecond(data, took)), append(peers, mibPerSecond(data, peer))
		copied, allocated = append(copied, float64(status.Hydration.Copied)), append(allocated, float64(export.Allocated))
		fmt.Fprintf(s.log, "run %d: hydration %.2f s, nbdcopy %.2f s\n", run+1, took.Seconds(), peer.Seconds())
	}
	return []result{
		compare("hydrate.speed", "MiB/s", "higher", "nbdcopy from qemu-nbd to a file", drovers, peers),
		compare("hydrate.bytes", "B", "lower", "allocated", copied, allocated),
	}, nil
}

func mibPerSecond(n drover.Bytes, d time.Duration) float64 {
	return float64(n/drover.MiB) / d.Seconds()
}

// daemon is a storage daemon of the bench, in a process of its own.
type daemon struct {
	*volume.Client
	address string
	socket  string
	cmd     *exec.Cmd
}

func startDaemon(ctx context.Context, s setup, id string) (*daemon, error) {
	dir := filepath.Join(s.dir, id)
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	conf := hostconf.Config{ID: drover.HostID(id), Region: "bench", Roles: []drover.Role{drover.RoleWorker}, Address: "127.0.0.1",
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), TLSDir: filepath.Join(dir, "tls"), StorageListen: address,
		Bus: hostconf.Bus{URLs: []string{"nats://127.0.0.1:1"}}}
	ca, err := fleetca.Ensure(filepath.Join(s.dir, "ca"))
	if err != nil {
		return nil, err
	}
	if err := fleetca.IssueHost(ca, conf.TLSDir, conf.ID, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "host.json")
	if err := errors.Join(os.MkdirAll(conf.DataDir, 0o700), os.MkdirAll(conf.RunDir, 0o700), hostconf.Save(path, conf)); err != nil {
		return nil, err
	}
	d := &daemon{Client: volume.NewClient(filepath.Join(conf.RunDir, "storage.sock")), address: address, socket: filepath.Join(conf.RunDir, "nbd.sock"),
		cmd: exec.Command(s.drover, "serve", "storage", "--config", path)}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	d.cmd.Stderr = log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	var last error
	err = testkit.Eventually(ctx, 10*time.Second, "the start of the storage daemon", func() (bool, error) {
		_, last = d.Layers(ctx)
		return last == nil, nil
	})
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("%w: %w: %s", err, last, said), d.stop(), log.Close())
	}
	return d, log.Close()
}

func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return d.cmd.Wait()
}

// offer makes a frozen layer with the raw file's content and exports it to a host.
func (d *daemon) offer(ctx context.Context, raw string, size drover.Bytes, to drover.HostID) (*drover.Export, error) {
	const layer = "vol_bench"
	if _, err := d.CreateLayer(ctx, drover.LayerSpec{ID: layer, Disk: layer, Size: size}); err != nil {
		return nil, err
	}
	at, err := d.Open(ctx, layer, 1)
	if err != nil {
		return nil, err
	}
	uri := "nbd+unix:///" + at.Export + "?socket=" + at.Socket
	if out, err := exec.CommandContext(ctx, "nbdcopy", "--connections=1", "--flush", "--destination-is-zero", raw, uri).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("nbdcopy to the layer: %w: %s", err, out)
	}
	status, err := d.Freeze(ctx, layer)
	if err != nil {
		return nil, err
	}
	return &drover.Export{Disk: layer, Layer: layer, Size: size, Host: "a", Address: d.address, Name: layer, Allocated: status.Allocated},
		d.Export(ctx, layer, to)
}

// hydrate fills a new layer from the export, tells how long it took, and removes it.
func (d *daemon) hydrate(ctx context.Context, id drover.LayerID, from *drover.Export) (status drover.LayerStatus, took time.Duration, err error) {
	if _, err := d.CreateLayer(ctx, drover.LayerSpec{ID: id, Disk: from.Disk, Size: from.Size, Parent: from, Cipher: from.Cipher}); err != nil {
		return status, 0, err
	}
	began := time.Now()
	if err := d.Hydrate(ctx, id, 0); err != nil {
		return status, 0, err
	}
	err = testkit.Eventually(ctx, 5*time.Minute, "hydration", func() (bool, error) {
		status, err = d.Layer(ctx, id)
		return err == nil && status.Hydration.Done, err
	})
	took = time.Since(began)
	return status, took, errors.Join(err, d.Delete(ctx, id))
}

// nbdcopy copies the raw file from qemu-nbd over a unix socket to a new file, durably, and removes it.
func nbdcopy(ctx context.Context, dir, raw string) (time.Duration, error) {
	socket, to := filepath.Join(dir, "q.sock"), filepath.Join(dir, "copy")
	server := exec.CommandContext(ctx, "qemu-nbd", "-k", socket, "-f", "raw", "-r", "-t", "-e", "8", raw)
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
		os.Remove(to)
	}()
	if err := testkit.Eventually(ctx, 10*time.Second, "the start of qemu-nbd", func() (bool, error) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	}); err != nil {
		return 0, err
	}
	began := time.Now()
	out, err := exec.CommandContext(ctx, "nbdcopy", "--flush", "nbd+unix:///?socket="+socket, to).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("nbdcopy from qemu-nbd: %w: %s", err, out)
	}
	return time.Since(began), nil
}

// writeRandom makes a sparse file with random data in every other MiB, until there is enough of it.
func writeRandom(path string, size, data drover.Bytes) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	random, buf := rand.NewChaCha8([32]byte{1}), make([]byte, drover.MiB)
	for at := int64(0); at < int64(2*data); at += 2 * int64(drover.MiB) {
		if _, err := random.Read(buf); err != nil {
			return err
		}
		if _, err := f.WriteAt(buf, at); err != nil {
			return err
		}
	}
	return nil
}

// freeAddress returns a loopback address that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
