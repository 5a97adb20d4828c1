package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"drover"
	"drover/route"
)

var (
	networkOne = netip.MustParseAddr("fdaa:0:1:0:1::2")
	networkTwo = netip.MustParseAddr("fdaa:0:2:0:1::2")
)

// fleetTable is three hosts with machines of two networks.
func fleetTable(t testing.TB) *route.Table {
	t.Helper()
	table := route.NewTable()
	for i, region := range []drover.Region{"ams", "ams", "fra"} {
		id := drover.HostID(fmt.Sprintf("h%d", i+1))
		table.Meet(id, &drover.HostInfo{ID: id, Region: region})
	}
	add := func(id drover.MachineID, app drover.AppName, address string, host drover.HostID, state drover.MachineState, meta map[string]string) {
		table.Describe(id, &drover.Machine{ID: id, App: app, Address: address, Region: "ams", Config: drover.MachineConfig{Metadata: meta}})
		table.Place(id, &drover.Placement{Machine: id, Host: host})
		table.Observe(id, &drover.MachineStatus{Machine: id, State: state})
	}
	add("m1", "web", "fdaa:0:1:0:1::2", "h1", drover.StateStarted, map[string]string{"fly_process_group": "api", "role": "Primary"})
	add("m2", "web", "fdaa:0:1:0:2::2", "h2", drover.StateStarted, map[string]string{"fly_process_group": "worker"})
	add("m3", "web", "fdaa:0:1:0:3::2", "h3", drover.StateStarted, map[string]string{"role": "replica"})
	add("m4", "web", "fdaa:0:1:0:4::2", "h3", drover.StateStopped, nil)
	add("m6", "web", "fdaa:0:1:0:6::2", "h1", drover.StateStarted, map[string]string{"fly_process_group": drover.ReleaseGroup})
	add("m5", "idle", "fdaa:0:1:0:5::2", "h1", drover.StateStopped, nil)
	add("n1", "web", "fdaa:0:2:0:1::2", "h1", drover.StateStarted, nil)
	table.Admit("peer.acme.ann", &drover.WireGuardPeer{Name: "ann", Address: "fdaa:0:1:0:9::2", Host: "h1"})
	add("n2", "secret", "fdaa:0:2:0:2::2", "h1", drover.StateStarted, nil)
	return table
}

var atH1 = Here{Host: "h1", Region: "ams", RTT: func(drover.HostID) time.Duration { return 0 }}

// ask returns what a name's records say, in the order of the answer, or the code of the refusal.
func ask(table *route.Table, asker netip.Addr, name string, kind uint16, turn int) string {
	var words []string
	table.Look(drover.NetworkOf(asker), func(v route.View) {
		answer, rcode := Answer(v, dns.Question{Name: name, Qtype: kind, Qclass: dns.ClassINET}, atH1, turn)
		if rcode != dns.RcodeSuccess {
			words = append(words, dns.RcodeToString[rcode])
		}
		for _, rr := range answer {
			switch rr := rr.(type) {
			case *dns.AAAA:
				a, _ := netip.AddrFromSlice(rr.AAAA)
				words = append(words, strings.TrimSuffix(strings.TrimPrefix(a.String(), "fdaa:0:"), "::2"))
			case *dns.TXT:
				words = append(words, strings.Join(rr.Txt, ""))
			case *dns.PTR:
				words = append(words, rr.Ptr)
			}
		}
	})
	return strings.Join(words, " ")
}

func TestNamesAreThoseOfTheAskersNetwork(t *testing.T) {
	table := fleetTable(t)
	for _, c := range []struct {
		asker netip.Addr
		name  string
		kind  uint16
		want  string
	}{
		{networkOne, "web.internal.", dns.TypeAAAA, "1:0:1 1:0:2 1:0:3"},
		{networkOne, "WEB.Internal.", dns.TypeAAAA, "1:0:1 1:0:2 1:0:3"},
		{networkOne, "web.internal.", dns.TypeA, ""},
		{networkOne, "idle.internal.", dns.TypeAAAA, ""},
		{networkOne, "nobody.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "secret.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkTwo, "web.internal.", dns.TypeAAAA, "2:0:1"},
		{networkTwo, "secret.internal.", dns.TypeAAAA, "2:0:2"},
		{netip.MustParseAddr("192.0.2.1"), "web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "fra.web.internal.", dns.TypeAAAA, "1:0:3"},
		{networkOne, "nrt.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "m2.vm.web.internal.", dns.TypeAAAA, "1:0:2"},
		{networkOne, "m6.vm.web.internal.", dns.TypeAAAA, "1:0:6"},
		{networkOne, drover.ReleaseGroup + ".process.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "m4.vm.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "n1.vm.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "api.process.web.internal.", dns.TypeAAAA, "1:0:1"},
		{networkOne, "app.process.web.internal.", dns.TypeAAAA, "1:0:3"},
		{networkOne, "top1.nearest.of.web.internal.", dns.TypeAAAA, "1:0:1"},
		{networkOne, "top9.nearest.of.web.internal.", dns.TypeAAAA, "1:0:1 1:0:2 1:0:3"},
		{networkOne, "top0.nearest.of.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "3.nearest.of.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "primary.role.kv._metadata.web.internal.", dns.TypeAAAA, "1:0:1"},
		{networkOne, "primary.rule.kv._metadata.web.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkOne, "vms.web.internal.", dns.TypeTXT, "m1 ams,m2 ams,m3 fra"},
		{networkOne, "regions.web.internal.", dns.TypeTXT, "ams,fra"},
		{networkOne, "_apps.internal.", dns.TypeTXT, "idle,web"},
		{networkTwo, "_apps.internal.", dns.TypeTXT, "secret,web"},
		{networkOne, "_peer.internal.", dns.TypeTXT, "ann"},
		{networkOne, "ann._peer.internal.", dns.TypeAAAA, "1:0:9"},
		{networkOne, "bob._peer.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkTwo, "ann._peer.internal.", dns.TypeAAAA, "NXDOMAIN"},
		{networkTwo, "_instances.internal.", dns.TypeTXT, "instance=n1,app=web,ip=fdaa:0:2:0:1::2,region=ams;instance=n2,app=secret,ip=fdaa:0:2:0:2::2,region=ams"},
		{networkOne, "2.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.a.a.d.f.ip6.arpa.", dns.TypePTR, "m2.vm.web.internal."},
		{networkTwo, "2.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.a.a.d.f.ip6.arpa.", dns.TypePTR, "NXDOMAIN"},
		{networkOne, "a.a.d.f.ip6.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		if got := ask(table, c.asker, c.name, c.kind, 0); got != c.want {
			t.Errorf("%s asks for %s %s: %q, want %q", c.asker, c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestNotAllBeginWithTheSameMachine(t *testing.T) {
	table := fleetTable(t)
	if got := ask(table, networkOne, "web.internal.", dns.TypeAAAA, 1); got != "1:0:2 1:0:3 1:0:1" {
		t.Errorf("the second turn is %q", got)
	}
	if got := ask(table, networkOne, "top2.nearest.of.web.internal.", dns.TypeAAAA, 1); got != "1:0:1 1:0:2" {
		t.Errorf("the nearest are %q", got)
	}
}

func TestNearIsWhereAPacketIsSoon(t *testing.T) {
	far := map[drover.HostID]time.Duration{"h7": 30 * time.Millisecond, "h8": 4 * time.Millisecond}
	here := Here{Host: "h1", Region: "ams", RTT: func(h drover.HostID) time.Duration { return far[h] }}
	var machines []place
	for _, m := range []struct {
		id     drover.MachineID
		host   drover.HostID
		region drover.Region
	}{{"unknown", "h9", "syd"}, {"slow", "h7", "nrt"}, {"quick", "h8", "fra"}, {"region", "h2", "ams"}, {"here", "h1", "ams"}} {
		machines = append(machines, place{&route.Machine{ID: m.id, Host: m.host}, m.region})
	}
	var got []string
	for _, p := range nearest(machines, 4, here) {
		got = append(got, string(p.ID))
	}
	if want := []string{"here", "region", "quick", "slow"}; !slices.Equal(got, want) {
		t.Errorf("nearest are %v, want %v", got, want)
	}
}

func TestALongListIsCutAtAPart(t *testing.T) {
	q := dns.Question{Name: "vms.web.internal.", Qtype: dns.TypeTXT}
	rr := text(q, strings.Repeat("0123456789abcd ams,", 5000))[0].(*dns.TXT)
	whole := strings.Join(rr.Txt, "")
	if len(whole) > maxText || !strings.HasSuffix(whole, "0123456789abcd ams") {
		t.Errorf("%d bytes, ending in %q", len(whole), whole[len(whole)-20:])
	}
	m := &dns.Msg{Answer: []dns.RR{rr}}
	if _, err := m.Pack(); err != nil {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.internal.", "top1.nearest.of.web.internal.", "a.b.kv._metadata.web.internal.", "0.a.a.d.f.ip6.arpa.", "internal.", "\\000.web.internal."} {
		f.Add(name, uint16(dns.TypeAAAA), 0)
	}
	table := fleetTable(f)
	f.Fuzz(func(t *testing.T, name string, kind uint16, turn int) {
		if _, ok := dns.IsDomainName(name); !ok || !Internal(name) || turn < 0 {
			return
		}
		table.Look(drover.NetworkOf(networkOne), func(v route.View) {
			answer, _ := Answer(v, dns.Question{Name: dns.Fqdn(name), Qtype: kind, Qclass: dns.ClassINET}, atH1, turn%maxAnswers)
			for _, rr := range answer {
				if a, ok := rr.(*dns.AAAA); ok {
					if got, _ := netip.AddrFromSlice(a.AAAA); drover.NetworkOf(got) != drover.NetworkOf(networkOne) {
						t.Fatalf("%q tells %s of another network", name, got)
					}
				}
			}
		})
	})
}

// BenchmarkReply answers questions as they come from the wire, in a fleet of 10,000 machines.
func BenchmarkReply(b *testing.B) {
	table := route.NewTable()
	table.Meet("h1", &drover.HostInfo{ID: "h1", Region: "ams"})
	for i := range 10000 {
		id, network := drover.MachineID(fmt.Sprintf("%014x", i)), uint64(1+i%50)
		address, err := drover.MachineAddress(network, uint64(i))
		if err != nil {
			b.Fatal(err)
		}
		table.Describe(id, &drover.Machine{ID: id, App: drover.AppName(fmt.Sprintf("app%d", i%1000)), Address: address.String()})
		table.Place(id, &drover.Placement{Machine: id, Host: "h1"})
		table.Observe(id, &drover.MachineStatus{Machine: id, State: drover.StateStarted})
	}
	s := New(Config{Host: "h1", Region: "ams", Table: table, RTT: atH1.RTT})
	q := new(dns.Msg)
	q.SetQuestion("app0.internal.", dns.TypeAAAA)
	wire, err := q.Pack()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var m dns.Msg
		if err := m.Unpack(wire); err != nil {
			b.Fatal(err)
		}
		reply := s.Reply(b.Context(), networkOne, &m, false)
		if _, err := reply.Pack(); err != nil || len(reply.Answer) == 0 {
			b.Fatal(err, reply)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
}
