package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	"drover"
	"drover/dns"
	"drover/host"
	"drover/internal/durable"
	"drover/internal/netdev"
	"drover/natsbus"
	"drover/network"
)

// resolvFile names the host's own resolvers.
const resolvFile = "/etc/resolv.conf"

// serveMesh is the network of a host: WireGuard to the other hosts, and the answers to names.
func serveMesh(ctx context.Context, p process) error {
	if !p.conf.Meshed() {
		p.log.Info("there is no mesh: machines of this host have the VMM's user networking")
		<-ctx.Done()
		return nil
	}
	if !netdev.Forwards() {
		return drover.Errorf(drover.Precondition, "this host does not forward IPv6, so that its machines would reach nobody").
			WithHint("sysctl -w net.ipv6.conf.all.forwarding=1; to do without: \"network\": \"user\" in the host's configuration")
	}
	if err := durable.MkdirAll(p.conf.RunDir, 0o700); err != nil {
		return drover.Errorf(drover.Internal, "cannot make the directory %q: %w", p.conf.RunDir, err)
	}
	listen, err := netip.ParseAddrPort(p.conf.MeshListen)
	if err != nil {
		return drover.Errorf(drover.Invalid, "mesh_listen: %q is not an IP address and port", p.conf.MeshListen)
	}
	// The connection is made in the background: packets are carried whether or not there is a bus.
	conn, err := connectBus(ctx, p, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	d, err := network.New(network.Config{
		Host:     p.conf.ID,
		Dir:      filepath.Join(p.conf.DataDir, "mesh"),
		RunDir:   p.conf.RunDir,
		Listen:   listen,
		Public:   p.conf.MeshPublic,
		MTU:      p.conf.MTU,
		KeyEvery: time.Duration(p.conf.MeshKeyEvery),
		Bus:      natsbus.NewHostBus(conn, p.conf.ID),
		Log:      p.log,
		Faults:   p.faults,
	})
	if err != nil {
		return err
	}
	names := dns.New(dns.Config{
		Host:   p.conf.ID,
		Region: p.conf.Region,
		Table:  d.Table(),
		RTT:    d.RTT,
		Resolv: resolvFile,
		Log:    p.log,
	})
	return d.Run(ctx, func(ctx context.Context) error { return names.Run(ctx, drover.ResolverAddress()) })
}

// isMeshed reports whether this host's machines are joined with others: where they have taps, unless the configuration says otherwise.
func isMeshed(p process, chosen host.Network) bool {
	_, taps := chosen.(*netdev.Taps)
	return taps && p.conf.Meshed()
}

// joinMesh gives an agent its mesh.
func joinMesh(p process, c *host.Config) {
	c.Routes, c.Mesh = netdev.MeshRoutes{Device: netdev.MeshDevice}, network.NewClient(p.conf.RunDir)
	c.GuestMTU, c.GuestDNS = p.conf.MTU, []string{drover.ResolverAddress().String()}
}
