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
	"drover/internal/sockets"
	"drover/internal/testkit"
	"drover/volume"
)

// daemon is a storage daemon of the bench, in a process of its own.
type daemon struct {
	*volume.Client
	address string
	socket  string
	cmd     *exec.Cmd
	// nbd is the socket that VMs connect to, which outlives the daemon as under a supervisor.
	nbd *sockets.Held
}

func startDaemon(ctx context.Context, s setup, id string, edits ...func(*hostconf.Config)) (*daemon, error) {
	dir := filepath.Join(s.dir, id)
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	conf := hostconf.Config{ID: drover.HostID(id), Region: "bench", Roles: []drover.Role{drover.RoleWorker}, Address: "127.0.0.1",
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), TLSDir: filepath.Join(dir, "tls"), StorageListen: address,
		Bus: hostconf.Bus{URLs: []string{"nats://127.0.0.1:1"}}}
	for _, edit := range edits {
		edit(&conf)
	}
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
	d := &daemon{Client: volume.NewClient(filepath.Join(conf.RunDir, "storage.sock")), address: address, socket: volume.NBDSocket(conf.RunDir)}
	d.nbd = sockets.Hold(d.socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	if err := d.begin(log, s.drover, "serve", "storage", "--config", path); err != nil {
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

// begin starts the daemon's process.
func (d *daemon) begin(log *os.File, argv ...string) error {
	socket, err := d.nbd.File()
	if err != nil {
		return err
	}
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Env, d.cmd.ExtraFiles = append(os.Environ(), sockets.Env("nbd")...), []*os.File{socket}
	if log != nil {
		d.cmd.Stderr = log
	}
	return d.cmd.Start()
}

func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return errors.Join(d.cmd.Wait(), d.nbd.Close())
}

// fillVolume makes a layer, opens it, and copies the raw file into it, so that all of it is in the page cache and on the disk. It
// returns the URI of the export.
func (d *daemon) fillVolume(ctx context.Context, layer drover.LayerID, raw string, size drover.Bytes) (string, error) {
	if _, err := d.CreateLayer(ctx, drover.LayerSpec{ID: layer, Disk: drover.DiskID(layer), Size: size}); err != nil {
		return "", err
	}
	at, err := d.Open(ctx, layer, 1)
	if err != nil {
		return "", err
	}
	uri := nbdUnixURI(at.Socket, at.Export)
	if out, err := exec.CommandContext(ctx, "nbdcopy", "--connections=1", "--flush", "--destination-is-zero", raw, uri).CombinedOutput(); err != nil {
		return "", fmt.Errorf("nbdcopy to the layer: %w: %s", err, out)
	}
	return uri, nil
}

// offer makes a frozen layer with the raw file's content and exports it to a host.
func (d *daemon) offer(ctx context.Context, layer drover.LayerID, raw string, size drover.Bytes, to drover.HostID) (*drover.Export, error) {
	if _, err := d.fillVolume(ctx, layer, raw, size); err != nil {
		return nil, err
	}
	status, err := d.Freeze(ctx, layer)
	if err != nil {
		return nil, err
	}
	return &drover.Export{Disk: drover.DiskID(layer), Layer: layer, Size: size, Host: "a", Address: d.address, Name: string(layer), Allocated: status.Allocated},
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

// writeRandom makes a file with random data spread evenly over it, a MiB at a time. data divides size.
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
	for at, step := int64(0), int64(size/data*drover.MiB); at < int64(size); at += step {
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
