package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/boltstore"
	"drover/guest"
	"drover/host"
	"drover/internal/durable"
	"drover/internal/fleetca"
	"drover/internal/hostconf"
	"drover/internal/netdev"
	"drover/natsbus"
	"drover/network"
	"drover/oci"
	"drover/qemu"
	"drover/volume"
)

// storageWait bounds how long the agent waits for the storage daemon at its start, storagePoll how often it asks.
const (
	storageWait = time.Minute
	storagePoll = 50 * time.Millisecond
)

// serveWorker is the agent of a host.
func serveWorker(ctx context.Context, p process) (err error) {
	for _, dir := range []string{p.conf.DataDir, p.conf.RunDir} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return drover.Errorf(drover.Internal, "cannot make the directory %q: %w", dir, err)
		}
	}
	storage := volume.NewClient(filepath.Join(p.conf.RunDir, "storage.sock"))
	if err := awaitStorage(ctx, storage); err != nil {
		return err
	}
	guestDir, err := findGuestDir(p)
	if err != nil {
		return err
	}
	driver, err := qemu.New(ctx, qemu.Config{RunDir: filepath.Join(p.conf.RunDir, "vm"), GuestDir: guestDir, TLSDir: p.conf.TLSDir,
		Log: p.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	store, err := boltstore.Open(filepath.Join(p.conf.DataDir, "agent.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	images, err := newImages(p, storage)
	if err != nil {
		return err
	}
	conn, err := connectBus(ctx, p, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	agent, err := newAgent(ctx, p, agentParts{storage, driver, store, images, conn})
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

// agentParts are what the agent is wired to.
type agentParts struct {
	storage *volume.Client
	driver  *qemu.Driver
	store   *boltstore.DB
	images  *oci.Store
	conn    *natsbus.Conn
}

func newAgent(ctx context.Context, p process, parts agentParts) (*host.Agent, error) {
	links, err := chooseNetwork(ctx, p)
	if err != nil {
		return nil, err
	}
	meshed := isMeshed(p, links)
	accel, accelReason := parts.driver.Accel()
	p.log.Info("accelerator chosen", "accel", accel, "reason", accelReason)
	cpu, err := parts.driver.CPU()
	if err != nil {
		return nil, err
	}
	memory, err := machineMemory(p.conf)
	if err != nil {
		return nil, err
	}
	cpus := p.conf.CPUs
	if cpus == 0 {
		cpus = runtime.NumCPU()
	}
	config := host.Config{
		ID:             p.conf.ID,
		Region:         p.conf.Region,
		Roles:          p.conf.Roles,
		Address:        p.conf.Address,
		StorageAddress: p.conf.StorageListen,
		DataDir:        p.conf.DataDir,
		RunDir:         p.conf.RunDir,
		Memory:         memory,
		CPUs:           cpus,
		CPUOvercommit:  p.conf.CPUOvercommit,
		SharedPerCPU:   p.conf.SharedPerCPU,
		Dedication:     p.conf.Dedication,
		Version:        version(),
		Accel:          accel,
		AccelReason:    accelReason,
		VMMName:        "qemu " + parts.driver.Version(),
		GuestCPU:       cpu,
		Platform:       parts.driver.Platform(),
		Storage:        parts.storage,
		VMM:            vmm{parts.driver},
		Images:         parts.images,
		Network:        links,
		Bus:            natsbus.NewHostBus(parts.conn, p.conf.ID),
		Peers:          peers{p.conf.TLSDir},
		Keys:           natsbus.NewHostKeys(parts.conn, p.conf.ID, p.conf.TLSDir),
		Secrets:        natsbus.NewHostSecrets(parts.conn, p.conf.ID, p.conf.TLSDir),
		Fellows:        fellows{natsbus.NewHostBus(parts.conn, p.conf.ID), p.conf.TLSDir},
		GuestDial:      dialGuest,
		Store:          parts.store,
		DiskOvercommit: p.conf.DiskOvercommit,
		PoolFloor:      drover.Bytes(p.conf.PoolFloorMB) * drover.MiB,
		Grace:          time.Duration(p.conf.Grace),
		BootTimeout:    time.Duration(p.conf.BootTimeout),
		Log:            p.log,
		Faults:         p.faults,
		Clock:          p.faults.Clock(),
		DiskTransport:  p.conf.DiskTransport,
	}
	if meshed {
		if err := network.AwaitBegun(ctx, p.conf.RunDir, p.log); err != nil {
			return nil, err
		}
		joinMesh(p, &config)
	}
	return host.New(config)
}

// chooseNetwork returns what links machines: as configured, or what works.
func chooseNetwork(ctx context.Context, p process) (host.Network, error) {
	if p.conf.Network == hostconf.NetworkUser {
		p.log.Info("network of machines chosen", "reason", "user networking, as configured")
		return netdev.User{}, nil
	}
	network, reason := netdev.Choose(ctx)
	if _, ok := network.(netdev.User); ok && p.conf.Network == hostconf.NetworkTaps {
		return nil, drover.Errorf(drover.Precondition, "network is configured as taps, but it would be %s", reason)
	}
	p.log.Info("network of machines chosen", "reason", reason)
	return network, nil
}

// peers tries the way to other hosts with this host's certificates.
type peers struct{ tlsDir string }

var _ host.Peers = peers{}

func (p peers) Reach(ctx context.Context, peer drover.HostID, address string) error {
	return volume.Reach(ctx, p.tlsDir, peer, address)
}

func (p peers) Certificate() (time.Time, string, error) { return fleetca.HostValidity(p.tlsDir) }

// vmm makes the driver's VMs those of the agent's interface.
type vmm struct{ *qemu.Driver }

var _ host.VMM = vmm{}

func (v vmm) Start(ctx context.Context, spec drover.VMSpec) (host.VM, error) {
	vm, err := v.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return vm, nil
}

func (v vmm) Find(ctx context.Context, id drover.MachineID) (host.VM, error) {
	vm, err := v.Driver.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	return vm, nil
}

func dialGuest(ctx context.Context, socket string) (host.Guest, error) {
	client, err := guest.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return client, nil
}

// awaitStorage waits until the storage daemon answers: it is started at the same time, by whoever starts the agent.
func awaitStorage(ctx context.Context, storage *volume.Client) error {
	ctx, cancel := context.WithTimeout(ctx, storageWait)
	defer cancel()
	tick := time.NewTicker(storagePoll)
	defer tick.Stop()
	for {
		_, err := storage.Layers(ctx)
		if err == nil || !drover.Is(err, drover.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return drover.Errorf(drover.Unavailable, "the storage daemon of this host does not answer: %w", err).
				WithHint("it is another process of the host: drover serve storage, with the same configuration")
		case <-tick.C:
		}
	}
}

// findGuestDir finds the guest's kernel and initial RAM disk: by the configuration, the environment, or beside the binary.
func findGuestDir(p process) (string, error) {
	if p.conf.GuestDir != "" {
		return p.conf.GuestDir, nil
	}
	if dir := p.getenv("DROVER_GUEST_DIR"); dir != "" {
		return dir, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", drover.Errorf(drover.Internal, "cannot find the guest's files: %w", err)
	}
	dir := filepath.Join(filepath.Dir(exe), "..", "build", "guest")
	if _, err := os.Stat(dir); err != nil {
		return "", drover.Errorf(drover.Precondition, "cannot find the guest's kernel: %w", err).
			WithHint("make guest builds it; DROVER_GUEST_DIR or guest_dir in the host's configuration say where it is")
	}
	return dir, nil
}

// newImages makes the store of images. Where registries are reached through a proxy, so are those on the loopback addresses, which are
// then the proxy's: this host has none of its own.
func newImages(p process, storage *volume.Client) (*oci.Store, error) {
	transport, err := registryTransport(p.conf.ImageProxy)
	if err != nil {
		return nil, err
	}
	return oci.New(oci.Config{WorkDir: filepath.Join(p.conf.DataDir, "images"), Storage: storage, Transport: transport, Log: p.log})
}

// connectBus connects to the fleet's bus: in this process if server is one, else over TLS.
func connectBus(ctx context.Context, p process, server *natsbus.Server) (*natsbus.Conn, error) {
	config := natsbus.Config{URLs: p.conf.Bus.URLs, Name: string(p.conf.ID), InProcess: server, Log: p.log}
	if server == nil {
		var err error
		// Each URL names an address; the server must have the certificate of a host with that address.
		if config.TLS, err = fleetca.ClientConfig(p.conf.TLSDir, ""); err != nil {
			return nil, err
		}
	}
	return natsbus.Connect(ctx, config)
}

// machineMemory is what machines may use together.
func machineMemory(c *hostconf.Config) (drover.Bytes, error) {
	if c.MemoryMB > 0 {
		return drover.Bytes(c.MemoryMB) * drover.MiB, nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot tell this host's memory: %w", os.NewSyscallError("sysinfo", err))
	}
	return drover.Bytes(info.Totalram) * drover.Bytes(info.Unit) / 8 * 7, nil
}
