package hostconf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"drover"
	"drover/internal/durable"
)

// Version is the version of the file's format.
const Version = 1

// The ports that hosts listen on when nothing else is configured.
const (
	APIPort     = 4280
	BusPort     = 4222
	StoragePort = 4290
)

// The values of Config.Network.
const (
	NetworkTaps = "taps"
	NetworkUser = "user"
)

// The values of Config.LinkCompression.
const (
	CompressionAuto = "auto"
	CompressionOff  = "off"
)

// The values of Config.GuestSizes.
const (
	GuestSizesAny        = "any"
	GuestSizesDocumented = "documented"
)

// maxOvercommit bounds DiskOvercommit and CPUOvercommit: what is more is a slip.
const maxOvercommit = 1000

// maxRunDir bounds the length of RunDir: unix socket addresses have 108 bytes (sun_path of unix(7)), and the sockets in it
// have names of up to 50.
const maxRunDir = 56

// Config is the content of host.json.
type Config struct {
	Version int           `json:"version"`
	ID      drover.HostID `json:"id"`
	Region  drover.Region `json:"region"`
	Roles   []drover.Role `json:"roles"`
	// Address is the host's own IP address, which other hosts reach.
	Address string `json:"address"`
	// DataDir is kept for ever, RunDir is gone after a power cut (a tmpfs), TLSDir has the host's certificates.
	DataDir string `json:"data_dir"`
	RunDir  string `json:"run_dir"`
	TLSDir  string `json:"tls_dir"`
	// StorageListen is the storage daemon's TLS listener for other hosts. Default: Address, port 4290.
	StorageListen string `json:"storage_listen,omitempty"`
	Bus           Bus    `json:"bus"`
	API           API    `json:"api"`
	// GuestDir has the guest's kernel and initial RAM disk. Default: $DROVER_GUEST_DIR, then ../build/guest beside the binary.
	GuestDir string `json:"guest_dir,omitempty"`
	// MemoryMB is what machines may use together. Default: the host's memory less an eighth.
	MemoryMB int `json:"memory_mb,omitempty"`
	// CPUs is the number of CPUs that one machine may have at most. Default: the host's.
	CPUs int `json:"cpus,omitempty"`
	// CPUOvercommit is how many times the host's CPUs are promised to machines together, SharedPerCPU how many shared CPUs make up one of them. Defaults 1
	// and 16.
	CPUOvercommit float64 `json:"cpu_overcommit,omitempty"`
	SharedPerCPU  int     `json:"shared_per_cpu,omitempty"`
	// Dedication is what the host is dedicated to: only machines and volumes with that host_dedication_id come to it.
	Dedication string `json:"dedication,omitempty"`
	// GuestSizes, on control hosts, says which sizes machines may have: "documented" ones, or "any" that a host can run. Default: documented.
	GuestSizes string `json:"guest_sizes,omitempty"`
	// DiskOvercommit is how many times the disk the volumes of the host may grow to together. Default 3.
	DiskOvercommit float64 `json:"disk_overcommit,omitempty"`
	// PoolFloorMB is how much of the disk volumes leave free for the host's records. Default: one per cent, at most 64 MiB.
	PoolFloorMB int `json:"pool_floor_mb,omitempty"`
	// PoolFullWait is how long volumes' writes wait for room when the disk is full, before they fail. Default: the storage daemon's.
	PoolFullWait drover.Duration `json:"pool_full_wait,omitempty"`
	// Grace is how long a source keeps its copy after a move. Default 1 h.
	Grace drover.Duration `json:"grace,omitempty"`
	// ParentTimeout is how long a read of a block that another host has may wait for that host. Default: the storage daemon's.
	ParentTimeout drover.Duration `json:"parent_timeout,omitempty"`
	// LinkCompression is whether what the storage daemon reads from other hosts comes compressed: "auto", the default, where the
	// link is so slow that it pays, or "off".
	LinkCompression string `json:"link_compression,omitempty"`
	// BootTimeout is how long a machine's boot may take. Default: the agent's.
	BootTimeout drover.Duration `json:"boot_timeout,omitempty"`
	// Network is how machines are linked: "taps", "user" (the VMM's user networking), or empty for taps where they can be made.
	Network string `json:"network,omitempty"`
	// MeshListen is the IP address and UDP port at which other hosts send packets for the machines of this one, encrypted. Default: Address,
	// port 51820. Where machines have user networking there is no mesh.
	MeshListen string `json:"mesh_listen,omitempty"`
	// MeshPublic is the name or IP address and UDP port at which people's WireGuard clients reach this host. Default: MeshListen.
	MeshPublic string `json:"mesh_public,omitempty"`
	// MeshKeyEvery is how often this host gets another key for the mesh, by itself. Default: never; 'drover host rotate-key' does it when asked to.
	MeshKeyEvery drover.Duration `json:"mesh_key_every,omitempty"`
	// MTU is the largest packet that machines send: the largest that the hosts' own network carries, less 120. It should be the same on all hosts.
	// Default 1380.
	MTU int `json:"mtu,omitempty"`
	// DiskTransport is how the disks of machines are attached that leave it to the host: "nbd", "vhost-user-blk", or "auto" for the faster
	// one. Default: auto.
	DiskTransport drover.Transport `json:"disk_transport,omitempty"`
	// ImageProxy is the HTTP proxy through which registries are reached. Default: as the environment says.
	ImageProxy string `json:"image_proxy,omitempty"`
	// PowerOffCommand is a program with its arguments by which a control host switches another host off; "{host}" in them is the host's ID. It must exit with 0
	// only when that host is certainly off. Default: none, and only people say that a host is off.
	PowerOffCommand []string `json:"power_off_command,omitempty"`
	// PowerOffAfter is how long nobody may reach a host before it is switched off by itself, for the machines of apps that agreed to be started elsewhere.
	// Default 60 s.
	PowerOffAfter drover.Duration `json:"power_off_after,omitempty"`
	// VolumeKeep is, on control hosts, how long a destroyed volume, or an app with volumes, can be brought back before it is wiped. Default 24 h.
	VolumeKeep drover.Duration `json:"volume_keep,omitempty"`
	// Telemetry says what a control host tells of the fleet, and where.
	Telemetry Telemetry `json:"telemetry,omitzero"`
	// ObjectStore is where snapshots are kept. Default: the fleet's bus.
	ObjectStore *ObjectStore `json:"object_store,omitempty"`
}

// Bus says how the host reaches the fleet's NATS, and on control hosts how it serves it.
type Bus struct {
	// Listen is where a control host's embedded server listens. Default: Address, port 4222.
	Listen string `json:"listen,omitempty"`
	// Store is the embedded server's directory. Default: bus in DataDir.
	Store string `json:"store,omitempty"`
	// URLs are the servers' addresses ("nats://10.0.0.4:4222"). Required.
	URLs []string `json:"urls"`
	// External: the servers are somebody else's, nothing is embedded.
	External bool `json:"external,omitempty"`
}

// API says where a control host serves its API.
type API struct {
	// Listen is a host and port. Default: Address, port 4280. Not used when the process inherits a listener (LISTEN_FDS).
	Listen string `json:"listen,omitempty"`
	// TokenFile gets the operator's token when the host first starts. Default: operator.token in DataDir.
	TokenFile string `json:"token_file,omitempty"`
	// How many requests per second a token that is not an operator's may make: Rate in all, ActionRate of one kind that change one machine,
	// ReadRate of one kind that look at one; StrangerRate is for an address that shows tokens which are not good. Twice as many may come at once. Negative is
	// without a limit. Defaults: 200, 5 (20 at once), 50, 100 (500 at once).
	Rate         float64 `json:"rate,omitempty"`
	ActionRate   float64 `json:"action_rate,omitempty"`
	ReadRate     float64 `json:"read_rate,omitempty"`
	StrangerRate float64 `json:"stranger_rate,omitempty"`
}

// Has reports whether the host has the role.
func (c *Config) Has(role drover.Role) bool { return slices.Contains(c.Roles, role) }

// Load reads a file, checks it and fills in defaults. Invalid lists every mistake.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read the host's configuration: %w", err)
	}
	var c Config
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read the host's configuration %q: %w", path, err)
	}
	if mistakes := c.check(); len(mistakes) > 0 {
		return nil, drover.Errorf(drover.Invalid, "the host's configuration %q has %d mistake(s): %s", path, len(mistakes), strings.Join(mistakes, "; "))
	}
	c.setDefaults()
	return &c, nil
}

// Save writes a file, durably.
func Save(path string, c Config) error {
	c.Version = Version
	if err := durable.WriteJSON(path, c, 0o600); err != nil {
		return drover.Errorf(drover.Internal, "cannot write the configuration of host %q: %w", c.ID, err)
	}
	return nil
}

// check returns every mistake as a text that starts with the field's name.
func (c *Config) check() []string {
	var mistakes []string
	wrong := func(ok bool, format string, args ...any) {
		if !ok {
			mistakes = append(mistakes, fmt.Sprintf(format, args...))
		}
	}
	wrong(c.Version == Version, "version: %d is not known, this program reads version %d", c.Version, Version)
	wrong(drover.ValidName(string(c.ID)), "id: %q is not a DNS label", c.ID)
	wrong(drover.ValidName(string(c.Region)), "region: %q is not a DNS label", c.Region)
	wrong(len(c.Roles) > 0, "roles: at least one of worker, control")
	for _, r := range c.Roles {
		wrong(r == drover.RoleWorker || r == drover.RoleControl, "roles: %q is not worker or control", r)
	}
	_, err := netip.ParseAddr(c.Address)
	wrong(err == nil, "address: %q is not an IP address", c.Address)
	for name, dir := range map[string]string{"data_dir": c.DataDir, "run_dir": c.RunDir, "tls_dir": c.TLSDir} {
		wrong(filepath.IsAbs(dir), "%s: %q is not an absolute path", name, dir)
	}
	wrong(len(c.RunDir) <= maxRunDir, "run_dir: %q is longer than %d characters, so that sockets in it could not be reached", c.RunDir, maxRunDir)
	for name, at := range map[string]string{"storage_listen": c.StorageListen, "bus.listen": c.Bus.Listen, "api.listen": c.API.Listen} {
		_, _, err := net.SplitHostPort(at)
		wrong(at == "" || err == nil, "%s: %q is not a host and port", name, at)
	}
	wrong(len(c.Bus.URLs) > 0, "bus.urls: at least one")
	for _, u := range c.Bus.URLs {
		parsed, err := url.Parse(u)
		wrong(err == nil && parsed.Host != "", "bus.urls: %q is not an address such as nats://10.0.0.4:4222", u)
	}
	wrong(c.MemoryMB >= 0, "memory_mb: %d is negative", c.MemoryMB)
	wrong(c.CPUs >= 0, "cpus: %d is negative", c.CPUs)
	wrong(c.DiskOvercommit == 0 || c.DiskOvercommit >= 1 && c.DiskOvercommit <= maxOvercommit, "disk_overcommit: %g is not between 1 and %d",
		c.DiskOvercommit, maxOvercommit)
	wrong(c.CPUOvercommit == 0 || c.CPUOvercommit >= 0.1 && c.CPUOvercommit <= maxOvercommit, "cpu_overcommit: %g is not between 0.1 and %d",
		c.CPUOvercommit, maxOvercommit)
	wrong(c.SharedPerCPU >= 0 && c.SharedPerCPU <= maxOvercommit, "shared_per_cpu: %d is not between 1 and %d", c.SharedPerCPU, maxOvercommit)
	wrong(c.Dedication == "" || drover.ValidName(c.Dedication), "dedication: %q is not a DNS label", c.Dedication)
	wrong(slices.Contains([]string{"", GuestSizesAny, GuestSizesDocumented}, c.GuestSizes), "guest_sizes: %q is not %s or %s", c.GuestSizes, GuestSizesAny,
		GuestSizesDocumented)
	wrong(c.PoolFloorMB >= 0, "pool_floor_mb: %d is negative", c.PoolFloorMB)
	for name, d := range map[string]drover.Duration{"grace": c.Grace, "parent_timeout": c.ParentTimeout, "pool_full_wait": c.PoolFullWait, "boot_timeout": c.BootTimeout,
		"power_off_after": c.PowerOffAfter, "volume_keep": c.VolumeKeep} {
		wrong(d >= 0, "%s: %s is negative", name, time.Duration(d))
	}
	if cmd := c.PowerOffCommand; len(cmd) > 0 {
		wrong(filepath.IsAbs(cmd[0]), "power_off_command: %q is not an absolute path", cmd[0])
		wrong(slices.ContainsFunc(cmd, func(arg string) bool { return strings.Contains(arg, "{host}") }), "power_off_command: no argument has {host} in it, which is the host to switch off")
	}
	wrong(slices.Contains([]string{"", CompressionAuto, CompressionOff}, c.LinkCompression),
		"link_compression: %q is not %s or %s", c.LinkCompression, CompressionAuto, CompressionOff)
	wrong(slices.Contains([]string{"", NetworkTaps, NetworkUser}, c.Network), "network: %q is not %s or %s", c.Network, NetworkTaps, NetworkUser)
	wrong(drover.ValidTransport(c.DiskTransport), "disk_transport: %q is not %s, %s or %s", c.DiskTransport, drover.TransportAuto, drover.TransportNBD, drover.TransportVhost)
	if c.ImageProxy != "" {
		parsed, err := url.Parse(c.ImageProxy)
		wrong(err == nil && parsed.Scheme == "http" && parsed.Host != "", "image_proxy: %q is not an address such as http://10.0.0.1:3128", c.ImageProxy)
	}
	c.checkObjectStore(wrong)
	c.checkTelemetry(wrong)
	c.checkMesh(wrong)
	slices.Sort(mistakes)
	return mistakes
}

func (c *Config) setDefaults() {
	at := func(s *string, port int) {
		if *s == "" {
			*s = net.JoinHostPort(c.Address, fmt.Sprint(port))
		}
	}
	at(&c.StorageListen, StoragePort)
	at(&c.Bus.Listen, BusPort)
	at(&c.API.Listen, APIPort)
	if c.GuestSizes == "" {
		c.GuestSizes = GuestSizesDocumented
	}
	at(&c.MeshListen, MeshPort)
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.LinkCompression == "" {
		c.LinkCompression = CompressionAuto
	}
	if c.Bus.Store == "" {
		c.Bus.Store = filepath.Join(c.DataDir, "bus")
	}
	if c.API.TokenFile == "" {
		c.API.TokenFile = filepath.Join(c.DataDir, "operator.token")
	}
}
