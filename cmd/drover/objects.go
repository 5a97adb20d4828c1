package main

import (
	"drover"
	"drover/internal/hostconf"
	"drover/natsbus"
	"drover/s3store"
)

// newObjects is the store of snapshots that the host's configuration names: a bucket of an S3 server, or the bus. It asks nothing of either yet.
// On the bus a control host makes it; others may not.
func newObjects(conf *hostconf.Config, conn *natsbus.Conn, control bool) (drover.ObjectStore, error) {
	if conf.ObjectStore == nil || conf.ObjectStore.S3 == nil {
		return natsbus.NewObjects(conn, natsbus.StreamSnapshots, natsbus.ObjectOptions{Made: !control}), nil
	}
	c := conf.ObjectStore.S3
	return s3store.New(s3store.Config{Endpoint: c.Endpoint, Bucket: c.Bucket, Prefix: c.Prefix, Region: c.Region,
		CredentialsFile: c.CredentialsFile, CAFile: c.CAFile, PathStyle: c.PathStyle})
}

// uploadLimit is what the host may read per second for snapshots; 0 for no limit.
func uploadLimit(conf *hostconf.Config) drover.Bytes {
	if conf.ObjectStore == nil {
		return 0
	}
	return drover.Bytes(conf.ObjectStore.UploadMiBPerSecond) * drover.MiB
}
