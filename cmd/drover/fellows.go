package main

import (
	"context"

	"drover"
	"drover/host"
	"drover/internal/fleetca"
	"drover/natsbus"
	"drover/nbd"
)

// fellows are the other hosts, as the bus tells of them and as their storage daemons answer.
type fellows struct {
	bus    *natsbus.HostBus
	tlsDir string
}

var _ host.Fellows = fellows{}

func (f fellows) Hosts(ctx context.Context) ([]drover.HostInfo, error) { return f.bus.Hosts(ctx) }

func (f fellows) Try(ctx context.Context, h drover.HostInfo) error {
	tls, err := fleetca.ClientConfig(f.tlsDir, h.ID)
	if err != nil {
		return err
	}
	return nbd.Ping(ctx, nbd.ClientConfig{Network: "tcp", Address: h.StorageAddress, TLS: tls})
}
