package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"drover"
	"drover/route"
)

const (
	// zone is where the names are.
	zone = "internal."
	// ttl is how long an answer may be kept, in seconds, also one that there is none: machines come, go and move.
	ttl = 5
	// maxAnswers bounds the records of an answer: more would not fit into 64 KiB.
	maxAnswers = 1000
	// maxText is the longest text that an answer has, maxString that of one of its strings (RFC 1035, 3.3).
	maxText, maxString = 48 << 10, 255
)

// Here is where the question is asked: what is near depends on it.
type Here struct {
	Host   drover.HostID
	Region drover.Region
	// RTT tells how far another host is, 0 when that is not known.
	RTT func(drover.HostID) time.Duration
}

// Internal reports whether a name is one that only this package answers: those under .internal, and the reverse names of private addresses.
func Internal(name string) bool {
	name = dns.CanonicalName(name)
	return dns.IsSubDomain(zone, name) || dns.IsSubDomain(reverseZone, name)
}

// reverseZone is fdaa::/16 under ip6.arpa.
const reverseZone = "a.a.d.f.ip6.arpa."

// Answer answers a question about an Internal name, as a network sees it. turn shifts the order of addresses, so that not all who ask begin with the
// same one. It reads no clock and does no I/O.
func Answer(view route.View, q dns.Question, here Here, turn int) (answer []dns.RR, rcode int) {
	name := dns.CanonicalName(q.Name)
	if dns.IsSubDomain(reverseZone, name) {
		return reverse(view, q, name)
	}
	labels := dns.SplitDomainName(strings.TrimSuffix(name, zone))
	switch {
	case len(labels) == 0:
		return nil, dns.RcodeSuccess // the zone itself
	case len(labels) == 1 && labels[0] == "_apps":
		return text(q, appNames(view)), dns.RcodeSuccess
	case len(labels) == 1 && labels[0] == "_instances":
		return text(q, instances(view)), dns.RcodeSuccess
	case labels[len(labels)-1] == "_peer":
		return peer(view, q, labels[:len(labels)-1])
	}
	app := drover.AppName(labels[len(labels)-1])
	if !view.Has(app) {
		return nil, dns.RcodeNameError
	}
	found, ok := question(view, app, labels[:len(labels)-1], here)
	if !ok {
		return nil, dns.RcodeNameError
	}
	if found.texts {
		return text(q, found.text), dns.RcodeSuccess
	}
	if !found.ordered {
		slices.SortFunc(found.machines, func(a, b place) int { return a.Address.Compare(b.Address) })
	} else {
		turn = 0
	}
	return addresses(q, found.machines, turn), dns.RcodeSuccess
}

// place is a machine with the region that it is in.
type place struct {
	*route.Machine
	region drover.Region
}

// result is what a name stands for: machines, or a text.
type result struct {
	machines []place
	// ordered: the order says which are near.
	ordered bool
	texts   bool
	text    string
}

// question finds what the labels before an app's name ask for; false when nothing has the name.
func question(view route.View, app drover.AppName, labels []string, here Here) (result, bool) {
	machines := func(keep func(place) bool) (result, bool) {
		var r result
		view.Each(app, func(m *route.Machine, region drover.Region) bool {
			if p := (place{m, region}); keep(p) {
				r.machines = append(r.machines, p)
			}
			return true
		})
		return r, len(r.machines) > 0
	}
	switch n := len(labels); {
	case n == 0:
		r, _ := machines(func(place) bool { return true })
		return r, true // the app is there, even while nothing of it is started
	case n == 1 && labels[0] == "vms":
		r, _ := machines(func(place) bool { return true })
		return result{texts: true, text: listed(r.machines, func(p place) string { return string(p.ID) + " " + string(p.region) })}, true
	case n == 1 && labels[0] == "regions":
		r, _ := machines(func(place) bool { return true })
		return result{texts: true, text: listed(r.machines, func(p place) string { return string(p.region) })}, true
	case n == 1:
		return machines(func(p place) bool { return string(p.region) == labels[0] })
	case n == 2 && labels[1] == "vm":
		m, ok := view.Find(app, drover.MachineID(labels[0]))
		return result{machines: []place{{Machine: m}}}, ok
	case n == 2 && labels[1] == "process":
		return machines(func(p place) bool { return strings.EqualFold(p.Process(), labels[0]) })
	case n == 3 && labels[1] == "nearest" && labels[2] == "of":
		count, err := strconv.Atoi(strings.TrimPrefix(labels[0], "top"))
		if err != nil || count < 1 || !strings.HasPrefix(labels[0], "top") {
			return result{}, false
		}
		r, ok := machines(func(place) bool { return true })
		return result{machines: nearest(r.machines, count, here), ordered: true}, ok
	case n == 4 && labels[2] == "kv" && labels[3] == "_metadata":
		return machines(func(p place) bool {
			for k, v := range p.Meta {
				if strings.EqualFold(k, labels[1]) && strings.EqualFold(v, labels[0]) {
					return true
				}
			}
			return false
		})
	}
	return result{}, false
}

// nearest returns the machines that are nearest: on the same host, in the same region, then by how long a packet takes.
func nearest(machines []place, count int, here Here) []place {
	rank := func(p place) (int, time.Duration) {
		switch {
		case p.Host == here.Host:
			return 0, 0
		case p.region == here.Region:
			return 1, here.RTT(p.Host)
		}
		if rtt := here.RTT(p.Host); rtt > 0 {
			return 2, rtt
		}
		return 3, 0
	}
	slices.SortFunc(machines, func(a, b place) int {
		ra, ta := rank(a)
		rb, tb := rank(b)
		return cmp.Or(cmp.Compare(ra, rb), cmp.Compare(ta, tb), cmp.Compare(a.ID, b.ID))
	})
	return machines[:min(count, len(machines))]
}

// addresses makes the records; only those who ask for AAAA get any.
func addresses(q dns.Question, machines []place, turn int) []dns.RR {
	if q.Qtype != dns.TypeAAAA || len(machines) == 0 {
		return nil
	}
	count := min(len(machines), maxAnswers)
	all := make([]dns.AAAA, count) // in one piece: there may be many
	answer := make([]dns.RR, count)
	for i := range count {
		m := machines[(i+turn)%len(machines)]
		a := m.Address.As16()
		all[i] = dns.AAAA{Hdr: header(q, dns.TypeAAAA), AAAA: a[:]}
		answer[i] = &all[i]
	}
	return answer
}

func header(q dns.Question, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// text makes a record of a text, in strings of the length that they may have. One that is too long ends after its last whole part.
func text(q dns.Question, s string) []dns.RR {
	if q.Qtype != dns.TypeTXT {
		return nil
	}
	if len(s) > maxText {
		s = s[:strings.LastIndexAny(s[:maxText], ",;")]
	}
	txt := []string{}
	for len(s) > maxString {
		txt, s = append(txt, s[:maxString]), s[maxString:]
	}
	return []dns.RR{&dns.TXT{Hdr: header(q, dns.TypeTXT), Txt: append(txt, s)}}
}

// listed puts what a function makes of the machines into one text, each once.
func listed(machines []place, what func(place) string) string {
	var words []string
	for _, p := range machines {
		words = append(words, what(p))
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ",")
}

func appNames(view route.View) string {
	var names []string
	view.Apps(func(a drover.AppName) { names = append(names, string(a)) })
	slices.Sort(names)
	return strings.Join(names, ",")
}

// instances lists all started machines of the network.
func instances(view route.View) string {
	var all []string
	view.Apps(func(app drover.AppName) {
		view.Each(app, func(m *route.Machine, region drover.Region) bool {
			all = append(all, "instance="+string(m.ID)+",app="+string(app)+",ip="+m.Address.String()+",region="+string(region))
			return true
		})
	})
	slices.Sort(all)
	return strings.Join(all, ";")
}

// peer answers for the peers of people: their names, and the address of one.
func peer(view route.View, q dns.Question, labels []string) ([]dns.RR, int) {
	var names []string
	var found []place
	view.Peers(func(p route.Peer) {
		names = append(names, p.Name)
		if len(labels) == 1 && p.Name == labels[0] {
			found = append(found, place{Machine: &route.Machine{Address: p.Address}})
		}
	})
	switch {
	case len(labels) == 0:
		slices.Sort(names)
		return text(q, strings.Join(names, ",")), dns.RcodeSuccess
	case len(found) == 0:
		return nil, dns.RcodeNameError
	}
	return addresses(q, found, 0), dns.RcodeSuccess
}

// nibbles is how many labels the reverse name of an address has before ip6.arpa.
const nibbles = 32

// reverse names the machine that has an address.
func reverse(view route.View, q dns.Question, name string) ([]dns.RR, int) {
	labels := dns.SplitDomainName(name)
	if len(labels) != nibbles+2 {
		return nil, dns.RcodeNameError
	}
	var a [16]byte
	for i := range nibbles {
		digit, err := strconv.ParseUint(labels[nibbles-1-i], 16, 4)
		if err != nil || len(labels[nibbles-1-i]) != 1 {
			return nil, dns.RcodeNameError
		}
		a[i/2] = a[i/2]<<4 | byte(digit)
	}
	m, ok := view.At(netip.AddrFrom16(a))
	if !ok {
		return nil, dns.RcodeNameError
	}
	if q.Qtype != dns.TypePTR {
		return nil, dns.RcodeSuccess
	}
	return []dns.RR{&dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: string(m.ID) + ".vm." + string(m.App) + "." + zone}}, dns.RcodeSuccess
}
