package netdev

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"drover"
)

// port6 is a TCP segment or a datagram with both ports.
func port6(from, to netip.Addr, protocol byte, source, destination uint16, flags byte, text string) []byte {
	head, sumAt := make([]byte, 8), 6
	if protocol == unix.IPPROTO_TCP {
		head, sumAt = make([]byte, 20), 16
		head[12], head[tcpFlagsAt] = 5<<4, flags
		binary.BigEndian.PutUint16(head[14:], 65535)
	} else {
		binary.BigEndian.PutUint16(head[4:], uint16(8+len(text)))
	}
	binary.BigEndian.PutUint16(head, source)
	binary.BigEndian.PutUint16(head[2:], destination)
	return packet6(from, to, protocol, append(head, text...), sumAt)
}

const (
	tcp, udp, ping = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6
	synAck         = tcpSYN | tcpACK
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// passes sends a packet and tells whether it arrives.
func (w *isolated) passes(from, to *wire, packet func(text string) []byte, text string) bool {
	from.send(packet(text))
	return to.gets(text, wait)
}

func TestAPolicyIsAppliedWhileTheMachineRuns(t *testing.T) {
	w := newIsolated(t)
	police := func(p drover.MachinePolicy) {
		t.Helper()
		if err := w.taps.Police(t.Context(), idA, addrA.String(), p); err != nil {
			t.Fatal(err)
		}
	}
	type way struct {
		what     string
		from, to *wire
		packet   func(string) []byte
		passes   bool
	}
	check := func(when string, ways ...way) {
		t.Helper()
		for _, c := range ways {
			text := "(" + when + ": " + c.what + ")"
			if got := w.passes(c.from, c.to, c.packet, text); got != c.passes {
				t.Errorf("%s: it passes: %t", text, got)
			}
		}
	}
	tcpTo := func(from, to netip.Addr, source, destination uint16, flags byte) func(string) []byte {
		return func(s string) []byte { return port6(from, to, tcp, source, destination, flags, s) }
	}
	udpTo := func(from, to netip.Addr, source, destination uint16) func(string) []byte {
		return func(s string) []byte { return port6(from, to, udp, source, destination, 0, s) }
	}
	pingOf := func(from, to netip.Addr, kind byte) func(string) []byte {
		return func(s string) []byte { return icmp6(from, to, kind, s) }
	}
	// Taps that were just opened take a moment.
	for i := 0; i < mostTries && !(w.passes(w.b, w.a, udpTo(addrB, addrA, 1, 2), "warm") && w.passes(w.a, w.b, udpTo(addrA, addrB, 1, 2), "warm")); i++ {
	}
	check("before", way{"whatever", w.b, w.a, udpTo(addrB, addrA, 1000, 2000), true}, way{"from elsewhere", w.mesh, w.a, tcpTo(addrAway, addrA, 40000, 22, tcpSYN), true})

	// Port 5432 for B only, everything out.
	database := drover.MachinePolicy{Ingress: &drover.PolicySide{Allow: []drover.PolicyMatch{{Protocol: tcp, FirstPort: 5432, LastPort: 5433, Peers: prefixes(addrB.String()+"/112", addrB.String()+"/128")}}}}
	police(database)
	check("closed",
		way{"the port, from B", w.b, w.a, tcpTo(addrB, addrA, 40001, 5432, tcpSYN), true},
		way{"its answer", w.a, w.b, tcpTo(addrA, addrB, 5432, 40001, synAck), true},
		way{"and on", w.b, w.a, tcpTo(addrB, addrA, 40001, 5432, tcpACK), true},
		way{"the port, from elsewhere", w.mesh, w.a, tcpTo(addrAway, addrA, 40001, 5432, tcpSYN), false},
		way{"another port", w.b, w.a, tcpTo(addrB, addrA, 40001, 22, tcpSYN), false},
		way{"another protocol", w.b, w.a, udpTo(addrB, addrA, 40001, 5432), false},
		way{"a high port", w.b, w.a, udpTo(addrB, addrA, 53, 40001), false},
		way{"a ping", w.b, w.a, pingOf(addrB, addrA, 128), false},
		way{"a middle of a connection that never was", w.b, w.a, tcpTo(addrB, addrA, 40001, 22, tcpACK), false},
		way{"a host", w.mesh, w.a, tcpTo(addrHost2, addrA, 40001, 22, tcpSYN), true},
		way{"what it begins", w.a, w.mesh, udpTo(addrA, addrAway, 40002, 53), true},
		way{"the answer to that", w.mesh, w.a, udpTo(addrAway, addrA, 53, 40002), true},
		way{"its ping", w.a, w.b, pingOf(addrA, addrB, 128), true},
		way{"the answer to its ping", w.b, w.a, pingOf(addrB, addrA, 129), true},
		way{"an error", w.b, w.a, pingOf(addrB, addrA, 3), true},
		way{"between others", w.b, w.mesh, udpTo(addrB, addrAway, 1, 2), true})

	// The connection to 5432 stands, and the new policy does not allow it: it is cut in both directions. What is allowed goes on, also from the middle.
	check("before tightening",
		way{"its own connection", w.a, w.b, tcpTo(addrA, addrB, 40003, 80, tcpSYN), true},
		way{"is answered", w.b, w.a, tcpTo(addrB, addrA, 80, 40003, synAck), true})
	police(drover.MachinePolicy{Ingress: &drover.PolicySide{Allow: []drover.PolicyMatch{{Protocol: tcp, FirstPort: 8080, LastPort: 8080, Anybody: true}}}})
	check("tightened",
		way{"a client goes on", w.b, w.a, tcpTo(addrB, addrA, 40001, 5432, tcpACK), false},
		way{"the server goes on", w.a, w.b, tcpTo(addrA, addrB, 5432, 40001, tcpACK), false},
		way{"a client again", w.b, w.a, tcpTo(addrB, addrA, 40001, 5432, tcpACK), false},
		way{"the other end of its own connection goes on", w.b, w.a, tcpTo(addrB, addrA, 80, 40003, tcpACK), true},
		way{"its own connection goes on", w.a, w.b, tcpTo(addrA, addrB, 40003, 80, tcpACK), true})
	if counts, err := Refusals(); err != nil || counts[refusedIn] == 0 || counts[refusedOut] == 0 {
		t.Errorf("counted %v, %v", counts, err)
	}

	// Outwards: only names and the web, and nothing of that to B.
	police(drover.MachinePolicy{Egress: &drover.PolicySide{
		Deny:  []drover.PolicyMatch{{Peers: prefixes(addrB.String() + "/112")}},
		Allow: []drover.PolicyMatch{{Protocol: udp, FirstPort: 53, LastPort: 53, Anybody: true}, {Protocol: ping, Anybody: true}}}})
	check("outwards",
		way{"a question", w.a, w.mesh, udpTo(addrA, addrAway, 40004, 53), true},
		way{"something else", w.a, w.mesh, udpTo(addrA, addrAway, 40004, 54), false},
		way{"a connection", w.a, w.mesh, tcpTo(addrA, addrAway, 40004, 443, tcpSYN), false},
		way{"a ping", w.a, w.mesh, pingOf(addrA, addrAway, 128), true},
		way{"a denied ping", w.a, w.b, pingOf(addrA, addrB, 128), false},
		way{"inwards", w.mesh, w.a, tcpTo(addrAway, addrA, 40005, 22, tcpSYN), true},
		way{"and its answer", w.a, w.mesh, tcpTo(addrA, addrAway, 22, 40005, synAck), true})
	// Both ends have a policy: both must agree.
	if err := w.taps.Police(t.Context(), idB, addrB.String(), database); err != nil {
		t.Fatal(err)
	}
	police(drover.MachinePolicy{})
	check("only B closed", way{"to B", w.a, w.b, udpTo(addrA, addrB, 1, 2), false}, way{"to A", w.b, w.a, tcpTo(addrB, addrA, 40006, 22, tcpSYN), true},
		way{"the answer from A", w.a, w.b, tcpTo(addrA, addrB, 22, 40006, synAck), true})
	if err := w.taps.Police(t.Context(), idB, addrB.String(), drover.MachinePolicy{}); err != nil {
		t.Fatal(err)
	}
	check("open again", way{"to B", w.a, w.b, udpTo(addrA, addrB, 1, 2), true})
}

// A machine that comes from another host has its policy before anything reaches it, and goes on with connections of which its new host knows nothing.
func TestAPolicyIsThereBeforeTheMachine(t *testing.T) {
	w := newIsolated(t)
	id, address := drover.MachineID("0000000000c0c0"), netip.MustParseAddr("fdaa:0:1:0:c::2")
	taps := &Taps{}
	closed := drover.MachinePolicy{Ingress: &drover.PolicySide{Allow: []drover.PolicyMatch{{Protocol: tcp, FirstPort: 5432, LastPort: 5432, Anybody: true}}}}
	if err := taps.Police(t.Context(), id, address.String(), closed); err != nil {
		t.Fatal(err)
	}
	c := w.guest(id, address)
	for i := 0; i < mostTries; i++ {
		if w.passes(w.b, c, func(s string) []byte { return port6(addrB, address, tcp, 40001, 5432, tcpACK, s) }, "on") {
			break
		} else if i == mostTries-1 {
			t.Fatal("a connection that moved with the machine is cut")
		}
	}
	if w.passes(w.b, c, func(s string) []byte { return port6(addrB, address, udp, 1, 2, 0, s) }, "new") {
		t.Error("the policy is not there")
	}
	// Something that the machine has asked for is under way: a new agent that sets what holds already does not lose it.
	for i := 0; i < mostTries && !w.passes(c, w.b, func(s string) []byte { return port6(address, addrB, udp, 40002, 53, 0, s) }, "question"); i++ {
	}
	if err := (&Taps{}).Police(t.Context(), id, address.String(), closed); err != nil {
		t.Fatal(err)
	}
	if !w.passes(w.b, c, func(s string) []byte { return port6(addrB, address, udp, 53, 40002, 0, s) }, "answer") {
		t.Error("an answer is lost by a new agent")
	}
	// A new agent keeps it; with the machine it goes, also where there never was a tap.
	again := &Taps{}
	if err := again.Police(t.Context(), idA, addrA.String(), closed); err != nil {
		t.Fatal(err)
	}
	if w.passes(w.b, c, func(s string) []byte { return port6(addrB, address, udp, 1, 2, 0, s) }, "newer") {
		t.Error("a new agent forgets the policy")
	}
	for _, machine := range []drover.MachineID{id, "0000000000d0d0"} {
		if err := again.Police(t.Context(), machine, "fdaa:0:1:0:d::2", closed); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := again.Detach(t.Context(), machine); err != nil {
				t.Fatal(err)
			}
		}
	}
	kernel, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range newFirewall().policySets() {
		if left, err := kernel.GetSetElements(set); err != nil || len(left) != 1 || !strings.HasPrefix(left[0].Comment, TapName(idA)+" ") {
			t.Errorf("the set %q has %+v, %v; want that of A", set.Name, left, err)
		}
	}
}

func TestIntervalsAreTheirPrefixes(t *testing.T) {
	in := func(elements []string, want ...string) {
		t.Helper()
		got := intervals(prefixes(elements...))
		var words []string
		for _, e := range got {
			a, _ := netip.AddrFromSlice(e.Key)
			words = append(words, map[bool]string{true: "<", false: ">="}[e.IntervalEnd]+a.String())
		}
		if len(words) != len(want) {
			t.Fatalf("%v: %v", elements, words)
		}
		for i := range want {
			if words[i] != want[i] {
				t.Errorf("%v: %v", elements, words)
			}
		}
	}
	in([]string{"fdaa::/16"}, "<::", ">=fdaa::", "<fdab::")
	in([]string{"fdaa:0:1:0:2::/112", "fdaa:0:1:0:1::/112"}, "<::", ">=fdaa:0:1:0:1::", "<fdaa:0:1:0:1:0:1:0", ">=fdaa:0:1:0:2::", "<fdaa:0:1:0:2:0:1:0")
	in([]string{"fdaa::/17", "fdaa:8000::/17", "fdaa:1::/32"}, "<::", ">=fdaa::", "<fdab::")
	in([]string{"::/0", "fdaa::/16"}, ">=::")
}
