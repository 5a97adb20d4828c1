package netdev

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// routeProtocol marks the routes that MeshRoutes made (RTA_PROTOCOL of rtnetlink(7)): a number that no program of iproute2's
	// rt_protos has.
	routeProtocol netlink.RouteProtocol = 119
	// routePriority is before that of a tap's own route (1024, the kernel's default): a machine that has just left goes by way of its
	// new host although its tap is still there.
	routePriority = 512
)

const forwardingFile = "/proc/sys/net/ipv6/conf/all/forwarding"

func machineRoute(machine netip.Addr) netlink.Route {
	return netlink.Route{
		Dst:      &net.IPNet{IP: machine.AsSlice(), Mask: net.CIDRMask(machine.BitLen(), machine.BitLen())},
		Protocol: routeProtocol, Priority: routePriority, Table: unix.RT_TABLE_MAIN,
	}
}

// machineRoutes lists the routes to single machines that MeshRoutes made, or an earlier version in another way.
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
