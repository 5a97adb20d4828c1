package main

import (
	"context"
	"path/filepath"
	"time"

	"drover"
	"drover/volume"
)

// serveStorage is the storage daemon of a host.
func serveStorage(ctx context.Context, p process) error {
	return volume.Run(ctx, volume.Config{
		Host:       p.conf.ID,
		Dir:        filepath.Join(p.conf.DataDir, "storage"),
		RunDir:     p.conf.RunDir,
		Listen:     p.conf.StorageListen,
		TLSDir:     p.conf.TLSDir,
		Floor:      drover.Bytes(p.conf.PoolFloorMB) * drover.MiB,
		ParentWait: time.Duration(p.conf.ParentTimeout),
		Log:        p.log,
		Faults:     p.faults,
	})
}
