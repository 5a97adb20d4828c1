package mesh

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"drover"
)

// streams are numbered datagrams that a site sends, and those that it has received.
type streams struct {
	mu     sync.Mutex
	stop   chan struct{}
	out    sync.WaitGroup
	count  uint64
	got    map[[2]uint64]int
	number uint64
}

// gapTime is between two datagrams of a sender.
const gapTime = time.Millisecond

// send sends numbered datagrams until sent is asked for.
func (s *streams) send(from, to netip.AddrPort) error {
	c, err := net.DialUDP("udp6", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		s.stop = make(chan struct{})
	}
	s.number++
	stream, stop := uint64(from.Port())<<32|s.number, s.stop
	s.out.Go(func() {
		defer c.Close()
		b := make([]byte, 512)
		tick := time.NewTicker(gapTime)
		defer tick.Stop()
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			binary.BigEndian.PutUint64(b, stream)
			binary.BigEndian.PutUint64(b[8:], n)
			if _, err := c.Write(b); err == nil {
				s.mu.Lock()
				s.count++
				s.mu.Unlock()
			}
		}
	})
	return nil
}

// sent ends the sending, and tells how many there were.
func (s *streams) sent() uint64 {
	s.mu.Lock()
	if s.stop != nil {
		close(s.stop)
		s.stop = nil
	}
	s.mu.Unlock()
	s.out.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *streams) receive(at netip.AddrPort) error {
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	if err := c.SetReadBuffer(8 << 20); err != nil {
		return err
	}
	s.mu.Lock()
	s.got = map[[2]uint64]int{}
	s.mu.Unlock()
	go func() { // ends with the process
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n >= 16 {
				s.mu.Lock()
				s.got[[2]uint64{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}]++
				s.mu.Unlock()
			}
		}
	}()
	return nil
}

// received tells how many different datagrams came, and how many came more than once.
func (s *streams) received() (n, twice uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.got {
		if n++; times > 1 {
			twice++
		}
	}
	return n, twice
}

// begin lets this site be reached by another key too.
func (p *siteProcess) begin() (r reply, err error) {
	next, err := NewPrivateKey()
	if err != nil {
		return r, err
	}
	r.Text = next.Public()
	return r, p.device.BeginKey(next)
}

// begins lets a site begin another key, and tells all others of it.
func (s *site) begins(others ...*site) {
	s.t.Helper()
	s.peer.NextKey = s.do(order{Op: "begin"}).Text
	s.isTold(others...)
}

func (s *site) isTold(others ...*site) {
	s.t.Helper()
	for _, o := range others {
		o.do(order{Op: "peer", Peer: s.peer})
	}
}

// ends makes the key that was begun the only one.
func (s *site) ends(people string, others ...*site) {
	s.t.Helper()
	s.do(order{Op: "promote", Text: people})
	s.peer.PublicKey, s.peer.KeyNumber, s.peer.NextKey = s.peer.NextKey, s.peer.KeyNumber+1, ""
	s.isTold(others...)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// confirmed waits until all peers but some send by the site's next key.
func (s *site) confirmed(but ...*site) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("all peers of h%d send by its next key", s.number), func() bool {
		return !slices.ContainsFunc(s.do(order{Op: "unconfirmed"}).Hosts, func(h drover.HostID) bool {
			return !slices.ContainsFunc(but, func(o *site) bool { return o.id == h })
		})
	})
}

const countPort = 9

// busy is sites with a machine each, all of which send numbered datagrams to all others.
func busy(t *testing.T, sites ...*site) {
	t.Helper()
	join(sites...)
	machines := make([]netip.Addr, len(sites))
	for i, s := range sites {
		machines[i] = netip.MustParseAddr(fmt.Sprintf("fdaa:0:1:0:%d::2", i+1))
		s.has(machines[i])
		s.do(order{Op: "receive", To: netip.AddrPortFrom(machines[i], countPort)})
		for _, o := range sites {
			if o != s {
				o.routes(machines[i], s)
			}
		}
	}
	for i, s := range sites {
		for j := range sites {
			if who := s.asks(machines[i], machines[j], 8); who != fmt.Sprintf("h%d", j+1) {
				t.Fatalf("h%d reaches machine %d at %q", i+1, j+1, who)
			}
		}
	}
	for i, s := range sites {
		for j := range sites {
			if i != j {
				s.do(order{Op: "send", From: netip.AddrPortFrom(machines[i], uint16(1000*(i+1)+j)), To: netip.AddrPortFrom(machines[j], countPort)})
			}
		}
	}
}

// nothingLost ends the sending, and counts.
func nothingLost(t *testing.T, sites ...*site) {
	t.Helper()
	sent := uint64(0)
	for _, s := range sites {
		sent += s.do(order{Op: "sent"}).Count
	}
	var got, twice uint64
	count := func() bool {
		got, twice = 0, 0
		for _, s := range sites {
			r := s.do(order{Op: "received"})
			got, twice = got+r.Count, twice+r.Twice
		}
		return got == sent
	}
	for deadline := time.Now().Add(5 * time.Second); !count() && time.Now().Before(deadline); {
		<-time.After(100 * time.Millisecond)
	}
	t.Logf("%d datagrams were sent", sent)
	if got != sent || twice != 0 {
		t.Errorf("%d datagrams were sent, %d arrived, %d of them twice", sent, got, twice)
	}
	for _, s := range sites {
		for _, l := range s.do(order{Op: "links"}).Links {
			if l.State != LinkOK && l.State != LinkNew {
				t.Errorf("h%d: %s", s.number, l.Text)
			}
		}
	}
}

func TestAHostGetsAnotherKeyAndNoPacketIsLost(t *testing.T) {
	w := newWorld(t)
	h1, h2, h3 := w.site(1), w.site(2), w.site(3)
	busy(t, h1, h2, h3)
	// One host, then two at once, then the first again: its third key has the outer address of the first.
	h1.begins(h2, h3)
	h1.confirmed()
	h1.ends("", h2, h3)
	h2.begins(h1, h3)
	h3.begins(h1, h2)
	h2.confirmed()
	h3.confirmed()
	h2.ends("", h1, h3)
	h3.ends("", h1, h2)
	h1.begins(h2, h3)
	h1.confirmed()
	h1.ends("", h2, h3)
	nothingLost(t, h1, h2, h3)
}

// A key that others send by already is taken back: one hears of it, the other does not. The key that comes after it has its outer address.
func TestAKeyIsTakenBackAndNoPacketIsLost(t *testing.T) {
	w := newWorld(t)
	h1, h2, h3 := w.site(1), w.site(2), w.site(3)
	busy(t, h1, h2, h3)
	h1.begins(h2, h3)
	h1.confirmed()
	h1.do(order{Op: "withdraw"})
	h1.peer.NextKey = ""
	h1.isTold(h2)
	eventually(t, "nobody sends by the key that is taken back", func() bool {
		return len(h1.do(order{Op: "sends-by-next"}).Hosts) == 0
	})
	h1.do(order{Op: "drop-next"})
	h1.isTold(h3)
	h1.begins(h2, h3)
	h1.confirmed()
	h1.ends("", h2, h3)
	nothingLost(t, h1, h2, h3)
}

func TestAPersonGoesOnWhenTheirHostGetsAnotherKey(t *testing.T) {
	w := newWorld(t)
	h1, h2 := w.site(1), w.site(2)
	join(h1, h2)
	h2.has(machineB)
	h1.routes(machineB, h2)
	person := w.person(9, personA)
	h1.do(order{Op: "user", Peer: Peer{PublicKey: person.peer.PublicKey, Address: personA}})
	for _, s := range []*site{h1, h2} {
		s.routes(personA, h1)
	}
	asks := func(tries int) string {
		t.Helper()
		return person.do(order{Op: "ask", From: netip.AddrPortFrom(personA, 0), To: netip.AddrPortFrom(machineB, echoPort), Size: 8, Tries: tries}).Text
	}
	person.do(order{Op: "gateway", Peer: h1.peer})
	first := h1.peer
	if got := asks(answerTries); got != "h2" {
		t.Fatalf("before: answered by %q", got)
	}
	for _, step := range []string{"the first", "the second"} {
		h1.begins(h2)
		if got := asks(1); got != "h2" {
			t.Errorf("while %s other key begins: answered by %q", step, got)
		}
		h1.confirmed()
		h1.ends("", h2)
		if got := asks(1); got != "h2" {
			t.Errorf("after %s other key: answered by %q", step, got)
		}
	}
	person.do(order{Op: "gateway", Peer: first}) // begun anew, with the configuration that they have
	if got := asks(answerTries); got != "h2" {
		t.Errorf("with the old configuration: answered by %q", got)
	}
	// The people's key is changed as well: it takes a new configuration.
	h1.begins(h2)
	h1.confirmed()
	h1.ends("people", h2)
	if got := asks(2); got != "" {
		t.Errorf("by a key that is gone: answered by %q", got)
	}
	person.do(order{Op: "gateway", Peer: h1.peer})
	if got := asks(answerTries); got != "h2" {
		t.Errorf("with a new configuration: answered by %q", got)
	}
	if users := h1.do(order{Op: "users"}).Users; len(users) != 1 || users[0].HandshakeAt.IsZero() {
		t.Errorf("h1 has seen %+v", users)
	}
}

// A peer that knows nothing of the next key keeps it from being the only one for as long as it sends; and finds its way back when it hears of it late.
func TestAPeerThatHearsLateComesBack(t *testing.T) {
	w := newWorld(t)
	h1, h2, h3 := w.site(1), w.site(2), w.site(3)
	join(h1, h2, h3)
	h1.has(machineA)
	h3.has(machineB)
	h1.routes(machineB, h3)
	h3.routes(machineA, h1)
	if got := h3.asks(machineB, machineA, 8); got != "h1" {
		t.Fatalf("before: answered by %q", got)
	}
	h1.begins(h2)
	h1.confirmed(h3)
	if waits := h1.do(order{Op: "unconfirmed"}).Hosts; !slices.Equal(waits, []drover.HostID{h3.id}) {
		t.Errorf("it waits for %v", waits)
	}
	if got := h3.asks(machineB, machineA, 8); got != "h1" {
		t.Errorf("with the key that it knows: answered by %q", got)
	}
	h1.ends("", h2)
	h1.begins(h2) // and once more: what it knows is two keys ago
	h1.confirmed(h3)
	h1.ends("", h2)
	if got := h3.do(order{Op: "ask", From: netip.AddrPortFrom(machineB, 0), To: netip.AddrPortFrom(machineA, echoPort), Size: 8, Tries: 2}).Text; got != "" {
		t.Errorf("with a key that is gone: answered by %q", got)
	}
	h1.isTold(h3)
	if got := h3.asks(machineB, machineA, 8); got != "h1" {
		t.Errorf("after it has heard: answered by %q", got)
	}
}
