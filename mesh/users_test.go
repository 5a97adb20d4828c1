package mesh

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"drover"
)

var (
	personA  = netip.MustParseAddr("fdaa:0:1:0:9::2")
	stranger = netip.MustParseAddr("fdaa:0:2:0:1::2")
)

func TestAPersonReachesTheirNetworkAndNothingElse(t *testing.T) {
	w := newWorld(t)
	h1, h2, h3 := w.site(1), w.site(2), w.site(3)
	join(h1, h2, h3)
	person := w.person(9, personA)
	self := Peer{PublicKey: person.peer.PublicKey, Address: personA}
	asking := func(tries int) func(netip.Addr, netip.Addr, uint16, int) string {
		return func(from, to netip.Addr, port uint16, size int) string {
			return person.do(order{Op: "ask", From: netip.AddrPortFrom(from, 0), To: netip.AddrPortFrom(to, port), Size: size, Tries: tries}).Text
		}
	}
	asks, asksInVain := asking(answerTries), asking(2)
	connects := func(host *site) {
		t.Helper()
		host.do(order{Op: "user", Peer: self})
		for _, s := range []*site{h1, h2, h3} {
			s.routes(personA, host)
		}
		person.do(order{Op: "gateway", Peer: host.peer})
	}
	h2.has(machineB)
	h3.has(stranger)
	for _, s := range []*site{h1, h3} {
		s.routes(machineB, h2)
	}
	for _, s := range []*site{h1, h2} {
		s.routes(stranger, h3)
	}
	h1.do(order{Op: "machine", Machine: drover.ResolverAddress(), To: netip.AddrPortFrom(drover.ResolverAddress(), 53)})
	h1.do(order{Op: "machine", Machine: h1.peer.Address})
	connects(h1)

	for _, size := range []int{8, biggest} {
		if got := asks(personA, machineB, echoPort, size); got != "h2" {
			t.Fatalf("%d bytes to a machine were answered by %q", size, got)
		}
	}
	if got := asks(personA, drover.ResolverAddress(), 53, 8); got != "h1" {
		t.Errorf("the resolver was answered for by %q", got)
	}
	person.do(order{Op: "machine", Machine: personA})
	if got := h2.asks(machineB, personA, biggest); got != "h9" {
		t.Errorf("a machine reaches the person by %q", got)
	}
	for what, to := range map[string]netip.AddrPort{
		"a machine of another network": netip.AddrPortFrom(stranger, echoPort),
		"a host":                       netip.AddrPortFrom(h1.peer.Address, echoPort),
		"another host":                 netip.AddrPortFrom(h2.peer.Address, ProbePort),
		"another port of the resolver": netip.AddrPortFrom(drover.ResolverAddress(), echoPort),
	} {
		if got := asksInVain(personA, to.Addr(), to.Port(), 8); got != "" {
			t.Errorf("%s is reached: %q", what, got)
		}
	}
	// As another of the network, as a machine of the other one, as a host: WireGuard has the key for one address only.
	for _, forged := range []string{"fdaa:0:1:0:7::2", "fdaa:0:2:0:7::2", "fdaa::3:0:0:1"} {
		a := netip.MustParseAddr(forged)
		person.do(order{Op: "machine", Machine: a})
		for _, s := range []*site{h1, h2} {
			s.routes(a, h1)
		}
		if got := asksInVain(a, machineB, echoPort, 8); got != "" {
			t.Errorf("from %s: %q", forged, got)
		}
	}

	// The machine moves, and then the person connects elsewhere: the addresses stay.
	h2.lost(machineB)
	h3.has(machineB)
	h3.do(order{Op: "unroute", Machine: machineB})
	for _, s := range []*site{h1, h2} {
		s.routes(machineB, h3)
	}
	if got := asks(personA, machineB, echoPort, 8); got != "h3" {
		t.Errorf("after the machine's move: %q", got)
	}
	seen := h1.do(order{Op: "users"}).Users
	if len(seen) != 1 || seen[0].PublicKey != self.PublicKey || seen[0].HandshakeAt.IsZero() || seen[0].Received < biggest || seen[0].Sent < biggest {
		t.Errorf("h1 has seen %+v", seen)
	}
	// The host knows nothing of the tunnel any more, as after a restart, but where the person was: it finds them there although they say nothing.
	h1.do(order{Op: "nouser", Peer: self})
	greeted := self
	greeted.Endpoint = seen[0].Endpoint
	h1.do(order{Op: "user", Peer: greeted})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		if seen := h1.do(order{Op: "users"}).Users; len(seen) == 1 && !seen[0].HandshakeAt.IsZero() {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the person was at %s, and is not found there: %+v", greeted.Endpoint, seen)
		}
	}
	if got := asks(personA, machineB, echoPort, 8); got != "h3" {
		t.Errorf("a person that was greeted: %q", got)
	}
	h1.do(order{Op: "nouser", Peer: self})
	connects(h2)
	if got := asks(personA, machineB, echoPort, biggest); got != "h3" {
		t.Errorf("by another host: %q", got)
	}

	// What is removed is shut out although its tunnel stood.
	h2.do(order{Op: "nouser", Peer: self})
	if got := asksInVain(personA, machineB, echoPort, 8); got != "" {
		t.Errorf("a removed peer is answered: %q", got)
	}
	if left := h2.do(order{Op: "users"}).Users; len(left) != 0 {
		t.Errorf("h2 still has %+v", left)
	}
	// A host's key lets nobody in as a person, whoever asks for it.
	if _, err := h1.try(order{Op: "user", Peer: Peer{PublicKey: h2.peer.PublicKey, Address: personA}}); err == nil {
		t.Error("the key of a host is taken for a person's")
	}
}

// Only hosts may say who sent a packet: what a person puts behind a second header goes nowhere.
func TestAPersonCannotSpeakForOthers(t *testing.T) {
	host := netip.MustParseAddr("fdaa::1:0:0:1")
	table := NewTable()
	table.setUser(personA, true)
	tunnel := testTunnel(nil, table, host.As16())
	packet := func(from, to netip.Addr, next byte, payload []byte) []byte {
		b := make([]byte, headerLen, headerLen+len(payload))
		b[0], b[nextHeaderAt] = 0x60, next
		binary.BigEndian.PutUint16(b[lengthAt:], uint16(len(payload)))
		copy(b[sourceAt:], from.AsSlice())
		copy(b[destinationAt:], to.AsSlice())
		return append(b, payload...)
	}
	inner := packet(stranger, machineB, 59, nil)
	if !tunnel.unwraps(packet(netip.MustParseAddr("fdaa::2:0:0:1"), host, nextIPv6, inner)) {
		t.Error("a host's packet is refused")
	}
	if wrapped := packet(personA, host, nextIPv6, inner); tunnel.unwraps(wrapped) || table.fromUser(wrapped) {
		t.Error("a person speaks for another")
	}
	question := make([]byte, 8)
	question[3] = 53
	for _, c := range []struct {
		what   string
		packet []byte
		may    bool
	}{
		{"their own network", packet(personA, machineB, 59, nil), true},
		{"a question", packet(personA, drover.ResolverAddress(), 17, question), true},
		{"a question with more headers", packet(personA, drover.ResolverAddress(), 0, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, question...)), false},
		{"a fragment of a question", packet(personA, drover.ResolverAddress(), 44, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, question...)), false},
		{"another port", packet(personA, drover.ResolverAddress(), 17, make([]byte, 8)), false},
		{"half a header", packet(personA, drover.ResolverAddress(), 17, question[:4]), false},
		{"another network", packet(personA, stranger, 59, nil), false},
		{"the internet", packet(personA, netip.MustParseAddr("2001:db8::1"), 59, nil), false},
		{"everybody", packet(personA, netip.MustParseAddr("ff02::1"), 59, nil), false},
		{"somebody who is no peer here", packet(machineB, personA, 59, nil), false},
		{"a length that is wrong", append(packet(personA, machineB, 59, nil), 0), false},
	} {
		if got := table.fromUser(c.packet); got != c.may {
			t.Errorf("%s: %t", c.what, got)
		}
	}
}
