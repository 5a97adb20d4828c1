package hostconf

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"drover"
)

const (
	// MeshPort is where WireGuard listens when nothing else is configured: the port that it has by custom.
	MeshPort = 51820
	// DefaultMTU is the largest packet of a machine where the hosts' own network carries packets of 1500 bytes: the mesh adds 120.
	DefaultMTU = 1380
	// minMTU is what IPv6 needs (RFC 8200, 5), maxMTU what an IP packet can have less what the mesh adds.
	minMTU, maxMTU = 1280, 65535 - 120
	// minKeyEvery is the shortest time between two keys of a host: a rotation takes seconds, and longer while a host is silent.
	minKeyEvery = time.Hour
)

// checkMesh appends the mistakes of the mesh's part.
func (c *Config) checkMesh(wrong func(ok bool, format string, args ...any)) {
	_, err := netip.ParseAddrPort(c.MeshListen)
	wrong(c.MeshPublic == "" || isEndpoint(c.MeshPublic), "mesh_public: %q is not a name or IP address and a port, such as wg.example.com:51820", c.MeshPublic)
	wrong(c.MeshListen == "" || err == nil, "mesh_listen: %q is not an IP address and port", c.MeshListen)
	wrong(c.MeshKeyEvery == 0 || time.Duration(c.MeshKeyEvery) >= minKeyEvery, "mesh_key_every: %s is less than %s", time.Duration(c.MeshKeyEvery), minKeyEvery)
	wrong(c.MTU == 0 || c.MTU >= minMTU && c.MTU <= maxMTU, "mtu: %d is not between %d and %d", c.MTU, minMTU, maxMTU)
}

// Meshed reports whether the host's machines are joined with those of other hosts.
func (c *Config) Meshed() bool { return c.Has(drover.RoleWorker) && c.Network != NetworkUser }

// isEndpoint reports whether a text is a name or an address and a port, and can stand in a line of a WireGuard client's configuration.
func isEndpoint(text string) bool {
	host, port, err := net.SplitHostPort(text)
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && n > 0 && host != "" && !strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' })
}
