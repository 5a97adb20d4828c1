package dns

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// forwardWait bounds one question to one of the host's resolvers, forwardMost how many are asked at once.
	forwardWait = 2 * time.Second
	forwardMost = 512
	// resolvEvery is how often the file with the resolvers is read again.
	resolvEvery = 10 * time.Second
	// maxResolvers is how many of the file's resolvers are tried, as resolv.conf(5) has it.
	maxResolvers = 3
)

// forwarder asks the host's own resolvers.
type forwarder struct {
	file  string
	slots chan struct{}

	mu      sync.Mutex
	readAt  time.Time
	servers []string
}

func newForwarder(file string) *forwarder {
	return &forwarder{file: file, slots: make(chan struct{}, forwardMost)}
}

// ask passes a question on and returns the answer: SERVFAIL when none of the resolvers answers, or too many questions are under way.
func (f *forwarder) ask(ctx context.Context, q *dns.Msg, stream bool) *dns.Msg {
	failed := new(dns.Msg)
	failed.SetRcode(q, dns.RcodeServerFailure)
	failed.RecursionAvailable = true
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return failed
	}
	asked := q.Copy()
	asked.Id = dns.Id() // who asks must not choose it
	asked.RecursionDesired = true
	for _, server := range f.resolvers() {
		client := &dns.Client{Net: "udp", Timeout: forwardWait, UDPSize: dns.MaxMsgSize}
		if stream {
			client.Net = "tcp"
		}
		answer, _, err := client.ExchangeContext(ctx, asked, server)
		if err != nil || answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused {
			continue
		}
		answer.Id = q.Id
		return answer
	}
	return failed
}

// resolvers reads who is to be asked. A file that cannot be read leaves those that were known.
func (f *forwarder) resolvers() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.readAt) < resolvEvery {
		return f.servers
	}
	f.readAt = time.Now()
	config, err := dns.ClientConfigFromFile(f.file)
	if err != nil {
		return f.servers
	}
	f.servers = nil
	for _, s := range config.Servers[:min(len(config.Servers), maxResolvers)] {
		f.servers = append(f.servers, net.JoinHostPort(s, config.Port))
	}
	return f.servers
}
