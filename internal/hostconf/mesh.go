package hostconf

import (
	"net/netip"

	"drover"
)

const (
	// MeshPort is where WireGuard listens when nothing else is configured: the port that it has by custom.
	MeshPort = 51820
	// DefaultMTU is the largest packet of a machine where the hosts' own network carries packets of 1500 bytes: the mesh adds 120.
	DefaultMTU = 1380
	// minMTU is what IPv6 needs (RFC 8200, 5), maxMTU what an IP packet can have less what the mesh adds.
	minMTU, maxMTU = 1280, 65535 - 120
)

// checkMesh appends the mistakes of the mesh's part.
func (c *Config) checkMesh(wrong func(ok bool, format string, args ...any)) {
	_, err := netip.ParseAddrPort(c.MeshListen)
	wrong(c.MeshListen == "" || err == nil, "mesh_listen: %q is not an IP address and port", c.MeshListen)
	wrong(c.MTU == 0 || c.MTU >= minMTU && c.MTU <= maxMTU, "mtu: %d is not between %d and %d", c.MTU, minMTU, maxMTU)
}

// Meshed reports whether the host's machines are joined with those of other hosts.
func (c *Config) Meshed() bool { return c.Has(drover.RoleWorker) && c.Network != NetworkUser }
