package dns

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"drover"
	"drover/route"
)

const (
	port = "53"
	// readWait bounds how long a question may take to arrive over TCP, and idleWait how long a connection may be idle.
	readWait, idleWait = 2 * time.Second, 10 * time.Second
	// perConnection is how many questions one TCP connection may carry.
	perConnection = 128
	// maxUDP is the largest answer over UDP: what fits into every packet of a machine (RFC 9715).
	maxUDP = 1232
)

// Config is what a Server is made of; all fields are required.
type Config struct {
	Host   drover.HostID
	Region drover.Region
	Table  *route.Table
	RTT    func(drover.HostID) time.Duration
	// Resolv is the file that names the host's own resolvers, in the form of resolv.conf(5).
	Resolv string
	Log    *slog.Logger
}

// Server answers questions.
type Server struct {
	cfg     Config
	forward *forwarder
	limits  *limits
}

// New makes a server and starts nothing.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, forward: newForwarder(cfg.Resolv), limits: newLimits()}
}

// Run answers at an address until ctx ends.
func (s *Server) Run(ctx context.Context, address netip.Addr) error {
	at := net.JoinHostPort(address.String(), port)
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", at)
	if err != nil {
		return drover.Errorf(drover.Conflict, "cannot answer for names at %s: %w", at, err)
	}
	streams, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		packets.Close()
		return drover.Errorf(drover.Conflict, "cannot answer for names at %s: %w", at, err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.handle(ctx, w, q) })
	servers := []*dns.Server{
		{PacketConn: packets, Handler: handler, UDPSize: 4096},
		{Listener: s.limits.listener(streams), Handler: handler, ReadTimeout: readWait, MaxTCPQueries: perConnection,
			IdleTimeout: func() time.Duration { return idleWait }},
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		group.Go(func() error {
			err := server.ActivateAndServe()
			if ctx.Err() != nil {
				return nil
			}
			return drover.Errorf(drover.Unavailable, "the answers for names at %s have ended: %w", at, err)
		})
	}
	<-ctx.Done()
	packets.Close()
	streams.Close()
	return group.Wait()
}

// handle answers one question.
func (s *Server) handle(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	asker := addressOf(w.RemoteAddr())
	_, stream := w.RemoteAddr().(*net.TCPAddr)
	if !s.limits.admit(asker) {
		return // one that asks too much gets nothing, which is the least work
	}
	reply := s.Reply(ctx, asker, q, stream)
	if err := w.WriteMsg(reply); err != nil {
		s.cfg.Log.Debug("an answer cannot be sent", "to", asker.String(), "err", err)
	}
}

// Reply makes the answer to what a machine asked.
func (s *Server) Reply(ctx context.Context, asker netip.Addr, q *dns.Msg, stream bool) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetReply(q)
	reply.RecursionAvailable = true
	switch {
	case q.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
	case q.Response || len(q.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
	case q.Question[0].Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
	case !Internal(q.Question[0].Name):
		reply = s.forward.ask(ctx, q, stream)
	default:
		s.own(reply, asker)
	}
	size := dns.MinMsgSize
	if edns := q.IsEdns0(); edns != nil {
		size = min(max(size, int(edns.UDPSize())), maxUDP)
		if reply.IsEdns0() == nil {
			reply.SetEdns0(maxUDP, false)
		}
	}
	if stream {
		size = dns.MaxMsgSize
	}
	reply.Truncate(size)
	return reply
}

// own answers from the table, as the network of the asker sees it.
func (s *Server) own(reply *dns.Msg, asker netip.Addr) {
	reply.Authoritative = true
	here := Here{Host: s.cfg.Host, Region: s.cfg.Region, RTT: s.cfg.RTT}
	s.cfg.Table.Look(drover.NetworkOf(asker), func(view route.View) {
		reply.Answer, reply.Rcode = Answer(view, reply.Question[0], here, rand.IntN(maxAnswers))
	})
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{authority()}
	}
}

// authority says how long it may be remembered that there is nothing (RFC 2308).
func authority() dns.RR {
	return &dns.SOA{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl}, Ns: "ns." + zone, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl}
}

// addressOf returns the IP address of who asks; not valid for what has none.
func addressOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
