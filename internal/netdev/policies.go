package netdev

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

// The names of what policies have in nftables: which taps have chains of their own, for what comes in and what goes out, and which /112 they have.
const (
	ingressMap  = "ingress"
	egressMap   = "egress"
	policedSet  = "policed"
	refusedIn   = "policy-in"
	refusedOut  = "policy-out"
	inChain     = "in-"
	outChain    = "out-"
	backInName  = "back-in-"
	backOutName = "back-out-"
)

// firstDynamic is the first port that Linux takes for a connection that a program begins (net.ipv4.ip_local_port_range). Who began a connection that is
// met in its middle, as after a move, is guessed by it.
const firstDynamic = 32768

// Police sets what a machine may receive and send, in one step, also before it has its tap and while it runs: nothing passes by neither the old nor the
// new policy. What was allowed before and is not now is cut: the kernel's memory of the machine's connections is dropped, and each is judged anew. Nothing is
// done where the policy holds already: an agent that starts anew disturbs nobody.
func (t *Taps) Police(_ context.Context, id drover.MachineID, address string, p drover.MachinePolicy) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is6() {
		return nil // it has no address in a network of its own
	}
	if err := t.guard(); err != nil {
		return err
	}
	f, tap := newFirewall(), TapName(id)
	if p.Open() {
		return f.unpolice(tap)
	}
	sum, err := digest(p)
	if err != nil {
		return err
	}
	if holds, err := f.policeHolds(tap, sum); err != nil || holds {
		return err
	}
	if err := f.police(tap, a, p); err != nil {
		return err
	}
	if err := forgetConnections(drover.MachinePrefix(a)); err != nil {
		return err
	}
	return f.signPolicy(tap, a, sum) // the last step: cut before it, all of this is done again
}

// digest tells policies apart.
func digest(p drover.MachinePolicy) (string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return "", drover.Errorf(drover.Internal, "cannot write down a network policy: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}

// guard makes the rules, once.
func (t *Taps) guard() error {
	if t.guarded {
		return nil
	}
	if err := newFirewall().install(); err != nil {
		return err
	}
	t.guarded = true
	return nil
}

// policySets are those that outlive the agent.
func (f firewall) policySets() []*nftables.Set {
	return []*nftables.Set{
		{Table: f.table, Name: ingressMap, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict},
		{Table: f.table, Name: egressMap, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict},
		{Table: f.table, Name: policedSet, KeyType: nftables.TypeIP6Addr},
	}
}

// policyElements are the members of the policySets for a tap, in their order. Each says whose it is and, once all is done, what the policy's digest is.
func policyElements(tap string, address netip.Addr, sum string) []nftables.SetElement {
	note := tap + " " + sum
	prefix := drover.MachinePrefix(address).Addr().As16()
	jump := func(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain + tap} }
	return []nftables.SetElement{{Key: ifname(tap), VerdictData: jump(inChain), Comment: note}, {Key: ifname(tap), VerdictData: jump(outChain), Comment: note}, {Key: prefix[:], Comment: note}}
}

// policyChain is a chain of one machine, with its rules.
type policyChain struct {
	name  string
	rules func(c *nftables.Conn) ([]rule, error)
}

func (f firewall) policyChains(tap string, p drover.MachinePolicy) []policyChain {
	in, out := inward(), outward()
	return []policyChain{
		{backInName + tap, func(c *nftables.Conn) ([]rule, error) { return f.sideRules(c, p.Egress, in, in.localPort, in.refuse) }},
		{backOutName + tap, func(c *nftables.Conn) ([]rule, error) {
			return f.sideRules(c, p.Ingress, out, out.localPort, out.refuse)
		}},
		{inChain + tap, func(c *nftables.Conn) ([]rule, error) {
			rules, err := f.sideRules(c, p.Ingress, in, in.askedPort, in.refuse)
			return append(in.knownRules(backInName+tap), rules...), err
		}},
		{outChain + tap, func(c *nftables.Conn) ([]rule, error) {
			rules, err := f.sideRules(c, p.Egress, out, out.askedPort, out.refuse)
			return append(out.knownRules(backOutName+tap), rules...), err
		}},
	}
}

// direction is how packets of one way are looked at: where the other end's address is, where the port that is asked, and where the one that would have
// been asked if the packet is an answer.
type direction struct {
	remoteAt             uint32
	askedPort, localPort uint32
	refuse               string
}

func inward() direction {
	return direction{remoteAt: sourceAt, askedPort: portAt, localPort: 0, refuse: refusedIn}
}

func outward() direction {
	return direction{remoteAt: destinationAt, askedPort: portAt, localPort: 0, refuse: refusedOut}
}

// knownRules let through what belongs to something that was let through. A TCP connection that is met in its middle (the machine has moved, or the policy
// has changed) is judged as what it seems to be: one that goes to a port of those that programs are given is an answer, and is judged as the
// question was; where that cannot be told, both must be allowed.
func (d direction) knownRules(back string) []rule {
	rules := []rule{
		on(known(), tcpGoesOn(), leave()),
		on(known(), not(meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP})), leave()),
		on(fleetAt(d.remoteAt), leave()),
	}
	for _, kind := range icmpErrors {
		rules = append(rules, on(icmpIs(kind), leave()))
	}
	low, high := expr.CmpOpLt, expr.CmpOpGte
	to := func(kind expr.VerdictKind) rule { return rule{&expr.Verdict{Kind: kind, Chain: back}} }
	return append(rules,
		on(tcpGoesOn(), portCompares(0, low), portCompares(portAt, high), to(expr.VerdictGoto)),
		on(tcpGoesOn(), portCompares(0, low), portCompares(portAt, low), to(expr.VerdictJump)),
		on(tcpGoesOn(), portCompares(0, high), portCompares(portAt, high), to(expr.VerdictJump)))
}

// sideRules leave the chain for what a side allows, and refuse the rest.
func (f firewall) sideRules(c *nftables.Conn, side *drover.PolicySide, d direction, port uint32, refuse string) ([]rule, error) {
	if side == nil {
		return []rule{leave()}, nil
	}
	refused := rule{&expr.Verdict{Kind: expr.VerdictGoto, Chain: refuse}}
	var rules []rule
	for _, part := range []struct {
		matches []drover.PolicyMatch
		then    rule
	}{{side.Deny, refused}, {side.Allow, leave()}} {
		for _, m := range part.matches {
			matched, err := f.match(c, m, d.remoteAt, port)
			if err != nil {
				return nil, err
			}
			if matched != nil {
				rules = append(rules, on(matched, part.then))
			}
		}
	}
	return append(rules, refused), nil
}

// match makes the conditions of a match; nil for one that nothing meets.
func (f firewall) match(c *nftables.Conn, m drover.PolicyMatch, remoteAt, port uint32) (rule, error) {
	r := rule{}
	if !m.Anybody {
		if len(m.Peers) == 0 {
			return nil, nil
		}
		set := &nftables.Set{Table: f.table, Anonymous: true, Constant: true, Interval: true, KeyType: nftables.TypeIP6Addr}
		if err := c.AddSet(set, intervals(m.Peers)); err != nil {
			return nil, translate(err, "cannot make a set of addresses: %w", err)
		}
		r = append(r, network(remoteAt, 16), &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID})
	}
	if m.Protocol != 0 {
		r = on(r, meta(expr.MetaKeyL4PROTO, []byte{m.Protocol}))
	}
	if m.LastPort != 0 {
		r = append(r, transport(port, 2), &expr.Range{Op: expr.CmpOpEq, Register: 1,
			FromData: binaryutil.BigEndian.PutUint16(m.FirstPort), ToData: binaryutil.BigEndian.PutUint16(m.LastPort)})
	}
	return r, nil
}

// intervals makes the members of a set of ranges: each begins where it begins, and ends before the next address.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	type span struct{ first, next netip.Addr } // next is not valid at the end of all addresses
	var spans []span
	for _, p := range slices.SortedFunc(slices.Values(prefixes), func(a, b netip.Prefix) int { return a.Masked().Addr().Compare(b.Masked().Addr()) }) {
		s := span{p.Masked().Addr(), lastOf(p).Next()}
		if n := len(spans); n > 0 && (!spans[n-1].next.IsValid() || s.first.Compare(spans[n-1].next) <= 0) {
			if spans[n-1].next.IsValid() && (!s.next.IsValid() || spans[n-1].next.Less(s.next)) {
				spans[n-1].next = s.next
			}
			continue
		}
		spans = append(spans, s)
	}
	var elements []nftables.SetElement
	if len(spans) > 0 && spans[0].first != netip.IPv6Unspecified() {
		elements = append(elements, nftables.SetElement{Key: make([]byte, 16), IntervalEnd: true})
	}
	for _, s := range spans {
		elements = append(elements, nftables.SetElement{Key: s.first.AsSlice()})
		if s.next.IsValid() {
			elements = append(elements, nftables.SetElement{Key: s.next.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As16()
	for bit := p.Bits(); bit < 128; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom16(a)
}

func (f firewall) police(tap string, address netip.Addr, p drover.MachinePolicy) error {
	c, err := nftables.New()
	if err != nil {
		return translate(err, "cannot reach nftables: %w", err)
	}
	for _, pc := range f.policyChains(tap, p) {
		chain := c.AddChain(&nftables.Chain{Table: f.table, Name: pc.name})
		c.FlushChain(chain)
		rules, err := pc.rules(c)
		if err != nil {
			return err
		}
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: r})
		}
	}
	if err := f.putMembers(c, tap, policyElements(tap, address, "")); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return translate(err, "cannot set the policy of %q: %w", tap, err)
	}
	return nil
}

// members reads what the policySets have of a tap, in their order. None where there never was a policy.
func (f firewall) members(c *nftables.Conn, tap string) ([][]nftables.SetElement, error) {
	var own [][]nftables.SetElement
	for _, set := range f.policySets() {
		all, err := c.GetSetElements(set)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, translate(err, "cannot read which machines have policies: %w", err)
		}
		own = append(own, slices.DeleteFunc(all, func(e nftables.SetElement) bool { return !strings.HasPrefix(e.Comment, tap+" ") }))
	}
	return own, nil
}

// putMembers puts a tap's members into the policySets in place of those that it has; none takes them away.
func (f firewall) putMembers(c *nftables.Conn, tap string, elements []nftables.SetElement) error {
	own, err := f.members(c, tap)
	for i, set := range f.policySets() {
		if err == nil && len(own[i]) > 0 {
			err = c.SetDeleteElements(set, own[i])
		}
		if err == nil && elements != nil {
			err = c.SetAddElements(set, elements[i:i+1])
		}
	}
	if err != nil {
		return translate(err, "cannot change which machines have policies: %w", err)
	}
	return nil
}

// policeHolds reports whether a policy with the digest holds for a tap, with all that goes with it.
func (f firewall) policeHolds(tap, sum string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, translate(err, "cannot reach nftables: %w", err)
	}
	own, err := f.members(c, tap)
	for _, members := range own {
		if err != nil || len(members) != 1 || members[0].Comment != tap+" "+sum {
			return false, err
		}
	}
	return err == nil, err
}

// signPolicy notes what holds.
func (f firewall) signPolicy(tap string, address netip.Addr, sum string) error {
	c, err := nftables.New()
	if err == nil {
		err = f.putMembers(c, tap, policyElements(tap, address, sum))
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return translate(err, "cannot note the policy of %q: %w", tap, err)
	}
	return nil
}

// unpolice takes away what police made; nothing to take away is no error.
func (f firewall) unpolice(tap string) error {
	c, err := nftables.New()
	if err != nil {
		return translate(err, "cannot reach nftables: %w", err)
	}
	own, err := f.members(c, tap)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(own, func(members []nftables.SetElement) bool { return len(members) > 0 }) {
		return nil
	}
	if err := f.putMembers(c, tap, nil); err != nil {
		return err
	}
	for _, name := range []string{inChain, outChain, backInName, backOutName} {
		chain := &nftables.Chain{Table: f.table, Name: name + tap}
		c.FlushChain(chain)
		c.DelChain(chain)
	}
	if err := c.Flush(); err != nil {
		return translate(err, "cannot take away the policy of %q: %w", tap, err)
	}
	return nil
}

// connectionsOf matches what the kernel remembers of a machine.
type connectionsOf struct{ prefix netip.Prefix }

// MatchConntrackFlow is netlink.CustomConntrackFilter's.
func (m connectionsOf) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, ip := range [][]byte{flow.Forward.SrcIP, flow.Forward.DstIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && m.prefix.Contains(a) {
			return true
		}
	}
	return false
}

// forgetConnections makes the kernel judge a machine's connections anew.
func forgetConnections(machine netip.Prefix) error {
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET6, connectionsOf{machine}); err != nil {
		return translate(err, "cannot cut the connections of %s: %w", machine, err)
	}
	return nil
}

// leave ends a machine's chain without a word against the packet.
func leave() rule { return rule{&expr.Verdict{Kind: expr.VerdictReturn}} }

// known: it belongs to a connection of which the kernel has seen both ways.
func known() rule { return answersHost() }

func portCompares(at uint32, op expr.CmpOp) rule {
	return rule{transport(at, 2), &expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(firstDynamic)}}
}

// byPolicy looks a tap's chain up in one of the maps, and goes through it.
func byPolicy(device expr.MetaKey, name string) rule {
	return rule{&expr.Meta{Key: device, Register: 1}, &expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: name}}
}

// unpolicedAt: the machine with the address has no policy.
func unpolicedAt(at uint32) rule {
	mask := make([]byte, 16)
	for i := range sourceBits / 8 {
		mask[i] = 0xff
	}
	return rule{network(at, 16), masked(16, mask...), &expr.Lookup{SourceRegister: 1, SetName: policedSet, Invert: true}}
}
