package netdev

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

const (
	// tapPrefix and tapDigits make the name of a tap: at most 15 characters (IFNAMSIZ of linux/if.h less its final zero).
	tapPrefix = "dm"
	tapDigits = 12
	// aliasPrefix marks a device as a machine's; the machine's ID and address follow.
	aliasPrefix = "drover:"
)

// gateway is the address that every host has on every tap: a machine that moves keeps its gateway.
func gateway() *net.IPNet { return &net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)} }

// Taps gives each machine a tap device of its own, routes the machine's address to it, and keeps machines apart. Safe for concurrent use.
type Taps struct {
	mu sync.Mutex // one change at a time: the steps of two calls for one machine must not mix
	// guarded says that the rules which keep machines apart were made by this process.
	guarded bool
}

// TapName returns the name of the machine's tap device.
func TapName(id drover.MachineID) string {
	return tapPrefix + string(id[:min(len(id), tapDigits)])
}

// tapMAC is the hardware address of the machine's tap: the same on every host, because a machine that moves with its memory goes on to send
// to the gateway's address that it knows. Locally administered, unicast, and never the machine's own (drover.MachineID.MAC).
func tapMAC(id drover.MachineID) net.HardwareAddr {
	sum := sha256.Sum256([]byte("gateway of " + string(id)))
	return append(net.HardwareAddr{0x06}, sum[:5]...)
}

// Attach makes the machine's tap device, or finds it, and routes the address (an IPv6 or IPv4 address, or empty for no route) to it.
// It returns the device's name. Invalid for a bad address, Exists when another machine has the device, Denied when the process may not
// make one.
func (t *Taps) Attach(ctx context.Context, id drover.MachineID, address string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", drover.Errorf(drover.Canceled, "cannot attach machine %q: %w", id, err)
	}
	if err := t.guard(); err != nil {
		return "", err
	}
	var route *net.IPNet
	if address != "" {
		a, err := netip.ParseAddr(address)
		if err != nil {
			return "", drover.Errorf(drover.Invalid, "cannot attach machine %q: %q is not an IP address", id, address)
		}
		route = &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	}
	link, err := ensureTap(id)
	if err != nil {
		return "", err
	}
	if link.Attrs().Alias == "" {
		if err := netlink.LinkSetHardwareAddr(link, tapMAC(id)); err != nil {
			return "", translate(err, "cannot set the hardware address of the tap device of machine %q: %w", id, err)
		}
	}
	if a, err := netip.ParseAddr(address); err == nil && a.Is6() {
		if err := newFirewall().allow(link.Attrs().Name, a); err != nil {
			return "", err
		}
	}
	if err := setUpTap(link, aliasPrefix+string(id)+" "+address, route); err != nil {
		return "", translate(err, "cannot set up the tap device of machine %q: %w", id, err)
	}
	return link.Attrs().Name, nil
}

// ensureTap finds the machine's tap or makes it. A tap without an alias is one whose making was cut short, and is taken.
func ensureTap(id drover.MachineID) (netlink.Link, error) {
	name := TapName(id)
	link, err := netlink.LinkByName(name)
	if err == nil {
		if owner, ok := ownerOf(link); ok && owner != id {
			return nil, drover.Errorf(drover.Exists, "cannot attach machine %q: the device %s is that of machine %q", id, name, owner)
		}
		return link, nil
	}
	if !isNoLink(err) {
		return nil, drover.Errorf(drover.Internal, "cannot look for the tap device of machine %q: %w", id, err)
	}
	// No queues and no flags but these: the VMM opens the device by name and must ask for the same kind.
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name},
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, translate(err, "cannot make the tap device of machine %q: %w", id, err)
	}
	if link, err = netlink.LinkByName(name); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot find the new tap device of machine %q: %w", id, err)
	}
	return link, nil
}

// setUpTap does what makes a device a machine's link. The alias is the last step but one, so that a device that has it is complete
// but for its route.
func setUpTap(link netlink.Link, alias string, route *net.IPNet) error {
	if err := errors.Join(ignoreRouterAdverts(link.Attrs().Name), answerNoARP(link.Attrs().Name)); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link up: %w", err)
	}
	addr := &netlink.Addr{IPNet: gateway(), Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", gateway(), err)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("alias: %w", err)
	}
	if route == nil {
		return nil
	}
	err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: route, Scope: netlink.SCOPE_LINK})
	if err != nil {
		return fmt.Errorf("route %s: %w", route, err)
	}
	return nil
}

// ignoreRouterAdverts keeps a guest from giving its host addresses and routes. A kernel without IPv6 has nothing to ignore.
func ignoreRouterAdverts(name string) error {
	return setKernel(filepath.Join("/proc/sys/net/ipv6/conf", name, "accept_ra"), "0")
}

// answerNoARP keeps a guest from learning which IPv4 addresses its host has: there is no IPv4 on its link, and ARP goes by no rule of nftables' table.
func answerNoARP(name string) error {
	return setKernel(filepath.Join("/proc/sys/net/ipv4/conf", name, "arp_ignore"), "8")
}

// setKernel writes a setting of the kernel; one that this kernel does not have is no error.
func setKernel(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Detach removes the machine's tap device, and with it its route; nothing to remove is no error.
func (t *Taps) Detach(_ context.Context, id drover.MachineID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	link, err := netlink.LinkByName(TapName(id))
	if isNoLink(err) {
		return newFirewall().unpolice(TapName(id))
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot look for the tap device of machine %q: %w", id, err)
	}
	if owner, ok := ownerOf(link); ok && owner != id {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return translate(err, "cannot remove the tap device of machine %q: %w", id, err)
	}
	err = nil
	if address, ok := addressOf(link); ok {
		err = newFirewall().forget(link.Attrs().Name, address)
	}
	return errors.Join(err, newFirewall().unpolice(link.Attrs().Name))
}

// Attached lists the machines that have a device.
func (t *Taps) Attached(context.Context) ([]drover.MachineID, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot list network devices: %w", err)
	}
	var ids []drover.MachineID
	for _, link := range links {
		if id, ok := ownerOf(link); ok && link.Attrs().Name == TapName(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func ownerOf(link netlink.Link) (drover.MachineID, bool) {
	rest, ok := strings.CutPrefix(link.Attrs().Alias, aliasPrefix)
	if !ok {
		return "", false
	}
	id, _, _ := strings.Cut(rest, " ")
	return drover.MachineID(id), id != ""
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

// translate makes an error of the kernel an error of Drover's.
func translate(err error, format string, args ...any) error {
	code := drover.Internal
	if errors.Is(err, os.ErrPermission) {
		code = drover.Denied
	}
	return drover.Errorf(code, format, args...)
}
