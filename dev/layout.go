package dev

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
	"drover/internal/fleetca"
	"drover/internal/hostconf"
	"drover/powercommand"
)

// layoutVersion is the version of fleet.json.
const layoutVersion = 1

// maxWorkers bounds a fleet: addresses of hosts are one byte.
const maxWorkers = 200

// Layout is what a fleet is made of. It is stored in fleet.json and survives Down.
type Layout struct {
	Version int        `json:"version"`
	Hosts   []HostSpec `json:"hosts"`
	// APIPort is the port of the API on 127.0.0.1; 0 takes a free one.
	APIPort int `json:"api_port"`
	// Disk is the size of the file system that each worker has for its data; 0: it is in the fleet's directory.
	Disk drover.Bytes `json:"disk,omitempty"`
	// Grace is how long a source keeps its copy after a move; 0 is the default of hosts.
	Grace drover.Duration `json:"grace,omitempty"`
	// BootTimeout is how long a machine's boot may take; 0 is the default of hosts.
	BootTimeout drover.Duration `json:"boot_timeout,omitempty"`
}

// HostSpec is one host of a fleet.
type HostSpec struct {
	ID     drover.HostID `json:"id"`
	Region drover.Region `json:"region"`
	Roles  []drover.Role `json:"roles"`
	// Number is unique in the fleet and never changes: the last byte of the host's address.
	Number int `json:"number"`
}

func (h HostSpec) has(role drover.Role) bool { return slices.Contains(h.Roles, role) }

// services lists what the host runs, in the order in which it is started.
func (h HostSpec) services() []string {
	var out []string
	if h.has(drover.RoleControl) {
		out = append(out, "control")
	}
	if h.has(drover.RoleWorker) {
		out = append(out, "storage", "mesh", "worker")
	}
	return out
}

// host finds a host by its ID.
func (l *Layout) host(id drover.HostID) (HostSpec, error) {
	var ids []drover.HostID
	for _, h := range l.Hosts {
		if h.ID == id {
			return h, nil
		}
		ids = append(ids, h.ID)
	}
	return HostSpec{}, drover.Errorf(drover.NotFound, "the fleet has no host %q", id).WithHint("its hosts are %v", ids)
}

// loadLayout reads fleet.json. NotFound when the directory holds no fleet.
func loadLayout(p paths) (*Layout, error) {
	var l Layout
	err := durable.ReadJSON(p.layout(), &l)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, drover.Errorf(drover.NotFound, "there is no fleet in %q", p.dir()).WithHint("drover dev up makes one")
	}
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the fleet's layout: %w", err)
	}
	if l.Version != layoutVersion {
		return nil, drover.Errorf(drover.Precondition, "the fleet in %q has layout version %d, this program knows version %d", p.dir(), l.Version, layoutVersion).
			WithHint("use the program that made it, or drover dev down --purge")
	}
	return &l, nil
}

// planLayout returns the layout that the wish asks for, given the one that is there (nil for none). A fleet grows, it does not shrink.
func planLayout(have *Layout, workers int, regions []drover.Region, apiPort *int) (*Layout, error) {
	if have == nil {
		have = &Layout{Version: layoutVersion, APIPort: hostconf.APIPort}
		if workers == 0 {
			workers = 3
		}
	}
	l := *have
	l.Hosts = append([]HostSpec(nil), have.Hosts...)
	if apiPort != nil {
		l.APIPort = *apiPort
	}
	if l.APIPort < 0 || l.APIPort > 65535 {
		return nil, drover.Errorf(drover.Invalid, "the API port %d is not between 0 and 65535", l.APIPort).WithField("api-port")
	}
	if workers < 0 || workers > maxWorkers {
		return nil, drover.Errorf(drover.Invalid, "a fleet of %d workers is not possible; 1 to %d are", workers, maxWorkers).WithField("workers")
	}
	for _, r := range regions {
		if !drover.ValidName(string(r)) {
			return nil, drover.Errorf(drover.Invalid, "%q is not a region's name: lower-case letters, digits and hyphens", r).WithField("regions")
		}
	}
	if len(regions) == 0 {
		regions = []drover.Region{"ams", "fra"}
	}
	there := 0
	for _, h := range l.Hosts {
		if h.has(drover.RoleWorker) {
			there++
		}
	}
	if workers != 0 && workers < there {
		return nil, drover.Errorf(drover.Precondition, "the fleet has %d workers already and cannot shrink to %d", there, workers).
			WithHint("drover dev down --purge removes it, with all its data")
	}
	if len(l.Hosts) == 0 {
		l.Hosts = append(l.Hosts, HostSpec{ID: "c1", Region: regions[0], Roles: []drover.Role{drover.RoleControl}, Number: maxWorkers + 1})
	}
	for n := there + 1; n <= workers; n++ {
		l.Hosts = append(l.Hosts, HostSpec{
			ID: drover.HostID(fmt.Sprintf("h%d", n)), Region: regions[(n-1)*len(regions)/workers], Roles: []drover.Role{drover.RoleWorker}, Number: n,
		})
	}
	return &l, nil
}

// network is the fleet's addressing in one mode.
type network struct {
	mode Mode
	p    paths
}

// bits of the fleet's IPv4 subnet.
const subnetBits = 24

// gatewayNumber is the last byte of the rack's own address.
const gatewayNumber = 254

// egressPort is where the rack's forward proxy listens.
const egressPort = 3128

// address of a host. In ModeLoopback the two bytes in the middle are made of the directory's name, so that two fleets get
// along on one machine.
func (n network) address(number int) netip.Addr {
	if n.mode == ModeNamespaces {
		return netip.AddrFrom4([4]byte{10, 98, 0, byte(number)})
	}
	h := fnv.New32a()
	h.Write([]byte(n.p.dir()))
	sum := h.Sum32()
	return netip.AddrFrom4([4]byte{127, 64 + byte(sum>>8)%128, byte(sum), byte(number)})
}

// prefixes are the addresses of a host with their subnets, in ModeNamespaces.
func (n network) prefixes(number int) []net.IPNet {
	v6 := netip.MustParseAddr("fd98:d0e5::").As16()
	v6[15] = byte(number)
	return []net.IPNet{
		{IP: n.address(number).AsSlice(), Mask: net.CIDRMask(subnetBits, 32)},
		{IP: v6[:], Mask: net.CIDRMask(64, 128)},
	}
}

// prepare makes everything that the hosts of a layout need before they start: directories, certificates, configuration.
func prepare(p paths, l *Layout, mode Mode, exe string) error {
	ca, err := fleetca.Ensure(p.ca())
	if err != nil {
		return err
	}
	n := network{mode: mode, p: p}
	var urls []string
	workers := 0
	for _, h := range l.Hosts {
		if h.has(drover.RoleControl) {
			urls = append(urls, fmt.Sprintf("nats://%s:%d", n.address(h.Number), hostconf.BusPort))
		}
		if h.has(drover.RoleWorker) {
			workers++
		}
	}
	memory, err := memoryShare(workers)
	if err != nil {
		return err
	}
	for _, h := range l.Hosts {
		if err := prepareHost(p, n, ca, l, h, urls, memory, exe); err != nil {
			return err
		}
	}
	return nil
}

func prepareHost(p paths, n network, ca *fleetca.CA, l *Layout, h HostSpec, urls []string, memoryMB int, exe string) error {
	for _, dir := range []string{p.data(h.ID), p.faults(h.ID), p.logs(h.ID)} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return drover.Errorf(drover.Internal, "cannot make a directory of host %q: %w", h.ID, err)
		}
	}
	if l.Disk > 0 && h.has(drover.RoleWorker) {
		if err := makeDisk(p, n.mode, h.ID, l.Disk); err != nil {
			return err
		}
	}
	addresses := []netip.Addr{n.address(h.Number)}
	if n.mode == ModeNamespaces {
		for _, prefix := range n.prefixes(h.Number) {
			a, _ := netip.AddrFromSlice(prefix.IP)
			addresses = append(addresses, a)
		}
	}
	if err := fleetca.IssueHost(ca, p.tls(h.ID), h.ID, addresses, nil); err != nil {
		return err
	}
	if slices.Contains(h.Roles, drover.RoleControl) {
		if err := fleetca.IssueControl(ca, p.tls(h.ID), h.ID); err != nil {
			return err
		}
	}
	c := hostconf.Config{
		ID: h.ID, Region: h.Region, Roles: h.Roles, Address: n.address(h.Number).String(),
		DataDir: p.data(h.ID), RunDir: p.run(h.ID, n.mode), TLSDir: p.tls(h.ID),
		Bus: hostconf.Bus{URLs: urls}, Grace: l.Grace, BootTimeout: l.BootTimeout, MemoryMB: memoryMB, CPUs: max(runtime.NumCPU(), 4),
		GuestSizes: hostconf.GuestSizesAny,
	}
	if h.has(drover.RoleControl) {
		// The rack is the power controller.
		c.PowerOffCommand = []string{exe, "dev", "kill", powercommand.Placeholder, "--dir", p.dir()}
	}
	if n.mode == ModeNamespaces {
		c.ImageProxy = fmt.Sprintf("http://%s:%d", n.address(gatewayNumber), egressPort)
	} else {
		c.Network = hostconf.NetworkUser // even where taps could be made: they would be in the machine's own network
	}
	return hostconf.Save(p.hostConfig(h.ID), c)
}

// memoryShare divides three quarters of the machine's memory among the workers, in MiB.
func memoryShare(workers int) (int, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot tell the machine's memory: %w", os.NewSyscallError("sysinfo", err))
	}
	total := drover.Bytes(info.Totalram) * drover.Bytes(info.Unit)
	return max(256, int(total/drover.MiB)*3/4/max(workers, 1)), nil
}
