package simhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/boltstore"
	"drover/host"
	"drover/natsbus"
)

// Config describes simulated hosts.
type Config struct {
	// URL is the bus's address.
	URL string
	// Dir gets a directory for each host.
	Dir    string
	Region drover.Region
	// Memory and CPUs are what each host has for machines.
	Memory drover.Bytes
	CPUs   int
	Log    *slog.Logger
}

// Run runs hosts named sim0000, sim0001 and so on until ctx ends.
func Run(ctx context.Context, cfg Config, count int) error {
	g, ctx := errgroup.WithContext(ctx)
	for n := range count {
		g.Go(func() error { return runOne(ctx, cfg, drover.HostID(fmt.Sprintf("sim%04d", n))) })
	}
	return g.Wait()
}

func runOne(ctx context.Context, cfg Config, id drover.HostID) (err error) {
	conn, err := natsbus.Connect(ctx, natsbus.Config{URLs: []string{cfg.URL}, Name: string(id), Log: cfg.Log})
	if err != nil {
		return err
	}
	defer conn.Close()
	dir := filepath.Join(cfg.Dir, string(id))
	store, err := boltstore.Open(dir + ".db")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	s := &sim{vms: map[drover.MachineID]*vm{}, layers: map[drover.LayerID]drover.LayerStatus{}, taps: map[drover.MachineID]bool{}}
	agent, err := host.New(host.Config{ID: id, Region: cfg.Region, Address: "127.0.0.1", StorageAddress: "127.0.0.1:1", DataDir: dir, RunDir: dir + ".run",
		Memory: cfg.Memory, CPUs: cfg.CPUs, Version: "simulated", Accel: drover.AccelTCG, VMMName: "simulated", Storage: storage{sim: s}, VMM: vmm{s},
		Images: images{s}, Network: network{s}, Bus: natsbus.NewHostBus(conn, id), GuestDial: s.dial, Store: store, Log: cfg.Log,
		DiskSpace: func(string) (total, free drover.Bytes, err error) { return 1 << 40, 1 << 40, nil },
		DiskProbe: func(string) error { return nil }})
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

// sim is what a simulated host has.
type sim struct {
	mu     sync.Mutex
	vms    map[drover.MachineID]*vm
	layers map[drover.LayerID]drover.LayerStatus
	taps   map[drover.MachineID]bool
}
