package netdev

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

const (
	// routeProtocol marks the routes that Routes made (RTA_PROTOCOL of rtnetlink(7)): a number that no program of iproute2's
	// rt_protos has.
	routeProtocol netlink.RouteProtocol = 119
	// routePriority is before that of a tap's own route (1024, the kernel's default): a machine that has just left goes by way of its
	// new host although its tap is still there.
	routePriority = 512
)

const forwardingFile = "/proc/sys/net/ipv6/conf/all/forwarding"

// Routes leads packets for machines of other hosts there, in the process's network namespace. What it made is found again by a mark that
// the kernel keeps. Safe for concurrent use.
type Routes struct{}

func machineRoute(machine netip.Addr) netlink.Route {
	return netlink.Route{
		Dst:      &net.IPNet{IP: machine.AsSlice(), Mask: net.CIDRMask(machine.BitLen(), machine.BitLen())},
		Protocol: routeProtocol, Priority: routePriority, Table: unix.RT_TABLE_MAIN,
	}
}

// Set routes a machine's address by way of another host's. Unavailable when that address is on no link of this host.
func (Routes) Set(_ context.Context, machine, via netip.Addr) error {
	route := machineRoute(machine)
	route.Gw = via.AsSlice()
	if err := netlink.RouteReplace(&route); err != nil {
		if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EINVAL) {
			return drover.Errorf(drover.Unavailable, "cannot route %s by way of %s: %w", machine, via, err).
				WithHint("route_address of each host must be on a link that this host has too")
		}
		return translate(err, "cannot route %s by way of %s: %w", machine, via, err)
	}
	return nil
}

// Remove takes a route away; nothing to remove is no error.
func (Routes) Remove(_ context.Context, machine netip.Addr) error {
	route := machineRoute(machine)
	if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
		return translate(err, "cannot remove the route to %s: %w", machine, err)
	}
	return nil
}

// List returns the machines' addresses that are routed, with the hosts' addresses.
func (Routes) List(context.Context) (map[netip.Addr]netip.Addr, error) {
	list, err := machineRoutes()
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]netip.Addr{}
	for _, r := range list {
		if via, ok := netip.AddrFromSlice(r.Gw); ok {
			found[routed(r)] = via
		}
	}
	return found, nil
}

// machineRoutes lists the routes to single machines that Routes or MeshRoutes made.
func machineRoutes() ([]netlink.Route, error) {
	list, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, translate(err, "cannot list routes: %w", err)
	}
	return slices.DeleteFunc(list, func(r netlink.Route) bool { return !routed(r).IsValid() || r.Priority != routePriority }), nil
}

// routed returns the machine's address that a route leads to.
func routed(r netlink.Route) netip.Addr {
	if r.Dst == nil {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	if ones, bits := r.Dst.Mask.Size(); !ok || ones != bits {
		return netip.Addr{}
	}
	return a
}

// Forwards reports whether this network namespace forwards IPv6.
func Forwards() bool {
	data, err := os.ReadFile(forwardingFile)
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// StartForwarding makes this network namespace forward IPv6. A kernel without IPv6 has nothing to forward.
func StartForwarding() error {
	if err := setKernel(forwardingFile, "1"); err != nil {
		return translate(err, "cannot make the network forward IPv6: %w", err)
	}
	return nil
}
