package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/fleetca"
	"drover/internal/hostconf"
	"drover/internal/testkit"
	"drover/internal/testkit/s3server"
	"drover/natsbus"
	"drover/s3store"
)

const (
	snapshotSize = drover.GiB
	snapshotData = 512 * drover.MiB
	// plainWorkers is how many objects the peer sends or gets at the same time, as many as Drover does.
	plainWorkers = 4
)

// measureSnapshots takes a volume of random data into an object store and back, with each kind of store that there is, and sends and
// gets the same bytes as plain objects of 1 MiB by the same library. Both ways back end with the data durable in a file.
func measureSnapshots(ctx context.Context, s setup) (results []result, err error) {
	raw := filepath.Join(s.dir, "raw")
	if err := writeRandom(raw, snapshotSize, snapshotData); err != nil {
		return nil, err
	}
	for name, start := range map[string]func(context.Context, setup) (*objectPeer, error){"bus": startBusStore, "s3": startS3Store} {
		peer, err := start(ctx, s)
		if err != nil {
			return nil, err
		}
		got, err := measureStore(ctx, s, name, raw, peer)
		if err = errors.Join(err, peer.stop()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		results = append(results, got...)
	}
	return results, nil
}

// objectPeer is a store that a daemon can be told to use, and that the bench uses itself.
type objectPeer struct {
	store drover.ObjectStore
	tune  func(*hostconf.Config)
	stop  func() error
}

// startBusStore starts a bus in this process, with what a fleet has on it.
func startBusStore(ctx context.Context, s setup) (*objectPeer, error) {
	ca, err := fleetca.Ensure(filepath.Join(s.dir, "ca"))
	if err != nil {
		return nil, err
	}
	certs := filepath.Join(s.dir, "bus-tls")
	if err := fleetca.IssueHost(ca, certs, "c1", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil); err != nil {
		return nil, err
	}
	serverTLS, err := fleetca.ServerConfig(certs)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	server, err := natsbus.StartServer(natsbus.ServerConfig{Name: "c1", Host: "127.0.0.1", StoreDir: filepath.Join(s.dir, "bus"), TLS: serverTLS, Log: quiet})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(server.ClientURL())
	if err != nil {
		return nil, err
	}
	at := "nats://" + u.Host
	conn, err := natsbus.Connect(ctx, natsbus.Config{InProcess: server, Name: "bench", Log: quiet})
	if err == nil {
		_, err = natsbus.OpenBucket[drover.Volume](ctx, conn, natsbus.BucketVolumes, natsbus.BucketOptions{})
	}
	if err != nil {
		server.Shutdown()
		return nil, err
	}
	store := natsbus.NewObjects(conn, natsbus.StreamSnapshots, natsbus.ObjectOptions{})
	store.Ensure(ctx) // hosts may not make it
	return &objectPeer{
		store: store,
		tune:  func(c *hostconf.Config) { c.Bus.URLs = []string{at} },
		stop:  func() error { conn.Close(); server.Shutdown(); return nil },
	}, nil
}

// startS3Store starts an S3 server.
func startS3Store(ctx context.Context, s setup) (*objectPeer, error) {
	server, err := s3server.New(filepath.Join(s.dir, "s3"), "", "")
	if err == nil {
		err = server.Start(ctx)
	}
	if err != nil {
		return nil, err
	}
	store, err := s3store.New(s3store.Config{Endpoint: server.Endpoint, Bucket: s3server.Bucket, CredentialsFile: server.CredentialsFile, PathStyle: true})
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return &objectPeer{store: store, stop: server.Stop, tune: func(c *hostconf.Config) {
		c.ObjectStore = &hostconf.ObjectStore{S3: &hostconf.S3{Endpoint: server.Endpoint, Bucket: s3server.Bucket, CredentialsFile: server.CredentialsFile, PathStyle: true}}
	}}, nil
}

func measureStore(ctx context.Context, s setup, name, raw string, peer *objectPeer) (_ []result, err error) {
	d, err := startDaemon(ctx, s, "snap-"+name, peer.tune)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := d.fillVolume(ctx, "vol_bench", raw, snapshotSize); err != nil {
		return nil, err
	}
	if _, err := d.Freeze(ctx, "vol_bench"); err != nil {
		return nil, err
	}
	var up, plainUp, down, plainDown []float64
	for run := range s.runs {
		src, took, err := d.uploadSnapshot(ctx, run)
		if err != nil {
			return nil, err
		}
		put, get, err := plainObjects(ctx, s.dir, raw, peer.store, fmt.Sprintf("plain/%d/", run))
		if err != nil {
			return nil, err
		}
		back, err := d.restoreSnapshot(ctx, run, src)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(s.log, "%s run %d: upload %.2f s, plain %.2f s; restore %.2f s, plain %.2f s\n", name, run+1, took.Seconds(), put.Seconds(), back.Seconds(), get.Seconds())
		up, plainUp = append(up, mibPerSecond(snapshotData, took)), append(plainUp, mibPerSecond(snapshotData, put))
		down, plainDown = append(down, mibPerSecond(snapshotData, back)), append(plainDown, mibPerSecond(snapshotData, get))
	}
	return []result{
		compare("snapshot.upload."+name, "MiB/s", "higher", "the same bytes put as plain objects", up, plainUp),
		compare("snapshot.restore."+name, "MiB/s", "higher", "plain objects got into a file", down, plainDown),
	}, nil
}

// uploadSnapshot takes the frozen layer into the store, under the name of a volume of its own, so that nothing is there yet.
func (d *daemon) uploadSnapshot(ctx context.Context, run int) (*drover.SnapshotSource, time.Duration, error) {
	n := strconv.Itoa(run)
	src := &drover.SnapshotSource{Snapshot: drover.SnapshotID("vs_" + n), Volume: drover.VolumeID("vol_" + n)}
	began := time.Now()
	status, err := d.Upload(ctx, "vol_bench", *src)
	if err != nil {
		return nil, 0, err
	}
	err = testkit.Eventually(ctx, 5*time.Minute, "the upload", func() (bool, error) {
		status, err = d.Layer(ctx, "vol_bench")
		return err == nil && status.Upload.Done, err
	})
	if err != nil {
		return nil, 0, errors.Join(err, fmt.Errorf("the upload is %+v", status.Upload))
	}
	src.Manifest, src.Size, src.Data = status.Upload.Manifest, status.Size, status.Upload.Total
	return src, time.Since(began), nil
}

// restoreSnapshot fills a new layer from the store.
func (d *daemon) restoreSnapshot(ctx context.Context, run int, src *drover.SnapshotSource) (time.Duration, error) {
	id := drover.LayerID(fmt.Sprintf("vol_back.%d", run))
	if _, err := d.CreateLayer(ctx, drover.LayerSpec{ID: id, Disk: "vol_back", Size: src.Size, Snapshot: src}); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := d.Hydrate(ctx, id, 0); err != nil {
		return 0, err
	}
	err := testkit.Eventually(ctx, 5*time.Minute, "the restore", func() (bool, error) {
		status, err := d.Layer(ctx, id)
		return err == nil && status.Hydration.Done, err
	})
	took := time.Since(began)
	return took, errors.Join(err, d.Delete(ctx, id))
}

// plainObjects puts the data of the raw file into the store, a MiB an object, and gets it into another file, durably.
func plainObjects(ctx context.Context, dir, raw string, store drover.ObjectStore, prefix string) (put, get time.Duration, err error) {
	from, err := os.Open(raw)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	path := filepath.Join(dir, "plain")
	to, err := os.Create(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, to.Close(), os.Remove(path)) }()
	const step = int64(snapshotSize / snapshotData * drover.MiB)
	each := func(do func(ctx context.Context, off int64, name string) error) (time.Duration, error) {
		began := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(plainWorkers)
		for off := int64(0); off < int64(snapshotSize); off += step {
			group.Go(func() error { return do(ctx, off, prefix+strconv.FormatInt(off, 10)) })
		}
		err := group.Wait()
		return time.Since(began), err
	}
	put, err = each(func(ctx context.Context, off int64, name string) error {
		buf := make([]byte, drover.MiB)
		if _, err := from.ReadAt(buf, off); err != nil {
			return err
		}
		return store.Put(ctx, name, buf)
	})
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	_, err = each(func(ctx context.Context, off int64, name string) error {
		buf, err := store.Get(ctx, name)
		if err != nil {
			return err
		}
		_, err = to.WriteAt(buf, off)
		return err
	})
	err = errors.Join(err, to.Sync())
	return put, time.Since(began), err
}
