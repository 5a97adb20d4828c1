package netdev

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"drover"
)

// Where what is in an IPv6 and a TCP header (RFC 8200, RFC 9293), and how long that of an ICMPv6 error is, which the packet follows that it is about.
const (
	sourceAt      = 8
	destinationAt = 24
	icmpErrorLen  = 8
	portAt        = 2
	tcpFlagsAt    = 13
	tcpSYN        = 0x02
	tcpACK        = 0x10
)

// The types of ICMPv6 (RFC 4443, RFC 4861): errors, which every sender needs; the answer to a ping; and what finds neighbours on a link.
var (
	icmpErrors     = []byte{1, 2, 3, 4}
	icmpNeighbours = []byte{133, 135, 136}
)

const (
	icmpPong    = 129
	icmpSolicit = 135
	dnsPort     = 53
	// rejectAny and prohibited are NFT_REJECT_ICMPX_UNREACH and NFT_REJECT_ICMPX_ADMIN_PROHIBITED of linux/netfilter/nf_tables.h.
	rejectAny, prohibited = 2, 3
)

// rule is a list of conditions, and what happens where all hold.
type rule []expr.Any

type chainRules struct {
	chain *nftables.Chain
	rules []rule
}

// chains is what keeps machines apart. docs/NETWORK.md has it in words.
func (f firewall) chains() []chainRules {
	base := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		accept := nftables.ChainPolicyAccept
		return &nftables.Chain{Table: f.table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority, Policy: &accept}
	}
	return []chainRules{
		{base("guard", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw), guardRules()},
		{base("forward", nftables.ChainHookForward, nftables.ChainPriorityFilter), forwardRules()},
		{base("input", nftables.ChainHookInput, nftables.ChainPriorityFilter), inputRules()},
	}
}

// refusals are the chains in which what policies refuse ends: what comes in, and what goes out.
func (f firewall) refusals() []chainRules {
	return []chainRules{
		{&nftables.Chain{Table: f.table, Name: refusedIn}, []rule{drop()}},
		{&nftables.Chain{Table: f.table, Name: refusedOut}, []rule{reject()}},
	}
}

// guardRules look at what comes from a machine before anything else does.
func guardRules() []rule {
	rules := []rule{on(fromTap(), not(protocolIs(unix.NFPROTO_IPV6)), drop())}
	for _, kind := range icmpNeighbours {
		rules = append(rules, on(fromTap(), icmpIs(kind), linkLocalSource(), accept()))
	}
	return append(rules,
		on(fromTap(), icmpIs(icmpSolicit), prefixIs(sourceAt, make([]byte, 16)), accept()),
		on(fromTap(), inSet(expr.MetaKeyIIFNAME, network(sourceAt, 16), sourceSet, sourceBits, true), drop()),
		// Connections between machines are not tracked, but for those with a policy: there is nothing that would have to move with one.
		on(fromTap(), untracked()),
		on(from(MeshDevice), untracked()))
}

func untracked() rule {
	return on(not(fleetAt(sourceAt)), not(fleetAt(destinationAt)), unpolicedAt(sourceAt), unpolicedAt(destinationAt), rule{&expr.Notrack{}})
}

// forwardRules are for what passes this host. What a machine answers to a host is told by the packet alone, since a machine that has moved goes on
// with connections of which its new host knows nothing.
func forwardRules() []rule {
	rules := []rule{
		byPolicy(expr.MetaKeyIIFNAME, egressMap),
		byPolicy(expr.MetaKeyOIFNAME, ingressMap),
		on(fromTap(), inSet(expr.MetaKeyIIFNAME, network(destinationAt, 16), networkSet, networkBits, false), accept()),
		on(fromTap(), fleetAt(destinationAt), tcpGoesOn(), accept()),
		on(fromTap(), fleetAt(destinationAt), icmpIs(icmpPong), accept()),
	}
	for _, kind := range icmpErrors {
		rules = append(rules, on(fromTap(), fleetAt(destinationAt), icmpIs(kind), aboutItself(), accept()))
	}
	return append(rules,
		on(fromTap(), reject()),
		on(from(MeshDevice), toTap(), inSet(expr.MetaKeyOIFNAME, network(sourceAt, 16), networkSet, networkBits, false), accept()),
		on(from(MeshDevice), toTap(), fleetAt(sourceAt), accept()),
		on(toTap(), drop()),
		on(from(MeshDevice), to(MeshDevice), accept()), // it comes for a machine that has left
		on(from(MeshDevice), drop()),
		on(to(MeshDevice), drop()))
}

// inputRules are for what is for the host itself.
func inputRules() []rule {
	var rules []rule
	for _, kind := range icmpNeighbours {
		rules = append(rules, on(fromTap(), icmpIs(kind), accept()))
	}
	// The kernel takes the word of whoever sends such an error on any path of its own: a guest could let it cut the packets between hosts in pieces.
	for _, kind := range icmpErrors {
		rules = append(rules, on(fromTap(), icmpIs(kind), aboutItself(), accept()), on(fromTap(), icmpIs(kind), drop()))
	}
	resolver := drover.ResolverAddress().AsSlice()
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		// From the mesh come the questions of people's peers, which the mesh lets through for this only.
		rules = append(rules, on(fromTap(), prefixIs(destinationAt, resolver), portIs(protocol, dnsPort), accept()),
			on(from(MeshDevice), prefixIs(destinationAt, resolver), portIs(protocol, dnsPort), accept()))
	}
	rules = append(rules,
		on(fromTap(), answersHost(), accept()),
		on(fromTap(), reject()),
		on(from(MeshDevice), fleetAt(sourceAt), accept()),
		on(from(MeshDevice), answersHost(), accept()))
	for _, kind := range icmpErrors {
		rules = append(rules, on(from(MeshDevice), icmpIs(kind), accept()))
	}
	return append(rules, on(from(MeshDevice), drop()))
}

func on(parts ...rule) rule { return slices.Concat(parts...) }

// ifname is a device's name as the kernel compares it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func meta(key expr.MetaKey, data []byte) rule {
	return rule{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

// fromTap and toTap compare the beginning of the name only.
func fromTap() rule         { return meta(expr.MetaKeyIIFNAME, []byte(tapPrefix)) }
func toTap() rule           { return meta(expr.MetaKeyOIFNAME, []byte(tapPrefix)) }
func from(name string) rule { return meta(expr.MetaKeyIIFNAME, ifname(name)) }
func to(name string) rule   { return meta(expr.MetaKeyOIFNAME, ifname(name)) }

func protocolIs(family byte) rule { return meta(expr.MetaKeyNFPROTO, []byte{family}) }

func network(at, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: length}
}

func transport(at, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: at, Len: length}
}

func equal(data ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// prefixIs compares the first bytes of an address.
func prefixIs(at uint32, data []byte) rule {
	return rule{network(at, uint32(len(data))), equal(data...)}
}

// fleetAt compares the /48 of an address with that of the hosts.
func fleetAt(at uint32) rule {
	return prefixIs(at, drover.FleetNetwork().Addr().AsSlice()[:networkBits/8])
}

// not turns a rule's last comparison round.
func not(r rule) rule {
	last := *r[len(r)-1].(*expr.Cmp)
	last.Op = expr.CmpOpNeq
	return append(slices.Clone(r[:len(r)-1]), &last)
}

func linkLocalSource() rule {
	return rule{network(sourceAt, 2), masked(2, 0xff, 0xc0), equal(0xfe, 0x80)}
}

func masked(length uint32, mask ...byte) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask, Xor: make([]byte, length)}
}

func icmpIs(kind byte) rule {
	return on(protocolIs(unix.NFPROTO_IPV6), meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_ICMPV6}), rule{transport(0, 1), equal(kind)})
}

func portIs(protocol byte, port uint16) rule {
	return on(meta(expr.MetaKeyL4PROTO, []byte{protocol}), rule{transport(portAt, 2), equal(binaryutil.BigEndian.PutUint16(port)...)})
}

// tcpGoesOn: a segment that begins no connection.
func tcpGoesOn() rule {
	return on(meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}),
		not(rule{transport(tcpFlagsAt, 1), masked(1, tcpSYN|tcpACK), equal(tcpSYN)}))
}

// answersHost: it belongs to a connection that this host began.
func answersHost() rule {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return not(rule{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, masked(4, states...), equal(0, 0, 0, 0)})
}

// The registers of 16 bytes (NFT_REG_1 and NFT_REG_2): the sets' keys need both.
const wideRegister1, wideRegister2 = 1, 2

// aboutItself: what an ICMPv6 error from a machine is about was sent to that machine.
func aboutItself() rule {
	return inSet(expr.MetaKeyIIFNAME, transport(icmpErrorLen+destinationAt, 16), sourceSet, sourceBits, false)
}

// inSet looks a device and the prefix of an address, which is somewhere in the packet, up in one of the sets; absent turns it round.
func inSet(device expr.MetaKey, address *expr.Payload, set string, bits int, absent bool) rule {
	mask := make([]byte, 16)
	for i := range bits / 8 {
		mask[i] = 0xff
	}
	address.DestRegister = wideRegister2
	return rule{
		&expr.Meta{Key: device, Register: wideRegister1},
		address,
		&expr.Bitwise{SourceRegister: wideRegister2, DestRegister: wideRegister2, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		&expr.Lookup{SourceRegister: wideRegister1, SetName: set, Invert: absent},
	}
}

func accept() rule { return rule{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() rule { return rule{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }

// reject says at once that it will not be.
func reject() rule { return rule{&expr.Counter{}, &expr.Reject{Type: rejectAny, Code: prohibited}} }
