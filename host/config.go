package host

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/boltstore"
	"drover/internal/fault"
)

// Config is what an Agent is made of. Fields without a default are required.
type Config struct {
	ID     drover.HostID
	Region drover.Region
	// Roles default to worker alone.
	Roles []drover.Role
	// Address is the host's own IP address; StorageAddress the host and port of its storage daemon's TLS listener.
	Address        string
	StorageAddress string
	// DataDir is the host's durable directory, RunDir its tmpfs one (see ARCHITECTURE.md).
	DataDir string
	RunDir  string
	// Memory is what machines may use together; CPUs what one machine may have at most.
	Memory drover.Bytes
	CPUs   int
	// CPUOvercommit is how many times its CPUs the host promises to machines, SharedPerCPU how many shared CPUs make up one. Defaults 1 and 16.
	CPUOvercommit float64
	SharedPerCPU  int
	// Dedication is what the host is dedicated to; empty for nothing.
	Dedication string
	// DiskTransport is how disks are attached of machines that leave it to the host. Default auto.
	DiskTransport drover.Transport
	// DiskReserve is kept free: machines and moves that would go below it are refused. Default 1 GiB.
	DiskReserve drover.Bytes
	// DiskOvercommit is how many times the disk the volumes may grow to together. Default 3.
	DiskOvercommit float64
	// PoolFloor is what the storage daemon keeps free of the disk (volume.Config.Floor).
	PoolFloor   drover.Bytes
	Version     string
	Accel       drover.Accel
	AccelReason string
	// VMMName is what HostInfo tells of the VMM ("qemu 7.2.22").
	VMMName string
	// GuestCPU names the processor that guests see, Platform their machine type: memory moves between equal ones only.
	GuestCPU, Platform string

	Storage Storage
	VMM     VMM
	Images  Images
	Network Network
	Bus     Bus
	// Routes leads to machines of other hosts; nil where there is no way to them. Mesh is what carries packets there; nil for nothing.
	Routes Routes
	Mesh   Mesh
	// GuestMTU is the largest packet of a machine, 0 for what its card has; GuestDNS are the name servers that machines ask.
	GuestMTU int
	GuestDNS []string
	// Keys gets the keys of encrypted volumes; nil where there are none.
	Keys Keys
	// Secrets gets the secrets of apps; nil where there are none.
	Secrets Secrets
	// Fellows are the other hosts, which this one observes; nil to observe none.
	Fellows Fellows
	// Peers tries the way to other hosts; nil where that is not to be tried.
	Peers Peers
	// GuestDial connects to drover-init through a VM's agent socket.
	GuestDial func(ctx context.Context, socket string) (Guest, error)
	// LayerDial connects to a layer that is open. Default NBD.
	LayerDial func(ctx context.Context, at Attachment) (LayerData, error)
	// Store is the agent's file; the caller closes it after Run has returned.
	Store *boltstore.DB

	// Clock defaults to time.Now.
	Clock func() time.Time
	// Grace is how long a source keeps its copy after a move. Default 1 h.
	Grace time.Duration
	// KeepAside is how long a host keeps the layers of a machine that went on elsewhere without it. Default 7 days.
	KeepAside time.Duration
	// BootTimeout is how long a boot may take until the main process starts. Default 30 s.
	BootTimeout time.Duration
	Log         *slog.Logger
	// Faults may be nil.
	Faults *fault.Points

	// DiskSpace tells how much of the file system that holds a directory can be used in all, and what is free. Default statfs.
	DiskSpace func(dir string) (total, free drover.Bytes, err error)
	// DiskProbe writes to the disk that has a directory and reads that back. Default: one block of a file of its own.
	DiskProbe func(dir string) error

	files guestFiles
	// hit is called at each fault point in tests.
	hit func(point string)
	// journal is called before each journal write in tests; an error of it is that of the write.
	journal func() error
}

// withDefaults checks the config and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	required := []struct {
		name    string
		missing bool
	}{
		{"ID", c.ID == ""}, {"Region", c.Region == ""}, {"DataDir", c.DataDir == ""}, {"RunDir", c.RunDir == ""},
		{"Memory", c.Memory <= 0}, {"CPUs", c.CPUs <= 0}, {"Storage", c.Storage == nil}, {"VMM", c.VMM == nil},
		{"Images", c.Images == nil}, {"Network", c.Network == nil}, {"Bus", c.Bus == nil}, {"GuestDial", c.GuestDial == nil},
		{"Store", c.Store == nil},
	}
	for _, r := range required {
		if r.missing {
			return c, drover.Errorf(drover.Invalid, "cannot make a host agent: %s is not set", r.name).WithField(r.name)
		}
	}
	if len(c.Roles) == 0 {
		c.Roles = []drover.Role{drover.RoleWorker}
	}
	if c.DiskReserve == 0 {
		c.DiskReserve = drover.GiB
	}
	if c.DiskOvercommit == 0 {
		c.DiskOvercommit = 3
	}
	if c.CPUOvercommit == 0 {
		c.CPUOvercommit = 1
	}
	if c.SharedPerCPU == 0 {
		c.SharedPerCPU = 16
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Grace == 0 {
		c.Grace = time.Hour
	}
	if c.KeepAside == 0 {
		c.KeepAside = 7 * 24 * time.Hour
	}
	if c.BootTimeout == 0 {
		c.BootTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.LayerDial == nil {
		c.LayerDial = dialLayer
	}
	if c.DiskSpace == nil {
		c.DiskSpace = statfs
	}
	if c.DiskProbe == nil {
		c.DiskProbe = probeDisk
	}
	if c.files == nil {
		c.files = realFiles{}
	}
	return c, nil
}

func statfs(dir string) (total, free drover.Bytes, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, drover.Errorf(drover.Internal, "cannot tell the free space of %s: %w", dir, err)
	}
	block := drover.Bytes(st.Bsize)
	// What the file system keeps back, for root or by a quota, is nobody's here: the total is what is used and what can be.
	return drover.Bytes(st.Blocks-st.Bfree+st.Bavail) * block, drover.Bytes(st.Bavail) * block, nil
}
