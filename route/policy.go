package route

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"drover"
)

// Member is a machine as network policies see it.
type Member struct {
	App     drover.AppName
	Address netip.Addr
	Meta    map[string]string
}

// PolicyOf works out what holds for a machine of the policies of its app. members are the machines of all networks; those of other networks count for
// nothing.
func PolicyOf(m Member, policies []drover.NetworkPolicy, members func(drover.AppName) []netip.Addr) drover.MachinePolicy {
	var out drover.MachinePolicy
	for _, p := range policies {
		if !selects(p.Selector, m.Meta) {
			continue
		}
		for _, r := range p.Rules {
			side := &out.Ingress
			if r.Direction == drover.PolicyEgress {
				side = &out.Egress
			}
			if *side == nil {
				*side = &drover.PolicySide{}
			}
			matches := matchesOf(r, peersOf(r.Peers, drover.NetworkOf(m.Address), members))
			if r.Action == drover.PolicyDeny {
				(*side).Deny = append((*side).Deny, matches...)
			} else {
				(*side).Allow = append((*side).Allow, matches...)
			}
		}
	}
	return out
}

func selects(s drover.PolicySelector, meta map[string]string) bool {
	for k, v := range s.Metadata {
		if meta[k] != v {
			return false
		}
	}
	return s.All || len(s.Metadata) > 0
}

func matchesOf(r drover.PolicyRule, peers []netip.Prefix) []drover.PolicyMatch {
	base := drover.PolicyMatch{Anybody: len(r.Peers) == 0, Peers: peers}
	if len(r.Ports) == 0 {
		return []drover.PolicyMatch{base}
	}
	var all []drover.PolicyMatch
	for _, p := range r.Ports {
		m := base
		m.Protocol = protocols[p.Protocol]
		if p.Port != 0 {
			m.FirstPort, m.LastPort = uint16(p.Port), uint16(cmp.Or(p.EndPort, p.Port))
		}
		all = append(all, m)
	}
	return all
}

// protocols are the numbers of the protocols that rules name.
var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMPV6}

// peersOf lists the prefixes that a rule's peers are, in an order that does not depend on that of the news.
func peersOf(peers []drover.PolicyPeer, network netip.Prefix, members func(drover.AppName) []netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range peers {
		if prefix, err := netip.ParsePrefix(p.CIDR); err == nil {
			all = append(all, prefix.Masked())
		}
		if p.App == "" {
			continue
		}
		for _, a := range members(p.App) {
			if drover.NetworkOf(a) == network {
				all = append(all, drover.MachinePrefix(a))
			}
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(all)
}
