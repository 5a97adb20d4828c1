package netdev

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

const (
	// meshPriority is after that of taps (1024): what is here is not sent away.
	meshPriority = 2048
	// tunQueue is how many packets wait for the process: a burst of a fast sender, not more.
	tunQueue = 1000
)

// EnsureTUN makes a TUN device that stays when no process has it open, gives it the host's private address, and routes all private addresses to it
// that no tap has. It may be repeated. Denied when the process may not.
func EnsureTUN(name string, mtu int, address netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if isNoLink(err) {
		// The flags are those with which wireguard-go opens a device.
		err = netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: tunQueue}, Mode: netlink.TUNTAP_MODE_TUN,
			Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR})
		if err == nil {
			link, err = netlink.LinkByName(name)
		}
	}
	if err != nil {
		return translate(err, "cannot make the device %q: %w", name, err)
	}
	if err := ignoreRouterAdverts(name); err != nil {
		return translate(err, "cannot set up the device %q: %w", name, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return translate(err, "cannot set the MTU of the device %q to %d: %w", name, mtu, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return translate(err, "cannot start the device %q: %w", name, err)
	}
	own := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(link, own); err != nil {
		return translate(err, "cannot give the device %q the address %s: %w", name, address, err)
	}
	all := drover.PrivateNetworks()
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: routeProtocol, Priority: meshPriority, Src: address.AsSlice(),
		Dst: &net.IPNet{IP: all.Addr().AsSlice(), Mask: net.CIDRMask(all.Bits(), 128)}}
	if err := netlink.RouteReplace(route); err != nil {
		return translate(err, "cannot route %s to the device %q: %w", all, name, err)
	}
	return nil
}

// AddLocal gives this host an address on its loopback device, at which it answers but from which it begins nothing.
func AddLocal(address netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		const forever = 1<<32 - 1
		err = netlink.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD,
			ValidLft: forever, PreferedLft: 0})
	}
	if err != nil {
		return translate(err, "cannot give the loopback device the address %s: %w", address, err)
	}
	return nil
}

// MeshRoutes leads packets for machines of other hosts into a TUN device, before a tap that such a machine may still have here. By which host they go
// from there is not its business. What it made is found again by a mark that the kernel keeps.
type MeshRoutes struct{ Device string }

// Set routes a machine's address to the device. Unavailable while the device is not there.
func (m MeshRoutes) Set(_ context.Context, machine, _ netip.Addr) error {
	link, err := netlink.LinkByName(m.Device)
	if isNoLink(err) {
		return drover.Errorf(drover.Unavailable, "cannot route %s: there is no device %q yet", machine, m.Device).
			WithHint("it is made by another process of the host: drover serve mesh, with the same configuration")
	}
	if err != nil {
		return translate(err, "cannot look for the device %q: %w", m.Device, err)
	}
	route := machineRoute(machine)
	route.LinkIndex = link.Attrs().Index
	if err := netlink.RouteReplace(&route); err != nil {
		return translate(err, "cannot route %s to the device %q: %w", machine, m.Device, err)
	}
	return nil
}

// Remove takes a route away; nothing to remove is no error.
func (m MeshRoutes) Remove(_ context.Context, machine netip.Addr) error {
	route := machineRoute(machine)
	if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
		return translate(err, "cannot remove the route to %s: %w", machine, err)
	}
	return nil
}

// List returns the machines' addresses that are routed. The kernel does not know by which host each goes: that is the unspecified address for all; for
// those whose route an earlier version made it is the host's.
func (m MeshRoutes) List(context.Context) (map[netip.Addr]netip.Addr, error) {
	list, err := machineRoutes()
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]netip.Addr{}
	for _, r := range list {
		via, ok := netip.AddrFromSlice(r.Gw)
		if !ok {
			via = netip.IPv6Unspecified()
		}
		found[routed(r)] = via
	}
	return found, nil
}
