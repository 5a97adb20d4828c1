package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"drover/guest"
)

// card is the machine's network card.
const card = "eth0"

// setUpNetwork brings up the loopback device, and eth0 as the config says.
func setUpNetwork(cfg guest.Network) (err error) {
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nl.Close()) }()
	lo, err := interfaceIndex("lo")
	if err != nil {
		return err
	}
	if err := nl.linkUp(lo, 0); err != nil {
		return fmt.Errorf("cannot bring up lo: %w", err)
	}
	// A user that is not root may serve port 80, as in a container: the machine has no other users to be kept from it.
	if err := setKernel("net/ipv4/ip_unprivileged_port_start", "0"); err != nil {
		return err
	}
	if cfg.Address == "" && !cfg.User {
		return nil
	}
	eth, err := interfaceIndex(card)
	if err != nil {
		return fmt.Errorf("the config has an address, but the VM has no network card: %w", err)
	}
	// The host says what the addresses are; nothing is to be learned from others on the link, and nobody else can have them.
	for name, value := range map[string]string{"accept_ra": "0", "autoconf": "0", "accept_dad": "0"} {
		if err := setKernel("net/ipv6/conf/"+card+"/"+name, value); err != nil {
			return err
		}
	}
	if err := nl.linkUp(eth, cfg.MTU); err != nil {
		return fmt.Errorf("cannot bring up %s: %w", card, err)
	}
	if cfg.Address != "" {
		if err := nl.setUpIPv6(eth, cfg); err != nil {
			return err
		}
	}
	if !cfg.User {
		return nil
	}
	return nl.setUpUser(eth)
}

// setUpUser gives the card the address that QEMU's user networking has for its guest, which is always the same.
func (n *netlink) setUpUser(eth int) error {
	address, gateway := netip.MustParsePrefix("10.0.2.15/24"), netip.MustParseAddr("10.0.2.2")
	if err := n.addAddress(eth, address); err != nil {
		return fmt.Errorf("cannot set address %s: %w", address, err)
	}
	if err := n.addDefaultRoute(eth, gateway); err != nil {
		return fmt.Errorf("cannot set the default route by %s: %w", gateway, err)
	}
	return nil
}

// setUpIPv6 gives the card its private address, which is reached by the host alone.
func (n *netlink) setUpIPv6(eth int, cfg guest.Network) error {
	address, err := netip.ParseAddr(cfg.Address)
	if err != nil || !address.Is6() {
		return fmt.Errorf("the machine's address %q is no IPv6 address", cfg.Address)
	}
	if err := n.addAddress(eth, netip.PrefixFrom(address, 128)); err != nil {
		return fmt.Errorf("cannot set address %s: %w", address, err)
	}
	if cfg.User && cfg.Gateway == "" {
		return nil // user networking has no gateway for it
	}
	text := cfg.Gateway
	if text == "" {
		text = "fe80::1"
	}
	gateway, err := netip.ParseAddr(text)
	if err != nil || !gateway.Is6() {
		return fmt.Errorf("the machine's gateway %q is no IPv6 address", text)
	}
	if err := n.addDefaultRoute(eth, gateway); err != nil {
		return fmt.Errorf("cannot set the default route by %s: %w", gateway, err)
	}
	return nil
}

func interfaceIndex(name string) (int, error) {
	text, err := os.ReadFile("/sys/class/net/" + name + "/ifindex")
	if err != nil {
		return 0, fmt.Errorf("there is no network interface %s: %w", name, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// setKernel sets a kernel setting under /proc/sys; one that the kernel does not have needs no setting.
func setKernel(name, value string) error {
	f, err := os.OpenFile("/proc/sys/"+name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot set %s: %w", name, err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot set %s to %s: %w", name, value, err)
	}
	return nil
}
