package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"drover"
)

// upstream is the host's resolver; it counts what it is asked.
func upstream(t *testing.T, handle dns.HandlerFunc) (resolv string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: c, Handler: handle}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().String()
}

// askServer asks a server as the machine of an address does.
func askServer(ctx context.Context, s *Server, asker netip.Addr, name string, stream bool) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeAAAA)
	return s.Reply(ctx, asker, q, stream)
}

func newServer(t *testing.T, servers ...string) *Server {
	t.Helper()
	s := New(Config{Host: "h1", Region: "ams", Table: fleetTable(t), RTT: atH1.RTT, Resolv: filepath.Join(t.TempDir(), "none")})
	s.forward.servers, s.forward.readAt = servers, time.Now().Add(time.Hour)
	return s
}

func TestOtherNamesAreAskedOfTheHostsResolverAndOursNever(t *testing.T) {
	asked := make(chan string, 10)
	resolver := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked <- q.Question[0].Name
		m := new(dns.Msg)
		m.SetReply(q)
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header(q.Question[0], dns.TypeAAAA), AAAA: net.ParseIP("2001:db8::7")}}
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})
	s := newServer(t, resolver)
	if m := askServer(t.Context(), s, networkOne, "example.com.", false); len(m.Answer) != 1 || m.Rcode != dns.RcodeSuccess {
		t.Errorf("%v", m)
	}
	for _, name := range []string{"secret.internal.", "nosuch.internal.", "internal.", "9.a.a.d.f.ip6.arpa."} {
		if m := askServer(t.Context(), s, networkOne, name, false); len(m.Answer) != 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
	if got := <-asked; got != "example.com." || len(asked) != 0 {
		t.Errorf("the host's resolver was asked for %s, and %d others", got, len(asked))
	}
}

func TestAResolverThatIsAwayIsAnError(t *testing.T) {
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	s := newServer(t, gone.LocalAddr().String())
	if m := askServer(t.Context(), s, networkOne, "example.com.", false); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	if m := askServer(t.Context(), s, networkOne, "web.internal.", false); len(m.Answer) != 3 {
		t.Errorf("our own names wait for it: %v", m)
	}
}

func TestQuestionsThatMakeNoSenseAreRefused(t *testing.T) {
	s := newServer(t)
	good := new(dns.Msg).SetQuestion("web.internal.", dns.TypeAAAA)
	chaos, update, two, none := good.Copy(), good.Copy(), good.Copy(), good.Copy()
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update.Opcode = dns.OpcodeUpdate
	two.Question = append(two.Question, two.Question[0])
	none.Question = nil
	for want, q := range map[int]*dns.Msg{dns.RcodeRefused: chaos, dns.RcodeNotImplemented: update, dns.RcodeFormatError: two} {
		if m := s.Reply(t.Context(), networkOne, q, false); m.Rcode != want || len(m.Answer) != 0 {
			t.Errorf("%s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[want])
		}
	}
	if m := s.Reply(t.Context(), networkOne, none, false); m.Rcode != dns.RcodeFormatError {
		t.Error(m)
	}
}

// A large app's answer is cut over UDP, and whole over TCP.
func TestALargeAnswerIsCutOnlyWhereItMustBe(t *testing.T) {
	s := newServer(t)
	for i := range 200 {
		id := drover.MachineID(fmt.Sprintf("big%d", i))
		a, err := drover.MachineAddress(1, uint64(1000+i))
		if err != nil {
			t.Fatal(err)
		}
		s.cfg.Table.Describe(id, &drover.Machine{ID: id, App: "big", Address: a.String()})
		s.cfg.Table.Place(id, &drover.Placement{Machine: id, Host: "h1"})
		s.cfg.Table.Observe(id, &drover.MachineStatus{State: drover.StateStarted})
	}
	small, whole := askServer(t.Context(), s, networkOne, "big.internal.", false), askServer(t.Context(), s, networkOne, "big.internal.", true)
	if !small.Truncated || len(small.Answer) == 0 || small.Len() > dns.MinMsgSize {
		t.Errorf("over UDP: %d answers, truncated %t", len(small.Answer), small.Truncated)
	}
	if whole.Truncated || len(whole.Answer) != 200 {
		t.Errorf("over TCP: %d answers, truncated %t", len(whole.Answer), whole.Truncated)
	}
}

func TestTheResolversAreThoseOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newForwarder(file)
	if got := fmt.Sprint(f.resolvers()); got != "[192.0.2.1:53 [2001:db8::1]:53 192.0.2.3:53]" {
		t.Error(got)
	}
}

func TestOneMachineCannotTakeAllConnections(t *testing.T) {
	l := newLimits()
	a, b := drover.MachinePrefix(networkOne), drover.MachinePrefix(networkTwo)
	for i := range perMachineStream {
		if !l.open(a) {
			t.Fatalf("connection %d was refused", i)
		}
	}
	if l.open(a) || !l.open(b) {
		t.Error("the bound is not one machine's")
	}
	l.closed(a)
	if !l.open(a) {
		t.Error("a connection that was closed counts on")
	}
	asks := 0
	for asks < 2*perMachineBurst && l.admit(networkOne) {
		asks++
	}
	if asks >= 2*perMachineBurst || !l.admit(networkTwo) {
		t.Errorf("one machine asked %d times at once", asks)
	}
}
