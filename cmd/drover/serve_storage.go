package main

import (
	"context"
	"path/filepath"
	"runtime"
	"time"

	"drover"
	"drover/internal/hostconf"
	"drover/internal/sockets"
	"drover/volume"
)

// storageThreads is how many connections of VMs the storage daemon gives a thread of their own.
const storageThreads = 16

// serveStorage is the storage daemon of a host.
func serveStorage(ctx context.Context, p process) error {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + storageThreads) // as nbd.ServerConfig.Threads asks for
	inherited, err := sockets.Inherited(p.getenv)
	if err != nil {
		return err
	}
	// The connection is made in the background: volumes are served whether or not there is a bus.
	conn, err := connectBus(ctx, p, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	objects, err := newObjects(p.conf, conn, false)
	if err != nil {
		return err
	}
	return volume.Run(ctx, volume.Config{
		Host:         p.conf.ID,
		Dir:          filepath.Join(p.conf.DataDir, "storage"),
		RunDir:       p.conf.RunDir,
		NBD:          inherited,
		Listen:       p.conf.StorageListen,
		TLSDir:       p.conf.TLSDir,
		Floor:        drover.Bytes(p.conf.PoolFloorMB) * drover.MiB,
		RoomWait:     time.Duration(p.conf.PoolFullWait),
		Threads:      storageThreads,
		ParentWait:   time.Duration(p.conf.ParentTimeout),
		Objects:      objects,
		UploadLimit:  uploadLimit(p.conf),
		Log:          p.log,
		Uncompressed: p.conf.LinkCompression == hostconf.CompressionOff,
		Faults:       p.faults,
	})
}
