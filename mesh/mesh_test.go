package mesh

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"drover"
)

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func backgroundContext() context.Context { return context.Background() }

var (
	machineA = netip.MustParseAddr("fdaa:0:1:0:1::2")
	machineB = netip.MustParseAddr("fdaa:0:1:0:2::2")
)

// biggest is what fits into one packet of a machine beside the headers.
const biggest = DefaultMTU - udpHeaders

func TestMachinesOfDifferentHostsReachEachOtherAndGoOnAfterAMove(t *testing.T) {
	w := newWorld(t)
	h1, h2, h3 := w.site(1), w.site(2), w.site(3)
	join(h1, h2, h3)
	h1.has(machineA)
	h2.has(machineB)
	for _, s := range []*site{h1, h3} {
		s.routes(machineB, h2)
	}
	for _, s := range []*site{h2, h3} {
		s.routes(machineA, h1)
	}
	for _, size := range []int{8, biggest} {
		if got := h1.asks(machineA, machineB, size); got != "h2" {
			t.Fatalf("%d bytes were answered by %q", size, got)
		}
	}
	// B moves to h3. h1 has not noticed, h2 has: it passes on what still comes, and the answer comes from a host that h1 does not expect it from.
	h2.lost(machineB)
	h3.has(machineB)
	h3.do(order{Op: "unroute", Machine: machineB})
	h2.routes(machineB, h3)
	if got := h1.asks(machineA, machineB, biggest); got != "h3" {
		t.Fatalf("after the move, before h1 knew: answered by %q", got)
	}
	h1.routes(machineB, h3)
	if got := h1.asks(machineA, machineB, biggest); got != "h3" {
		t.Fatalf("after the move: answered by %q", got)
	}
	// Nobody has the machine: packets are dropped and counted, and nothing goes round.
	before := h1.do(order{Op: "dropped"}).Count
	h1.do(order{Op: "unroute", Machine: machineB})
	if got := h1.do(order{Op: "ask", From: netip.AddrPortFrom(machineA, 0), To: netip.AddrPortFrom(machineB, echoPort), Size: 8, Tries: 4}).Text; got != "" {
		t.Fatalf("a machine that is nowhere was answered by %q", got)
	}
	if h1.do(order{Op: "dropped"}).Count == before {
		t.Error("nothing was counted as dropped")
	}
}

func TestALinkThatWorksInOneDirectionIsNamedWithIt(t *testing.T) {
	w := newWorld(t)
	h1, h2 := w.site(1), w.site(2)
	join(h1, h2)
	state := func(s *site) LinkState {
		links := s.do(order{Op: "links"}).Links
		if len(links) != 1 {
			t.Fatalf("site %d has links %+v", s.number, links)
		}
		return links[0].State
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: h1 says %s, h2 says %s", what, state(h1), state(h2))
			}
			<-time.After(200 * time.Millisecond)
		}
	}
	await("whole", func() bool { return state(h1) == LinkOK && state(h2) == LinkOK })
	h2.do(order{Op: "shell", Text: "nft add table inet t; nft add chain inet t i '{ type filter hook input priority -300; }'; nft add rule inet t i iifname eth0 udp dport 51820 drop"})
	await("h2 receives nothing", func() bool { return state(h1) == LinkToDead && state(h2) == LinkFromDead })
	h2.do(order{Op: "shell", Text: "nft delete table inet t"})
	await("whole again", func() bool { return state(h1) == LinkOK && state(h2) == LinkOK })
}

func TestWhatASightingSays(t *testing.T) {
	now := time.Unix(1e9, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	old := ago(time.Hour)
	for _, c := range []struct {
		name string
		s    sighting
		want LinkState
	}{
		{"just met", sighting{since: ago(time.Second)}, LinkNew},
		{"answers", sighting{since: old, asked: ago(time.Second), answered: ago(time.Second), answeredBig: ago(4 * time.Second)}, LinkOK},
		{"answers small ones only", sighting{since: old, asked: ago(time.Second), answered: ago(time.Second), answeredBig: ago(time.Minute)}, LinkLargeDead},
		{"asks but does not answer", sighting{since: old, asked: ago(time.Second), answered: ago(time.Minute)}, LinkToDead},
		{"is heard, and cannot be read", sighting{since: old, raw: ago(6 * time.Second)}, LinkToDead},
		{"fell silent just now, with its last probe", sighting{since: old, asked: ago(6 * time.Second), raw: ago(6 * time.Second)}, LinkFromDead},
		{"is heard long after its last probe", sighting{since: old, asked: ago(12 * time.Second), raw: ago(6 * time.Second)}, LinkToDead},
		{"is silent", sighting{since: old, asked: ago(time.Minute), raw: ago(time.Minute)}, LinkFromDead},
	} {
		if got := c.s.judge(now); got != c.want {
			t.Errorf("a peer that %s is %s, want %s", c.name, got, c.want)
		}
	}
	if text := LinkToDead.Text("h1", "h2"); !strings.Contains(text, "from h1 to h2 do not arrive") {
		t.Error(text)
	}
}

func TestAKeyShowsItselfToNobody(t *testing.T) {
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivateKey(k.Reveal())
	if err != nil || again.Public() != k.Public() {
		t.Errorf("%v, %v", again, err)
	}
	for _, text := range []string{k.String(), k.GoString()} {
		if strings.Contains(text, k.Reveal()) {
			t.Error(text)
		}
	}
	if _, err := ParsePrivateKey("short"); !drover.Is(err, drover.Invalid) {
		t.Error(err)
	}
}

// A host is told of another one that passes for a third, and then that it is none: the third is reached as before.
func TestAHostIsReachedWhenWhoPassedForItIsGone(t *testing.T) {
	w := newWorld(t)
	h1, h2 := w.site(1), w.site(2)
	join(h1, h2)
	h1.has(machineA)
	h2.has(machineB)
	h1.routes(machineB, h2)
	h2.routes(machineA, h1)
	if got := h2.asks(machineB, machineA, 8); got != "h1" {
		t.Fatalf("before: answered by %q", got)
	}
	impostor := h1.peer
	impostor.Host = "h9"
	h2.do(order{Op: "peer", Peer: impostor})
	h2.do(order{Op: "no-peer", Peer: impostor})
	if got := h2.asks(machineB, machineA, 8); got != "h1" {
		t.Errorf("after: answered by %q", got)
	}
}
