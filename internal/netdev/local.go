package netdev

import (
	"context"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"drover"
)

// linkPoll is how often WaitLink looks; a device that is moved into a namespace is announced there, but the announcement of one that
// came before the subscription is not, so looking is the simpler way.
const linkPoll = 5 * time.Millisecond

// StartLoopback starts the loopback device of the process's own network namespace.
func StartLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return translate(err, "cannot start the loopback device: %w", err)
	}
	return nil
}

// StartLink waits until a device of the name is there, in the process's own network namespace, gives it the addresses and starts it.
// Unavailable when ctx ends first.
func StartLink(ctx context.Context, name string, addresses ...net.IPNet) error {
	link, err := waitLink(ctx, name)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &a, Flags: noDAD(a.IP)}); err != nil {
			return translate(err, "cannot give %q the address %s: %w", name, a.String(), err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return translate(err, "cannot start %q: %w", name, err)
	}
	return nil
}

func waitLink(ctx context.Context, name string) (netlink.Link, error) {
	tick := time.NewTicker(linkPoll)
	defer tick.Stop()
	for {
		link, err := netlink.LinkByName(name)
		if err == nil {
			return link, nil
		}
		if !isNoLink(err) {
			return nil, translate(err, "cannot look for %q: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return nil, drover.Errorf(drover.Unavailable, "device %q did not appear: %w", name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
