package netdev

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

// MeshDevice is the name of the TUN device that leads to other hosts.
const MeshDevice = "drover0"

// The names in nftables. The table holds two sets: which tap may send from which /112, and which tap belongs to which /48.
const (
	firewallTable = "drover"
	sourceSet     = "sources"
	networkSet    = "networks"
)

// The prefix lengths of the sets: that of a machine, and that of its network.
const (
	sourceBits  = 112
	networkBits = 48
)

// firewall keeps machines apart: each sends from its own addresses only, reaches its own network only, and of its host nothing but the resolver. What
// it made stays in the kernel when the process ends.
type firewall struct{ table *nftables.Table }

func newFirewall() firewall {
	return firewall{&nftables.Table{Name: firewallTable, Family: nftables.TableFamilyINet}}
}

func (f firewall) set(name string) *nftables.Set {
	return &nftables.Set{Table: f.table, Name: name, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr)}
}

// install makes the rules anew and fills the sets from the taps that are there, all in one step: a tap of an earlier process is never open, and
// never shut by mistake.
func (f firewall) install() error {
	members, err := attachedMembers()
	if err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return translate(err, "cannot reach nftables: %w", err)
	}
	c.AddTable(f.table)
	for _, name := range []string{sourceSet, networkSet} {
		set := f.set(name)
		if err := c.AddSet(set, nil); err != nil {
			return translate(err, "cannot make the set %q of nftables: %w", name, err)
		}
		c.FlushSet(set)
		if len(members) == 0 {
			continue
		}
		var elements []nftables.SetElement
		for tap, address := range members {
			elements = append(elements, element(name, tap, address))
		}
		if err := c.SetAddElements(set, elements); err != nil {
			return translate(err, "cannot fill the set %q of nftables: %w", name, err)
		}
	}
	for _, set := range f.policySets() {
		if err := c.AddSet(set, nil); err != nil {
			return translate(err, "cannot make the set %q of nftables: %w", set.Name, err)
		}
	}
	for _, chain := range slices.Concat(f.refusals(), f.chains()) {
		added := c.AddChain(chain.chain)
		c.FlushChain(added)
		for _, exprs := range chain.rules {
			c.AddRule(&nftables.Rule{Table: f.table, Chain: added, Exprs: exprs})
		}
	}
	if err := c.Flush(); err != nil {
		return translate(err, "cannot make the rules that keep machines apart: %w", err)
	}
	return nil
}

// attachedMembers lists the addresses of the taps that are there.
func attachedMembers() (map[string]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot list network devices: %w", err)
	}
	members := map[string]netip.Addr{}
	for _, link := range links {
		if address, ok := addressOf(link); ok {
			members[link.Attrs().Name] = address
		}
	}
	return members, nil
}

// addressOf reads the machine's address from a tap's alias.
func addressOf(link netlink.Link) (netip.Addr, bool) {
	rest, ok := strings.CutPrefix(link.Attrs().Alias, aliasPrefix)
	_, text, spaced := strings.Cut(rest, " ")
	if !ok || !spaced {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(text)
	return address, err == nil && address.Is6()
}

// element is a member of one of the sets: the tap's name as the kernel compares it, and the prefix.
func element(set, tap string, address netip.Addr) nftables.SetElement {
	bits := sourceBits
	if set == networkSet {
		bits = networkBits
	}
	prefix := netip.PrefixFrom(address, bits).Masked().Addr().As16()
	return nftables.SetElement{Key: append(ifname(tap), prefix[:]...)}
}

// allow lets a tap send from the machine's own addresses, to its network. It may be repeated.
func (f firewall) allow(tap string, address netip.Addr) error {
	return f.change(tap, address, func(c *nftables.Conn, set *nftables.Set, e nftables.SetElement) error {
		return c.SetAddElements(set, []nftables.SetElement{e})
	})
}

// forget takes a tap out of the sets; nothing to take out is no error.
func (f firewall) forget(tap string, address netip.Addr) error {
	err := f.change(tap, address, func(c *nftables.Conn, set *nftables.Set, e nftables.SetElement) error {
		return c.SetDeleteElements(set, []nftables.SetElement{e})
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (f firewall) change(tap string, address netip.Addr, do func(*nftables.Conn, *nftables.Set, nftables.SetElement) error) error {
	c, err := nftables.New()
	for _, name := range []string{sourceSet, networkSet} {
		if err == nil {
			err = do(c, f.set(name), element(name, tap, address))
		}
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return translate(err, "cannot change what %q may send: %w", tap, err)
	}
	return nil
}

// Refusals tells how many packets each of the rules' chains has dropped or refused: "guard" those with an address that is not the sender's, "forward"
// those to somebody else's network, "input" those to a host, "policy-in" and "policy-out" those that a policy is against.
func Refusals() (map[string]uint64, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, translate(err, "cannot reach nftables: %w", err)
	}
	f, counts := newFirewall(), map[string]uint64{}
	for _, chain := range slices.Concat(f.refusals(), f.chains()) {
		rules, err := c.GetRules(f.table, chain.chain)
		if err != nil {
			return nil, translate(err, "cannot read the rules that keep machines apart: %w", err)
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					counts[chain.chain.Name] += counter.Packets
				}
			}
		}
	}
	return counts, nil
}
