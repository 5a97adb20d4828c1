package netdev

import (
	"errors"
	"net"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

// Namespace is a network namespace that lives as long as it is not closed and its process runs. It has one OS thread in it, which does
// what must happen inside (making sockets); devices are changed through a netlink socket that was made there. Safe for concurrent use.
type Namespace struct {
	handle *netlink.Handle
	work   chan func()
	ended  chan struct{}
	close  sync.Once
}

// NewNamespace makes a network namespace with nothing but its loopback device, which is up. Denied when the process may not.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{work: make(chan func()), ended: make(chan struct{})}
	started := make(chan error)
	go n.thread(started)
	if err := <-started; err != nil {
		return nil, translate(err, "cannot make a network namespace: %w", err)
	}
	if err := n.up("lo"); err != nil {
		n.Close()
		return nil, translate(err, "cannot start the loopback device of a new network namespace: %w", err)
	}
	return n, nil
}

// thread is the goroutine whose OS thread is in the namespace. It never unlocks the thread, so the thread ends with it: it cannot
// come back, where the process has no rights over the namespace that it came from.
func (n *Namespace) thread(started chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot end, and /proc/self shows its namespaces as the process's own. Keep it here until another
		// thread has taken over.
		go n.thread(started)
		<-n.ended
		runtime.UnlockOSThread()
		return
	}
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	started <- err
	if err != nil {
		close(n.ended)
		return
	}
	for f := range n.work {
		f()
	}
	n.handle.Close()
	close(n.ended)
}

// Close ends the namespace; devices and sockets in it go with it once nobody uses them.
func (n *Namespace) Close() {
	n.close.Do(func() { close(n.work) })
	<-n.ended
}

// Do calls f on the thread that is in the namespace. A socket that f makes stays in the namespace. f must not start goroutines that
// expect to be there too, nor call Do. It must not be called after Close.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	n.work <- func() { done <- f() }
	return <-done
}

func (n *Namespace) up(name string) error {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return err
	}
	return n.handle.LinkSetUp(link)
}

// AddBridge makes a bridge with addresses and starts it.
func (n *Namespace) AddBridge(name string, addresses ...net.IPNet) error {
	snooping := false // multicast (neighbour discovery among it) must reach every port, also before anybody asked for it
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &snooping}
	if err := n.handle.LinkAdd(bridge); err != nil {
		return translate(err, "cannot make bridge %q: %w", name, err)
	}
	for _, a := range addresses {
		if err := n.handle.AddrReplace(bridge, &netlink.Addr{IPNet: &a, Flags: noDAD(a.IP)}); err != nil {
			return translate(err, "cannot give bridge %q the address %s: %w", name, a.String(), err)
		}
	}
	if err := n.up(name); err != nil {
		return translate(err, "cannot start bridge %q: %w", name, err)
	}
	return nil
}

// AddPort makes a veth pair: one end is called name and stays here, unattached and up; the other is called peer, has the hardware
// address, and is put into the network namespace of the process pid.
func (n *Namespace) AddPort(name, peer string, address net.HardwareAddr, pid int) error {
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: name},
		PeerName:         peer,
		PeerHardwareAddr: address,
		PeerNamespace:    netlink.NsPid(pid),
	}
	if err := n.handle.LinkAdd(veth); err != nil {
		return translate(err, "cannot make port %q: %w", name, err)
	}
	if err := n.up(name); err != nil {
		return translate(err, "cannot start port %q: %w", name, err)
	}
	return nil
}

// AddPair makes a veth pair with both ends here and up.
func (n *Namespace) AddPair(name, peer string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}
	if err := n.handle.LinkAdd(veth); err != nil {
		return translate(err, "cannot make the pair %q and %q: %w", name, peer, err)
	}
	for _, end := range []string{name, peer} {
		if err := n.up(end); err != nil {
			return translate(err, "cannot start %q: %w", end, err)
		}
	}
	return nil
}

// Plug attaches a device to a bridge; an empty bridge detaches it from any.
func (n *Namespace) Plug(name, bridge string) error {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return translate(err, "cannot find %q: %w", name, err)
	}
	if bridge == "" {
		if err := n.handle.LinkSetNoMaster(link); err != nil {
			return translate(err, "cannot unplug %q: %w", name, err)
		}
		return nil
	}
	master, err := n.handle.LinkByName(bridge)
	if err != nil {
		return translate(err, "cannot find bridge %q: %w", bridge, err)
	}
	if err := n.handle.LinkSetMaster(link, master); err != nil {
		return translate(err, "cannot plug %q into bridge %q: %w", name, bridge, err)
	}
	return nil
}

// Remove removes a device and, if it is one of a pair, the other; nothing to remove is no error.
func (n *Namespace) Remove(name string) error {
	link, err := n.handle.LinkByName(name)
	if isNoLink(err) {
		return nil
	}
	if err == nil {
		err = n.handle.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return translate(err, "cannot remove %q: %w", name, err)
	}
	return nil
}

// Links lists the names of the devices in the namespace.
func (n *Namespace) Links() ([]string, error) {
	links, err := n.handle.LinkList()
	if err != nil {
		return nil, translate(err, "cannot list network devices: %w", err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names, nil
}

// noDAD spares an IPv6 address the second in which it may not be used: nobody else has it.
func noDAD(ip net.IP) int {
	if ip.To4() == nil {
		return unix.IFA_F_NODAD
	}
	return 0
}

// Index returns the index of a device, for packet sockets.
func (n *Namespace) Index(name string) (int, error) {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return 0, drover.Errorf(drover.NotFound, "cannot find %q: %w", name, err)
	}
	return link.Attrs().Index, nil
}
